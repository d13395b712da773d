"""The annotation files that data sets are published with, as rows of clip, file and class.

| data set | file | what stands there |
|---|---|---|
| UCF-101 | `trainlist01.txt`, `testlist01.txt` | `Class/v_x.avi 1`, in test lists without the number |
| HMDB-51 | folder of `<class>_test_split1.txt` | `x.avi 1`: 1 for training, 2 for testing, 0 for neither |
| Kinetics | CSV | columns label, youtube_id, time_start, time_end; files `<id>_<start:06d>_<end:06d>.mp4` |
| Something-Something V2 | JSON, beside it `labels.json` | id and template; files `<id>.webm` or `.mp4` |
| mmaction, Text4Vis | text | `path frames label`, the path with or without an ending |
| X-CLIP | text | `path label`, where the path may hold spaces |

A class is meant by its name wherever there is one, also as the folder of the file, because lists disagree about
numbers: UCF-101 counts from 1, lists of a few classes of a data set count these alone. Numbers that do not even rise in
the order of the classes given are refused: HMDB-51's kick, kick ball, sword and sword exercise come in two orders, and
a model that learnt by one of them is not tested by the other. Listed files are looked for in the root of the data, or
in the one folder of it where they lie, such as `UCF-101` or `train`.
"""

from __future__ import annotations

import itertools
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from .clip_lists import OTHER_ORDER, VIDEO_SUFFIXES, ClassIndex, ClipList, Row, check_folders, check_named, label_rows

KINETICS_COLUMNS = ("youtube_id", "time_start", "time_end")
_HMDB_PARTS = tuple(f"{side}{split}" for side in ("train", "test") for split in (1, 2, 3))
_HMDB_FILE = re.compile(r"(?P<name>.+)_test_split(?P<split>[123])\.txt")
_HMDB_LINE = re.compile(r"(?P<file>\S.*?)\s+(?P<use>[012])")
_HMDB_USES = {"train": "1", "test": "2"}

_ENDING = rf"\.(?:{'|'.join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))})"
_LAYOUTS = {  # of the lines of a text list, in the order in which they are tried
    "path frames label": re.compile(r"(?P<path>\S.*?)\s+\d+\s+(?P<name>\d+)"),
    "path label": re.compile(rf"(?P<path>\S.*{_ENDING})\s+(?P<name>\S.*)", re.IGNORECASE),
    "path": re.compile(rf"(?P<path>\S.*{_ENDING})", re.IGNORECASE),
    "path-without-ending label": re.compile(r"(?P<path>\S.*?)\s+(?P<name>\d+)"),
}


# Text lists ---------------------------------------------------------------------------------------------------------


def clips_from_list(
    path: str | Path, *, data_root: str | Path, class_names: Sequence[str] | None = None, multi_label: bool = False
) -> ClipList:
    """Clips of a text file with `path frames label`, `path label` or, below class folders, `path` in every line.

    The class is the folder of the file, where folders and numbers say the same or there are no numbers; else what the
    label names in `class_names`, which are then needed. The order of the classes is `class_names`, else that of the
    numbers, else that of a `classInd.txt` beside the list, else that of the names.

    Where every path ends in a number and has no ending (`a/clip 1 0`), that number is read as frames, and the files are
    then missing: write endings there.

    Args:
        path: of the file.
        data_root: what its paths are relative to.
        class_names: the classes in label order.
        multi_label: whether several lines may give one clip several classes.

    Raises:
        ValueError: if the lines are of no such layout, or of several, or give classes that cannot be told, or numbers
            in another order than `class_names`.
    """
    path = Path(path)
    if _HMDB_FILE.fullmatch(path.name):
        raise ValueError(f"{path} is a part of HMDB-51's splits; give its folder and which, e.g. {path.parent}:train1.")
    entries = _entries(path)
    names, order = _classes_of(entries, path, class_names)
    if class_names is not None and not multi_label:
        check_folders(zip((listed for listed, _ in entries), names, strict=True), class_names, path)
    sources = find_files([[listed] for listed, _ in entries], data_root)
    ids = [posixpath.normpath(listed) for listed, _ in entries]
    rows = [Row(*row) for row in zip(ids, sources, names, strict=True)]
    return label_rows(rows, order if class_names is None else class_names, multi_label=multi_label)


def _entries(path: Path) -> list[tuple[str, str | None]]:
    """(path, label or None) of each line."""
    lines = [(number, line) for number, line in enumerate(_text_lines(path), 1) if line]
    if not lines:
        raise ValueError(f"{path} lists no clip.")
    matches = {layout: [pattern.fullmatch(line) for _, line in lines] for layout, pattern in _LAYOUTS.items()}
    layout = max(matches, key=lambda layout: sum(map(bool, matches[layout])))  # the first one of those
    for (number, line), match in zip(lines, matches[layout], strict=True):
        if match is None:
            known = (
                f"the others read as `{layout}`" if any(matches[layout]) else f"known lines are {', '.join(_LAYOUTS)}"
            )
            raise ValueError(f"{path}, line {number}: {line!r} is no clip of a list; {known}.")
    return [(match["path"], match.groupdict().get("name")) for match in matches[layout] if match]


