"""Clips of `datasets`: from the Hub, from `save_to_disk`, from parquet files; as a list or as a stream.

Videos are decoded by kinetext, so neither torchcodec nor a decode by `datasets` is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .clip_lists import ClipList, Row, check_named, label_rows, locate

HUB_PREFIX = "hub:"
HUB_SPLIT = "train"
_SAVED = ("dataset_dict.json", "dataset_info.json")


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was saved by `datasets`, or holds parquet files."""
    return any((path / name).is_file() for name in _SAVED) or any(path.glob("*.parquet"))


def open_dataset(source: str | Path, *, data_root: str | Path = ".", streaming: bool = False) -> Any:
    """A `datasets.Dataset`, or an `IterableDataset` that downloads and reads as it goes.

    Args:
        source: `hub:owner/name`, or a folder of `save_to_disk` or of parquet files; a split may follow after a colon.
        data_root: where folders are relative to.
        streaming: as a stream.

    Raises:
        FileNotFoundError: if there is no such data set.
        ValueError: if it has splits and none is named, or another.
    """
    from datasets import load_dataset, load_from_disk

    if str(source).startswith(HUB_PREFIX):
        name, _, hub_split = str(source).removeprefix(HUB_PREFIX).partition(":")
        return load_dataset(name, split=hub_split or HUB_SPLIT, streaming=streaming)
    path, split = locate(source, data_root)
    if not is_saved_dataset(path):
        raise FileNotFoundError(f"{path} is no data set; give {HUB_PREFIX}owner/name, a saved one or parquet files.")
    if any(path.glob("*.parquet")):
        saved = load_dataset("parquet", data_files=_parquet_splits(path), streaming=streaming)
    else:
        saved = load_from_disk(str(path))
    if isinstance(saved, dict):
        if split is None and list(saved) == [HUB_SPLIT]:
            split = HUB_SPLIT
        if split not in saved:
            raise ValueError(
                f"{path} has the splits {', '.join(saved)}; write which one, e.g. {path}:{next(iter(saved))}."
            )
        saved = saved[split]
    elif split:
        raise ValueError(f"{path} has no splits; leave :{split} out.")
    return saved.to_iterable_dataset() if streaming and hasattr(saved, "to_iterable_dataset") else saved


def _parquet_splits(path: Path) -> dict[str, list[str]]:
    """The parquet files of each split, told by their names as `datasets` does; other files beside them do not count."""
    from datasets.data_files import DataFilesDict, get_data_patterns

    found = DataFilesDict.from_patterns(get_data_patterns(str(path)), base_path=str(path))
    splits = {str(split): [file for file in files if file.endswith(".parquet")] for split, files in found.items()}
    return {split: files for split, files in splits.items() if files}


def clips_from_dataset(
    dataset: Any, *, video_column: str = "video", label_column: str = "label", class_names: Sequence[str] | None = None
) -> ClipList:
    """Clips of a map-style `datasets.Dataset` with a Video and a ClassLabel (or class-name) column."""
    dataset, names = undecoded(dataset, video_column, label_column)
    labels = dataset[label_column]
    rows = [
        Row(f"{index:08d}", partial(_cell, dataset, index, video_column), class_of(label, names))
        for index, label in enumerate(labels)
    ]
    if class_names is None and names is None:
        check_named([row.name for row in rows], "the data set")
    return label_rows(rows, names if class_names is None else class_names)


def undecoded(dataset: Any, video_column: str, label_column: str) -> tuple[Any, list[str] | None]:
    """(the data set with videos as bytes and paths, the names of its ClassLabel column or None).

    Raises:
        ValueError: if it lacks one of the columns.
    """
    from datasets import Video

    for column in (video_column, label_column):
        if column not in dataset.column_names:
            raise ValueError(f"the dataset has the columns {dataset.column_names}, none is {column!r}.")
    if isinstance(dataset.features[video_column], Video):
        dataset = dataset.cast_column(video_column, Video(decode=False))
    return dataset, getattr(dataset.features[label_column], "names", None)


def class_of(label: Any, names: Sequence[str] | None) -> str:
    """The class name behind a label of a data set, or the label itself where there are no names.

    Raises:
        ValueError: if it is missing, as in the test sets of the Hub.
    """
    if label is None or (names is not None and not 0 <= label < len(names)):
        raise ValueError(f"the data set has a clip with the label {label}, which is no class; leave such clips out.")
    return str(label) if names is None else names[label]


def _cell(dataset: Any, row: int, column: str) -> Any:
    return dataset[row][column]
