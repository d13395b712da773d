"""Pictures of resting shapes with captions, as CLIP is pre-trained on: what is there, how it looks, where it is.

The shapes, their poses and backgrounds are those of `motion_shapes`, one frame of a clip in which nothing moves. A
caption says size, colour, outline, place and at times the background, in one of several sentences; nothing of motion.
"""

from __future__ import annotations

import colorsys
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from .motion_shapes import Still, render_still

__all__ = ["CaptionedStill", "captioned_still"]

# Of the names of outlines in `motion_shapes`. No article: "an arrow" is made by `_article`.
_NOUNS = {
    "arrow": "arrow",
    "L": "letter L",
    "T": "letter T",
    "flag": "flag",
    "triangle": "triangle",
    "half-disc": "half disc",
    "drop": "drop",
    "comma": "comma",
}
_SIZES = ("tiny", "small", "medium-sized", "large", "huge")
_SIZE_LIMITS = (0.15, 0.19, 0.23, 0.28)  # radii between them

# Hues from 0 to 1, upper limits. Shapes are bright, so that red is pink and orange is peach.
_HUES = (
    *((0.04, "pink"), (0.11, "peach"), (0.19, "yellow"), (0.41, "green")),
    *((0.54, "turquoise"), (0.69, "blue"), (0.80, "violet"), (1.01, "pink")),
)
_WHITE_BELOW = 0.1  # saturation
_PALE_BELOW = 0.25
_TINTS = (
    *((0.09, "reddish"), (0.22, "yellowish"), (0.45, "greenish")),
    *((0.70, "bluish"), (0.92, "purplish"), (1.01, "reddish")),
)
_GREY_BELOW = 0.06  # largest minus smallest channel
_DARK_BELOW = 0.4  # mean of the channels

_EDGE = 0.22  # a shape closer to an edge than this share of its radius is split by it, whatever its outline
_SENTENCES = (
    "{thing} {place}",
    "{thing} {place} on {ground}",
    "a picture of {thing} {place}",
    "{place} there is {thing}",
    "on {ground}, {thing} {place}",
)


@dataclass(frozen=True)
class CaptionedStill:
    """A picture and a text that is true of it.

    Args:
        frame: uint8 (H,W,3).
        caption: one sentence, in lower case but for letters that are shapes.
        facts: size, colour, noun and place in the words of the caption; equal facts describe each other's pictures.
    """

    frame: np.ndarray
    caption: str
    facts: tuple[str, str, str, str]


def captioned_still(seed: int, *, size: int = 64) -> CaptionedStill:
    """One picture with its caption: a pure function of its arguments.

    Args:
        seed: any integer from 0.
        size: H and W in pixels.
    """
    still = render_still(seed, size=size)
    facts = (_size(still.radius), _colour(still.colour), _NOUNS[still.outline], _place(still))
    sentence = str(np.random.default_rng((seed, 2)).choice(_SENTENCES))
    thing, place = _article(" ".join(facts[:3])), facts[3]
    return CaptionedStill(
        frame=still.frame,
        caption=sentence.format(thing=thing, place=place, ground=_article(_background(still.background))),
        facts=facts,
    )


def _size(radius: float) -> str:
    return _SIZES[bisect_right(_SIZE_LIMITS, radius)]


def _colour(rgb: np.ndarray) -> str:
    """One or two words for the colour of a shape, (3,) from 0 to 1."""
    hue, saturation, _ = colorsys.rgb_to_hsv(*rgb)
    if saturation < _WHITE_BELOW:
        return "white"
    strength = "pale" if saturation < _PALE_BELOW else "bright"
    return f"{strength} {_named(hue, _HUES)}"


def _background(rgb: np.ndarray) -> str:
    """Words for the mean colour of a background, (3,) from 0 to 1, which is never far from grey."""
    words = ["dark"] if rgb.mean() < _DARK_BELOW else []
    if rgb.max() - rgb.min() >= _GREY_BELOW:
        words.append(_named(colorsys.rgb_to_hsv(*rgb)[0], _TINTS))
    return " ".join([*words, "grey background"])


def _named(hue: float, names: tuple[tuple[float, str], ...]) -> str:
    return next(name for limit, name in names if hue < limit)


def _place(still: Still) -> str:
    """Where the centre of the shape is; on a torus, a shape on an edge shows at the opposite one as well."""
    edge = _EDGE * still.radius
    column, row = _third(still.x, ("left", "right"), edge), _third(still.y, ("top", "bottom"), edge)
    if column == row == "edge":
        return "split between the four corners"
    if column == "edge":
        return f"split between the left and right edges, {_single(row)}"
    if row == "edge":
        return f"split between the top and bottom edges, {_single(column)}"
    if not column or not row:
        return _single(column or row)
    return f"at the {row} {column}"


def _third(position: float, sides: tuple[str, str], edge: float) -> str:
    """One of the sides, "" for the middle, or "edge" where both sides meet."""
    if not edge <= position < 1 - edge:
        return "edge"
    return (sides[0], "", sides[1])[bisect_right((0.36, 0.64), position)]


def _single(side: str) -> str:
    if not side:
        return "in the centre"
    return f"on the {side}" if side in ("left", "right") else f"at the {side}"


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"
