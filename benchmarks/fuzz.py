"""Damaged real clips: what each decoder makes of them, and whether anything but frames or `VideoDecodeError` comes out.

python -m benchmarks.fuzz [--cases 2000]
python -m benchmarks.fuzz --case 17      # that case again: its file is kept and its path printed

A case is a number: with the list of source files it decides source, damage and place, so the numbers in the result are
enough to make any case again. Every decoding runs in a process of its own. A hang, a crash or another exception is a
failure. No decoder sees all damage: how often frames that differ from the sound file's, or another number of them, come
without an error is reported, not forbidden.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from kinetext.data.isolated import Failure, default_jobs, map_isolated
from kinetext.processing.frame_sampling import sample_frames
from kinetext.processing.video_decoding import VideoDecodeError, available_decoders, load_video

from .harness import REPOSITORY, writing
from .natural_clips import ENCODER_GOP, ClipSet

DATA = REPOSITORY.parent / "shared" / "data"
SEED = 7
CASES, CASES_OF_MAKE_BENCH = 2000, 100
TIME_LIMIT_S = 20.0  # of one decoding; the slowest sound one takes a fraction of a second
NUM_FRAMES = 8
_MAX_BYTES, _MAX_PIXELS = 600_000, 30_000_000  # of a source: 2,000 cases are to take minutes
_WEIZMANN_CLIPS = 6
_LEVELS_APART = 0.5  # mean over pixels, of 255: more is another picture
_HEADER_BYTES = 1024
_SEQUENTIAL = "pyav, from the start"
UNHARMED, SHORTENED, WRONG, REFUSED, FAILED = "unharmed", "another length", "other pictures", "refused", "failed"


# Damage -------------------------------------------------------------------------------------------------------------


def _flipped(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, 8 * len(data), rng.choice((1, 10, 100))):
        data[place // 8] ^= 1 << int(place % 8)
    return data


def _overwritten(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    start, stop = _range(data, rng)
    data[start:stop] = rng.bytes(stop - start)
    return data


def _zeroed(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    start, stop = _range(data, rng)
    data[start:stop] = bytes(stop - start)
    return data


def _cut_out(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    start, stop = _range(data, rng)
    del data[start:stop]
    return data


def _truncated(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    return data[: rng.integers(1, len(data))]


def _spliced(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    return data[: rng.integers(1, len(data))] + other[rng.integers(len(other)) :]


def _beheaded(data: bytearray, other: bytes, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, min(len(data), _HEADER_BYTES), rng.choice((1, 8, 64))):
        data[place] = rng.integers(256)
    return data


def _range(data: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    """Up to a tenth of the file, mostly much less."""
    start = int(rng.integers(len(data)))
    return start, min(len(data), start + int(10 ** rng.uniform(0, np.log10(len(data) / 10 + 10))))


DAMAGES: dict[str, Callable[[bytearray, bytes, np.random.Generator], bytearray]] = {
    "bits flipped": _flipped,
    "bytes overwritten": _overwritten,
    "range zeroed": _zeroed,
    "range cut out": _cut_out,
    "truncated": _truncated,
    "spliced with another file": _spliced,
    "header damaged": _beheaded,
}


# Cases --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A sound file, and what reading it from the start gives.

    Args:
        path: of the file.
        total_frames: in it.
        pictures: uint8 (T,H,W,3), the sampled ones.
    """

    path: Path
    total_frames: int
    pictures: np.ndarray

    @classmethod
    def of(cls, path: Path) -> Source | None:
        """None where the file is too large or not sound."""
        if path.stat().st_size > _MAX_BYTES:
            return None
        try:
            frames = load_video(path).frames
        except VideoDecodeError:
            return None
        if frames.numel() > 3 * _MAX_PIXELS:
            return None
        return cls(path, len(frames), frames[_sampled(len(frames))].numpy())


@dataclass(frozen=True)
class Corpus:
    """What cases are made of.

    Args:
        sources: sound files.
        folder: for damaged ones.
    """

    sources: tuple[Source, ...]
    folder: Path

    @classmethod
    def of(cls, paths: Iterable[Path], folder: Path) -> Corpus:
        """The sound ones among some files; the order of the files is part of every case."""
        return cls(tuple(source for path in paths if (source := Source.of(path)) is not None), folder)

    def damaged(self, case: int) -> tuple[Source, str, bytes]:
        """Source, damage and the damaged bytes of a case."""
        rng = np.random.default_rng((SEED, case))
        source, other = (self.sources[index] for index in rng.integers(len(self.sources), size=2))
        damage = [*DAMAGES][case % len(DAMAGES)]
        data = DAMAGES[damage](bytearray(source.path.read_bytes()), other.path.read_bytes(), rng)
        return source, damage, bytes(data)


