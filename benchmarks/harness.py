"""What every benchmark shares: the circumstances of a number, measuring in turn, peak memory, table and result file.

A benchmark is a list of subjects that are compared. Each says how to prepare what is measured and what to divide it by.
Times are taken in turn, so that a slow minute of the machine meets all subjects; memory in a fresh process each.

A result is a dictionary: its circumstances, and under "results" one entry per benchmark, as `measure` makes it. What
fits no benchmark is an entry with "benchmark" and "figures", a list of {"name", "value"}. `benchmarks.report` makes one
table of all results.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import torch
from rich.console import Console
from rich.table import Column, Table

from kinetext.doctor import machine
from kinetext.evaluation.evaluator import write_json

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"

_MIB = 2**20
# Instruction sets that decide how fast a CPU multiplies matrices, by their names in /proc/cpuinfo.
_INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Subject:
    """Something to measure.

    Args:
        name: what it is, unique in its benchmark.
        prepare: a function of a module that makes everything ready and returns the call that is measured.
        arguments: of `prepare`.
        relative_to: names of the subjects it is divided by, each behind a short word for the table.
        work: what one call does, in the benchmark's `unit`; 0 where seconds say it all.
    """

    name: str
    prepare: Callable[..., Callable[[], Any]]
    arguments: tuple[Any, ...] = ()
    relative_to: Mapping[str, str] = field(default_factory=dict)
    work: float = 0.0


@dataclass(frozen=True)
class Benchmark:
    """Subjects that are compared with each other.

    Args:
        title: what is compared, on which data.
        subjects: in the order they are measured in.
        repeats: times each is measured, after one call that does not count; 0 measures memory alone.
        with_memory: measure peak memory too.
        threads: of torch, for all subjects alike. More than one wait for each other as soon as another process wants a
            core.
        unit: what `work` of the subjects counts, such as "clips".
        ceiling: names of the subjects whose best rate is 100 %; what others reach of it is their share.
        headline: what the summary of `benchmarks.report` calls it; "" leaves it out.
    """

    title: str
    subjects: tuple[Subject, ...]
    repeats: int = 7
    with_memory: bool = False
    threads: int = 1
    unit: str = ""
    ceiling: tuple[str, ...] = ()
    headline: str = ""


# Circumstances ------------------------------------------------------------------------------------------------------


def circumstances() -> dict[str, Any]:
    """What ran, on what, and how busy the machine was in the last minute."""
    return {
        "command": command(),
        "source": source(),
        "machine": {
            **machine(),
            "instructions": _instructions(),
            "libavcodec": _dotted(av.library_versions["libavcodec"]),
        },
        "load_average_before": os.getloadavg()[0],
    }


def _instructions() -> str:
    try:
        flags = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        flags = None
    present = flags[1].split() if flags else []
    return " ".join(name for name in _INSTRUCTIONS if name in present) or "unknown"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


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
    """Every repetition, medians, rates and ratios of a benchmark, ready for JSON."""
    measured: dict[str, dict[str, Any]] = {subject.name: {"name": subject.name} for subject in benchmark.subjects}
    if benchmark.repeats:
        _add_times(measured, benchmark)
    for subject in benchmark.subjects if benchmark.with_memory else ():
        peak = peak_memory(subject.prepare, subject.arguments, threads=benchmark.threads)
        measured[subject.name]["peak_mib"] = peak / _MIB
    for subject in benchmark.subjects:
        own = measured[subject.name]
        own["relative_to"] = {
            word: {"subject": other, **_ratios(own, measured[other])} for word, other in subject.relative_to.items()
        }
    described = {name: getattr(benchmark, name) for name in ("repeats", "threads", "unit", "headline")}
    return {"benchmark": benchmark.title, **described, "measurements": list(measured.values())}


def _add_times(measured: Mapping[str, dict[str, Any]], benchmark: Benchmark) -> None:
    """Adds seconds, their median and stages; with `unit` the rate, with `ceiling` what it is of the best one."""
    torch.set_num_threads(benchmark.threads)
    calls = {subject.name: _prepared(subject.prepare, subject.arguments) for subject in benchmark.subjects}
    rounds = rounds_in_turn(calls, benchmark.repeats)
    for subject in benchmark.subjects:
        own = measured[subject.name]
        own["seconds"] = [timed.seconds for timed in rounds[subject.name]]
        own["median_s"] = statistics.median(own["seconds"])
        if stages := _medians_of_stages(rounds[subject.name]):
            own["stages_s"] = stages
        if subject.work:
            own["rate"] = subject.work / own["median_s"]
    if benchmark.ceiling:
        best = max(measured[name]["rate"] for name in benchmark.ceiling)
        for own in measured.values():
            own["share"] = own["rate"] / best


@dataclass(frozen=True)
class Timed:
    """Seconds of one call, and of the stages that it marked."""

    seconds: float
    stages: Mapping[str, float]


_running_stages: dict[str, float] = {}


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Counts the block as a stage of the call that is being measured."""
    started = time.perf_counter()
    try:
        yield
    finally:
        _running_stages[name] = _running_stages.get(name, 0.0) + time.perf_counter() - started


def mark_stage(owner: Any, method: str, name: str) -> None:
    """Counts every call of a method of this one object, such as `forward` of a module, as a stage."""
    function = getattr(owner, method)

    def marked(*args: Any, **kwargs: Any) -> Any:
        with stage(name):
            return function(*args, **kwargs)

    setattr(owner, method, marked)


