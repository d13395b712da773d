"""A picture of an explanation: heat maps over the frames the model saw, and bars for the words of its texts.

    clip and text
              frame  frame  frame ...     image stream: words
    image     heat   heat   heat  ...       walking  ====== 62 %
    motion    heat   heat   heat  ...     motion stream: words
    colour scale                            ...

Where the frames do not fit in one line, these rows are repeated for the next ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .drawing import (
    GREY,
    INK,
    PALE_BAR,
    PAPER,
    STRONG_BAR,
    check_picture_path,
    fitted,
    font,
    frame_caption,
    save_picture,
)
from .relevance import Explanation, StreamRelevance, TextRelevance

_CELL, _SMALL_CELL = 128, 104  # side of a frame in pixels, as all of these
_MANY_FRAMES = 8  # from more on, cells are small
_STRIP_WIDTH = 1100  # frames of one line together
_LEAST_STRIP_WIDTH = 620  # labels and the colour scale need it
_GAP = 6
_MARGIN = 18
_TITLE = 40
_CAPTION = 18
_LABEL_WIDTH = 92
_SCALE_HEIGHT = 40
_WORDS_WIDTH = 360
_WORD_COLUMN = 130
_PERCENT_COLUMN = 44
_BAR_HEIGHT = 20
_HEADING = 26
_NUM_WORDS = 14  # bars of a stream, shared among its texts
_FEWEST_WORDS = 3  # of a text
_NO_WORDS = "no word raised the score"

# Inferno of matplotlib (CC0) at equal steps: lightness rises evenly, so that brighter always means more.
_RAMP = np.array(
    [(0, 0, 4), (51, 10, 95), (120, 28, 109), (187, 55, 84), (237, 105, 37), (252, 181, 25), (252, 255, 164)]
)
_LEAST_HEAT, _MOST_HEAT = 0.5, 0.75  # weight of the colour at relevance 0 and 1; the rest is the frame in grey


def draw_explanation(explanation: Explanation, path: str | os.PathLike[str]) -> None:
    """Writes the picture; the file type follows the suffix of `path`.

    Raises:
        ValueError: if the suffix is of no picture format that can be written.
    """
    path = Path(path)
    check_picture_path(path)
    strip, words = _draw_strip(explanation), _draw_words(explanation)
    width = strip.width + _MARGIN + words.width + 2 * _MARGIN
    height = _TITLE + max(strip.height + _SCALE_HEIGHT, words.height) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    title = f"“{explanation.text}” in {Path(explanation.name).name}"
    draw.text((_MARGIN, _MARGIN), fitted(title, width - 2 * _MARGIN, font(19)), fill=INK, font=font(19))
    sheet.paste(strip, (_MARGIN, _MARGIN + _TITLE))
    _draw_scale(sheet, _MARGIN + _LABEL_WIDTH, _MARGIN + _TITLE + strip.height + _GAP)
    sheet.paste(words, (_MARGIN + strip.width + _MARGIN, _MARGIN + _TITLE))
    save_picture(sheet, path)


def _draw_strip(explanation: Explanation) -> Image.Image:
    """Labels, frames and heat maps, in as many lines as they need."""
    frames = explanation.frames.frames.numpy()  # (T, H, W, 3)
    cell = _CELL if len(frames) <= _MANY_FRAMES else _SMALL_CELL
    rows = [[Image.fromarray(frame).resize((cell, cell), Image.Resampling.BICUBIC) for frame in frames]]
    rows += [_heated(rows[0], stream) for stream in explanation.streams]
    labels = ["frames", *(stream.name for stream in explanation.streams)]
    per_line = max(1, _STRIP_WIDTH // (cell + _GAP))
    lines = math.ceil(len(frames) / per_line)
    columns = math.ceil(len(frames) / lines)  # 16 frames are 8 + 8 rather than 10 + 6
    line_height = _CAPTION + len(rows) * (cell + _GAP) + _GAP
    width = max(_LEAST_STRIP_WIDTH, _LABEL_WIDTH + columns * (cell + _GAP))
    strip = Image.new("RGB", (width, lines * line_height), PAPER)
    draw = ImageDraw.Draw(strip)
    for line in range(lines):
        for place, (label, row) in enumerate(zip(labels, rows, strict=True)):
            y = line * line_height + _CAPTION + place * (cell + _GAP)
            _draw_label(draw, label, y + cell // 2, is_stream=place > 0)
            for column, index in enumerate(range(line * columns, min((line + 1) * columns, len(frames)))):
                x = _LABEL_WIDTH + column * (cell + _GAP)
                strip.paste(row[index], (x, y))
                if place == 0:
                    caption = fitted(frame_caption(explanation.frames, index), cell, font(11))
                    draw.text((x, y - _CAPTION + 2), caption, fill=GREY, font=font(11))
    return strip


def _draw_label(draw: ImageDraw.ImageDraw, label: str, middle: int, *, is_stream: bool) -> None:
    """The name of a row, at the height of its middle."""
    draw.text((0, middle - 16 if is_stream else middle - 8), label, fill=INK, font=font(16))
    if is_stream:
        draw.text((0, middle + 3), "stream", fill=GREY, font=font(13))


def _heated(cells: Sequence[Image.Image], stream: StreamRelevance) -> list[Image.Image]:
    """The frames in grey under the relevance of their patches, on one scale: the highest of all frames is brightest."""
    patches = stream.patches.numpy()  # (T, H/P, W/P)
    highest = float(patches.max()) or 1.0
    heated = []
    for cell, relevance in zip(cells, patches, strict=True):
        smooth = Image.fromarray(relevance / highest).resize(cell.size, Image.Resampling.BICUBIC)  # in floats
        heat = np.asarray(smooth).clip(0, 1)[..., None]  # (H, W, 1)
        grey = np.asarray(cell.convert("L"), dtype=np.float32)[..., None]
        weight = _LEAST_HEAT + (_MOST_HEAT - _LEAST_HEAT) * heat
        mixed = weight * heat_colours(heat[..., 0]) + (1 - weight) * grey
        heated.append(Image.fromarray(mixed.round().astype(np.uint8)))
    return heated


def heat_colours(heat: np.ndarray) -> np.ndarray:
    """Colours (..., 3), floats in 0..255, of relevance (...) from 0 to 1; what lies outside counts as the nearest."""
    places = np.linspace(0, 1, len(_RAMP))
    return np.stack([np.interp(heat, places, channel) for channel in _RAMP.T], axis=-1)


def _draw_scale(sheet: Image.Image, left: int, top: int) -> None:
    """The colours from none to most, with their meaning."""
    draw = ImageDraw.Draw(sheet)
    start, end = "no relevance", "highest of the stream, over all frames"
    ramp = np.broadcast_to(heat_colours(np.linspace(0, 1, 160)), (12, 160, 3))
    draw.text((left, top), start, fill=GREY, font=font(13))
    left += math.ceil(font(13).getlength(start)) + 8
    sheet.paste(Image.fromarray(ramp.astype(np.uint8)), (left, top + 3))
    draw.text((left + 168, top), end, fill=GREY, font=font(13))


def _draw_words(explanation: Explanation) -> Image.Image:
    """One block of bars per stream, below each other."""
    blocks = [_draw_stream_words(stream) for stream in explanation.streams]
    panel = Image.new("RGB", (_WORDS_WIDTH, sum(block.height + _MARGIN for block in blocks)), PAPER)
    y = 0
    for block in blocks:
        panel.paste(block, (0, y))
        y += block.height + _MARGIN
    return panel


def _draw_stream_words(stream: StreamRelevance) -> Image.Image:
    """The most relevant words of each text, in the order of the text; bars of a stream share one scale."""
    count = max(_FEWEST_WORDS, _NUM_WORDS // len(stream.texts))
    kept = [_most_relevant(text, count) for text in stream.texts]
    longest = max((share for words in kept for _, share in words), default=0.0) or 1.0
    lines = sum(max(1, len(words)) for words in kept)
    block = Image.new("RGB", (_WORDS_WIDTH, _HEADING * (1 + len(kept)) + lines * (_BAR_HEIGHT + 3)), PAPER)
    draw = ImageDraw.Draw(block)
    draw.text((0, 0), f"{stream.name} stream: relevance of words", fill=INK, font=font(16))
    y = _HEADING
    for text, words in zip(stream.texts, kept, strict=True):
        is_cut = 0 < len(words) < len(text.words)
        caption = f"top {len(words)} of {len(text.words)}: {text.text}" if is_cut else text.text
        draw.text((0, y + 3), fitted(caption, _WORDS_WIDTH, font(13)), fill=GREY, font=font(13))
        y += _HEADING
        if not words:
            draw.text((0, y + 2), _NO_WORDS, fill=INK, font=font(14))
            y += _BAR_HEIGHT + 3
        for word, share in words:
            is_highest = share == max(other for _, other in words)
            _draw_bar(draw, y, word, share, length=share / longest, fill=STRONG_BAR if is_highest else PALE_BAR)
            y += _BAR_HEIGHT + 3
    return block


def _most_relevant(text: TextRelevance, count: int) -> list[tuple[str, float]]:
    """At most `count` words in the order of the text; none where no word is relevant."""
    if not any(share for _, share in text.words):
        return []
    places = sorted(range(len(text.words)), key=lambda place: -text.words[place][1])[:count]
    return [text.words[place] for place in sorted(places)]


def _draw_bar(
    draw: ImageDraw.ImageDraw, y: int, word: str, share: float, *, length: float, fill: tuple[int, int, int]
) -> None:
    """A word, a bar that takes `length` (0 to 1) of its room, and the share in percent."""
    room = _WORDS_WIDTH - _WORD_COLUMN - _PERCENT_COLUMN
    draw.text((0, y + 2), fitted(word, _WORD_COLUMN - 8, font(14)), fill=INK, font=font(14))
    right = _WORD_COLUMN + max(1, round(length * room))
    draw.rectangle((_WORD_COLUMN, y + 2, right, y + _BAR_HEIGHT - 2), fill=fill)
    draw.text((right + 6, y + 2), f"{share:.0%}", fill=INK, font=font(13))
