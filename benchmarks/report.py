"""One table of what the results say, for the README, which nobody types by hand.

python -m benchmarks.report [--readme README.md]

Without a file it prints the table; with one it replaces what stands there between `<!-- benchmarks -->` and
`<!-- /benchmarks -->`. Results of different machines get tables of their own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kinetext.descriptions.files import write_atomically

from .harness import RESULTS

# The files that are read where they are there, in this order; of them what has a headline.
NAMES = ("end_to_end", "decoding", "tower", "scaling", "memory", "fuzz", "basics", "gpu")
_MARKERS = re.compile(r"(<!-- benchmarks -->\n).*?(<!-- /benchmarks -->)", re.DOTALL)
_HEADER = "| measured | kinetext | beside | how many times as fast |\n|---|---:|---:|---:|"
_VERSIONS = ("python", "torch", "transformers", "av", "decord", "torchcodec")


def markdown(folder: Path = RESULTS) -> str:
    """The tables of all results in a folder, each with what it was measured on and with."""
    files = [json.loads(path.read_text("utf-8")) for name in NAMES if (path := folder / f"{name}.json").exists()]
    files = [file for file in files if any(_rows(result) for result in file["results"])]
    machines = list(dict.fromkeys(_machine(file) for file in files))
    return "\n\n".join(_table([file for file in files if _machine(file) == machine], machine) for machine in machines)


def _table(files: Sequence[dict[str, Any]], machine: str) -> str:
    rows = itertools.chain.from_iterable(_rows(result) for file in files for result in file["results"])
    lines = [_HEADER, *("| " + " | ".join(cells) + " |" for cells in rows)]
    return "\n".join(lines) + f"\n\n{machine}. Medians; in brackets the range over rounds."


def _machine(file: dict[str, Any]) -> str:
    facts = file["machine"]
    versions = ", ".join(f"{name} {facts[name]}" for name in _VERSIONS if name in facts)
    return f"{facts['processor']}, {facts['cores']} cores, {facts.get('instructions', '')}; {versions}"


def _rows(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What is measured, ours, the other, the ratio; nothing for a result that is not for the summary."""
    headline = result.get("headline", "")
    if not headline:
        return []
    if "figures" in result:
        return [(f"{headline}, {figure['name']}", figure["value"], "", "") for figure in result["figures"]]
    return [*_compared(result)]


def _compared(result: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    by_name = {row["name"]: row for row in result["measurements"]}
    for row in result["measurements"]:
        for ratios in row["relative_to"].values():
            other = by_name[ratios["subject"]]
            name = f"{result['headline']}{_apart(row['name'])}"
            if "time" in ratios:
                own_value, other_value = (_speed(each, result["unit"]) for each in (row, other))
                yield name, own_value, f"{other['name']}: {other_value}", _times_as_fast(row, other)
            if "memory" in ratios:
                own_value, other_value = (f"{each['peak_mib']:.0f} MiB" for each in (row, other))
                yield name, own_value, f"{other['name']}: {other_value}", f"{ratios['memory']:.2f} × the memory"


def _apart(subject: str) -> str:
    """What tells a subject from the one that is just ours."""
    return "" if subject == "kinetext" else f", {subject.removeprefix('kinetext, ')}"


def _speed(row: dict[str, Any], unit: str) -> str:
    if "rate" not in row:
        seconds = row["median_s"]
        return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"
    share = f", {row['share']:.0%} of the machine's" if "share" in row else ""
    return f"{row['rate']:.3g} {unit}/s{share}"


def _times_as_fast(row: dict[str, Any], other: dict[str, Any]) -> str:
    of_rounds = [others / own for own, others in zip(row["seconds"], other["seconds"], strict=True)]
    return f"**{statistics.median(of_rounds):.2f}** ({min(of_rounds):.2f} to {max(of_rounds):.2f})"


def fill(readme: Path, folder: Path = RESULTS) -> None:
    """Puts the tables between the markers of a file.

    Raises:
        ValueError: if the file does not have the markers, once each and in this order.
    """
    filled, number = _MARKERS.subn(lambda found: f"{found[1]}{markdown(folder)}\n{found[2]}", readme.read_text("utf-8"))
    if number != 1:
        raise ValueError(f"{readme} needs one <!-- benchmarks --> and, behind it, one <!-- /benchmarks -->.")
    write_atomically(readme, filled.encode())


def main() -> None:
    """Prints or fills."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="One table of all results.")
    parser.add_argument("--readme", type=Path, help="the file to fill, instead of printing")
    if readme := parser.parse_args().readme:
        fill(readme)
    else:
        print(markdown())


if __name__ == "__main__":
    main()
