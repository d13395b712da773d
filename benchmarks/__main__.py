"""Runs the benchmarks, prints their table and writes benchmarks/results/<machine>.json.

python -m benchmarks
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
REPEATS = 7


def import_times() -> list[float]:
    """Seconds of `import kinetext` and of `import torch, transformers`, alternating; their medians."""
    statements = ("import kinetext", "import torch, transformers")
    seconds: dict[str, list[float]] = {statement: [] for statement in statements}
    for _ in range(REPEATS):
        for statement in statements:
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            seconds[statement].append(time.perf_counter() - started)
    return [statistics.median(seconds[statement]) for statement in statements]


def alternating(first: Callable[[], Any], second: Callable[[], Any]) -> list[float]:
    """Median seconds of two calls, measured in turn after one warm-up each."""
    seconds: list[list[float]] = [[], []]
    for repeat in range(REPEATS + 1):
        for place, call in enumerate((first, second)):
            started = time.perf_counter()
            call()
            if repeat:
                seconds[place].append(time.perf_counter() - started)
    return [statistics.median(times) for times in seconds]


def text_bank_times() -> list[float]:
    """X-CLIP-B/32, one clip of 8 frames, 100 class texts of 8 tokens: with a text bank, and with tokens every time."""
    import torch

    from kinetext import XCLIPConfig, XCLIPModel

    model = XCLIPModel(XCLIPConfig.preset("base-patch32")).eval()
    pixel_values = torch.randn(1, 8, 3, 224, 224)
    input_ids = torch.randint(1, 400, (100, 8))
    bank = model.encode_texts(input_ids)
    with torch.inference_mode():
        return alternating(
            lambda: model(pixel_values=pixel_values, text_bank=bank),
            lambda: model(pixel_values=pixel_values, input_ids=input_ids),
        )


def decoding_times() -> list[float]:
    """8 of 120 frames of a rendered 340x256 H.264 clip: PyAV and decord behind `load_video`."""
    import tempfile

    import numpy as np

    from kinetext import load_video
    from kinetext.data.motion_shapes import write_clip

    frames = np.random.default_rng(0).integers(0, 255, (120, 8, 11, 3), dtype=np.uint8)
    frames = frames.repeat(32, axis=1).repeat(32, axis=2)[:, :256, :340]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(frames, path, fps=30)

        def load(decoder: str) -> Any:
            return load_video(path, indices=lambda total: range(0, total, total // 8), decoder=decoder)

        return alternating(lambda: load("pyav"), lambda: load("decord"))


BENCHMARKS = {
    "import kinetext / import torch, transformers": import_times,
    "X-CLIP-B/32 forward, 100 classes: text bank / tokens": text_bank_times,
    "decode 8 of 120 frames: PyAV / decord": decoding_times,
}


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    import torch
    import transformers

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    """Measures everything, prints the table, writes the result."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="medians, one run", title_justify="left")
    for column in ("comparison", "first", "second", "ratio"):
        table.add_column(column, justify="left" if column == "comparison" else "right")
    rows = []
    for name, measure in BENCHMARKS.items():
        first, second = measure()
        rows.append({"comparison": name, "first_s": first, "second_s": second, "ratio": first / second})
        table.add_row(name, f"{first:.4f} s", f"{second:.4f} s", f"{first / second:.2f}")
    Console().print(table)
    result = {"machine": machine(), "repeats": REPEATS, "results": rows}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"cpu-{os.cpu_count()}-cores.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
