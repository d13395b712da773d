"""Soft targets, and the blending of clips two by two: mixup or CutMix (VideoX `blending.py`).

One draw holds for all clips of an optimiser step, whichever process and micro-batch they are in. Partners are
neighbours, clips 2i and 2i+1, where VideoX permutes each batch: a batch is in random order already, and neighbours stay
together however it is divided into parts of even size. A last odd clip is blended with itself.

Legend: B clips, T frames, H and W pixels, N classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["MixDraw", "draw_mix", "mix", "soft_targets"]


@dataclass(frozen=True)
class MixDraw:
    """How clips are blended with their partners.

    Args:
        own_share: lambda, the share of a clip's own targets; in mixup also of its own pixels.
        box: top, left, bottom, right of what CutMix takes from the partner, in pixels; None in mixup.
    """

    own_share: float
    box: tuple[int, int, int, int] | None = None


def soft_targets(labels: torch.Tensor, num_classes: int, smoothing: float) -> torch.Tensor:
    """Class ids (B,) -> float32 (B,N): smoothing / N everywhere, and 1 - smoothing more at the class."""
    return torch.nn.functional.one_hot(labels, num_classes) * (1 - smoothing) + smoothing / num_classes


def draw_mix(
    generator: torch.Generator,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    cutmix_probability: float,
    height: int,
    width: int,
) -> MixDraw:
    """CutMix with its probability, else mixup; the share is drawn from Beta(alpha, alpha).

    An alpha of 0 switches its kind off, and the other one is always taken.

    Raises:
        ValueError: if both are off.
    """
    if not mixup_alpha and not cutmix_alpha:
        raise ValueError("mixup_alpha and cutmix_alpha are both 0, so there is nothing to draw; make one positive.")
    wants_cutmix = float(torch.rand((), generator=generator)) < cutmix_probability
    if mixup_alpha and (not wants_cutmix or not cutmix_alpha):
        return MixDraw(_draw_beta(mixup_alpha, generator))
    box = _draw_box(_draw_beta(cutmix_alpha, generator), height, width, generator)
    top, left, bottom, right = box
    return MixDraw(1 - (bottom - top) * (right - left) / (height * width), box)


def mix(pixel_values: torch.Tensor, targets: torch.Tensor, draw: MixDraw) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixel values (B,T,3,H,W) and targets (B,N), each clip blended with its partner."""
    partners = _partners(len(pixel_values), pixel_values.device)
    mixed_targets = targets[partners].lerp(targets, draw.own_share)
    if draw.box is None:
        return pixel_values[partners].lerp_(pixel_values, draw.own_share), mixed_targets
    top, left, bottom, right = draw.box
    mixed = pixel_values.clone()
    mixed[..., top:bottom, left:right] = pixel_values[..., top:bottom, left:right][partners]
    return mixed, mixed_targets


def _draw_box(own_share: float, height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Sides of sqrt(1 - lambda), cut to whole pixels, around a pixel drawn uniformly; clipped to the image."""
    side = math.sqrt(1 - own_share)
    (top, bottom), (left, right) = (_draw_interval(int(length * side), length, generator) for length in (height, width))
    return top, left, bottom, right


def _draw_interval(cut: int, length: int, generator: torch.Generator) -> tuple[int, int]:
    centre = int(torch.randint(0, length, (), generator=generator))
    return max(0, centre - cut // 2), min(length, centre + cut // 2)


def _draw_beta(alpha: float, generator: torch.Generator) -> float:
    seed = int(torch.randint(0, 2**63 - 1, (), generator=generator))  # torch's own Beta takes no generator
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def _partners(count: int, device: torch.device) -> torch.Tensor:
    """1, 0, 3, 2, ...; the last one is its own if the count is odd."""
    own = torch.arange(count, device=device)
    return (own ^ 1).clamp(max=count - 1)
