"""Flip, colour jitter, grayscale and normalisation of uint8 clips: ours against kornia, where that is installed.

python -m benchmarks.augmentation

Everything is applied to every clip. kornia is no dependency: `pip install --target FOLDER --no-deps kornia kornia_rs`,
with FOLDER on PYTHONPATH, brings it in. It draws factors per frame as we do, but one order for all frames.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from kinetext.data.augmentation import Augmentation, draw_clip, finish_pixels
from kinetext.processing.processing_video_text import IMAGENET_MEAN, IMAGENET_STD

from .harness import Benchmark, Subject, run

ALWAYS = Augmentation(flip_probability=1.0, color_jitter_probability=1.0, grayscale_probability=1.0)
NUM_FRAMES, SIZE = 8, 224
HAS_KORNIA = importlib.util.find_spec("kornia") is not None
KORNIA = f"kornia {importlib.metadata.version('kornia')}" if HAS_KORNIA else "kornia (not installed, not measured)"


def clips(num_clips: int) -> torch.Tensor:
    return torch.randint(0, 256, (num_clips, NUM_FRAMES, 3, SIZE, SIZE), dtype=torch.uint8)


def ours(num_clips: int) -> Callable[[], Any]:
    """As training does it: draw, then `finish_pixels`."""
    pixels, generator = clips(num_clips), torch.Generator().manual_seed(0)

    def finish() -> torch.Tensor:
        draws = [draw_clip(ALWAYS, SIZE, SIZE, NUM_FRAMES, SIZE, generator) for _ in range(num_clips)]
        return finish_pixels(pixels, draws, IMAGENET_MEAN, IMAGENET_STD)

    return finish


def kornias(num_clips: int) -> Callable[[], Any]:
    """The same with kornia's modules, on frames: random factors for each."""
    from kornia.augmentation import ColorJitter, Normalize, RandomGrayscale, RandomHorizontalFlip

    pixels = clips(num_clips)
    steps = torch.nn.Sequential(
        RandomHorizontalFlip(p=1.0),
        ColorJitter(*ALWAYS.color_jitter, p=1.0),
        RandomGrayscale(p=1.0),
        Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
    )
    return torch.inference_mode()(lambda: steps(pixels.flatten(0, 1).float() / 255).unflatten(0, (num_clips, -1)))


def compared(num_clips: int) -> Benchmark:
    """Both on as many clips."""
    subjects = [Subject("kinetext", ours, (num_clips,))]
    if HAS_KORNIA:
        subjects = [
            Subject("kornia", kornias, (num_clips,)),
            Subject("kinetext", ours, (num_clips,), {"kornia": "kornia"}),
        ]
    title = f"flip, colour jitter, grayscale, normalisation of {num_clips}x{NUM_FRAMES}x{SIZE}x{SIZE}; {KORNIA}"
    return Benchmark(title, tuple(subjects), repeats=15)


BENCHMARKS = (compared(1), compared(8))

if __name__ == "__main__":
    run("augmentation", BENCHMARKS)
