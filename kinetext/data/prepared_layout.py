"""What a folder that `kinetext prepare` wrote looks like: for those that read it."""

from __future__ import annotations

import os
from pathlib import PurePath, PurePosixPath

__all__ = ["REPORT_NAME", "SHARDS_FOLDER", "is_prepared", "prepared_name"]

REPORT_NAME, SHARDS_FOLDER = "prepared.jsonl", "shards"
_SUFFIX = ".mp4"


def is_prepared(folder: str | os.PathLike[str]) -> bool:
    """Whether `kinetext prepare` wrote this folder."""
    return os.path.isfile(os.path.join(folder, REPORT_NAME))


def prepared_name(name: str) -> str:
    """Where a video with this path, relative to the source folder, lies in the prepared one; whole paths stay."""
    return name if PurePath(name).is_absolute() else PurePosixPath(name).with_suffix(_SUFFIX).as_posix()
