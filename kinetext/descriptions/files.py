"""Description sets as files: JSON Lines and parquet with every column, YAML and JSON mappings of a class to its texts.

A file is written beside its place and moved there once it is complete, so a killed write harms nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from .schema import MOTED_KINDS, DescriptionRow, DescriptionSet, name_fault, normalised_name

__all__ = [
    "FILE_ENDINGS",
    "GENERATED_NAME",
    "find_set_files",
    "parse_file",
    "read_folder",
    "read_set",
    "write_atomically",
    "write_jsonl",
    "write_parquet",
    "write_records",
]

_COLUMNS = tuple(field.name for field in dataclasses.fields(DescriptionRow))
FILE_ENDINGS = (".jsonl", ".parquet", ".yaml", ".yml", ".json")
GENERATED_NAME = "descriptions.jsonl"  # the set in the folder of a run of `kinetext describe generate`


def read_set(path: str | os.PathLike[str]) -> DescriptionSet:
    """The set in a file.

    Args:
        path: `.jsonl` or `.parquet` with the columns of `DescriptionRow`, or `.yaml` or `.json` of
            `class name: [conceptual, discriminative, ...]`, whose classes are numbered as they come.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: if the file is not what it should be; says where.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in FILE_ENDINGS:
        raise ValueError(
            f"{path} ends with {path.suffix!r}; description files end with {', '.join(FILE_ENDINGS)}. "
            "`kinetext describe import` reads the released CSV files."
        )
    if ending in (".jsonl", ".parquet"):
        records = _jsonl_records(path) if ending == ".jsonl" else _parquet_records(path)
        return _built([_row(record, where) for where, record in records], path)
    return _from_mapping(parse_file(path), path)


def find_set_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The files in a folder that hold a set: `descriptions.jsonl`, and parquet files at any depth."""
    folder = Path(folder)
    generated = [folder / GENERATED_NAME] if (folder / GENERATED_NAME).is_file() else []
    return [*generated, *sorted(folder.rglob("*.parquet"))]


def read_folder(folder: str | os.PathLike[str]) -> DescriptionSet:
    """The set in a folder: that of a run of `describe generate`, or all parquet files together, as the Hub holds them.

    Raises:
        ValueError: if it holds neither or both, or a file is not what it should be; says which.
    """
    paths = find_set_files(folder)
    if not paths:
        raise ValueError(
            f"{folder} holds neither {GENERATED_NAME}, which `kinetext describe generate` writes once every text is "
            "there, nor a parquet file, which `kinetext push descriptions SET ORG/NAME` writes."
        )
    if paths[0].name == GENERATED_NAME:
        if paths[1:]:
            raise ValueError(f"{folder} holds {GENERATED_NAME} and parquet files; name the one you mean: {paths[0]}?")
        return read_set(paths[0])
    records = [record for path in paths for record in _parquet_records(path)]
    return _built([_row(record, where) for where, record in records], Path(folder))


def write_jsonl(descriptions: DescriptionSet, path: str | os.PathLike[str]) -> None:
    """Writes one row per line, every column, in the order of the set: equal sets give equal bytes."""
    write_records((dataclasses.asdict(row) for row in descriptions.rows), path)


def write_records(records: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Writes one JSON object per line, in their order."""
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    write_atomically(path, "".join(lines).encode())


