"""Label lists: the class names of a data set in the order of their ids.

The lists that ship are in `class_names/`, one name per line and, after a tab, how the class is called in a sentence
where that differs: Kinetics and Something-Something V2 as published, UCF-101 with its CamelCase split into words,
HMDB-51 with spaces for underscores and in the order of its split files, Weizmann as its folders are called. Of
Kinetics-600 there are also the 220 classes that Kinetics-400 lacks, and the three draws of 160 of them that zero-shot
tests are made on (DeLightCMU/ElaborativeRehearsal).
"""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..descriptions.load import HUB_ID, two_meanings
from ..descriptions.schema import name_fault, normalised_name

__all__ = ["FLIP_TWINS", "LabelList", "load_label_list", "shipped_label_lists"]

logger = logging.getLogger(__name__)

# Classes of shipped lists that a mirrored clip changes into each other (the three pairs that DiST and Text4Vis swap).
FLIP_TWINS: Mapping[str, Mapping[str, str]] = {
    "ssv2": {
        "Pulling something from left to right": "Pulling something from right to left",
        "Pushing something from left to right": "Pushing something from right to left",
        "Turning the camera left while filming something": "Turning the camera right while filming something",
    }
}

_LISTS = Path(__file__).parent / "class_names"
_NAME_COLUMNS = ("name", "class", "class_name", "label")
_ID_COLUMNS = ("id", "class_id", "label_id", "index", "label")  # if they hold numbers
_NUMBERED = re.compile(r"(\d+)\s+(\S.*)")  # a line of UCF-101's classInd.txt
_SAVED_DATASETS = ("dataset_dict.json", "dataset_info.json")  # one is in every folder that `datasets` saved


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
            if fault := name_fault(name):
                raise ValueError(f"the label list {self.name} holds {name!r}, which {fault}.")
            if key in seen:
                raise ValueError(
                    f"the label list {self.name} holds {seen[key]!r} and {name!r}, the same class but for case, "
                    "spaces and punctuation; remove one."
                )
            seen[key] = name


def load_label_list(source: str | os.PathLike[str]) -> LabelList:
    """The classes of a shipped list, a file or a data set.

    A file with the classes of a shipped list in another order is read as it is, with a warning: numbers of the one mean
    other classes in the other. Several label files of HMDB-51 in use have kick and kick ball, and sword and sword
    exercise, the other way round than its split files.

    Args:
        source: a shipped name (`shipped_label_lists`); a text file of one name per line, or of `1 name` as UCF-101's;
            a `.csv` with a column `name`, `class`, `class_name` or `label`, or with one column, or of `id,name`; a
            folder that `datasets` saved or an `owner/name` on the Hub, whose one `ClassLabel` column is read. Ids,
            where there are some, must be in their order.

    Raises:
        FileNotFoundError: there is no such file or list.
        ValueError: the file names no classes, or one twice, or not in the order of their ids; or a shipped name is
            also that of a file or of a folder that `datasets` saved.
    """
    path = Path(source)
    if str(source) in shipped_label_lists():
        if path.is_file() or any((path / name).is_file() for name in _SAVED_DATASETS):
            raise two_meanings(path)
        return _shipped(str(source))
    if str(source) and path.is_dir():
        return _from_features(path.name, _features_of_folder(path))
    if path.is_file():
        if path.suffix.lower() == ".csv":
            names = tuple(_csv_names(path))
            listed = LabelList(path.stem, names, names)
        else:
            listed = _from_lines(path.stem, _text_lines(path))
        _warn_of_other_order(listed, path)
        return listed
    if HUB_ID.fullmatch(str(source)) and not path.suffix:
        from datasets import load_dataset_builder

        return _from_features(path.name, load_dataset_builder(str(source)).info.features)
    raise FileNotFoundError(
        f"there is no file {str(source)!r} and no shipped label list of that name; "
        f"the shipped lists are: {', '.join(shipped_label_lists())}."
    )


def shipped_label_lists() -> list[str]:
    """Names of the lists that come with kinetext, in order."""
    return sorted(path.stem for path in _LISTS.glob("*.txt"))


def _shipped(name: str) -> LabelList:
    return _from_lines(name, (_LISTS / f"{name}.txt").read_text("utf-8").split("\n"))


def _warn_of_other_order(listed: LabelList, path: Path) -> None:
    own = [normalised_name(name) for name in listed.class_names]
    for name in shipped_label_lists():
        names = _shipped(name).class_names
        keys = [normalised_name(other) for other in names]
        if own != keys and len(own) == len(keys) and set(own) == set(keys):
            place = next(place for place in range(len(own)) if own[place] != keys[place])
            logger.warning(
                "%s has the classes of %s in another order than kinetext: %d is %r there and %r here. Labels that are "
                "numbers mean other classes in the one than in the other.",
                path,
                name,
                place,
                listed.class_names[place],
                names[place],
            )


def _from_lines(name: str, lines: Sequence[str]) -> LabelList:
    pairs = [line.partition("\t") for line in lines if line.strip()]
    names = tuple(class_name.strip() for class_name, _, _ in pairs)
    spoken = tuple((words or class_name).strip() for class_name, _, words in pairs)
    return LabelList(name, names, spoken)


def _text_lines(path: Path) -> list[str]:
    lines = [line for line in _decoded(path).split("\n") if line.strip()]
    numbered = [_NUMBERED.fullmatch(line.strip()) for line in lines]
    pairs = [match.groups() for match in numbered if match]
    ids = [number for number, _ in pairs]
    if len(pairs) < len(lines) or not _is_counting(sorted(ids, key=int)):
        return lines
    _check_ids(ids, path)
    return [name for _, name in pairs]


def _csv_names(path: Path) -> list[str]:
    reader = csv.reader(io.StringIO(_decoded(path)), strict=True)
    try:
        rows = [[cell.strip() for cell in row] for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
    rows = [row for row in rows if any(row)]
    header = [cell.casefold() for cell in rows[0]] if rows else []
    column = next((header.index(name) for name in _NAME_COLUMNS if name in header), None)
    if column is not None:
        names = [_cell(row, column, path) for row in rows[1:]]
        for place in (place for place, name in enumerate(header) if name in _ID_COLUMNS and place != column):
            ids = [row[place] for row in rows[1:] if len(row) > place]
            if all(number.isdecimal() for number in ids):
                _check_ids(ids, path)
        return names
    if any(len(row) != len(header) for row in rows) or len(header) > 2:
        raise ValueError(f"{path} has {len(header)} columns and none is called {' or '.join(_NAME_COLUMNS)}; name one.")
    if len(header) == 2:
        rows = rows if header[0].isdecimal() else rows[1:]
        _check_ids([row[0] for row in rows], path)
    return [row[-1] for row in rows]


def _is_counting(ids: Sequence[str]) -> bool:
    """Whether they are 0, 1, 2, ... or 1, 2, 3, ..., as written so."""
    return any(list(ids) == [str(index + first) for index in range(len(ids))] for first in (0, 1))


def _check_ids(ids: Sequence[str], path: Path) -> None:
    if not _is_counting(ids):
        raise ValueError(f"{path}: the ids do not count from 0 or 1 without a gap; sort the file by them.")


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
