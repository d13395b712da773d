"""What every benchmark shares: the circumstances of a number, measuring in turn, peak memory, table and result file.

A benchmark is a list of subjects that are compared. Each says how to prepare what is measured and what to divide it by.
Times are taken in turn, so that a slow minute of the machine meets all subjects; memory in a fresh process each.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from kinetext.doctor import machine
from kinetext.evaluation.evaluator import write_json

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"

_THREADS = 1  # more wait for each other as soon as another process wants a core
_MIB = 2**20


@dataclass(frozen=True)
class Subject:
    """Something to measure.

    Args:
        name: what it is, unique in its benchmark.
        prepare: a function of a module that makes everything ready and returns the call that is measured.
        arguments: of `prepare`.
        relative_to: names of the subjects it is divided by, each behind a short word for the table.
    """

    name: str
    prepare: Callable[..., Callable[[], Any]]
    arguments: tuple[Any, ...] = ()
    relative_to: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """Subjects that are compared with each other.

    Args:
        title: what is compared, on which data.
        subjects: in the order they are measured in.
        repeats: times each is measured, after one call that does not count.
        with_memory: measure peak memory too.
    """

    title: str
    subjects: tuple[Subject, ...]
    repeats: int = 7
    with_memory: bool = False


# Circumstances ------------------------------------------------------------------------------------------------------


def source() -> str:
    """The commit that ran, and which files of the package or the benchmarks differ from it."""
    changed = [line[3:] for line in _git("status", "--porcelain", "--", "kinetext", "benchmarks/*.py").splitlines()]
    return _git("rev-parse", "HEAD").strip() + (f" with uncommitted {', '.join(changed)}" if changed else "")


def command() -> str:
    """How this process was launched."""
    module = Path(sys.argv[0]).with_suffix("")
    name = "benchmarks" if module.name == "__main__" else f"benchmarks.{module.name}"
    return shlex.join(["python", "-m", name, *sys.argv[1:]])


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


# Measuring ----------------------------------------------------------------------------------------------------------


def measure(benchmark: Benchmark) -> dict[str, Any]:
    """Every repetition, medians and ratios of a benchmark, ready for JSON."""
    calls = {subject.name: _prepared(subject.prepare, subject.arguments) for subject in benchmark.subjects}
    seconds = seconds_in_turn(calls, benchmark.repeats)
    del calls
    measured: dict[str, dict[str, Any]] = {}
    for subject in benchmark.subjects:
        times = seconds[subject.name]
        measured[subject.name] = {"name": subject.name, "seconds": times, "median_s": statistics.median(times)}
        if benchmark.with_memory:
            measured[subject.name]["peak_mib"] = peak_memory(subject.prepare, subject.arguments) / _MIB
    for subject in benchmark.subjects:
        own = measured[subject.name]
        own["relative_to"] = {word: _ratios(own, measured[other]) for word, other in subject.relative_to.items()}
    return {"benchmark": benchmark.title, "repeats": benchmark.repeats, "measurements": list(measured.values())}


def seconds_in_turn(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, one after the other, again and again; a first round warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def peak_memory(prepare: Callable[..., Callable[[], Any]], arguments: Sequence[Any] = ()) -> int:
    """Bytes that one call needs at its peak beyond what was there before it, in a fresh process (Linux only)."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_peak_of_call, prepare, tuple(arguments)).result()


def _peak_of_call(prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> int:
    # Not `getrusage().ru_maxrss`: a new process starts with the maximum of the one that launched it.
    torch.set_num_threads(_THREADS)
    _give_back_what_is_freed()
    call = _prepared(prepare, arguments)
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # sets the peak to what is there now
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _give_back_what_is_freed() -> None:
    """Lets glibc map every tensor by itself; else it keeps freed memory, and peaks differ from process to process."""
    mmap_threshold = -3  # M_MMAP_THRESHOLD of malloc.h
    ctypes.CDLL(None).mallopt(mmap_threshold, 2**16)


def _prepared(prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> Callable[[], Any]:
    torch.manual_seed(0)
    return prepare(*arguments)


def _resident(name: str) -> int:
    """Bytes of memory of this process: VmRSS now, VmHWM at the peak."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {name}; peak memory is measured on Linux only.")
    return 1024 * int(found[1])


def _ratios(own: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Of times the median over rounds: what slows a whole round down drops out."""
    of_rounds = [seconds / others for seconds, others in zip(own["seconds"], other["seconds"], strict=True)]
    ratios = {"time": statistics.median(of_rounds)}
    return ratios | ({"memory": own["peak_mib"] / other["peak_mib"]} if "peak_mib" in own else {})


# Result -------------------------------------------------------------------------------------------------------------


def run(name: str, benchmarks: Sequence[Benchmark]) -> None:
    """Measures the benchmarks of one name, prints their tables and writes results/<name>.json."""
    torch.set_num_threads(_THREADS)
    console = Console()
    with writing(name) as results:
        for benchmark in benchmarks:
            results.append(measure(benchmark))
            console.print(table_of(results[-1]))


@contextmanager
def writing(name: str) -> Iterator[list[dict[str, Any]]]:
    """A list whose entries are written to results/<name>.json at the end, with their circumstances."""
    started, results = time.perf_counter(), list[dict[str, Any]]()
    circumstances = {
        "command": command(),
        "source": source(),
        "machine": machine(),
        "load_average_before": os.getloadavg()[0],  # of the last minute
    }
    yield results
    path = RESULTS / f"{name}.json"
    write_json(path, {**circumstances, "results": results})
    seconds = time.perf_counter() - started
    Console().print(f"{seconds:.0f} s; written to {path.relative_to(REPOSITORY)}\n")


def table_of(result: dict[str, Any]) -> Table:
    """The medians of one benchmark, and its ratios."""
    has_memory = "peak_mib" in result["measurements"][0]
    table = Table(title=f"{result['benchmark']}; medians of {result['repeats']} rounds", title_justify="left")
    for column in ("", "time", "ratio", *(("peak memory", "ratio") if has_memory else ())):
        table.add_column(column, justify="left" if column == "" else "right")
    for row in result["measurements"]:
        cells = [f"{row['median_s']:.3f} s", _ratio_cell(row, "time")]
        if has_memory:
            cells += [f"{row['peak_mib']:.0f} MiB", _ratio_cell(row, "memory")]
        table.add_row(row["name"], *cells)
    return table


def _ratio_cell(row: dict[str, Any], quantity: str) -> str:
    return "\n".join(f"{ratios[quantity]:.2f} × {word}" for word, ratios in row["relative_to"].items())
