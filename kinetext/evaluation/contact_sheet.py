"""A picture of what the model saw and said: per clip its frames, their times, and the highest scores as bars."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .classify import Classification
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

_MAX_THUMB_HEIGHT = 112  # pixels, as all of these
_MAX_THUMB_WIDTH = 300
_STRIP_WIDTH = 1200  # frames of one line together
_GAP = 6
_MARGIN = 16
_TITLE = 26
_CAPTION = 16
_BARS_WIDTH = 300
_BAR_HEIGHT = 22
_NUM_BARS = 5


def draw_contact_sheet(results: Sequence[Classification], path: str | os.PathLike[str]) -> None:
    """Writes one picture with a row per clip; the file type follows the suffix of `path`.

    Raises:
        ValueError: if the suffix is of no picture format that can be written, or there is nothing to draw.
    """
    path = Path(path)
    check_picture_path(path)
    if not results:
        raise ValueError("there are no clips to draw.")
    rows = [_draw_row(result) for result in results]
    width = max(row.width for row in rows) + 2 * _MARGIN
    height = sum(row.height for row in rows) + _MARGIN * (len(rows) + 1)
    sheet = Image.new("RGB", (width, height), PAPER)
    y = _MARGIN
    for row in rows:
        sheet.paste(row, (_MARGIN, y))
        y += row.height + _MARGIN
    save_picture(sheet, path)


def _draw_row(result: Classification) -> Image.Image:
    thumbnails = [_thumbnail(frame.numpy()) for frame in result.frames.frames]
    captions = [frame_caption(result.frames, index) for index in range(len(thumbnails))]
    cell_width = math.ceil(max(thumbnails[0].width, *(font(11).getlength(text) for text in captions))) + _GAP
    cell_height = thumbnails[0].height + _CAPTION + _GAP
    lines = math.ceil(len(thumbnails) / max(1, _STRIP_WIDTH // cell_width))
    columns = math.ceil(len(thumbnails) / lines)  # 8 frames are 4 + 4 rather than 7 + 1
    strip_width = columns * cell_width
    width = strip_width + _MARGIN + _BARS_WIDTH
    height = _TITLE + max(lines * cell_height, _NUM_BARS * (_BAR_HEIGHT + 4))
    row = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(row)
    draw.text((0, 0), fitted(Path(result.name).name, width, font(16)), fill=INK, font=font(16))
    for index, (thumbnail, caption) in enumerate(zip(thumbnails, captions, strict=True)):
        x, y = (index % columns) * cell_width, _TITLE + (index // columns) * cell_height
        row.paste(thumbnail, (x, y))
        draw.text((x, y + thumbnail.height + 1), caption, fill=GREY, font=font(11))
    _draw_bars(draw, result, strip_width + _MARGIN, _TITLE)
    return row


def _draw_bars(draw: ImageDraw.ImageDraw, result: Classification, left: int, top: int) -> None:
    for place, (label, score) in enumerate(result.ranked()[:_NUM_BARS]):
        y = top + place * (_BAR_HEIGHT + 4)
        colour = STRONG_BAR if place == 0 else PALE_BAR
        draw.rectangle((left, y, left + max(2, round(score * (_BARS_WIDTH - 1))), y + _BAR_HEIGHT), fill=colour)
        text_colour = PAPER if place == 0 and score > 0.75 else INK
        text = fitted(f"{score:6.1%}  {label}", _BARS_WIDTH - 12, font(13))
        draw.text((left + 6, y + 4), text, fill=text_colour, font=font(13))


def _thumbnail(frame: np.ndarray) -> Image.Image:
    """The frame (H,W,3) at its ratio of sides, as large as fits `_MAX_THUMB_WIDTH` x `_MAX_THUMB_HEIGHT`."""
    image = Image.fromarray(frame)
    scale = min(_MAX_THUMB_WIDTH / image.width, _MAX_THUMB_HEIGHT / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)
