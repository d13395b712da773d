"""Runs the benchmarks that take minutes, prints their tables, and one table of all results.

python -m benchmarks [GROUP ...]

Not among them, because they take longer: benchmarks.training, moted_cost, moted_ablation and motion_retrieval. Of
end_to_end, memory and fuzz, what runs here is a part; `python -m benchmarks.fuzz` and so on run the whole. Results are
written to the same files, so that the last run is the one that the table shows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from . import augmentation, basics, decoding, end_to_end, fuzz, memory, scaling, tower
from .harness import run
from .report import markdown

SIDE_BY_SIDE = {
    "basics": basics.BENCHMARKS,
    "augmentation": augmentation.BENCHMARKS,
    "decoding": decoding.BENCHMARKS,
    "tower": tower.BENCHMARKS,
    "scaling": scaling.BENCHMARKS,
}
GROUPS: dict[str, Callable[[], Any]] = {
    "end_to_end": end_to_end.bench,
    **{name: partial(run, name, benchmarks) for name, benchmarks in SIDE_BY_SIDE.items()},
    "memory": memory.bench,
    "fuzz": fuzz.bench,
}


def main() -> None:
    """Runs the groups that are named, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures time and memory.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{' or '.join(GROUPS)}; all by default")
    names = parser.parse_args().groups or [*GROUPS]
    if unknown := [name for name in names if name not in GROUPS]:
        parser.error(f"unknown groups {unknown}; choose from {', '.join(GROUPS)}")
    for name in names:
        GROUPS[name]()
    print(markdown())


if __name__ == "__main__":
    main()
