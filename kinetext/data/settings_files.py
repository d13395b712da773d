"""Files of settings that may be based on others: recipes and protocols."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..descriptions.files import parse_file

__all__ = ["nearest", "read_layers"]


def read_layers(path: Path, what: str, *, shipped: Path | None = None) -> list[tuple[Path, dict[Any, Any]]]:
    """The settings of a YAML or JSON file and of all that it names as its `base`, each with its file.

    Later ones win: the file itself over its bases, which are relative to it, and of these the last.

    Args:
        path: the file.
        what: it is, for messages, e.g. "recipe".
        shipped: folder in which a base that has no suffix is looked for.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if one is no mapping, or its own base.
    """
    return _layers(path, what, shipped, ())


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the one that was probably meant, if one is near."""
    closest = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {closest[0]!r}?" if closest else "."


def _layers(path: Path, what: str, shipped: Path | None, inside: tuple[Path, ...]) -> list[tuple[Path, dict[Any, Any]]]:
    if path.resolve() in inside:
        raise ValueError(f"{path} is its own base, through {' and '.join(str(file) for file in inside)}.")
    if not path.is_file():
        raise FileNotFoundError(f"no {what} at {path}.")
    settings = parse_file(path) or {}
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is no mapping of settings to values.")
    bases = settings.pop("base", None) or []
    layers = [
        layer
        for base in (bases if isinstance(bases, list) else [bases])
        for layer in _layers(_base(path, str(base), shipped), what, shipped, (*inside, path.resolve()))
    ]
    return [*layers, (path, settings)]


def _base(path: Path, name: str, shipped: Path | None) -> Path:
    """Where a base of the file `path` is."""
    return shipped / f"{name}.yaml" if shipped is not None and not Path(name).suffix else path.parent / name
