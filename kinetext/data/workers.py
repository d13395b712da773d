"""Processes that load data live on when a whole run is asked to stop, and end when their trainer ends.

torchrun, accelerate and schedulers send SIGTERM to data workers, too; but the step that is being made needs its data
before it can be saved. A worker ends when its loader tells it to, when its trainer's program is over, or within seconds
of that one's death.
"""

from __future__ import annotations

import atexit
import multiprocessing.util
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

_workers: set[BaseProcess] = set()


def ignore_sigterm(worker: int) -> None:
    """A `worker_init_fn`; start the workers in [`sigterm_held`], so that none is hit before it gets here.

    Args:
        worker: its number.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def sigterm_held() -> Iterator[None]:
    """SIGTERM waits until the block is over; processes started inside keep it waiting, and end with this one."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    others = set(multiprocessing.active_children())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        running = set(multiprocessing.active_children())
        _workers.intersection_update(running)
        _workers.update(running - others)


def _end_workers() -> None:
    for worker in _workers.intersection(multiprocessing.active_children()):
        worker.kill()


# Before multiprocessing ends its processes, which asks by SIGTERM and waits for ever for workers of a loader that still
# lives. What is registered last runs first, and `multiprocessing.util` was imported above.
atexit.register(_end_workers)
