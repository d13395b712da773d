"""A folder of videos re-encoded for training: `kinetext prepare`.

    ROOT/<any>/clip.avi ──isolated child: encode, compare with the source──► OUT/<any>/clip.mp4
                                                                             OUT/prepared.jsonl: settings, then a line
                                                                             for each source, as it is done

A file in OUT is whole and was compared with its source, whenever the run ends. The same call goes on: it tries again
what failed, and what has changed.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..descriptions.files import write_atomically
from ..processing.processing_video_text import VideoTextProcessor
from ..processing.video_decoding import VideoDecodeError, available_decoders
from .clip_lists import Clip, ClipList
from .datasets import TrainClips
from .isolated import Failure, map_isolated
from .manifest import file_sha256, is_same_file, readable_name
from .output import OutputJournal, writing
from .prepared_layout import REPORT_NAME, is_prepared, prepared_name
from .reencode import MIN_PSNR_DB, EncodeSettings, QualityError, reencode
from .scan import find_videos, walk_files

__all__ = ["TIME_LIMIT_S", "Prepared", "measure_speed_up", "prepare_folder"]

TIME_LIMIT_S = 600.0

_LIST_SUFFIXES = (".csv", ".json", ".txt")
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}")  # what `write_atomically` leaves behind when it is killed
_MEASURED_CLIPS, _MEASURED_FRAMES = 24, 8


@dataclass(frozen=True)
class Prepared:
    """What became of a folder.

    Attributes:
        clips: row of the report by path of the source, relative to its folder, of all that is in the new folder.
        failures: reason by path of the source.
        num_encoded: videos that were encoded now; the rest were there.
        lists: files of annotations below the source folder, which are left there.
    """

    clips: Mapping[str, Mapping[str, Any]]
    failures: Mapping[str, str]
    num_encoded: int
    lists: Sequence[str]

    def total(self, column: str) -> int:
        """The sum of a column of the report, such as "bytes" or "source_bytes"."""
        return sum(row[column] for row in self.clips.values())


def prepare_folder(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: EncodeSettings,
    *,
    jobs: int,
    time_limit_s: float = TIME_LIMIT_S,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Re-encodes all videos below a folder into another one, those that are not there yet.

    Args:
        root: the folder.
        out: the new folder; paths in it are the same, with the suffix `.mp4`.
        settings: of the encoder.
        jobs: processes that encode.
        time_limit_s: for one file, with the comparison.
        on_progress: called with the numbers of files that are done and that there are.

    Raises:
        NotADirectoryError: if `root` or `out` is no folder.
        OutputError: if `out` cannot be written; the run ends at once.
        ValueError: if `root` holds no video, two would get one name, or the folders lie within each other; if `out` was
            made with other settings or of another folder, holds something else, or another run writes it.
    """
    top, new = os.path.abspath(root), os.path.abspath(out)
    _check_apart(top, new)
    names = find_videos(top)
    targets = _targets(names)
    _check_ours(new)
    with OutputJournal(Path(new) / REPORT_NAME) as report:
        _check_settings(report, {"root": readable_name(top), **dataclasses.asdict(settings)})
        with writing(new):
            _remove_partial(new)
        rows = {row["source"]: row for row in report.records[1:]}
        clips = {name: rows[name] for name in names if name in rows and _is_done(top, new, rows[name])}
        waiting = [name for name in names if name not in clips]
        with writing(new):
            for name in waiting:  # what may be left of an earlier source
                Path(new, targets[name]).unlink(missing_ok=True)
        failures: dict[str, str] = {}
        on_progress(len(clips), len(names))
        encode = functools.partial(_prepare_file, top, new, settings)
        tasks = [(name, targets[name]) for name in waiting]
        with closing(map_isolated(encode, tasks, jobs=jobs, time_limit_s=time_limit_s)) as outcomes:
            for (name, _), row in outcomes:
                if isinstance(row, Failure):
                    failures[name] = row.reason
                    report.append({"record": "failure", "source": name, "error": row.reason})
                else:
                    clips[name] = row
                    report.append(row)
                on_progress(len(clips) + len(failures), len(names))
    lists = sorted(name for name in walk_files(top) if name.lower().endswith(_LIST_SUFFIXES))
    return Prepared(
        {name: clips[name] for name in names if name in clips},
        {name: failures[name] for name in names if name in failures},
        len(waiting) - len(failures),
        lists,
    )


# One file -----------------------------------------------------------------------------------------------------------


