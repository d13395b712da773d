"""Label lists: the class names of a data set in the order of their ids.

The lists that ship are in `class_names/`, one name per line and, after a tab, how the class is called in a sentence
where that differs: Kinetics and Something-Something V2 as published, UCF-101 with its CamelCase split into words,
HMDB-51 with spaces for underscores and in the order of its split files, Weizmann as its folders are called.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..descriptions.schema import normalised_name

__all__ = ["LabelList", "load_label_list", "shipped_label_lists"]

_LISTS = Path(__file__).parent / "class_names"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_NAME_COLUMNS = ("name", "class", "class_name", "label")


@dataclass(frozen=True)
class LabelList:
    """N classes.

    Args:
        name: of the list, e.g. `ucf101`.
        class_names: the index is the class id.
        spoken_names: how each is called in a sentence; the class names where they can be.
    """

    name: str
    class_names: tuple[str, ...]
    spoken_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError(f"the label list {self.name} is empty; one class name per line is wanted.")
        seen: dict[str, str] = {}
        for name in self.class_names:
            key = normalised_name(name)
            if not key:
                raise ValueError(f"the label list {self.name} holds {name!r}, which has no letter or digit.")
            if key in seen:
                raise ValueError(
                    f"the label list {self.name} holds {seen[key]!r} and {name!r}, the same class but for case, "
                    "spaces and punctuation; remove one."
                )
            seen[key] = name


def load_label_list(source: str | os.PathLike[str]) -> LabelList:
    """The classes of a shipped list, a file or a data set.

    Args:
        source: a shipped name (`shipped_label_lists`); a text file of one name per line; a `.csv` with a column `name`,
            `class`, `class_name` or `label`, or with one column, or of `id,name` in the order of the ids; a folder
            that `datasets` saved or an `owner/name` on the Hub, whose one `ClassLabel` column is read.

    Raises:
        FileNotFoundError: there is no such file or list.
        ValueError: the file names no classes, or one twice.
    """
    if str(source) in shipped_label_lists():
        return _from_lines(str(source), (_LISTS / f"{source}.txt").read_text("utf-8").split("\n"))
    path = Path(source)
    if path.is_dir():
        return _from_features(path.name, _features_of_folder(path))
    if path.is_file():
        read = _csv_names if path.suffix.lower() == ".csv" else _text_names
        return _from_lines(path.stem, read(path))
    if _HUB_ID.fullmatch(str(source)) and not path.suffix:
        from datasets import load_dataset_builder

        return _from_features(path.name, load_dataset_builder(str(source)).info.features)
    raise FileNotFoundError(
        f"there is no file {str(source)!r} and no shipped label list of that name; "
        f"the shipped lists are: {', '.join(shipped_label_lists())}."
    )


def shipped_label_lists() -> list[str]:
    """Names of the lists that come with kinetext, in order."""
    return sorted(path.stem for path in _LISTS.glob("*.txt"))


def _from_lines(name: str, lines: Sequence[str]) -> LabelList:
    pairs = [line.partition("\t") for line in lines if line.strip()]
    names = tuple(class_name.strip() for class_name, _, _ in pairs)
    spoken = tuple((words or class_name).strip() for class_name, _, words in pairs)
    return LabelList(name, names, spoken)


def _text_names(path: Path) -> list[str]:
    return _decoded(path).splitlines()


def _csv_names(path: Path) -> list[str]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(_decoded(path).splitlines(keepends=True))]
    rows = [row for row in rows if any(row)]
    header = [cell.casefold() for cell in rows[0]] if rows else []
    column = next((header.index(name) for name in _NAME_COLUMNS if name in header), None)
    if column is not None:
        return [_cell(row, column, path) for row in rows[1:]]
    if any(len(row) != len(header) for row in rows) or len(header) > 2:
        raise ValueError(f"{path} has {len(header)} columns and none is called {' or '.join(_NAME_COLUMNS)}; name one.")
    if len(header) == 2:
        rows = rows if header[0].isdecimal() else rows[1:]
        ids = [row[0] for row in rows]
        if ids not in ([str(index) for index in range(len(ids))], [str(index + 1) for index in range(len(ids))]):
            raise ValueError(f"{path}: the first column does not count from 0 or 1 without a gap; sort it by id.")
    return [row[-1] for row in rows]


def _cell(row: list[str], column: int, path: Path) -> str:
    if len(row) <= column or not row[column]:
        raise ValueError(f"{path}: the row {row} has no class name.")
    return row[column]


def _decoded(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")  # spreadsheets begin their files with a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}.") from error


def _features_of_folder(folder: Path) -> object:
    from datasets import DatasetDict, load_from_disk

    loaded = load_from_disk(str(folder))
    return next(iter(loaded.values())).features if isinstance(loaded, DatasetDict) else loaded.features


def _from_features(name: str, features: object) -> LabelList:
    from datasets import ClassLabel

    columns = features if isinstance(features, dict) else {}
    labels = {column: kind.names for column, kind in columns.items() if isinstance(kind, ClassLabel)}
    if len(labels) != 1:
        raise ValueError(
            f"the data set {name} has {len(labels)} ClassLabel columns ({', '.join(labels) or 'none'}) "
            "and one is wanted; write its class names into a text file, one per line."
        )
    (names,) = labels.values()
    return LabelList(name, tuple(names), tuple(names))
