"""The console of all progress bars."""

from __future__ import annotations

import functools

from rich.console import Console

__all__ = ["progress_console"]


@functools.cache
def progress_console() -> Console:
    """Standard error, as one console: a bar that starts while another runs on it is drawn below that one."""
    return Console(stderr=True)
