"""Clips per second that come out of a `DataLoader`, by number of worker processes.

python -m benchmarks.scaling
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

from kinetext import VideoTextProcessor
from kinetext.data.clip_lists import Clip, ClipList
from kinetext.data.datasets import EpochSampler, EvalClips, TrainClips

from .harness import Benchmark, Subject, run
from .natural_clips import ClipSet

CLIPS = ClipSet(340, 256, 16)
BATCH_SIZE = 4
WORKERS = (0, 1, 2)


def loading(kind: str, num_workers: int) -> Callable[[], Any]:
    """One pass over the clips as training or evaluation reads them; workers live on between passes."""
    paths = CLIPS.paths()
    clips = ClipList(tuple(Clip(path.name, path, 0) for path in paths), ("any",))
    processor = VideoTextProcessor()
    options: dict[str, Any] = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    if kind == "training":
        dataset: Any = TrainClips(clips, processor, seed=0)
        options |= {"sampler": EpochSampler(len(clips), seed=0), "collate_fn": dataset.collate}
    else:
        dataset = EvalClips(clips, processor)
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, **options)
    return lambda: sum(1 for _ in loader)


def loader_benchmark(kind: str) -> Benchmark:
    """Each number of workers against none."""
    return Benchmark(
        f"DataLoader of {CLIPS.num_clips} clips of 10 s, {CLIPS.width}x{CLIPS.height}, 8 frames, for {kind}",
        tuple(
            Subject(
                f"{number} workers", loading, (kind, number), {"none": "0 workers"} if number else {}, CLIPS.num_clips
            )
            for number in WORKERS
        ),
        repeats=5,
        threads=2,
        unit="clips",
        headline=f"clips from files for {kind}",
    )


BENCHMARKS = tuple(loader_benchmark(kind) for kind in ("training", "evaluation"))

if __name__ == "__main__":
    run("scaling", BENCHMARKS)
