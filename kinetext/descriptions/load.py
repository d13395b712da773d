"""Description sets by name: those that ship with kinetext, files, and repositories of the Hub."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .files import read_set
from .schema import MOTED_KINDS, Descriptions, DescriptionSet

__all__ = ["load_description_set", "load_descriptions", "shipped_descriptions"]

_SETS = Path(__file__).parent / "sets"


def load_descriptions(
    source: str | os.PathLike[str],
    *,
    kinds: Iterable[str] = MOTED_KINDS,
    masked: bool = False,
    revision: str | None = None,
) -> Descriptions:
    """The texts of every class, in class order: N lists, for `VideoTextProcessor(descriptions=...)`.

    Args:
        source: the name of a shipped set (`shipped_descriptions`) or a file (`read_set`).
        kinds: which texts, in this order; MoTED's conceptual and k discriminative ones by default. `characteristic`
            are those of Devaraj et al.
        masked: the texts with object names replaced instead.
        revision: of a Hub repository.

    Raises:
        FileNotFoundError: as `load_description_set`.
        ValueError: if the file is not what it should be, or a class has no such text; says where.
    """
    return load_description_set(source, revision=revision).texts(kinds, masked=masked)


def load_description_set(source: str | os.PathLike[str], *, revision: str | None = None) -> DescriptionSet:
    """A description set with every column.

    Args:
        source: the name of a shipped set (`shipped_descriptions`) or a file (`read_set`).
        revision: of a Hub repository.

    Raises:
        FileNotFoundError: if there is neither such a file nor such a set.
        ValueError: if the file is not what it should be; says where.
    """
    return read_set(_path_of(source))


def shipped_descriptions() -> list[str]:
    """Names of the sets that come with kinetext, in order."""
    return sorted(path.stem for path in _SETS.glob("*.jsonl"))


def _path_of(source: str | os.PathLike[str]) -> Path:
    if str(source) in shipped_descriptions():
        return _SETS / f"{source}.jsonl"
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {str(source)!r} and no shipped set of that name; "
            f"the shipped sets are: {', '.join(shipped_descriptions())}."
        )
    return path
