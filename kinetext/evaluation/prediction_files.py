"""Predictions of single clips as parquet, which `datasets` and pandas read."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .predictions import Prediction

__all__ = ["predictions_as_bytes", "read_predictions", "readable"]


def predictions_as_bytes(rows: Iterable[tuple[str, int, Prediction]]) -> bytes:
    """A parquet file of (split, index in its list, prediction).

    Columns: split and clip_id (string), index (int32), labels (list of int32, the label first), predicted and rank
    (int32), log_probabilities (list of float32), error (string). Of a clip that could not be decoded error says why,
    and the three before it are null.
    """
    import pyarrow
    from pyarrow import parquet

    rows = list(rows)
    predictions = [prediction for _, _, prediction in rows]
    columns: dict[str, tuple[list[Any], Any]] = {
        "split": ([split for split, _, _ in rows], pyarrow.string()),
        "index": ([index for _, index, _ in rows], pyarrow.int32()),
        "clip_id": ([readable(each.clip_id) for each in predictions], pyarrow.string()),
        "labels": ([[each.label, *each.other_labels] for each in predictions], pyarrow.list_(pyarrow.int32())),
        "predicted": ([each.predicted for each in predictions], pyarrow.int32()),
        "rank": ([each.rank for each in predictions], pyarrow.int32()),
        "log_probabilities": ([each.log_probabilities for each in predictions], pyarrow.list_(pyarrow.float32())),
        "error": ([None if each.error is None else readable(each.error) for each in predictions], pyarrow.string()),
    }
    table = pyarrow.table({name: pyarrow.array(values, kind) for name, (values, kind) in columns.items()})
    content = io.BytesIO()
    parquet.write_table(table, content)
    return content.getvalue()


def read_predictions(path: str | os.PathLike[str]) -> list[tuple[str, int, Prediction]]:
    """What `predictions_as_bytes` made of it, from its file."""
    from pyarrow import parquet

    table = parquet.read_table(Path(path))
    return [_row(row) for row in table.to_pylist()]


def _row(row: dict[str, Any]) -> tuple[str, int, Prediction]:
    scores = row["log_probabilities"]
    label, *others = row["labels"]
    prediction = Prediction(
        clip_id=row["clip_id"],
        label=label,
        predicted=row["predicted"],
        rank=row["rank"],
        log_probabilities=None if scores is None else np.array(scores, dtype=np.float32),
        other_labels=tuple(others),
        error=row["error"],
    )
    return row["split"], row["index"], prediction


def readable(text: str) -> str:
    """The text with what is no UTF-8, in the names of some files, written out."""
    return text.encode(errors="backslashreplace").decode()
