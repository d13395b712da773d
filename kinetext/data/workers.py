"""Processes that load data."""

from __future__ import annotations

import signal


def ignore_sigterm(worker: int) -> None:
    """A `worker_init_fn`: data workers live on when a whole run is asked to stop, and end when their trainer ends.

    torchrun, accelerate and schedulers send SIGTERM to data workers, too; but the step that is being made needs its
    data before it can be saved. A worker ends when its loader tells it to, or within seconds of its trainer's death.

    Args:
        worker: its number.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
