"""What training does to the pixels of a clip: drawn once, on the CPU, applied anywhere.

    Augmentation, generator ──draw_clip──► ClipDraw ──┬──────────────────────────┐
                                                      ▼                          ▼
    frames uint8 (T,3,H,W) ──────────────────── crop_pixels ─► uint8 ─► finish_pixels ─► pixel values, normalised
                                                                          (in a worker, or on the accelerator)

Nothing is random after the draw, so a clip looks the same wherever and in whatever batch it is finished. Frames stay
uint8 until they are normalised: each step rounds as Pillow does in the published pipelines, in float operations that
every device rounds alike.

Legend: B clips, T frames, H and W pixels, S the side of the square a model sees, F frames of several clips.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..processing.video_transforms import normalise, resize
from .clip_lists import ClassIndex
from .label_lists import FLIP_TWINS

__all__ = ["Augmentation", "ClipDraw", "crop_pixels", "draw_clip", "finish_pixels", "flip_twins"]

CROPS = ("multi_scale", "random_resized", "centre")
JITTER_PER = ("frame", "clip")
MULTI_SCALES = (1.0, 0.875, 0.75, 0.66)  # of the shorter side (VideoX `build.py`)
RANDOM_RESIZED_RATIO = (3 / 4, 4 / 3)  # width : height
_SNAP_PIXELS = 3  # a side of MultiScaleCrop this close to S becomes S
_PLACES = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))  # of MultiScaleCrop: (rows, columns) in quarters of the room
_RANDOM_RESIZED_TRIES = 10
_CPU_FRAMES_AT_ONCE = 2  # what is computed in between stays in the cache: up to three times as fast as 8

Box = tuple[int, int, int, int]  # top, left, height, width
FrameJitter = tuple[tuple[str, float], ...]  # (adjustment, factor) in the order in which they are applied


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for a clip; the defaults are X-CLIP's (VideoX `build.py`).

    Args:
        crop: "multi_scale", X-CLIP's MultiScaleCrop; "random_resized", torchvision's RandomResizedCrop; "centre".
        random_resized_scale: smallest and largest share of the area in "random_resized".
        flip_probability: of mirroring a whole clip.
        color_jitter_probability: of changing the colours of a whole clip.
        color_jitter: strengths of brightness, contrast, saturation (factors between 1 - x, at least 0, and 1 + x)
            and hue (shifts between -x and x of the colour circle).
        color_jitter_per: "frame" draws other factors and another order for every frame, as published; "clip" once.
        grayscale_probability: of taking the colours of a whole clip away.
    """

    crop: str = "multi_scale"
    random_resized_scale: tuple[float, float] = (0.08, 1.0)
    flip_probability: float = 0.5
    color_jitter_probability: float = 0.8
    color_jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    color_jitter_per: str = "frame"
    grayscale_probability: float = 0.2

    def __post_init__(self) -> None:
        for name, choices in (("crop", CROPS), ("color_jitter_per", JITTER_PER)):
            if getattr(self, name) not in choices:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; choose one of {', '.join(choices)}.")
        for name in ("flip_probability", "color_jitter_probability", "grayscale_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is no probability; choose one between 0 and 1.")
        scale = self.random_resized_scale
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(
                f"random_resized_scale={scale} must be the smallest and the largest share of the area, 0 < a <= b <= 1."
            )
        if len(self.color_jitter) != 4 or min(self.color_jitter) < 0 or self.color_jitter[3] > 0.5:
            raise ValueError(
                f"color_jitter={self.color_jitter} must be four strengths of at least 0: brightness, contrast, "
                "saturation and hue, the last at most 0.5 (half the colour circle)."
            )


@dataclass(frozen=True)
class ClipDraw:
    """What was drawn for one clip; plain numbers, because tensors would each cost a file descriptor between processes.

    Args:
        box: top, left, height and width of the crop, in pixels of the frames that are cropped.
        flip: mirror left and right.
        jitter: per frame brightness, contrast, saturation and hue, each with its factor, in the order in which they are
            applied; empty where the colours stay.
        grayscale: take the colours away.
    """

    box: Box
    flip: bool
    jitter: tuple[FrameJitter, ...]
    grayscale: bool


# Drawing ------------------------------------------------------------------------------------------------------------


def draw_clip(
    augmentation: Augmentation, height: int, width: int, num_frames: int, size: int, generator: torch.Generator
) -> ClipDraw:
    """Everything random about a clip of T frames of (H,W) that becomes (T,3,S,S)."""
    probabilities = torch.tensor(
        [augmentation.flip_probability, augmentation.color_jitter_probability, augmentation.grayscale_probability]
    )
    flip, changes_colours, grayscale = (torch.rand(3, generator=generator) < probabilities).tolist()
    box = _draw_box(augmentation, height, width, size, generator)
    jitter = _draw_jitter(augmentation, num_frames, generator) if changes_colours else ()
    return ClipDraw(box, flip, jitter, grayscale)


