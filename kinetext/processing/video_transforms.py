"""From uint8 frames to pixel values: resize, crop, flip and normalise, with torch alone.

kinetext: https://github.com/kinetext/kinetext. This file is saved beside each checkpoint as remote code.

Everything works on uint8 (T,3,H,W) until the last step. Random choices come from the generator that is passed in.

Legend: T frames, H and W pixels, S the side of the square a model sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

INTERPOLATIONS = ("bilinear", "bicubic")
MULTI_SCALES = (1.0, 0.875, 0.75, 0.66)  # MultiScaleCrop of X-CLIP (VideoX `build.py`)
_SNAP_PIXELS = 3  # a crop side this close to S becomes S


def resize(frames: torch.Tensor, height: int, width: int, interpolation: str = "bilinear") -> torch.Tensor:
    """Frames uint8 (T,3,H,W) -> uint8 (T,3,height,width), antialiased; the same frames if the size is right."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"unknown interpolation {interpolation!r}; choose one of {', '.join(INTERPOLATIONS)}.")
    if frames.shape[-2:] == (height, width):
        return frames
    return torch.nn.functional.interpolate(
        frames, size=(height, width), mode=interpolation, antialias=True, align_corners=False
    )


def resize_short_side(frames: torch.Tensor, size: int, interpolation: str = "bilinear") -> torch.Tensor:
    """Frames (T,3,H,W) with the shorter side brought to `size` pixels, ratio kept (the longer one rounded)."""
    height, width = frames.shape[-2:]
    short = min(height, width)
    new_height, new_width = (max(size, round(side * size / short)) for side in (height, width))
    return resize(frames, new_height, new_width, interpolation)


def centre_crop(frames: torch.Tensor, size: int) -> torch.Tensor:
    """The middle (T,3,S,S) of frames at least that large."""
    return _crop_at(frames, size, 0.5, 0.5)


def three_crops(frames: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Three (T,3,S,S) along the longer side: left, middle, right, or top, middle, bottom."""
    height, width = frames.shape[-2:]
    if width >= height:
        return [_crop_at(frames, size, 0.5, place) for place in (0.0, 0.5, 1.0)]
    return [_crop_at(frames, size, place, 0.5) for place in (0.0, 0.5, 1.0)]


def multi_scale_crop(
    frames: torch.Tensor, size: int, generator: torch.Generator, interpolation: str = "bilinear"
) -> torch.Tensor:
    """MultiScaleCrop of X-CLIP (VideoX `build.py`): one crop per clip, resized to (T,3,S,S) without keeping the ratio.

    Sides are drawn from `MULTI_SCALES` of the shorter side, width and height at most one step apart; a side within 3
    pixels of S becomes S; the place is one of the four corners or the centre, in whole steps of a quarter of the room,
    so that the far corners stay up to 3 pixels short of the border.
    """
    height, width = frames.shape[-2:]
    sides = [int(min(height, width) * scale) for scale in MULTI_SCALES]
    sides = [size if abs(side - size) <= _SNAP_PIXELS and size <= min(height, width) else side for side in sides]
    pairs = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    crop_height, crop_width = (max(1, side) for side in pairs[_draw(len(pairs), generator)])
    row, column = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))[_draw(5, generator)]
    top, left = (height - crop_height) // 4 * row, (width - crop_width) // 4 * column
    return resize(frames[..., top : top + crop_height, left : left + crop_width], size, size, interpolation)


def random_flip(frames: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Frames (T,3,H,W), mirrored left to right as a whole clip with this probability."""
    if torch.rand((), generator=generator) < probability:
        return frames.flip(-1)
    return frames


def normalise(frames: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Frames uint8 (...,3,H,W) -> float32 (x / 255 - mean) / std, per channel."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=frames.device).view(3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=frames.device).view(3, 1, 1)
    return torch.addcmul(shift, frames.to(torch.float32), scale)


def _crop_at(frames: torch.Tensor, size: int, top: float, left: float) -> torch.Tensor:
    """An (S,S) window; `top` and `left` say where between the first (0) and the last (1) possible place."""
    y = int((frames.shape[-2] - size) * top)
    x = int((frames.shape[-1] - size) * left)
    return frames[..., y : y + size, x : x + size]


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(0, count, (1,), generator=generator))