def _classes_of(
    entries: Sequence[tuple[str, str | None]], path: Path, class_names: Sequence[str] | None
) -> tuple[list[str], list[str] | None]:
    """(the class of each entry, the classes in the order of the list itself, if it has one)."""
    folders = [PurePosixPath(listed).parent.name for listed, _ in entries]
    labels = [label for _, label in entries if label is not None]
    if not labels:
        if not all(folders):
            raise ValueError(f"{path} gives neither labels nor class folders: {entries[folders.index('')][0]!r}.")
        return folders, _class_index_beside(path)
    if not all(label.isdecimal() for label in labels):
        return labels, None
    number_of = dict(zip(folders, labels, strict=True))
    says_the_same = all(number_of[folder] == label for folder, label in zip(folders, labels, strict=True))
    if says_the_same and len(set(labels)) == len(number_of) and "" not in number_of:
        known = ClassIndex(class_names if class_names is not None else folders)
        if any(known.find(folder) is not None for folder in number_of):
            if class_names is not None:
                _check_order(entries, known, path)
            return folders, sorted(number_of, key=lambda folder: int(number_of[folder]))
    if class_names is None:
        check_named(labels, path)
    return labels, None


def _check_order(entries: Sequence[tuple[str, str | None]], known: ClassIndex, path: Path) -> None:
    """Raises ValueError unless numbers rise in the order of the classes, wherever they begin and whatever they omit."""
    numbered = {PurePosixPath(listed).parent.name: (int(label or 0), listed) for listed, label in entries}
    places = {folder: place for folder in numbered if (place := known.find(folder)) is not None}
    for one, other in itertools.pairwise(sorted(places, key=lambda folder: numbered[folder][0])):
        if places[one] > places[other]:
            raise ValueError(
                f"{path}: {numbered[one][1]} is in the folder {one!r} and has the number {numbered[one][0]}, and those "
                f"in {other!r} have {numbered[other][0]}, but among the classes given {one!r} is {places[one]} and "
                f"{other!r} is {places[other]}. {OTHER_ORDER}"
            )


def _class_index_beside(path: Path) -> list[str] | None:
    """The names of UCF-101's `1 Name` lines."""
    beside = path.with_name("classInd.txt")
    return [line.partition(" ")[2].strip() for line in _text_lines(beside) if line] if beside.is_file() else None


# HMDB-51 ------------------------------------------------------------------------------------------------------------


def is_hmdb(folder: Path) -> bool:
    """Whether a folder holds the split files of HMDB-51."""
    return any(_HMDB_FILE.fullmatch(path.name) for path in folder.iterdir())


def clips_from_hmdb(
    folder: str | Path, part: str | None, *, data_root: str | Path, class_names: Sequence[str] | None = None
) -> ClipList:
    """Clips of one side of one split of HMDB-51, by its folder of `<class>_test_split<1|2|3>.txt`.

    Args:
        folder: of these files, which name the classes.
        part: "train1" to "train3" or "test1" to "test3".
        data_root: where `<class>/<file>` lies.
        class_names: the classes in label order; by default sorted, as in the split files of others.

    Raises:
        ValueError: for another part, or a line that is not `file use`.
    """
    if part not in _HMDB_PARTS:
        raise ValueError(f"{folder} has the parts {', '.join(_HMDB_PARTS)}, not {part!r}; write e.g. {folder}:train1.")
    listed: list[tuple[str, str]] = []
    for path in sorted(Path(folder).iterdir()):
        match = _HMDB_FILE.fullmatch(path.name)
        if match is None or match["split"] != part[-1]:
            continue
        for number, line in enumerate(_text_lines(path), 1):
            entry = _HMDB_LINE.fullmatch(line)
            if line and entry is None:
                raise ValueError(f"{path}, line {number}: {line!r} is not a file followed by 0, 1 or 2.")
            if entry and entry["use"] == _HMDB_USES[part[:-1]]:
                listed.append((match["name"], entry["file"]))
    if not listed:
        raise ValueError(f"{folder} lists no clip for {part}.")
    sources = find_files([[f"{name}/{file}"] for name, file in listed], data_root)
    rows = [Row(f"{name}/{file}", source, name) for (name, file), source in zip(listed, sources, strict=True)]
    return label_rows(rows, class_names)


# Kinetics -----------------------------------------------------------------------------------------------------------


