"""Scores of an evaluation that is not finished, from which it goes on after it was interrupted."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from ..descriptions.files import write_atomically
from .prediction_files import predictions_as_bytes, read_predictions
from .predictions import Prediction

__all__ = ["ScoreJournal"]

_SECONDS = 30.0  # of work that an interruption may cost


class ScoreJournal:
    """Files of predictions in a folder, added to by every process.

    Args:
        folder: of the evaluation and of nothing else: what is in it counts.
        barrier: called after reading, so that no process reads what another has just written.
    """

    def __init__(self, folder: Path, *, barrier: Any = lambda: None) -> None:
        self.folder = folder
        self._barrier = barrier
        self._waiting: list[tuple[int, Prediction]] = []
        self._written_at = time.monotonic()

    def read(self) -> dict[int, Prediction]:
        """Index in the list of clips -> prediction, of all that is done; failed clips are tried again."""
        rows = [row for path in sorted(self.folder.glob("*.parquet")) for row in read_predictions(path)]
        self._barrier()
        return {index: prediction for _, index, prediction in rows if prediction.error is None}

    def add(self, predictions: list[tuple[int, Prediction]]) -> None:
        """Keeps them, and writes what has come together in half a minute."""
        self._waiting += predictions
        if time.monotonic() - self._written_at >= _SECONDS:
            self.write()

    def write(self) -> None:
        """Writes what is kept, as a file of its own."""
        if self._waiting:
            self.folder.mkdir(parents=True, exist_ok=True)
            rows = [("", index, prediction) for index, prediction in self._waiting]
            write_atomically(self.folder / f"{uuid.uuid4().hex}.parquet", predictions_as_bytes(rows))
        self._waiting = []
        self._written_at = time.monotonic()
