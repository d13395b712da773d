"""How verbs speak: lines, tables, and errors as messages."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

__all__ = ["report_errors", "say", "sigterm_as_ctrl_c", "table_of"]


def report_errors(verb: Callable[..., None]) -> Callable[..., None]:
    """`verb` with what the user can cause reported as a message on standard error and exit code 1, not a traceback."""

    @functools.wraps(verb)
    def reporting(*args: Any, **kwargs: Any) -> None:
        try:
            verb(*args, **kwargs)
        except Exception as error:
            if not _is_users(error) or isinstance(error, BrokenPipeError):  # of `| head`: typer ends quietly
                raise
            Console(stderr=True, soft_wrap=True, emoji=False).print(
                f"[bold red]error:[/] {escape(_message(error))}", highlight=False
            )
            raise SystemExit(1) from None

    return reporting


def _is_users(error: Exception) -> bool:
    """Whether what was passed in, rather than a fault of ours, caused this error."""
    from huggingface_hub.errors import StrictDataclassError

    from ..processing.video_decoding import VideoDecodeError

    causes = (ValueError, OSError, ImportError, FloatingPointError, VideoDecodeError, StrictDataclassError)
    return isinstance(error, causes)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM ends the body as Ctrl-C does, with what it began tidied up."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _message(error: Exception) -> str:
    return str(error) or type(error).__name__


def say(text: str) -> None:
    """Prints one line of rich markup; the terminal wraps it, so that it stays one line where it is piped."""
    Console(soft_wrap=True, emoji=False).print(text, highlight=False)


class _Table(Table):
    """A table whose cells are rich markup, in which `:smile:` is no picture."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(Text.from_markup(cell, emoji=False) for cell in cells), **options)


def table_of(*columns: str) -> Table:
    """An empty table; columns whose names end in `#` are of numbers, right-aligned, and lose that sign."""
    table = _Table()
    for column in columns:
        table.add_column(column.rstrip("#"), justify="right" if column.endswith("#") else "left", overflow="fold")
    return table
