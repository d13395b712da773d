"""Pushes a run to the Hub while it trains."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

__all__ = ["PushCallback"]

logger = logging.getLogger(__name__)


class PushCallback(TrainerCallback):
    """Pushes after every k-th epoch but the last, which ends the run and is pushed with its results.

    It does so when the next epoch begins: then that epoch's evaluation is done and logged. Training waits meanwhile. A
    push that fails is a warning: what is not on the Hub now will be after the next k epochs. The epoch that a run goes
    on from is left alone: its evaluation is not known any more.

    Args:
        write_run: writes the folder that is pushed, a model with processor and card; called on every process.
        push: pushes that folder with this message; called on the main process.
        every_epochs: k.
    """

    def __init__(self, write_run: Callable[[], None], push: Callable[[str], Any], *, every_epochs: int) -> None:
        self.write_run = write_run
        self.push = push
        self.every_epochs = every_epochs
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remembers where the run starts, or goes on."""
        self._first_step = state.global_step

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Pushes the weights of the epoch that has ended, if it is one of them."""
        if state.global_step == self._first_step or state.epoch % self.every_epochs:
            return
        self.write_run()
        if not state.is_world_process_zero:
            return
        try:
            self.push(f"After epoch {state.epoch:g}")
        except (OSError, ValueError) as error:
            logger.warning("training goes on; after epoch %g the push failed: %s", state.epoch, error)
