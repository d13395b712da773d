"""A bar for runs that are paid by the token: how far, how many tokens, what they cost, what went wrong on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from ..descriptions.engine import Tally

__all__ = ["show_tally", "spent"]


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
