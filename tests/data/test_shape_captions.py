"""Captions are checked against the pixels, not against the numbers they were made from."""

import colorsys
import itertools
import re

import numpy as np
import pytest

from kinetext.data import motion_shapes
from kinetext.data.motion_shapes import SEEN_CLASSES, Still, render_clip, render_still
from kinetext.data.shape_captions import _NOUNS, captioned_still

SEEDS = range(300)
MOTION = r"\b(mov|rotat|turn|spin|grow|shrink|orbit|bounc|zigzag|clockwise|up|down|then|towards)"


def shape_mask(seed: int) -> np.ndarray:
    """(H,W) bool: pixels of the shape, found as its difference from the background."""
    background = motion_shapes._appearance(np.random.default_rng((seed, 0)), 64).background * 255
    return np.abs(captioned_still(seed).frame - background).mean(-1) > 20


def test_still_is_a_frame_of_the_clips() -> None:
    for seed in range(5):
        # A rotating shape starts as a resting one: the same draws come first.
        first = render_clip("rotating clockwise", seed)[0]
        np.testing.assert_array_equal(first, render_still(seed).frame)


def test_pair_is_a_pure_function_of_its_seed() -> None:
    first, again, other = captioned_still(3, size=32), captioned_still(3, size=32), captioned_still(4, size=32)
    assert first.frame.shape == (32, 32, 3) and first.frame.dtype == np.uint8
    np.testing.assert_array_equal(first.frame, again.frame)
    assert (first.caption, first.facts) == (again.caption, again.facts)
    assert not np.array_equal(first.frame, other.frame)


def test_caption_says_every_fact_and_nothing_of_motion() -> None:
    for seed in SEEDS:
        pair = captioned_still(seed)
        assert all(fact in pair.caption for fact in pair.facts)
        assert not re.search(MOTION, pair.caption)


def test_place_is_where_the_pixels_are() -> None:
    waves = np.exp(2j * np.pi * (np.arange(64) + 0.5) / 64)
    sides = {"left": (0, 0.36), "right": (0.64, 1), "top": (0, 0.36), "bottom": (0.64, 1)}
    checked = set()
    for seed in SEEDS:
        place, mask = captioned_still(seed).facts[3], shape_mask(seed)
        if "split" in place:
            edges = [mask[:, 0] | mask[:, -1]] if "left and right" in place else [mask[0] | mask[-1]]
            assert all(edge.any() for edge in edges), place
        else:
            for axis, words in ((0, ("left", "right")), (1, ("top", "bottom"))):
                centre = np.angle(mask.sum(axis) @ waves) / (2 * np.pi) % 1
                low, high = next((sides[word] for word in words if word in place), (0.36, 0.64))
                assert low - 0.04 < centre < high + 0.04, (seed, place)
        checked.add(place)
    assert len(checked) >= 14


def test_sizes_follow_the_extent_of_the_shape() -> None:
    words = ("tiny", "small", "medium-sized", "large", "huge")
    radii = {word: [render_still(s).radius for s in SEEDS if captioned_still(s).facts[0] == word] for word in words}
    assert all(len(values) > 20 for values in radii.values())
    assert all(max(radii[a]) <= min(radii[b]) for a, b in itertools.pairwise(words))


def test_colour_is_that_of_the_pixels() -> None:
    hues = {"peach": 0.08, "yellow": 0.15, "green": 0.3, "turquoise": 0.48, "blue": 0.62, "violet": 0.75, "pink": 0.92}
    for seed in SEEDS:
        colour, mask = captioned_still(seed).facts[1], shape_mask(seed)
        hue, saturation, _ = colorsys.rgb_to_hsv(*np.median(captioned_still(seed).frame[mask], axis=0) / 255)
        if colour == "white":
            assert saturation < 0.12
        else:
            difference = abs(hue - hues[colour.split()[1]])
            assert min(difference, 1 - difference) < 0.16, (seed, colour)


def test_every_outline_has_a_noun_of_its_own() -> None:
    assert set(_NOUNS) == set(motion_shapes._OUTLINES)
    assert len(set(_NOUNS.values())) == len(_NOUNS)
    assert {captioned_still(seed).facts[2] for seed in SEEDS} == set(_NOUNS.values())


def test_captions_vary_in_wording() -> None:
    openings = {captioned_still(seed).caption.split()[0] for seed in SEEDS}
    assert {"a", "at", "on", "in"} <= openings


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [
        (0.5, 0.5, "in the centre"),
        (0.2, 0.8, "at the bottom left"),
        (0.5, 0.1, "at the top"),
        (0.9, 0.5, "on the right"),
        (0.99, 0.5, "split between the left and right edges, in the centre"),
        (0.2, 0.01, "split between the top and bottom edges, on the left"),
        (0.99, 0.01, "split between the four corners"),
    ],
)
def test_places(x: float, y: float, place: str) -> None:
    from kinetext.data.shape_captions import _place

    nothing = np.zeros(3)
    assert _place(Still(nothing, "arrow", nothing, nothing, x, y, 0.2)) == place


def test_class_names_do_not_appear() -> None:
    captions = " ".join(captioned_still(seed).caption for seed in SEEDS)
    assert not any(name in captions for name in SEEN_CLASSES)
