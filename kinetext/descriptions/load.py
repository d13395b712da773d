"""Description sets: k + 1 texts per class, the first conceptual, the others discriminative, as MoTED reads them."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Descriptions", "load_descriptions", "shipped_descriptions"]

_SETS = Path(__file__).parent / "sets"
_FILE_ENDINGS = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Descriptions:
    """The texts of N classes.

    Args:
        class_names: N names, as they were written.
        texts: of each class, in the same order; the conceptual one first. Classes may have different numbers.
    """

    class_names: tuple[str, ...]
    texts: list[list[str]]

    def for_classes(self, class_names: Sequence[str]) -> list[list[str]]:
        """The texts of each of `class_names`, in their order.

        Names match whatever their case, and with underscores or hyphens for spaces.

        Raises:
            ValueError: if classes have no descriptions; lists them, each with the nearest names that have.
        """
        known = {_normalised(name): texts for name, texts in zip(self.class_names, self.texts, strict=True)}
        missing = [name for name in class_names if _normalised(name) not in known]
        if missing:
            listed = "; ".join(self._with_nearest(name) for name in missing)
            raise ValueError(
                f"{len(missing)} of {len(class_names)} classes have no descriptions: {listed}. "
                "Add them to the file, or rename the classes."
            )
        return [list(known[_normalised(name)]) for name in class_names]

    def _with_nearest(self, name: str) -> str:
        originals = {_normalised(known): known for known in self.class_names}
        nearest = difflib.get_close_matches(_normalised(name), list(originals), n=3)
        names = ", ".join(repr(originals[near]) for near in nearest)
        return f"{name!r} (nearest: {names})" if names else f"{name!r} (nothing like it)"


def load_descriptions(source: str | os.PathLike[str]) -> Descriptions:
    """The description set in a file, or one that comes with kinetext.

    Args:
        source: a YAML or JSON file of `class name: [conceptual, discriminative, ...]`, or the name of a shipped set
            (`shipped_descriptions`).

    Raises:
        FileNotFoundError: if there is neither such a file nor such a set.
        ValueError: if the file is not what it should be; says where.
    """
    path = _path_of(source)
    content = _parse(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(
            f"{path} holds {_kind(content)}; a mapping of class names to lists of descriptions is wanted, "
            "such as 'waving: [a hand goes from side to side]'."
        )
    _check_names(list(content), path)
    for name, texts in content.items():
        _check_texts(name, texts, path)
    return Descriptions(tuple(content), [[text.strip() for text in texts] for texts in content.values()])


def shipped_descriptions() -> list[str]:
    """Names of the sets that come with kinetext, in order."""
    return sorted(path.stem for path in _SETS.glob("*.yaml"))


def _path_of(source: str | os.PathLike[str]) -> Path:
    if str(source) in shipped_descriptions():
        return _SETS / f"{source}.yaml"
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {str(source)!r} and no shipped set of that name; "
            f"the shipped sets are: {', '.join(shipped_descriptions())}."
        )
    if path.suffix.lower() not in _FILE_ENDINGS:
        raise ValueError(f"{path} ends with {path.suffix!r}; description files end with {', '.join(_FILE_ENDINGS)}.")
    return path


def _parse(path: Path) -> Any:
    try:
        if path.suffix.lower() == ".json":
            return json.loads(path.read_text("utf-8"), object_pairs_hook=_unique_keys)
        return yaml.load(path.read_text("utf-8"), Loader=_UniqueKeyLoader)
    except (
        ValueError,
        TypeError,
        yaml.YAMLError,
    ) as error:  # a UnicodeDecodeError is a ValueError, a list as key a TypeError
        raise ValueError(f"{path} cannot be read: {error}") from error


def _unique_keys(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A dict, which would otherwise keep the last of two equal keys in silence."""
    content: dict[Any, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"{key!r} is there twice; merge the two lists")
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
        if not isinstance(name, str) or not _normalised(name):
            raise ValueError(f"{path}: the class name {name!r} is {_kind(name)}; write a text, in quotes if need be.")
        if _normalised(name) in seen:
            raise ValueError(
                f"{path}: {seen[_normalised(name)]!r} and {name!r} are the same class name "
                "but for case, underscores and hyphens; merge or rename them."
            )
        seen[_normalised(name)] = name


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


def _normalised(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())