def _draw_box(augmentation: Augmentation, height: int, width: int, size: int, generator: torch.Generator) -> Box:
    if augmentation.crop == "multi_scale":
        return _multi_scale_box(height, width, size, generator)
    if augmentation.crop == "random_resized":
        return _random_resized_box(height, width, augmentation.random_resized_scale, generator)
    return _centre_box(height, width, min(height, size), min(width, size))


def _multi_scale_box(height: int, width: int, size: int, generator: torch.Generator) -> Box:
    """MultiScaleCrop of X-CLIP (VideoX `build.py`).

    Sides are drawn from `MULTI_SCALES` of the shorter side, width and height at most one step apart; a side within 3
    pixels of S becomes S; the place is one of the four corners or the centre, in whole steps of a quarter of the room,
    so that the far corners stay up to 3 pixels short of the border.
    """
    short = min(height, width)
    sides = [max(1, int(short * scale)) for scale in MULTI_SCALES]
    sides = [size if abs(side - size) <= _SNAP_PIXELS and size <= short else side for side in sides]
    pairs = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    crop_height, crop_width = pairs[_draw_index(len(pairs), generator)]
    row, column = _PLACES[_draw_index(len(_PLACES), generator)]
    return (height - crop_height) // 4 * row, (width - crop_width) // 4 * column, crop_height, crop_width


def _random_resized_box(height: int, width: int, scale: tuple[float, float], generator: torch.Generator) -> Box:
    """RandomResizedCrop of torchvision: share of the area uniform, ratio uniform in its logarithm, the place uniform.

    A box that does not fit is drawn again; after ten tries it is the largest one in the centre with a ratio in range.
    """
    narrowest, widest = RANDOM_RESIZED_RATIO
    for _ in range(_RANDOM_RESIZED_TRIES):
        area = height * width * _draw_uniform(*scale, generator)
        ratio = math.exp(_draw_uniform(math.log(narrowest), math.log(widest), generator))
        crop_height, crop_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top = _draw_index(height - crop_height + 1, generator)
            left = _draw_index(width - crop_width + 1, generator)
            return top, left, crop_height, crop_width
    return _centre_box(height, width, min(height, round(width / narrowest)), min(width, round(height * widest)))


