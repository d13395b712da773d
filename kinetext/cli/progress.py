"""Bars: of runs that are paid by the token (tokens, cost, what went wrong on the way), and of work on many files."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from ..descriptions.engine import Tally

__all__ = ["show_files", "show_tally", "spent"]

_TERMINATED = 128 + signal.SIGTERM  # exit status of a program that ended because of it


@contextmanager
def show_tally(prices: tuple[float, float] | None) -> Iterator[Callable[[Tally], None]]:
    """A bar on standard error while the block runs; gives what the engine calls with its tally.

    Args:
        prices: USD per million tokens sent and received, for the cost.
    """
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("calls", total=None, figures="")

        def show(tally: Tally) -> None:
            figures = f"{spent(tally, prices)}, {tally.retries} retries, {tally.faulty} faulty"
            waiting = f" ({escape(tally.waiting)})" if tally.waiting else ""
            progress.update(task, completed=tally.done, total=tally.total, figures=figures + waiting)

        yield show


def spent(tally: Tally, prices: tuple[float, float] | None) -> str:
    """Tokens and, for known prices, cost of a run and of those that it went on from."""
    from ..descriptions.engine import cost

    tokens = f"{tally.prompt_tokens:,} + {tally.completion_tokens:,} tokens"
    if prices is None:
        return tokens
    return f"{tokens}, {cost((tally.prompt_tokens, tally.completion_tokens), prices):.4f} USD"


@contextmanager
def show_files(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while the block runs; gives what is called with the files that are done and that exist.

    SIGTERM ends the block as an error does, with exit code 143, so that no process of it is left.
    """
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)
    finally:
        signal.signal(signal.SIGTERM, before)
