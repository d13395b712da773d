"""Lists of labelled clips, from folders, annotation files, `datasets` and tar shards."""

from __future__ import annotations

import csv
import io
import logging
import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

from .annotation_formats import (
    KINETICS_COLUMNS,
    clips_from_hmdb,
    clips_from_kinetics,
    clips_from_list,
    clips_from_something,
    is_hmdb,
    read_text,
)
from .clip_lists import VIDEO_SUFFIXES, Clip, ClipList, Row, check_folders, check_named, label_rows, locate
from .prepared_layout import SHARDS_FOLDER, is_prepared, prepared_name
from .saved_datasets import HUB_PREFIX, clips_from_dataset, is_saved_dataset, open_dataset
from .tar_shards import clips_from_shards, find_shards

__all__ = [
    "VIDEO_SUFFIXES",
    "Clip",
    "ClipList",
    "clips_from_csv",
    "clips_from_dataset",
    "clips_from_folder",
    "read_clips",
    "text_of_class",
]

logger = logging.getLogger(__name__)

MAX_FAILED_SHARE = 0.1
"""Share of a list that may be missing or damaged: a copy of Kinetics lacks about as much (kinetics-i3d#51)."""

_KINDS = (
    "a folder of <class>/<clip>, a CSV file with path,label, an annotation file (UCF-101, HMDB-51, Kinetics, "
    "Something-Something, mmaction, X-CLIP), a folder that `datasets` saved or of parquet files, tar shards, "
    f"or {HUB_PREFIX}owner/name"
)
_SHOWN = 3
_IN_CLASSES = "[!.]*/[!.]*"
_ELSEWHERE = ("[!.]*", "[!.]*/[!.]*/**/[!.]*")


def read_clips(
    source: str | Path,
    *,
    data_root: str | Path = ".",
    class_names: Sequence[str] | None = None,
    max_missing_share: float = MAX_FAILED_SHARE,
    multi_label: bool = False,
) -> ClipList:
    """Clips of whatever annotates them, recognised by what is there.

    | source | is |
    |---|---|
    | folder | `<class>/<clip>`; what `datasets` saved; parquet files; tar shards; HMDB-51's split files |
    | `.csv` | `path,label` or, by its columns, a list of Kinetics |
    | `.json` | a list of Something-Something V2 |
    | `.tar`, `x-{0000..0012}.tar` | tar shards as WebDataset makes them |
    | another file | a text list: UCF-101's, mmaction's, X-CLIP's |
    | `hub:owner/name` | a data set of the Hub |

    Where several lists lie in one place, `:part` behind the source says which: `hub:owner/name:validation` (`train` by
    default), `saved:validation`, `hmdb_splits:test1`.

    A listed file that is not on disk stays in the list and is reported: training replaces it, evaluation counts it as
    failed.

    Args:
        source: folder or file, relative to `data_root`; or a data set of the Hub.
        data_root: where paths, also those inside a list, are relative to.
        class_names: the classes in label order; by default the list's own, else the sorted ones found. Needed where two
            lists must agree, and where classes are only numbered.
        max_missing_share: more of a list than this must not be missing.
        multi_label: whether clips may show several classes, in lists as text or CSV: a line for each of them, or in the
            column `label` names with semicolons between them. The first is the clip's label.

    Raises:
        FileNotFoundError: if `source` does not exist, or too much of what it lists.
        ValueError: if it is of no known kind, holds no clip, or a class outside `class_names`; or gives a clip two
            classes without `multi_label`.
    """
    if str(source).startswith(HUB_PREFIX):
        return clips_from_dataset(open_dataset(source), class_names=class_names)
    path, part = locate(source, data_root)
    has_class_folders = part is None and any(_videos(path, _IN_CLASSES))
    if not has_class_folders:
        if shards := find_shards(path):
            return clips_from_shards(shards, class_names=class_names)
        if not path.exists():
            raise FileNotFoundError(f"no clips at {path}; give {_KINDS}.")
        if path.is_dir() and is_saved_dataset(path):
            return clips_from_dataset(open_dataset(source, data_root=data_root), class_names=class_names)
    if path.is_dir() and is_hmdb(path):
        clips = clips_from_hmdb(path, part, data_root=data_root, class_names=class_names)
    elif path.is_dir() and part is None:
        if strays := [*find_shards(path), *sorted(path.glob("*.parquet"))]:
            names = ", ".join(stray.name for stray in strays[:_SHOWN])
            logger.warning(
                "%s is read as a folder of <class>/<clip>, not its %d data files: %s.", path, len(strays), names
            )
        clips = clips_from_folder(path, class_names=class_names)
    elif path.is_dir():
        raise FileNotFoundError(f"{path} has no part {part!r}: it is a folder of <class>/<clip>; name its sub-folder.")
    else:
        clips = _clips_from_file(path, data_root, class_names, multi_label)
    _check_on_disk(clips, path, max_missing_share)
    return clips


def _clips_from_file(
    path: Path, data_root: str | Path, class_names: Sequence[str] | None, multi_label: bool
) -> ClipList:
    if path.suffix.lower() == ".json":
        return clips_from_something(path, data_root=data_root, class_names=class_names)
    read = clips_from_csv if path.suffix.lower() == ".csv" else clips_from_list
    return read(path, data_root=data_root, class_names=class_names, multi_label=multi_label)


