"""`kinetext scan`: which videos can be read, and what they hold."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .console import report_errors, say, table_of
from .progress import show_files

if TYPE_CHECKING:
    from ..data.manifest import Entry

__all__ = ["scan"]

_SHOWN = 3  # files of a reason
_MOST_COMMON = 4  # values of a column


@report_errors
def scan(
    root: Annotated[Path, typer.Argument(help="Folder whose videos are read, at any depth.")],
    out: Annotated[Path, typer.Option(help="Manifest to write, for `manifest` in recipes and `eval`.")] = Path(
        "manifest.parquet"
    ),
    jobs: Annotated[int | None, typer.Option(min=1, help="Files read at the same time; all processors.")] = None,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds that a file may take.")] = 60.0,
    quick: Annotated[bool, typer.Option("--quick", help="Decode the first and last frame only, not all.")] = False,
) -> None:
    """Find out which videos can be read, and what they hold; damaged ones are a finding, not an error.

    What was interrupted goes on. Files that a manifest knows are read again only where they have changed.
    """
    from ..data.isolated import default_jobs
    from ..data.scan import scan_folder

    with show_files("scanning") as on_progress:
        done = scan_folder(
            root, out, jobs=jobs or default_jobs(), time_limit_s=time_limit, is_quick=quick, on_progress=on_progress
        )
    entries = [done.manifest.entries[name] for name in sorted(done.manifest.entries)]
    readable = [entry for entry in entries if entry.readable]
    _show_readable(readable)
    show_failures({entry.path: str(entry.error) for entry in entries if not entry.readable})
    say(
        f"[bold]{len(readable):,}[/] of {len(entries):,} videos can be read ({done.num_scanned:,} read now); "
        f"manifest: {escape(str(out))}"
    )


def _show_readable(entries: Sequence[Entry]) -> None:
    """What the readable files hold, and of each kind how many."""
    if not entries:
        return
    hours = sum(entry.duration or 0 for entry in entries) / 3600
    table = table_of("readable videos", "")
    table.add_row("hours", f"{hours:,.2f}")
    table.add_row("MB", f"{sum(entry.bytes for entry in entries) / 1e6:,.1f}")
    table.add_row("codecs", _most_common(str(entry.codec) for entry in entries))
    table.add_row("sizes", _most_common(f"{entry.width}x{entry.height}" for entry in entries))
    table.add_row("frames per second", _most_common(f"{entry.fps or 0:.3g}" for entry in entries))
    if distances := {entry.path: entry.keyframe_distance for entry in entries if entry.keyframe_distance is not None}:
        most = max(distances, key=lambda path: distances[path])
        figures = f"median {statistics.median(distances.values()):g}, most {distances[most]}: {escape(most)}"
        table.add_row("frames from key frame to key frame", figures)
    if sequential := [entry.path for entry in entries if not entry.seekable]:
        table.add_row("read from their start only", f"{len(sequential):,}, e.g. {escape(sequential[0])}")
    Console().print(table)


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(values)
    shown = [f"{escape(value)} ({count:,})" for value, count in counts.most_common(_MOST_COMMON)]
    rest = len(counts) - len(shown)
    return ", ".join([*shown, *([f"{rest} others"] if rest else [])])


def show_failures(failures: dict[str, str]) -> None:
    """Prints why files failed: a row for each reason, that of the first file, and files that differ in numbers only."""
    kinds: dict[str, list[str]] = {}
    for path, reason in failures.items():
        kinds.setdefault(re.sub(r"\d+", "N", reason), []).append(path)
    if not kinds:
        return
    table = table_of("failed", "files#", "e.g.")
    for paths in sorted(kinds.values(), key=len, reverse=True):
        shown = ", ".join(paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
        table.add_row(escape(failures[paths[0]]), f"{len(paths):,}", escape(shown))
    Console().print(table)
