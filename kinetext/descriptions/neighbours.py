"""Confusable classes: which class names lie nearest to each other, as a table one can read and edit.

MoTED §3.1 asks for a discriminative text against each of the k classes whose names have the most similar CLIP text
embeddings. The table is a CSV of one row per pair, so that a person who knows better can exchange a neighbour.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import write_atomically
from .schema import normalised_name

__all__ = ["Neighbour", "nearest_neighbours", "read_neighbours", "write_neighbours"]

_COLUMNS = ("class", "neighbour", "rank", "similarity")


@dataclass(frozen=True)
class Neighbour:
    """One pair.

    Args:
        class_name: the class that needs telling apart.
        neighbour: the class it resembles.
        rank: 0 for the nearest.
        similarity: cosine of the two text embeddings, -1 to 1.
    """

    class_name: str
    neighbour: str
    rank: int
    similarity: float


def nearest_neighbours(class_names: Sequence[str], embeddings: Any, k: int) -> list[Neighbour]:
    """The k nearest other classes of each class by cosine similarity; equal ones in the order of the classes.

    Args:
        class_names: N names.
        embeddings: (N,D) float array, one row per name; need not be normalised.
        k: 1 to N - 1.

    Raises:
        ValueError: the shapes do not fit, a row has no direction, or k is out of range.
    """
    import numpy as np

    rows = np.asarray(embeddings, dtype=np.float64)
    count = len(class_names)
    if rows.ndim != 2 or len(rows) != count:
        raise ValueError(f"embeddings have shape {rows.shape}; ({count}, D) is wanted, a row for each class name.")
    if not 1 <= k < count:
        raise ValueError(f"k={k}, but {count} classes have 1 to {count - 1} neighbours.")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        faulty = class_names[int(np.argmin(np.isfinite(lengths) & (lengths > 0)))]
        raise ValueError(f"the embedding of {faulty!r} is zero or not finite; use another encoder.")
    cosines = (rows / lengths) @ (rows / lengths).T  # (N,N)
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]  # (N,k)
    return [
        Neighbour(class_names[own], class_names[other], rank, float(cosines[own, other]))
        for own in range(count)
        for rank, other in enumerate(order[own])
    ]


def write_neighbours(neighbours: Sequence[Neighbour], path: str | os.PathLike[str]) -> None:
    """Writes a CSV with the columns class, neighbour, rank (from 0) and similarity (4 decimals)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((pair.class_name, pair.neighbour, pair.rank, f"{pair.similarity:.4f}") for pair in neighbours)
    write_atomically(path, text.getvalue().encode())


def read_neighbours(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """The neighbours of each class, nearest first: the order of the rows; rank and similarity are for the reader.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a cell empty, or a pair is there twice or of one class; names the line.
    """
    reader = csv.DictReader(io.StringIO(Path(path).read_text("utf-8-sig")), strict=True)
    try:
        return _neighbours_in(reader, Path(path))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.reader.line_num}: {error}.") from error


def _neighbours_in(reader: csv.DictReader[str], path: Path) -> dict[str, list[str]]:
    missing = [name for name in _COLUMNS[:2] if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(
            f"{path} has no column {' and no column '.join(missing)}; its header must name {', '.join(_COLUMNS)}."
        )
    neighbours: dict[str, list[str]] = {}
    for row in reader:
        own, other = ((row[name] or "").strip() for name in _COLUMNS[:2])
        if not own or not other:
            raise ValueError(f"{path}, line {reader.line_num}: class {own!r}, neighbour {other!r}; both need a name.")
        if normalised_name(other) in (normalised_name(name) for name in [own, *neighbours.get(own, [])]):
            raise ValueError(f"{path}, line {reader.line_num}: {other!r} is {own!r} itself or its neighbour twice.")
        neighbours.setdefault(own, []).append(other)
    return neighbours