def clips_from_kinetics(
    rows: Iterable[dict[str, str]],
    path: str | Path,
    *,
    data_root: str | Path,
    class_names: Sequence[str] | None = None,
    multi_label: bool = False,
) -> ClipList:
    """Clips of the rows of a Kinetics CSV; files lie in folders named by class (or with underscores), or in none.

    Raises:
        ValueError: if a row has no label, as in the published test list, or its times are no numbers.
    """
    listed: list[tuple[str, str]] = []
    for row in rows:
        if not row.get("label"):
            raise ValueError(f"{path}: {row['youtube_id']} has no label; the test list of Kinetics cannot be used.")
        try:
            start, end = (int(float(row[name])) for name in KINETICS_COLUMNS[1:])
        except (ValueError, OverflowError) as error:  # infinite ones overflow
            raise ValueError(f"{path}: {row['youtube_id']} has times that are no numbers: {error}.") from error
        listed.append((row["label"], f"{row['youtube_id']}_{start:06d}_{end:06d}"))
    sources = find_files(
        [[f"{name}/{stem}.mp4", f"{name.replace(' ', '_')}/{stem}.mp4", f"{stem}.mp4"] for name, stem in listed],
        data_root,
    )
    found = [Row(stem, source, name) for (name, stem), source in zip(listed, sources, strict=True)]
    return label_rows(found, class_names, multi_label=multi_label)


# Something-Something V2 ---------------------------------------------------------------------------------------------


def clips_from_something(
    path: str | Path, *, data_root: str | Path, class_names: Sequence[str] | None = None
) -> ClipList:
    """Clips of a Something-Something V2 JSON: the class is the template without its brackets.

    The order of the classes is `class_names`, else that of a `labels.json` beside the file.

    Raises:
        ValueError: if the file is no such list, has no templates (as the test list), or no class names are known.
    """
    path = Path(path)
    entries = _read_json(path)
    is_list = isinstance(entries, list) and all(isinstance(entry, dict) and "id" in entry for entry in entries)
    if not is_list or not entries:
        raise ValueError(f"{path} is no list of clips with id and template, as Something-Something V2 is annotated.")
    unlabelled = next((entry["id"] for entry in entries if not entry.get("template")), None)
    if unlabelled is not None:
        raise ValueError(f"{path}: {unlabelled} has no template; the test list of Something-Something cannot be used.")
    labels = path.with_name("labels.json")
    if class_names is None and labels.is_file():
        numbers = _read_json(labels)
        try:
            class_names = sorted(numbers, key=lambda name: int(numbers[name]))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{labels} does not map class names to numbers: {error}.") from error
    if class_names is None:
        raise ValueError(f"there is no {labels}; put it there, or give `classes: ssv2`, to know the order of classes.")
    ids = [str(entry["id"]) for entry in entries]
    sources = find_files([[f"{clip_id}.webm"] for clip_id in ids], data_root)
    templates = [re.sub(r"[\[\]]", "", entry["template"]) for entry in entries]
    return label_rows([Row(*row) for row in zip(ids, sources, templates, strict=True)], class_names)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}.") from error


def _text_lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).split("\n")]


def read_text(path: Path) -> str:
    """The text of a list, all line ends as newlines; raises ValueError naming the file unless it is UTF-8."""
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no list of clips: it is not UTF-8 text ({error}).") from error


# Files --------------------------------------------------------------------------------------------------------------


def find_files(candidates: Sequence[Sequence[str]], data_root: str | Path) -> list[str]:
    """The file of each clip: the first of its candidates that exists; with none, the first one below `data_root`.

    Candidates are relative to `data_root` or, if no clip lies there, to the one folder in it where some do. A file with
    another video ending will do, and one without ending is completed, by the first one in alphabetical order. Each
    folder is listed once, and searched for single clips only if some lie there.

    Raises:
        ValueError: if clips lie in several folders of `data_root`.
    """
    listing = cache(_listing)
    root = Path(data_root)
    wanted: dict[str, set[str]] = {}  # keys of `_listing` by folder
    for name in itertools.chain(*candidates):
        folder, file = os.path.split(name)
        wanted.setdefault(folder, set()).add(_without_ending(file))

    def find(base: Path) -> list[str | None]:
        if all(files.isdisjoint(listing(str(base / folder))) for folder, files in wanted.items()):
            return [None] * len(candidates)
        return [_find(base, names, listing) for names in candidates]

    found = find(root)
    if not any(found) and root.is_dir():
        inside = {
            folder.name: files for folder in sorted(root.iterdir()) if folder.is_dir() and any(files := find(folder))
        }
        if len(inside) > 1:
            raise ValueError(
                f"the listed clips lie in several folders of {root}: {', '.join(inside)}; set data_root to one of them "
                "and give the list by its whole path."
            )
        found = next(iter(inside.values()), found)
    return [str(root / names[0]) if file is None else file for names, file in zip(candidates, found, strict=True)]


def _find(base: Path, names: Sequence[str], listing: Callable[[str], dict[str, str]]) -> str | None:
    for name in names:
        folder, _, file = os.path.join(base, name).rpartition("/")
        there = listing(folder)
        match = there.get(file) or there.get(_without_ending(file))
        if match is not None:
            return f"{folder}/{match}"
    return None


def _without_ending(file: str) -> str:
    stem, ending = os.path.splitext(file)
    return stem if ending.lower() in VIDEO_SUFFIXES else file


def _listing(folder: str) -> dict[str, str]:
    """The videos of a folder by their names, with and without ending."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    videos = [name for name in names if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES]
    return {os.path.splitext(name)[0]: name for name in reversed(videos)} | {name: name for name in videos}
