"""Lists of labelled clips, from folders, CSV files and `datasets`."""

from __future__ import annotations

import csv
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
)


@dataclass(frozen=True)
class Clip:
    """One labelled video.

    Attributes:
        clip_id: its name in results, and the seed of its random choices; unique in a list.
        source: what `load_video` takes, or a function without arguments that returns it.
        label: index into the class names.
    """

    clip_id: str
    source: Any
    label: int


@dataclass(frozen=True)
class ClipList:
    """Clips and the class names their labels point into.

    Attributes:
        clips: the clips, in a fixed order.
        class_names: N names, as written in the data.
    """

    clips: tuple[Clip, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for clip in self.clips:
            if clip.clip_id in seen:
                raise ValueError(f"the clip {clip.clip_id!r} is listed twice; list every clip once.")
            seen.add(clip.clip_id)

    def __len__(self) -> int:
        return len(self.clips)

    def split_by_name(self, patterns: Sequence[str]) -> tuple[ClipList, ClipList]:
        """(the others, those whose file name matches one of the shell-style patterns), e.g. to leave people out.

        Raises:
            ValueError: if a pattern matches nothing, or nothing is left.
        """
        matches = {
            pattern: {clip.clip_id for clip in self.clips if fnmatch.fnmatch(Path(clip.clip_id).name, pattern)}
            for pattern in patterns
        }
        for pattern, matched in matches.items():
            if not matched:
                raise ValueError(f"hold-out pattern {pattern!r} matches no file, e.g. not {self.clips[0].clip_id!r}.")
        held_out = set().union(*matches.values())
        rest = tuple(clip for clip in self.clips if clip.clip_id not in held_out)
        if not rest:
            raise ValueError(f"hold-out patterns {list(patterns)} match every clip; nothing is left to train on.")
        return replace(self, clips=rest), replace(
            self, clips=tuple(clip for clip in self.clips if clip.clip_id in held_out)
        )


def read_clips(
    source: str | Path, *, data_root: str | Path = ".", class_names: Sequence[str] | None = None
) -> ClipList:
    """Clips of a folder (`<class>/<clip>`), a CSV file (`path,label`), or a `datasets` folder (`save_to_disk`).

    Args:
        source: folder or file, relative to `data_root`.
        data_root: where paths, also those inside a CSV, are relative to.
        class_names: the classes in label order; by default the sorted ones found. Needed where two lists must agree.

    Raises:
        FileNotFoundError: if `source` does not exist.
        ValueError: if it holds no clip, or a class outside `class_names`.
    """
    path = Path(data_root) / source
    if not path.exists():
        raise FileNotFoundError(f"no clips at {path}; give a folder of <class>/<clip>, or a CSV file with path,label.")
    if path.is_file():
        return clips_from_csv(path, data_root=data_root, class_names=class_names)
    if (path / "dataset_info.json").is_file():
        from datasets import load_from_disk

        return clips_from_dataset(load_from_disk(path), class_names=class_names)
    return clips_from_folder(path, class_names=class_names)


def clips_from_folder(root: str | Path, *, class_names: Sequence[str] | None = None) -> ClipList:
    """Clips of `root/<class>/<clip>`; what has no video suffix, or a leading dot, is left aside."""
    root = Path(root)
    files = sorted(
        path for path in root.glob("[!.]*/[!.]*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
    )
    if not files:
        raise ValueError(f"{root} holds no video in the layout <class>/<clip>{{{', '.join(sorted(VIDEO_SUFFIXES))}}}.")
    return _clip_list([(path.relative_to(root).as_posix(), str(path), path.parent.name) for path in files], class_names)


def clips_from_csv(path: str | Path, *, data_root: str | Path, class_names: Sequence[str] | None = None) -> ClipList:
    """Clips of a CSV file with the columns `path` and `label` (a class name, or an index into `class_names`).

    Other columns, a byte order mark, empty lines and spaces around cells do not matter.
    """
    rows: list[tuple[str, Any, str]] = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True)
        columns = [cell.strip() for cell in next(reader, [])]
        if not {"path", "label"} <= set(columns):
            raise ValueError(f"{path} starts with {columns}; its first line must name the columns path,label.")
        for cells in reader:
            if not "".join(cells).strip():
                continue
            if len(cells) != len(columns):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells for the {len(columns)} columns {columns}: "
                    f"{cells}. Put a cell that holds a comma in double quotes."
                )
            row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
            if not row["path"] or not row["label"]:
                raise ValueError(f"{path}, line {reader.line_num}: path or label is empty: {row}.")
            rows.append((row["path"], str(Path(data_root) / row["path"]), row["label"]))
    if not rows:
        raise ValueError(f"{path} lists no clip.")
    return _clip_list(rows, class_names)


def clips_from_dataset(
    dataset: Any, *, video_column: str = "video", label_column: str = "label", class_names: Sequence[str] | None = None
) -> ClipList:
    """Clips of a map-style `datasets.Dataset` with a Video and a ClassLabel (or class-name) column.

    Videos are decoded by kinetext, so neither torchcodec nor a decode by `datasets` is needed.
    """
    from datasets import Video

    for column in (video_column, label_column):
        if column not in dataset.column_names:
            raise ValueError(f"the dataset has the columns {dataset.column_names}, none is {column!r}.")
    if isinstance(dataset.features[video_column], Video):
        dataset = dataset.cast_column(video_column, Video(decode=False))
    feature = dataset.features[label_column]
    labels = dataset[label_column]
    names = [feature.int2str(label) for label in labels] if hasattr(feature, "int2str") else [str(x) for x in labels]
    if class_names is None and hasattr(feature, "names"):
        class_names = feature.names
    rows = [(f"{index:08d}", partial(_cell, dataset, index, video_column), name) for index, name in enumerate(names)]
    return _clip_list(rows, class_names)


def _cell(dataset: Any, row: int, column: str) -> Any:
    return dataset[row][column]


def _clip_list(rows: Sequence[tuple[str, Any, str]], class_names: Sequence[str] | None) -> ClipList:
    """Clips of (id, source, class) rows; a class is a name or, where `class_names` are given, an index into them."""
    names = tuple(class_names) if class_names is not None else tuple(sorted({name for _, _, name in rows}))
    label_of = {name: label for label, name in enumerate(names)}
    if class_names is not None:
        label_of = {str(label): label for label in range(len(names))} | label_of  # a class that is called "3" wins
    for clip_id, _, name in rows:
        if name not in label_of:
            raise ValueError(f"{clip_id} has the class {name!r}, which is none of the {len(names)} classes {names}.")
    return ClipList(tuple(Clip(clip_id, source, label_of[name]) for clip_id, source, name in rows), names)


def text_of_class(class_name: str) -> str:
    """The text a folder or label name stands for: underscores and hyphens become spaces."""
    return class_name.replace("_", " ").replace("-", " ").strip()
