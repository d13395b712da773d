"""The texts that published models put class names into, by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

__all__ = ["load_templates", "shipped_templates"]

_SETS = Path(__file__).with_name("prompt_templates.yaml")


def load_templates(name: str) -> tuple[str, ...]:
    """The M templates of a set, each with `{}` where the class name goes.

    Args:
        name: of the set, see `shipped_templates`.

    Raises:
        ValueError: if there is no such set; says which there are.
    """
    if name not in shipped_templates():
        raise ValueError(f"there is no template set {name!r}; choose one of {', '.join(shipped_templates())}.")
    return _sets()[name]


def shipped_templates() -> list[str]:
    """Names of the template sets that come with kinetext, in order."""
    return sorted(_sets())


@cache
def _sets() -> dict[str, tuple[str, ...]]:
    return {name: tuple(templates) for name, templates in yaml.safe_load(_SETS.read_text("utf-8")).items()}