def rounds_in_turn(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[Timed]]:
    """Each call timed, one after the other, again and again; a first round warms up and does not count."""
    rounds: dict[str, list[Timed]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            timed = _timed(call)
            if repeat:
                rounds[name].append(timed)
    return rounds


def _timed(call: Callable[[], Any]) -> Timed:
    _running_stages.clear()
    started = time.perf_counter()
    call()
    return Timed(time.perf_counter() - started, dict(_running_stages))


def _medians_of_stages(rounds: Sequence[Timed]) -> dict[str, float]:
    names = dict.fromkeys(name for timed in rounds for name in timed.stages)
    return {name: statistics.median(timed.stages.get(name, 0.0) for timed in rounds) for name in names}


def peak_memory(prepare: Callable[..., Callable[[], Any]], arguments: Sequence[Any] = (), *, threads: int = 1) -> int:
    """Bytes that one call needs at its peak beyond what was there before it, in a fresh process (Linux only)."""
    return in_fresh_process(_peak_of_call, prepare, tuple(arguments), threads)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` of a module returns in a Python that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _peak_of_call(prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...], threads: int) -> int:
    # Not `getrusage().ru_maxrss`: a new process starts with the maximum of the one that launched it.
    torch.set_num_threads(threads)
    _give_back_what_is_freed()
    call = _prepared(prepare, arguments)
    forget_peak()
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def forget_peak() -> None:
    """Sets the peak memory of this process to what is there now."""
    Path("/proc/self/clear_refs").write_text("5", "utf-8")


def _give_back_what_is_freed() -> None:
    """Lets glibc map every tensor by itself; else it keeps freed memory, and peaks differ from process to process."""
    mmap_threshold = -3  # M_MMAP_THRESHOLD of malloc.h
    ctypes.CDLL(None).mallopt(mmap_threshold, 2**16)


def _prepared(prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> Callable[[], Any]:
    torch.manual_seed(0)
    return prepare(*arguments)


def resident(name: str) -> int:
    """Bytes of memory of this process: VmRSS now, VmHWM at the peak."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {name}; peak memory is measured on Linux only.")
    return 1024 * int(found[1])


def _ratios(own: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Of times the median over rounds: what slows a whole round down drops out."""
    ratios: dict[str, float] = {}
    if "seconds" in own:
        of_rounds = [seconds / others for seconds, others in zip(own["seconds"], other["seconds"], strict=True)]
        ratios["time"] = statistics.median(of_rounds)
    if "peak_mib" in own:
        ratios["memory"] = own["peak_mib"] / other["peak_mib"]
    return ratios


# Result -------------------------------------------------------------------------------------------------------------


def run(name: str, benchmarks: Iterable[Benchmark]) -> None:
    """Measures the benchmarks of one name, prints their tables and writes results/<name>.json."""
    with writing(name) as results:
        for benchmark in benchmarks:
            results.append(measure(benchmark))
            Console().print(table_of(results[-1]))


@contextmanager
def writing(name: str) -> Iterator[list[dict[str, Any]]]:
    """A list whose entries are written to results/<name>.json at the end, with their circumstances."""
    started, results = time.perf_counter(), list[dict[str, Any]]()
    known = circumstances()
    yield results
    path = RESULTS / f"{name}.json"
    write_json(path, {**known, "results": results})
    seconds = time.perf_counter() - started
    Console().print(f"{seconds:.0f} s; written to {os.path.relpath(path)}\n")


def table_of(result: dict[str, Any]) -> Table:
    """One benchmark: medians with the fastest and the slowest round, stages, rates, shares, memory, and ratios."""
    columns = {
        "time": (
            "median_s",
            lambda row: f"{_seconds(row['median_s'])} ({_span(row['seconds'])})\n{_stages(row)}".rstrip(),
        ),
        "time ratio": ("median_s", lambda row: _ratio_cell(row, "time")),
        f"{result['unit']}/s": ("rate", lambda row: f"{row['rate']:.3g}"),
        "share": ("share", lambda row: f"{row['share']:.0%}"),
        "peak memory": ("peak_mib", lambda row: f"{row['peak_mib']:.0f} MiB"),
        "memory ratio": ("peak_mib", lambda row: _ratio_cell(row, "memory")),
    }
    rows = result["measurements"]
    shown = {title: cell for title, (key, cell) in columns.items() if any(key in row for row in rows)}
    rounds = f"; medians (range) of {result['repeats']} rounds" if result["repeats"] else ""
    title = f"{result['benchmark']}{rounds}; {result['threads']} threads"
    table = Table("", *(Column(name, justify="right") for name in shown), title=title, title_justify="left")
    for row in rows:
        table.add_row(row["name"], *(cell(row) for cell in shown.values()))
    return table


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"


def _span(seconds: Sequence[float]) -> str:
    return f"{_seconds(min(seconds))} to {_seconds(max(seconds))}"


def _stages(row: dict[str, Any]) -> str:
    return "\n".join(f"{name} {_seconds(seconds)}" for name, seconds in row.get("stages_s", {}).items())


def _ratio_cell(row: dict[str, Any], quantity: str) -> str:
    return "\n".join(f"{ratios[quantity]:.2f} × {word}" for word, ratios in row["relative_to"].items())
