"""Checkpoints that are there whole or not at all, and say which run they belong to."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint, sort_checkpoints

from ..evaluation.evaluator import write_json

RUN_NAME = "run.json"  # in every checkpoint: what must be the same for a run to go on
CLIPS_KEY = "training_clips"  # in it: the fingerprint of their names and labels
_PARTIAL_SUFFIX = ".partial"


def checkpoint_to_resume(output_dir: str | os.PathLike[str], resume: str | None) -> Path | None:
    """The checkpoint that a run goes on from, or None for one that starts.

    Args:
        output_dir: of the run.
        resume: None, "auto" (the last checkpoint of `output_dir`, if there is one) or the folder of a checkpoint.

    Raises:
        FileNotFoundError: if what it goes on from is no checkpoint.
        ValueError: if the folder holds checkpoints and nothing says to go on from one of them: those of two runs would
            get mixed.
    """
    last = get_last_checkpoint(str(output_dir)) if Path(output_dir).is_dir() else None
    checkpoint = last if resume == "auto" else resume
    if last is not None and (checkpoint is None or Path(checkpoint).resolve().parent != Path(output_dir).resolve()):
        raise ValueError(
            f"{output_dir} holds {Path(last).name} of an earlier run; go on with resume: auto, or choose another "
            "output_dir."
        )
    if checkpoint is not None and not (Path(checkpoint) / RUN_NAME).is_file():
        inside = get_last_checkpoint(str(checkpoint)) if Path(checkpoint).is_dir() else None
        hint = "" if inside is None else f"; did you mean {inside}?"
        raise FileNotFoundError(f"{checkpoint} is no checkpoint of kinetext (no {RUN_NAME} in it){hint or '.'}")
    return None if checkpoint is None else Path(checkpoint)


def check_same_run(checkpoint: Path, run: Mapping[str, Any]) -> None:
    """Raises ValueError that names every setting in which `run` differs from the one that wrote the checkpoint."""
    before = json.loads((checkpoint / RUN_NAME).read_text("utf-8"))
    now = json.loads(json.dumps(run))
    changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    if changed:
        changes = "; ".join(f"{name}: {before.get(name)!r} -> {now.get(name)!r}" for name in changed)
        moved = " Clips are known by the paths that their list names: write these relative to data_root."
        raise ValueError(
            f"{checkpoint} was written by another run: {changes}. Restore these settings, or start anew in another "
            f"output_dir.{moved if CLIPS_KEY in changed else ''}"
        )


def fingerprint(items: Iterable[Any]) -> str:
    """SHA-256 of JSON-ready items in their order, the first 16 digits."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:16]


def partial_folder(output_dir: str | os.PathLike[str], name: str) -> Path:
    """Where the checkpoint of that name is written before it is whole; no program takes it for one."""
    return Path(output_dir) / f".{name}{_PARTIAL_SUFFIX}"


def publish(partial: Path, final: Path, run: Mapping[str, Any]) -> None:
    """Makes what was written in `partial` the checkpoint `final`, in one step that a crash cannot split.

    A checkpoint of that step which is there already stays: it is the same.
    """
    if final.exists():
        return
    write_json(partial / RUN_NAME, run)
    for path in (partial, *partial.rglob("*")):
        _flush(path)
    os.replace(partial, final)
    _flush(final.parent)


def keep_newest(output_dir: str | os.PathLike[str], limit: int, *, best: str | None) -> None:
    """Removes the oldest checkpoints above the limit, but never the newest or the best, each in one step as well."""
    checkpoints = [Path(path) for path in sort_checkpoints(str(output_dir))]  # by step: a copy has another time
    removable = [path for path in checkpoints[:-1] if best is None or path != Path(best)]
    for path in removable[: max(0, len(checkpoints) - limit)]:
        leaving = partial_folder(output_dir, path.name)
        os.replace(path, leaving)
        shutil.rmtree(leaving)


def remove_partial(output_dir: str | os.PathLike[str]) -> None:
    """Removes what killed runs left half-written or half-removed."""
    for path in Path(output_dir).glob(f".*{_PARTIAL_SUFFIX}"):
        shutil.rmtree(path)


def _flush(path: Path) -> None:
    """Has the system write a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