def _check_on_disk(clips: ClipList, source: Path, max_missing_share: float) -> None:
    missing = [clip.source for clip in clips.clips if not os.path.exists(clip.source)]
    if not missing:
        return
    report = (
        f"{len(missing)} of the {len(clips)} clips that {source} lists are not on disk, "
        f"e.g. {', '.join(missing[:_SHOWN])}"
    )
    if len(missing) == len(clips) or len(missing) > max_missing_share * len(clips):
        raise FileNotFoundError(
            f"{report}: more than max_failed_share={max_missing_share:g} of them. Set data_root to where they are, "
            "list what is there, or allow more."
        )
    logger.warning("%s: training replaces them by clips of their class, evaluation counts them as failed.", report)


def clips_from_folder(root: str | Path, *, class_names: Sequence[str] | None = None) -> ClipList:
    """Clips of `root/<class>/<clip>`; what has no video suffix, or a leading dot, is left aside.

    Videos elsewhere, and folders without any, are left out and reported.
    """
    root = Path(root)
    files = sorted(_videos(root, _IN_CLASSES))
    if not files:
        raise ValueError(f"{root} holds no video in the layout <class>/<clip>{{{', '.join(sorted(VIDEO_SUFFIXES))}}}.")
    if elsewhere := [path for pattern in _ELSEWHERE for path in sorted(_videos(root, pattern))]:
        logger.warning(
            "%d videos in %s are left out, e.g. %s: they are not in the layout <class>/<clip>.",
            len(elsewhere),
            root,
            elsewhere[0].relative_to(root).as_posix(),
        )
    known = {path.parent for path in files} | ({root / SHARDS_FOLDER} if is_prepared(root) else set())
    if empty := sorted(path.name for path in root.glob("[!.]*") if path.is_dir() and path not in known):
        logger.warning("%d folders in %s are no classes, e.g. %s: no video lies in them.", len(empty), root, empty[0])
    return label_rows(
        [Row(path.relative_to(root).as_posix(), str(path), path.parent.name) for path in files], class_names
    )


def _videos(root: Path, pattern: str) -> Iterator[Path]:
    """Also links that lead nowhere: they are listed, and then missing."""
    return (path for path in root.glob(pattern) if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir())


def clips_from_csv(
    path: str | Path, *, data_root: str | Path, class_names: Sequence[str] | None = None, multi_label: bool = False
) -> ClipList:
    """Clips of a CSV file with the columns `path` and `label` (a class name, or an index into `class_names`).

    Other columns, a byte order mark, empty lines and spaces around cells do not matter. A file without these columns
    but with those of Kinetics is read as such. With `multi_label`, a label may be several names with semicolons between
    them. In a `data_root` that `kinetext prepare` wrote, names of sources stand for what became of them.
    """
    rows = _read_csv(path)
    if not {"path", "label"} <= rows[0].keys():
        return clips_from_kinetics(rows, path, data_root=data_root, class_names=class_names, multi_label=multi_label)
    listed = [(row["path"], name) for row in rows for name in _labels_of(row, path, multi_label)]
    if class_names is None:
        check_named([name for _, name in listed], path)
    elif not multi_label:
        check_folders(listed, class_names, path)
    name_of = prepared_name if is_prepared(data_root) else str
    found = [Row(posixpath.normpath(file), str(Path(data_root) / name_of(file)), name) for file, name in listed]
    return label_rows(found, class_names, multi_label=multi_label)


def _labels_of(row: dict[str, str], path: str | Path, multi_label: bool) -> list[str]:
    """The classes of a row."""
    if not multi_label:
        return [row["label"]]
    names = [name.strip() for name in row["label"].split(";")]
    if not all(names):
        raise ValueError(f"{path}: the label {row['label']!r} of {row['path']} has an empty name between semicolons.")
    return names


def _read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows by column; raises unless there are some, with the columns of one of the two kinds."""
    rows: list[dict[str, str]] = []
    lines = _csv_lines(Path(path))
    _, header = next(lines, (0, []))
    columns = [cell.strip() for cell in header]
    if not ({"path", "label"} <= set(columns) or set(KINETICS_COLUMNS) <= set(columns)):
        raise ValueError(
            f"{path} starts with {columns}; its first line must name the columns path,label or those of Kinetics, "
            f"{','.join(KINETICS_COLUMNS)}. (A list without a first line is read if its name ends in .txt.)"
        )
    for number, cells in lines:
        if not "".join(cells).strip():
            continue
        if len(cells) != len(columns):
            raise ValueError(
                f"{path}, line {number}: {len(cells)} cells for the {len(columns)} columns {columns}: "
                f"{cells}. Put a cell that holds a comma in double quotes."
            )
        row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
        if {"path", "label"} <= row.keys() and not (row["path"] and row["label"]):
            raise ValueError(f"{path}, line {number}: path or label is empty: {row}.")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} lists no clip.")
    return rows


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of a file; strict, or an open quote would take in all lines up to the next one."""
    reader = csv.reader(io.StringIO(read_text(path)), skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}; is there a double quote too many?") from error


def text_of_class(class_name: str) -> str:
    """The text a folder or label name stands for: underscores and hyphens become spaces."""
    return class_name.replace("_", " ").replace("-", " ").strip()
