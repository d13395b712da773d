"""The picture of an explanation: what is bright where, what fits, how the file is written."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kinetext import VideoFrames
from kinetext.evaluation.drawing import PALE_BAR, STRONG_BAR
from kinetext.evaluation.relevance import Explanation, StreamRelevance, TextRelevance
from kinetext.evaluation.relevance_picture import _heated, _most_relevant, draw_explanation, heat_colours

WORDS = (("a", 0.1), ("slow", 0.3), ("push", 0.6))


def explained(
    num_frames: int = 8,
    *,
    streams: tuple[str, ...] = ("image",),
    size: int = 64,
    texts: tuple[TextRelevance, ...] = (TextRelevance("a slow push", WORDS),),
    name: str = "clips/a.mp4",
) -> Explanation:
    """Grey frames; the relevance of frame t lies at one patch of a 4 x 4 grid and grows with t."""
    frames = torch.full((num_frames, size, size, 3), 90, dtype=torch.uint8)
    times = torch.arange(num_frames, dtype=torch.float64) / 7
    patches = torch.zeros(num_frames, 4, 4)
    patches[:, 1, 2] = torch.arange(1, num_frames + 1) * 1e-4
    video = VideoFrames(frames, times, 7.0, 0, list(range(num_frames)), num_frames)
    return Explanation(name, "a slow push", video, tuple(StreamRelevance(one, patches, texts) for one in streams))


def picture_of(explanation: Explanation, tmp_path: Path) -> np.ndarray:
    draw_explanation(explanation, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        return np.asarray(picture.convert("RGB"))


def test_colours_get_lighter_with_relevance() -> None:
    colours = heat_colours(np.linspace(0, 1, 101))
    lightness = colours @ (0.2126, 0.7152, 0.0722)
    assert colours.shape == (101, 3) and colours.min() >= 0 and colours.max() <= 255
    assert (np.diff(lightness) > 0).all() and lightness[0] < 1 and lightness[-1] > 240
    assert np.array_equal(heat_colours(np.array([-1.0, 2.0])), colours[[0, -1]])


def test_heat_lies_at_its_patch_and_on_one_scale_over_time() -> None:
    explanation = explained(4, size=128)
    cells = [Image.fromarray(frame.numpy()) for frame in explanation.frames.frames]
    heated = [np.asarray(image).astype(float).sum(axis=2) for image in _heated(cells, explanation.streams[0])]
    for image in heated:
        row, column = np.unravel_index(image.argmax(), image.shape)
        assert 32 <= row < 64 and 64 <= column < 96  # the patch (1, 2) of 32 x 32 pixels
    peaks = [image.max() for image in heated]
    assert peaks == sorted(peaks) and peaks[0] < 0.6 * peaks[-1]


def test_the_frame_stays_visible_below_the_heat() -> None:
    explanation = explained(1)
    half = np.zeros((64, 64, 3), dtype=np.uint8)
    half[:, 32:] = 255
    stream = StreamRelevance("image", torch.ones(1, 4, 4), ())
    for patches in (torch.ones(1, 4, 4), torch.zeros(1, 4, 4)):
        stream = StreamRelevance("image", patches, explanation.streams[0].texts)
        (image,) = _heated([Image.fromarray(half)], stream)
        left, right = np.asarray(image).astype(float)[:, [10, 50]].mean(axis=(0, 2))
        assert right - left > 50


@pytest.mark.parametrize("streams", [("image",), ("image", "motion")], ids=len)
@pytest.mark.parametrize("num_frames", [1, 8, 16, 32])
def test_every_frame_is_shown_in_a_picture_of_sensible_size(
    num_frames: int, streams: tuple[str, ...], tmp_path: Path
) -> None:
    picture = picture_of(explained(num_frames, streams=streams), tmp_path)
    height, width = picture.shape[:2]
    assert 500 <= width <= 1700 and 200 <= height <= 1700
    side = 128 if num_frames <= 8 else 104
    assert int((picture == 90).all(axis=2).sum()) == num_frames * side**2
    drawn = (picture != 255).any(axis=(0, 2)).nonzero()[0]
    assert drawn[0] >= 18 and drawn[-1] < width - 18


def test_long_words_texts_and_names_stay_inside(tmp_path: Path) -> None:
    words = tuple((f"{'verylongword' * 4}{index}", 0.1) for index in range(60))
    texts = tuple(TextRelevance("a very long description " * 20, words) for _ in range(6))
    picture = picture_of(explained(2, texts=texts, name="n" * 300 + ".mp4", streams=("image", "motion")), tmp_path)
    drawn = (picture != 255).any(axis=(0, 2)).nonzero()[0]
    assert drawn[-1] < picture.shape[1] - 18
    assert picture.shape[0] < 1700


def test_the_most_relevant_words_keep_the_order_of_the_text() -> None:
    text = TextRelevance("", (("a", 0.1), ("b", 0.4), ("c", 0.0), ("d", 0.5)))
    assert _most_relevant(text, 3) == [("a", 0.1), ("b", 0.4), ("d", 0.5)]


def test_an_explanation_without_any_relevance_has_neither_heat_nor_bars(tmp_path: Path) -> None:
    nothing = StreamRelevance("image", torch.zeros(1, 2, 2), (TextRelevance("up", (("up", 0.0),)),))
    picture = picture_of(Explanation("a.mp4", "up", explained(1).frames, (nothing,)), tmp_path)
    for bar in (PALE_BAR, STRONG_BAR):
        assert not (picture == bar).all(axis=2).any()
    assert (picture_of(explained(1), tmp_path) == STRONG_BAR).all(axis=2).any()


def test_the_file_is_complete_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/out.png"
    draw_explanation(explained(), path)
    assert [file.name for file in path.parent.iterdir()] == ["out.png"]
    message = "'out.mp4' has no picture suffix; use for example .png."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        draw_explanation(explained(), tmp_path / "new/out.mp4")
    assert not (tmp_path / "new").exists()


def test_many_words_beside_few_frames_do_not_hide_the_colour_scale(tmp_path: Path) -> None:
    words = tuple((f"word{index}", 1 / 20) for index in range(20))
    picture = picture_of(explained(1, texts=(TextRelevance("words", words),)), tmp_path)
    lightest = heat_colours(np.array(1.0)).astype(int)  # of the scale alone: in a heat map, it is mixed with the frame
    assert int((picture == lightest).all(axis=2).sum()) == 12