def _centre_box(height: int, width: int, crop_height: int, crop_width: int) -> Box:
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _draw_jitter(augmentation: Augmentation, num_frames: int, generator: torch.Generator) -> tuple[FrameJitter, ...]:
    num_draws = num_frames if augmentation.color_jitter_per == "frame" else 1
    *strengths, hue = augmentation.color_jitter
    low = torch.tensor([max(0.0, 1 - strength) for strength in strengths] + [-hue])
    high = torch.tensor([1 + strength for strength in strengths] + [hue])
    factors = (low + (high - low) * torch.rand(num_draws, 4, generator=generator)).tolist()
    orders = torch.rand(num_draws, 4, generator=generator).argsort(dim=1).tolist()
    names = (*_ADJUSTMENTS,)
    drawn = [tuple((names[i], own[i]) for i in order) for own, order in zip(factors, orders, strict=True)]
    return tuple(drawn * (num_frames // num_draws))


def _draw_index(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(0, count, (1,), generator=generator))


def _draw_uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


# Applying -----------------------------------------------------------------------------------------------------------


def crop_pixels(frames: torch.Tensor, draw: ClipDraw, size: int, interpolation: str = "bilinear") -> torch.Tensor:
    """Frames uint8 (T,3,H,W) -> uint8 (T,3,S,S): the drawn box, resized without keeping its ratio."""
    top, left, height, width = draw.box
    # Contiguous, because a view would take its whole source along between processes.
    return resize(frames[..., top : top + height, left : left + width], size, size, interpolation).contiguous()


def finish_pixels(
    pixel_values: torch.Tensor, draws: Sequence[ClipDraw], mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Crops uint8 (B,T,3,S,S) -> float32 (B,T,3,S,S): flip, colour jitter, grayscale, normalisation, on any device."""
    if len(pixel_values) != len(draws):
        raise ValueError(f"{len(pixel_values)} clips and {len(draws)} draws; one draw belongs to each clip.")
    clips = [clip.flip(-1) if draw.flip else clip for clip, draw in zip(pixel_values, draws, strict=True)]
    clips = _jitter(clips, draws)
    clips = [_grey(clip).expand_as(clip) if draw.grayscale else clip for clip, draw in zip(clips, draws, strict=True)]
    return normalise(torch.stack(clips), mean, std)


def _jitter(clips: Sequence[torch.Tensor], draws: Sequence[ClipDraw]) -> list[torch.Tensor]:
    """Other colours for B clips uint8 (T,3,S,S), in rounds: in each, frames that want the same are changed together."""
    frames = [frame for clip in clips for frame in clip]
    jitters = [jitter for clip, draw in zip(clips, draws, strict=True) for jitter in draw.jitter or ((),) * len(clip)]
    at_once = _CPU_FRAMES_AT_ONCE if frames[0].device.type == "cpu" else len(frames)
    for step, (name, adjust) in itertools.product(range(max(map(len, jitters))), _ADJUSTMENTS.items()):
        wanted = [place for place, jitter in enumerate(jitters) if step < len(jitter) and jitter[step][0] == name]
        for places in (wanted[start : start + at_once] for start in range(0, len(wanted), at_once)):
            factors = torch.tensor([jitters[place][step][1] for place in places], device=frames[0].device)
            adjusted = adjust(torch.stack([frames[place] for place in places]), factors.view(-1, 1, 1, 1))
            for place, frame in zip(places, adjusted, strict=True):
                frames[place] = frame
    return list(torch.stack(frames).unflatten(0, (len(clips), -1)))


def _brightness(frames: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _to_uint8(frames * factor)


def _contrast(frames: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Away from or towards the mean grey of each frame."""
    grey = _grey(frames)
    count = grey[0].numel()
    mean = (2 * grey.sum((1, 2, 3), keepdim=True) + count) // (2 * count)  # rounded; every device agrees on integers
    return _to_uint8(_blend(mean, frames, factor))


def _saturation(frames: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _to_uint8(_blend(_grey(frames), frames, factor))


def _hue(frames: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Turns the colour circle; value and saturation of HSV stay.

    A channel is at the pixel's maximum up to 1/6 of the circle away from its own hue (red 0, green 1/3, blue 2/3), at
    its minimum from 2/6 on, and linear between.
    """
    red, green, blue = frames.float().unbind(1)  # (F,S,S)
    largest, smallest = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    chroma = largest - smallest
    sixths = torch.where(green == largest, blue - red + 2 * chroma, red - green + 4 * chroma)  # times chroma
    sixths = torch.where(red == largest, green - blue, sixths)
    hue = sixths / (6 * chroma).clamp(min=1) + shift.view(-1, 1, 1)
    channels = []
    for own in (0, 1 / 3, 2 / 3):
        away = hue - own
        away.sub_(away.round()).abs_()  # on the circle: at most half of it
        channels.append(away.mul_(-6).add_(2).clamp_(0, 1).mul_(chroma).add_(smallest).add_(0.5))
    return _to_uint8(torch.stack(channels, dim=1))


_ADJUSTMENTS = {"brightness": _brightness, "contrast": _contrast, "saturation": _saturation, "hue": _hue}


def _grey(frames: torch.Tensor) -> torch.Tensor:
    """uint8 (F,3,H,W) -> (F,1,H,W) by the weights and the rounding of Pillow's "L"; exact, as all stays below 2^24."""
    red, green, blue = frames.float().split(1, dim=1)
    return _to_uint8((19595 * red + 38470 * green + 7471 * blue + 2**15) * 2**-16)


def _blend(other: torch.Tensor, frames: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """The other image at 0, the frames at 1, beyond them above; not `lerp`, which devices round differently."""
    other = other.float()
    return other + factor * (frames - other)


def _to_uint8(values: torch.Tensor) -> torch.Tensor:
    """Cuts off the fraction, as Pillow does, and what lies outside 0..255."""
    return values.clamp(0, 255).to(torch.uint8)


# Labels -------------------------------------------------------------------------------------------------------------


def flip_twins(swaps: str | Mapping[str, str], class_names: Sequence[str]) -> dict[int, int]:
    """Class ids that a mirrored clip changes into each other, both ways round.

    Args:
        swaps: name of a shipped list with such classes (`FLIP_TWINS`), or class names by class names.
        class_names: N names in the order of their ids.

    Raises:
        ValueError: a name that is no class, or a class with two twins or itself as its twin.
    """
    if isinstance(swaps, str) and swaps not in FLIP_TWINS:
        raise ValueError(
            f"no flip twins are known of {swaps!r}; choose {', '.join(FLIP_TWINS)} or map class names to class names."
        )
    classes = ClassIndex(class_names)
    pairs = FLIP_TWINS[swaps] if isinstance(swaps, str) else swaps
    twins: dict[int, int] = {}
    for pair in pairs.items():
        if isinstance(swaps, str) and all(classes.find(name) is None for name in pair):
            continue  # a part of the shipped list that has neither
        first, second = (_class_id(name, classes, class_names) for name in pair)
        if first == second:
            raise ValueError(
                f"{class_names[first]!r} is named as its own flip twin; leave it out, it keeps its label anyway."
            )
        for one, other in ((first, second), (second, first)):
            if twins.setdefault(one, other) != other:
                raise ValueError(f"{class_names[one]!r} cannot have two flip twins; name one of them.")
    return twins


def _class_id(name: str, classes: ClassIndex, class_names: Sequence[str]) -> int:
    label = classes.find(name)
    if label is None:
        closest = difflib.get_close_matches(name, class_names, n=1, cutoff=0)
        raise ValueError(
            f"the flip twin {name!r} is none of the {len(class_names)} classes (the nearest is {closest[0]!r}): "
            "correct the name, or set flip_probability to 0 if the class is left out on purpose."
        )
    return label
