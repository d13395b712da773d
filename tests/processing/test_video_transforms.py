"""Resizing against PIL, crops by where they come from, and normalisation by its formula."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from kinetext.processing.processing_video_text import IMAGENET_MEAN, IMAGENET_STD
from kinetext.processing.video_transforms import (
    centre_crop,
    normalise,
    resize,
    resize_short_side,
    three_crops,
)

PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def smooth_frames(height: int, width: int) -> torch.Tensor:
    """(2,3,H,W) uint8 waves over the whole range of values."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    waves = [torch.sin(2 * torch.pi * (a * x + b * y + c)) for a, b, c in ((1, 0, 0), (0, 2, 0.1), (1, 1, 0.4))]
    frame = ((torch.stack(waves) + 1) * 127.5).round().to(torch.uint8)
    return torch.stack([frame, 255 - frame])


def position_frames(height: int, width: int) -> torch.Tensor:
    """(1,3,H,W) uint8 whose red is the row and whose green is the column."""
    rows = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.uint8)[None, :].expand(height, width)
    return torch.stack([rows, columns, torch.zeros_like(rows)])[None]


def corner(crop: torch.Tensor) -> tuple[int, int]:
    """(row, column) that the first pixel of an unscaled crop of `position_frames` comes from."""
    return int(crop[0, 0, 0, 0]), int(crop[0, 1, 0, 0])


# -------------------------------------------------------------------------------------------------------- resize


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 48), (150, 200), (64, 300), (17, 13)], ids=str)
def test_resize_equals_antialiased_pil(size: tuple[int, int], interpolation: str) -> None:
    frames = smooth_frames(100, 140)
    resized = resize(frames, *size, interpolation)
    assert resized.dtype == torch.uint8
    for frame, result in zip(frames, resized, strict=True):
        image = Image.fromarray(frame.permute(1, 2, 0).numpy())
        expected = np.asarray(image.resize((size[1], size[0]), PIL_FILTERS[interpolation]), dtype=int)
        assert np.abs(result.permute(1, 2, 0).numpy() - expected).max() <= 2


def test_of_pictures_that_are_mostly_length_the_middle_is_kept() -> None:
    frames = torch.zeros(1, 3, 2, 400, dtype=torch.uint8)
    frames[..., 184:216] = 200  # 16 times as long as high
    assert resize_short_side(frames, 32).shape == (1, 3, 32, 512)
    assert (resize_short_side(frames, 32) == 200).all()
    assert resize_short_side(frames.mT, 32).equal(resize_short_side(frames, 32).mT)
    assert resize_short_side(torch.zeros(1, 3, 2, 32, dtype=torch.uint8), 32).shape == (1, 3, 32, 512)


def test_resize_is_antialiased() -> None:
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(32).expand(1, 3, 64, 64)
    assert (resize(stripes, 8, 8).int() - 127).abs().max() <= 16  # without antialiasing it would be 0 or 255


def test_resize_to_the_same_size_is_the_same_tensor() -> None:
    frames = smooth_frames(20, 30)
    assert resize(frames, 20, 30) is frames


def test_resize_refuses_an_unknown_interpolation() -> None:
    message = "unknown interpolation 'nearest'; choose one of bilinear, bicubic."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resize(smooth_frames(8, 8), 8, 8, "nearest")


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (120, 160, (64, 85)),
        (160, 120, (85, 64)),
        (64, 64, (64, 64)),
        (10, 160, (64, 1024)),
        (1, 1, (64, 64)),
        (97, 98, (64, 65)),
    ],
)
def test_the_short_side_becomes_the_size_and_the_ratio_stays(
    height: int, width: int, expected: tuple[int, int]
) -> None:
    assert resize_short_side(torch.zeros(1, 3, height, width, dtype=torch.uint8), 64).shape[-2:] == expected


# --------------------------------------------------------------------------------------------------------- crops


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(40, 60, (4, 14)), (61, 33, (14, 0)), (32, 32, (0, 0))], ids=str
)
def test_the_centre_crop_is_in_the_centre(height: int, width: int, expected: tuple[int, int]) -> None:
    crop = centre_crop(position_frames(height, width), 32)
    assert crop.shape == (1, 3, 32, 32)
    assert corner(crop) == expected


def test_three_crops_go_along_the_longer_side() -> None:
    assert [corner(crop) for crop in three_crops(position_frames(32, 61), 32)] == [(0, 0), (0, 14), (0, 29)]
    assert [corner(crop) for crop in three_crops(position_frames(60, 32), 32)] == [(0, 0), (14, 0), (28, 0)]
    assert [corner(crop) for crop in three_crops(position_frames(32, 32), 32)] == [(0, 0)] * 3


# -------------------------------------------------------------------------------------------------- normalisation


def test_normalisation_follows_its_formula() -> None:
    frames = torch.arange(256, dtype=torch.uint8).expand(2, 3, 4, 256)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    result = normalise(frames, IMAGENET_MEAN, IMAGENET_STD)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), (frames.double() / 255 - mean) / std, rtol=0, atol=1e-6)


def test_frames_stay_uint8_until_they_are_normalised() -> None:
    frames = smooth_frames(40, 50)
    steps = [resize_short_side(frames, 36), centre_crop(frames, 32), *three_crops(frames, 40)]
    assert {step.dtype for step in steps} == {torch.uint8}
