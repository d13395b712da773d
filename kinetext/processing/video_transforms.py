"""From uint8 frames to pixel values: resize, crop and normalise, with torch alone.

kinetext: https://github.com/kinetext/kinetext. This file is saved beside each checkpoint as remote code.

Everything works on uint8 (T,3,H,W) until the last step. Nothing is random: what training draws is in
`kinetext/data/augmentation.py`.

Legend: T frames, H and W pixels, S the side of the square a model sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

INTERPOLATIONS = ("bilinear", "bicubic")
_LARGEST_RATIO = 16  # of a long side to the short one; scaled up, one pixel by some hundred would fill the memory


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
    """Frames (T,3,H,W) with the shorter side brought to `size` pixels, ratio kept (the longer one rounded).

    Of a side that is more than 16 times as long as the other, the middle is kept.
    """
    short = min(frames.shape[-2:])
    for dim in (-2, -1):
        excess = max(0, frames.shape[dim] - _LARGEST_RATIO * short)
        frames = frames.narrow(dim, excess // 2, frames.shape[dim] - excess)
    height, width = frames.shape[-2:]
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


def normalise(frames: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Frames uint8 (...,3,H,W) -> float32 (x / 255 - mean) / std, per channel."""
    scale = torch.tensor([1 / (255 * s) for s in std], device=frames.device).view(3, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=frames.device).view(3, 1, 1)
    values = frames.to(torch.float32, copy=True)
    return torch.addcmul(shift, values, scale, out=values)


def _crop_at(frames: torch.Tensor, size: int, top: float, left: float) -> torch.Tensor:
    """An (S,S) window; `top` and `left` say where between the first (0) and the last (1) possible place."""
    y = int((frames.shape[-2] - size) * top)
    x = int((frames.shape[-1] - size) * left)
    return frames[..., y : y + size, x : x + size]