def _prepare_file(root: str, out: str, settings: EncodeSettings, task: tuple[str, str]) -> dict[str, Any] | Failure:
    """The row of a file that was encoded, or why it was not; in a process of its own."""
    torch.set_num_threads(1)
    name, target = task
    path = os.path.join(root, name)
    try:
        status = os.stat(path)
        sha256 = file_sha256(path)
        encoded = reencode(path, settings)
    except (VideoDecodeError, QualityError) as error:
        return Failure(getattr(error, "reason", None) or str(error))
    copy = os.path.join(out, target)
    with writing(copy):
        write_atomically(copy, encoded.content)
    return {
        "record": "clip",
        "source": name,
        "source_bytes": status.st_size,
        "source_mtime_ns": status.st_mtime_ns,
        "source_sha256": sha256,
        "path": target,
        "bytes": len(encoded.content),
        "crf": encoded.crf,
        **dataclasses.asdict(encoded.quality),
    }


# What is there ------------------------------------------------------------------------------------------------------


def _is_done(root: str, out: str, row: Mapping[str, Any]) -> bool:
    """Whether the file of a row is there, and its source is what it was."""
    if row["record"] != "clip":
        return False
    target = os.path.join(out, row["path"])
    return (
        os.path.isfile(target)
        and os.path.getsize(target) == row["bytes"]
        and is_same_file(
            os.path.join(root, row["source"]), row["source_bytes"], row["source_mtime_ns"], row["source_sha256"]
        )
    )


def _targets(names: Iterable[str]) -> dict[str, str]:
    """The path in the new folder of each source; ValueError if two have one, whatever the case of their letters."""
    sources: dict[str, str] = {}
    targets: dict[str, str] = {}
    for name in names:
        target = prepared_name(name)
        other = sources.setdefault(target.casefold(), name)
        if other != name:
            raise ValueError(f"{other} and {name} would both become {target}; rename one, or move it elsewhere.")
        targets[name] = target
    return targets


def _check_apart(root: str, out: str) -> None:
    """Raises ValueError if one folder lies within the other: what is made would be a source the next time."""
    real = [os.path.realpath(folder) for folder in (root, out)]
    if os.path.commonpath(real) in real:
        raise ValueError(f"{root} and {out} lie within each other; choose a folder outside the one of the videos.")


def _check_ours(out: str) -> None:
    """Raises an error if there is a file in the folder's place, or something in it that was not made here."""
    if os.path.exists(out) and not os.path.isdir(out):
        raise NotADirectoryError(f"{out} is no folder; choose one that is empty or new.")
    if os.path.isdir(out) and not is_prepared(out):
        others = [name for name in os.listdir(out) if not name.startswith(f"{REPORT_NAME}.")]
        if others:
            raise ValueError(f"{out} holds {others[0]} and no {REPORT_NAME}; choose a folder that is empty or new.")


def _check_settings(report: OutputJournal, settings: dict[str, Any]) -> None:
    """Writes the settings into a new report; raises ValueError if an old one has others."""
    if not report.records:
        versions = {"kinetext": __version__, "av": available_decoders()["pyav"]}
        report.append({"record": "settings", **settings, "min_psnr_required_db": MIN_PSNR_DB, "versions": versions})
        return
    old = report.records[0]
    changed = [f"{name} was {old.get(name)!r}, not {new!r}" for name, new in settings.items() if old.get(name) != new]
    if changed:
        raise ValueError(
            f"{report.path.parent} was made with other settings: {'; '.join(changed)}. Give these, or another folder."
        )


def _remove_partial(out: str) -> None:
    """Removes files that a killed run did not finish."""
    for folder, _, files in os.walk(out):
        for name in files:
            if _PARTIAL.fullmatch(name):
                os.unlink(os.path.join(folder, name))


# What it bought -----------------------------------------------------------------------------------------------------


def measure_speed_up(root: str | os.PathLike[str], out: str | os.PathLike[str], prepared: Prepared) -> float | None:
    """How many times faster a training sample of 8 frames is made of a prepared clip than of its source.

    The median over some clips, evenly spread, each read from both in turn in one process; None if a reader crashed.
    """
    rows = list(prepared.clips.values())
    some = rows[:: -(-len(rows) // _MEASURED_CLIPS)] if rows else []
    pairs = [(os.path.join(root, row["source"]), os.path.join(out, row["path"])) for row in some]
    with closing(map_isolated(_read_times, [pairs], jobs=1, time_limit_s=TIME_LIMIT_S)) as outcomes:
        ratios = next(outcomes)[1]
    return statistics.median(ratios) if isinstance(ratios, list) and ratios else None


def _read_times(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Seconds from the first file of each pair over seconds from the second; the first pair is read once before."""
    torch.set_num_threads(1)
    processor = VideoTextProcessor(num_frames=_MEASURED_FRAMES)
    datasets = [
        TrainClips(ClipList(tuple(Clip(str(n), file, 0) for n, file in enumerate(files)), ("",)), processor, seed=0)
        for files in zip(*pairs, strict=True)
    ]
    ratios = []
    for number in [0, *range(len(pairs))] if pairs else []:
        seconds = []
        for dataset in datasets:
            start = time.perf_counter()
            dataset[0, number]
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return ratios[1:]
