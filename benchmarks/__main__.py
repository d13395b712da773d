"""Runs the benchmarks that take minutes, prints their tables and writes their results.

python -m benchmarks [basics] [moted_cost] [augmentation] [training]

Not among them: benchmarks.moted_ablation, which takes most of an hour, and what else benchmarks.training
measures: waiting for data, and steps on a GPU.
"""

from __future__ import annotations

import argparse

from . import augmentation, basics, moted_cost, training
from .harness import run

GROUPS = {
    "basics": basics.BENCHMARKS,
    "moted_cost": moted_cost.BENCHMARKS,
    "augmentation": augmentation.BENCHMARKS,
    "training": training.BENCHMARKS,
}


def main() -> None:
    """Runs the groups that are named, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures time and memory.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{' or '.join(GROUPS)}; all by default")
    names = parser.parse_args().groups or [*GROUPS]
    if unknown := [name for name in names if name not in GROUPS]:
        parser.error(f"unknown groups {unknown}; choose from {', '.join(GROUPS)}")
    for name in names:
        run(name, GROUPS[name])


if __name__ == "__main__":
    main()
