"""Whether decoding leaks: resident memory over thousands of decodes, of sound and damaged files, by each decoder.

python -m benchmarks.memory [--decodes 5000]

What is allocated once is there after the first `WARM_UP` decodes. After those, neither the peak nor the median of what
is resident may grow by more than `LIMIT_MIB` on sound files. Buffers of damaged files have odd sizes, which leave holes
in the heap of glibc: there it grows in steps, and with MALLOC_MMAP_THRESHOLD_=65536 in the environment it does not.
"""

from __future__ import annotations

import argparse
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


def write_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The sound files of `benchmarks.fuzz`, and damaged ones made of them."""
    corpus = Corpus.of(real_files(), folder)
    damaged = []
    for case in range(_DAMAGED_FILES):
        source, _, data = corpus.damaged(case)
        damaged.append(folder / f"damaged_{case}{source.path.suffix}")
        damaged[-1].write_bytes(data)
    return [source.path for source in corpus.sources], damaged


def decode_again_and_again(paths: Sequence[Path], num_decodes: int, decoder: str) -> dict[str, Any]:
    """Resident MiB after every pass over all files, and the peaks of the warm-up and of what follows.

    Only whole passes are made, so that the file that was read last is always the same.

    Raises:
        ValueError: if there are too few decodes for two passes after the warm-up.
    """
    warm_up, num_passes = math.ceil(WARM_UP / len(paths)), num_decodes // len(paths)
    if num_passes < warm_up + 2:
        raise ValueError(f"{num_decodes} decodes are too few; take at least {(warm_up + 2) * len(paths)}.")
    torch.set_num_threads(1)
    peak_of_warm_up, resident_mib, refused = 0.0, [], 0
    for number in track(range(1, num_passes + 1), f"decoding again and again, {decoder}"):
        refused += sum(_is_refused(path, decoder) for path in paths)
        resident_mib.append(resident("VmRSS") / _MIB)
        if number == warm_up:
            peak_of_warm_up = resident("VmHWM") / _MIB
            forget_peak()
    return {
        "files": len(paths),
        "decoder": decoder,
        "decodes": num_passes * len(paths),
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
    """Writes results/memory.json, each run in a process of its own; whether that of the default decoder stayed flat."""
    decoders = [name for name, version in available_decoders().items() if version is not None]
    with tempfile.TemporaryDirectory() as folder, writing("memory") as results:
        sound, damaged = write_files(Path(folder))
        kinds = {"sound files": sound, "half of them damaged": sound + damaged}
        runs = [
            {"kind": kind, **in_fresh_process(decode_again_and_again, paths, num_decodes, decoder)}
            for decoder in decoders
            for kind, paths in kinds.items()
        ]
        figures = [
            {"name": f"{run['decoder']}, {run['kind']}, {name}", "value": f"{value:+.1f} MiB"}
            for run in runs
            for name, value in growth_mib(run).items()
        ]
        results.append(
            {
                "benchmark": f"resident memory of a process, {num_decodes} decodes of {NUM_FRAMES} sparse frames",
                "headline": f"growth of memory over {num_decodes} decodes, after the first {WARM_UP}",
                "figures": figures,
                "limit_mib": LIMIT_MIB,
                "runs": runs,
            }
        )
    Console().print(figures)
    return max(growth_mib(runs[0]).values()) <= LIMIT_MIB  # of sound files


def main() -> None:
    """Measures; ends with 1 if memory grew by more than the limit on sound files with the default decoder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Decodes again and again.")
    parser.add_argument("--decodes", type=int, default=DECODES, help=f"how many, {DECODES} by default")
    sys.exit(not bench(parser.parse_args().decodes))


if __name__ == "__main__":
    main()
