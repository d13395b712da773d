"""Processes that load data live on when a whole run is asked to stop, and end when their trainer ends.

torchrun, accelerate and schedulers send SIGTERM to data workers, too; but the step that is being made needs its data
before it can be saved. A worker ends when its loader tells it to, or within seconds of its trainer's death.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


def ignore_sigterm(worker: int) -> None:
    """A `worker_init_fn`; start the workers in [`sigterm_held`], so that none is hit before it gets here.

    Args:
        worker: its number.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def sigterm_held() -> Iterator[None]:
    """SIGTERM waits until the block is over; processes that are started inside keep it waiting."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