def write_parquet(descriptions: DescriptionSet, path: str | os.PathLike[str]) -> None:
    """Writes the set for `datasets.load_dataset`, one column per field of `DescriptionRow`."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([dataclasses.asdict(row) for row in descriptions.rows], schema=_arrow_schema())
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes `content` to disk beside `path` and moves it there: whoever looks finds the old file or the new one.

    A symbolic link stays one: the file that it leads to is replaced.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _arrow_schema() -> Any:
    import pyarrow

    numbers = {"class_id": pyarrow.int64(), "rank": pyarrow.int64()}
    return pyarrow.schema([(name, numbers.get(name, pyarrow.string())) for name in _COLUMNS])


def _jsonl_records(path: Path) -> list[tuple[str, Any]]:
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append((f"{path}, line {number}", json.loads(line)))
        except (ValueError, RecursionError) as error:  # the latter of a thousand brackets within each other
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
    return records


def _parquet_records(path: Path) -> list[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    try:
        records = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {error}") from error
    return [(f"{path}, row {number}", record) for number, record in enumerate(records)]


def _row(record: Any, where: str) -> DescriptionRow:
    if not isinstance(record, dict):
        raise ValueError(f"{where} holds {_kind(record)}; a mapping with the columns {', '.join(_COLUMNS)} is wanted.")
    unknown = sorted(set(record) - set(_COLUMNS))
    required = [field.name for field in dataclasses.fields(DescriptionRow) if field.default is dataclasses.MISSING]
    missing = [name for name in required if name not in record]
    if unknown or missing:
        faults = [*(f"no column {name!r}" for name in missing), *(f"unknown column {name!r}" for name in unknown)]
        raise ValueError(f"{where} has {', '.join(faults)}; the columns are {', '.join(_COLUMNS)}.")
    try:
        return DescriptionRow(**record)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _built(rows: list[DescriptionRow], path: Path) -> DescriptionSet:
    try:
        return DescriptionSet(tuple(rows))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


# Mappings of a class to its texts


def _from_mapping(content: Any, path: Path) -> DescriptionSet:
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f"{path} holds {_kind(content)}; a mapping of class names to lists of descriptions is wanted, "
            "such as 'waving: [a hand goes from side to side]'."
        )
    _check_names(list(content), path)
    rows = []
    for class_id, (name, texts) in enumerate(content.items()):
        _check_texts(name, texts, path)
        for place, text in enumerate(texts):
            kind = MOTED_KINDS[min(place, 1)]
            rank = max(place - 1, 0)
            rows.append(DescriptionRow(path.stem, class_id, name, kind, None, rank, " ".join(text.split())))
    return _built(rows, path)


def parse_file(path: Path) -> Any:
    """The content of a JSON or YAML file in which no key is there twice; ValueError names the file."""
    try:
        if path.suffix.lower() == ".json":
            return json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_unique_keys)
        return yaml.load(path.read_text("utf-8-sig"), Loader=_UniqueKeyLoader)
    # A UnicodeDecodeError is a ValueError; a list as key is a TypeError; deep nesting is a RecursionError.
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _unique_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dict, which would otherwise keep the last of two equal keys in silence."""
    content: dict[Any, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"{key!r} is there twice; merge the two, or leave one out")
        content[key] = value
    return content


class _UniqueKeyLoader(yaml.SafeLoader):
    """`SafeLoader` that refuses a key given twice."""


def _construct_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    return _unique_keys(loader.construct_pairs(node, deep=True))


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def _check_names(names: list[Any], path: Path) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not normalised_name(name):
            raise ValueError(f"{path}: the class name {name!r} is {_kind(name)}; write a text, in quotes if need be.")
        if fault := name_fault(name):
            raise ValueError(f"{path}: the class name {name!r} {fault}; write it on one line.")
        if normalised_name(name) in seen:
            raise ValueError(
                f"{path}: {seen[normalised_name(name)]!r} and {name!r} are the same class name "
                "but for case, spaces and punctuation; merge or rename them."
            )
        seen[normalised_name(name)] = name


def _check_texts(name: str, texts: Any, path: Path) -> None:
    if not isinstance(texts, list) or not texts:
        raise ValueError(f"{path}: {name!r} has {_kind(texts)}; a list of one or more descriptions is wanted.")
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"{path}: description {index} of {name!r} is {_kind(text)}; "
                "write a text that is not empty, in quotes if it holds a colon."
            )


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {value!r}" if value.strip() else "an empty text"
    if value is None or value in ([], {}):
        return "nothing"
    return f"a {type(value).__name__}"
