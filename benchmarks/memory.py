"""Whether decoding leaks: resident memory over thousands of decodes, of sound and damaged files, by all decoders.

python -m benchmarks.memory [--decodes 5000]

What is allocated once is there after the first `WARM_UP` decodes. After those, neither the peak nor the median of what
is resident may grow by more than `LIMIT_MIB`.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from kinetext.processing.frame_sampling import sample_frames
from kinetext.processing.video_decoding import VideoDecodeError, available_decoders, load_video

from .fuzz import Corpus, real_files
from .harness import forget_peak, in_fresh_process, resident, writing

DECODES, DECODES_OF_MAKE_BENCH = 5000, 1000
WARM_UP = 500
LIMIT_MIB = 20.0
NUM_FRAMES = 8
_DAMAGED_FILES = 30
_MIB = 2**20


def write_files(folder: Path) -> list[Path]:
    """The sound files of `benchmarks.fuzz`, and damaged ones made of them."""
    corpus = Corpus.of(real_files(), folder)
    damaged = []
    for case in range(_DAMAGED_FILES):
        source, _, data = corpus.damaged(case)
        damaged.append(folder / f"damaged_{case}{source.path.suffix}")
        damaged[-1].write_bytes(data)
    return [source.path for source in corpus.sources] + damaged


def decode_again_and_again(paths: Sequence[Path], num_decodes: int) -> dict[str, Any]:
    """Resident MiB after every pass over all files and decoders, and the peaks of the warm-up and of what follows.

    Only whole passes are made, so that the file that was read last is always the same.

    Raises:
        ValueError: if there are too few decodes for two passes after the warm-up.
    """
    decoders = [name for name, version in available_decoders().items() if version is not None]
    pairs = list(itertools.product(paths, decoders))
    warm_up, num_passes = math.ceil(WARM_UP / len(pairs)), num_decodes // len(pairs)
    if num_passes < warm_up + 2:
        raise ValueError(f"{num_decodes} decodes are too few; take at least {(warm_up + 2) * len(pairs)}.")
    torch.set_num_threads(1)
    peak_of_warm_up, resident_mib, refused = 0.0, [], 0
    for number in track(range(1, num_passes + 1), "decoding again and again"):
        refused += sum(_is_refused(*pair) for pair in pairs)
        resident_mib.append(resident("VmRSS") / _MIB)
        if number == warm_up:
            peak_of_warm_up = resident("VmHWM") / _MIB
            forget_peak()
    return {
        "files": len(paths),
        "decoders": decoders,
        "decodes": num_passes * len(pairs),
        "refused": refused,
        "passes_of_warm_up": warm_up,
        "resident_mib": resident_mib,
        "peak_of_warm_up_mib": peak_of_warm_up,
        "peak_after_mib": resident("VmHWM") / _MIB,
    }


def _is_refused(path: Path, decoder: str) -> bool:
    try:
        load_video(path, indices=lambda total: sample_frames(total, NUM_FRAMES)[0], decoder=decoder)
    except VideoDecodeError:
        return True
    return False


def growth_mib(run: dict[str, Any]) -> dict[str, float]:
    """How much more memory is in use after the warm-up: at the peaks, and in the later half beside the earlier one."""
    after = run["resident_mib"][run["passes_of_warm_up"] :]
    half = len(after) // 2
    return {
        "peak": run["peak_after_mib"] - run["peak_of_warm_up_mib"],
        "median": statistics.median(after[half:]) - statistics.median(after[:half]),
    }


def bench(num_decodes: int = DECODES_OF_MAKE_BENCH) -> bool:
    """Writes results/memory.json; whether memory stayed flat."""
    with tempfile.TemporaryDirectory() as folder, writing("memory") as results:
        run = in_fresh_process(decode_again_and_again, write_files(Path(folder)), num_decodes)
        growth = growth_mib(run)
        results.append(
            {
                "benchmark": f"resident memory of a process, {run['decodes']} decodes of {NUM_FRAMES} sparse frames",
                "headline": f"growth of memory over {run['decodes']} decodes, after the first {WARM_UP}",
                "figures": [{"name": name, "value": f"{value:+.1f} MiB"} for name, value in growth.items()],
                "limit_mib": LIMIT_MIB,
                **run,
            }
        )
    Console().print(results[0]["figures"], "resident after every pass:", [round(mib) for mib in run["resident_mib"]])
    return max(growth.values()) <= LIMIT_MIB


def main() -> None:
    """Measures; ends with 1 if memory grew by more than the limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Decodes again and again.")
    parser.add_argument("--decodes", type=int, default=DECODES, help=f"how many, {DECODES} by default")
    sys.exit(not bench(parser.parse_args().decodes))


if __name__ == "__main__":
    main()