def real_files() -> list[Path]:
    """Samples, odd files and some clips of Weizmann where shared/data is, and rendered H.264 with B-frames."""
    real = [*sorted((DATA / "samples").glob("*")), *sorted((DATA / "odd").glob("*"))]
    weizmann = sorted((DATA / "weizmann").glob("*/*.avi"))
    rendered = [ClipSet(176, 144, 2, gop=gop, num_frames=60) for gop in (12, ENCODER_GOP)]
    return (
        real
        + weizmann[:: len(weizmann) // _WEIZMANN_CLIPS or 1]
        + [path for clips in rendered for path in clips.paths()]
    )


@functools.cache
def readers() -> dict[str, tuple[str, Any]]:
    """Decoder and `indices` by name: every decoder as the processor calls it, and PyAV without seeking."""
    sparse = {name: (name, _sampled) for name, version in available_decoders().items() if version is not None}
    return {**sparse, _SEQUENTIAL: ("pyav", None)}


def _sampled(total_frames: int) -> list[int]:
    return sample_frames(total_frames, NUM_FRAMES)[0]


def attempt(corpus: Corpus, item: tuple[int, str]) -> tuple[str, str]:
    """Damage and outcome of one case with one reader; what is neither frames nor `VideoDecodeError` is raised."""
    case, reader = item
    torch.set_num_threads(1)
    decoder, indices = readers()[reader]
    source, damage, data = corpus.damaged(case)
    path = corpus.folder / f"{os.getpid()}{source.path.suffix}"
    path.write_bytes(data)
    try:
        frames = load_video(path, indices=indices, decoder=decoder)
    except VideoDecodeError:
        return damage, REFUSED
    finally:
        path.unlink()
    total_frames = frames.total_frames or 0
    pictures = frames.frames if indices is not None else frames.frames[_sampled(total_frames)]
    return damage, _judged(source, total_frames, pictures.numpy())


def attempt_quietly(corpus: Corpus, item: tuple[int, str]) -> tuple[str, str]:
    """`attempt` in a child whose libraries may print what they like."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    return attempt(corpus, item)


def _judged(source: Source, total_frames: int, pictures: np.ndarray) -> str:
    if total_frames != source.total_frames:
        return SHORTENED
    if pictures.shape != source.pictures.shape:
        return WRONG
    differences = np.abs(pictures.astype(np.int16) - source.pictures).mean(axis=(1, 2, 3))
    return UNHARMED if differences.max() <= _LEVELS_APART else WRONG


def fuzz(corpus: Corpus, cases: Sequence[int], *, jobs: int | None = None) -> dict[str, Any]:
    """Every case with every reader: counts, and the numbers of the cases that failed or are wrong without an error."""
    items = [(case, reader) for case in cases for reader in readers()]
    outcomes = map_isolated(
        functools.partial(attempt_quietly, corpus), items, jobs=jobs or default_jobs(), time_limit_s=TIME_LIMIT_S
    )
    counts = {reader: Counter[str]() for reader in readers()}
    by_damage: dict[str, Counter[str]] = {damage: Counter() for damage in DAMAGES}
    wrong: dict[str, list[int]] = {reader: [] for reader in readers()}
    failures: list[dict[str, Any]] = []
    for (case, reader), answer in track(outcomes, "decoding damaged clips", total=len(items)):
        if isinstance(answer, Failure):
            damage, outcome = [*DAMAGES][case % len(DAMAGES)], FAILED
            failures.append({"case": case, "reader": reader, "reason": answer.reason})
        else:
            damage, outcome = answer
        counts[reader][outcome] += 1
        by_damage[damage][outcome] += 1
        if outcome in (SHORTENED, WRONG):
            wrong[reader].append(case)
    return {
        "benchmark": f"{len(cases)} damaged clips made of {len(corpus.sources)} sound ones",
        "headline": "damaged clips",
        "seed": SEED,
        "sources": {source.path.name: _digest(source.path) for source in corpus.sources},
        "figures": [{"name": reader, "value": _in_words(counted)} for reader, counted in counts.items()],
        "readers": {reader: dict(counted) for reader, counted in counts.items()},
        "damages": {damage: dict(counted) for damage, counted in by_damage.items()},
        "failures": sorted(failures, key=lambda failure: (failure["case"], failure["reader"])),
        "wrong": {reader: sorted(numbers) for reader, numbers in wrong.items()},
    }


def _in_words(counted: Counter[str]) -> str:
    total = counted.total()
    shares = ", ".join(f"{counted[outcome] / total:.1%} {outcome}" for outcome in (UNHARMED, REFUSED, SHORTENED, WRONG))
    return f"{shares}; {counted[FAILED]} of {total} hang, crash or raise another error"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def bench(num_cases: int = CASES_OF_MAKE_BENCH) -> int:
    """Writes results/fuzz.json; the number of failures."""
    with tempfile.TemporaryDirectory() as folder, writing("fuzz") as results:
        results.append(fuzz(Corpus.of(real_files(), Path(folder)), range(num_cases)))
    Console().print(results[0]["figures"], results[0]["failures"])
    return len(results[0]["failures"])


def remake(case: int) -> None:
    """Keeps the file of one case, and says what every reader makes of it, here in this process."""
    folder = Path(tempfile.mkdtemp())
    corpus = Corpus.of(real_files(), folder)
    source, damage, data = corpus.damaged(case)
    path = folder / f"case_{case}{source.path.suffix}"
    path.write_bytes(data)
    Console().print(f"{path}: {source.path.name}, {damage}")
    for reader in readers():
        try:
            outcome = attempt(corpus, (case, reader))[1]
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        Console().print(f"{reader}: {outcome}")


def main() -> None:
    """Measures, or makes one case again; ends with 1 if a decoding failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description="Decodes damaged clips.")
    parser.add_argument("--cases", type=int, default=CASES, help=f"how many, {CASES} by default")
    parser.add_argument("--case", type=int, help="make this one again instead")
    arguments = parser.parse_args()
    if arguments.case is not None:
        remake(arguments.case)
    else:
        sys.exit(bench(arguments.cases) > 0)


if __name__ == "__main__":
    main()
