"""Importing, classifying with a text bank, decoding.

python -m benchmarks.basics
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinetext import XCLIPConfig, XCLIPModel, load_video
from kinetext.data.motion_shapes import write_clip

from .harness import Benchmark, Subject, run


def importing(statement: str) -> Callable[[], Any]:
    """A statement in a fresh Python."""
    return lambda: subprocess.run([sys.executable, "-c", statement], check=True)


def classifying(with_bank: bool) -> Callable[[], Any]:
    """X-CLIP-B/32 on one clip of 8 frames and 100 class texts of 8 tokens."""
    model = XCLIPModel(XCLIPConfig.preset("base-patch32")).eval()
    pixel_values, input_ids = torch.randn(1, 8, 3, 224, 224), torch.randint(1, 400, (100, 8))
    texts = {"text_bank": model.encode_texts(input_ids)} if with_bank else {"input_ids": input_ids}
    return torch.inference_mode()(lambda: model(pixel_values=pixel_values, **texts))


def decoding(decoder: str) -> Callable[[], Any]:
    """8 of 120 frames of a rendered clip."""
    frames = np.random.default_rng(0).integers(0, 255, (120, 8, 11, 3), dtype=np.uint8)
    frames = frames.repeat(32, axis=1).repeat(32, axis=2)[:, :256, :340]
    folder = tempfile.TemporaryDirectory()  # removed with the call that holds it
    path = Path(folder.name) / "clip.mp4"
    write_clip(frames, path, fps=30)

    def decode(folder: Any = folder) -> Any:
        return load_video(path, indices=lambda total: range(0, total, total // 8), decoder=decoder)

    return decode


BENCHMARKS = (
    Benchmark(
        "import in a fresh Python",
        (
            Subject("import torch, transformers", importing, ("import torch, transformers",)),
            Subject(
                "import kinetext",
                importing,
                ("import kinetext",),
                {"torch, transformers": "import torch, transformers"},
            ),
        ),
    ),
    Benchmark(
        "X-CLIP-B/32 forward, 1 clip of 8 frames, 100 class texts of 8 tokens",
        (
            Subject("tokens every time", classifying, (False,)),
            Subject("text bank", classifying, (True,), {"tokens": "tokens every time"}),
        ),
    ),
    Benchmark(
        "8 of 120 frames of a 340x256 H.264 clip",
        (Subject("PyAV", decoding, ("pyav",)), Subject("decord", decoding, ("decord",), {"PyAV": "PyAV"})),
    ),
)

if __name__ == "__main__":
    run("basics", BENCHMARKS)
