"""Finding out which video files below a folder can be read, and what they hold: `kinetext scan`.

    files ──(not in the last manifest or the journal)──► isolated children ──► journal ──► manifest.parquet
                                                         decode every frame    (kept until the manifest is there)

A file whose decoder crashes or hangs costs a process and gets an entry that says so. What is done is kept in a journal
beside the manifest; the same call goes on from it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..descriptions.journal import read_journal
from ..processing.packet_index import index_packets
from ..processing.video_decoding import VideoDecodeError, available_decoders, load_video
from .clip_lists import VIDEO_SUFFIXES
from .frame_reader import FrameReader
from .isolated import TOOK_TOO_LONG, Failure, map_isolated, time_out_reason
from .manifest import Entry, Manifest, file_sha256, readable_name
from .output import OutputJournal

__all__ = ["TIME_LIMIT_S", "Scan", "find_videos", "scan_folder", "walk_files"]

TIME_LIMIT_S = 60.0

_FULL, _QUICK = "every frame", "packets, first and last frame"


@dataclass(frozen=True)
class Scan:
    """What a scan did.

    Attributes:
        manifest: of all files.
        num_scanned: files that were read now; the rest were known.
    """

    manifest: Manifest
    num_scanned: int


def scan_folder(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    jobs: int,
    time_limit_s: float = TIME_LIMIT_S,
    is_quick: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scan:
    """Scans all videos below a folder, those that are not known yet, and writes the manifest.

    What is known: entries of the manifest that is there and of the journal of an interrupted scan, as long as the file
    is the same and was scanned as thoroughly by the same version of PyAV.

    Args:
        root: the folder.
        out: the manifest, a parquet file. Its journal has the same name with `.journal` behind it.
        jobs: processes that decode.
        time_limit_s: for one file.
        is_quick: decode the first and the last frame only (and what these need), instead of all.
        on_progress: called with the numbers of files that are done and that there are.

    Raises:
        NotADirectoryError: if `root` is no folder.
        ValueError: if it holds no video, `out` is of another folder or something else, or another scan writes it.
        IsADirectoryError: if `out` is a folder.
        OutputError: if `out` or its journal cannot be written; the scan ends at once.
    """
    top = os.path.abspath(root)
    names = find_videos(top)
    how = _scanned_with(_QUICK if is_quick else _FULL)
    known = _known_manifest(out, top)
    with _EntryJournal(out, readable_name(top)) as journal:
        known |= journal.entries
        entries = {name: entry for name in names if (entry := _still_true(known, top, name, how, time_limit_s))}
        waiting = [name for name in names if name not in entries]
        on_progress(len(entries), len(names))
        scan = functools.partial(_scan_file, top, how, is_quick)
        with closing(map_isolated(scan, waiting, jobs=jobs, time_limit_s=time_limit_s)) as outcomes:
            for name, outcome in outcomes:
                if isinstance(outcome, Failure):
                    outcome = replace(_untried(top, name, how), error=outcome.reason)
                entries[name] = outcome
                journal.add(outcome)
                on_progress(len(entries), len(names))
        manifest = Manifest(readable_name(top), {entry.path: entry for entry in entries.values()})
        manifest.write(out)
    journal.remove()
    return Scan(manifest, len(waiting))


def find_videos(root: str | os.PathLike[str]) -> list[str]:
    """Paths of the video files below a folder, relative to it, sorted; names with a leading dot do not count.

    Links to folders are followed, each folder once.

    Raises:
        NotADirectoryError: if it is no folder.
        ValueError: if there is none.
    """
    if not os.path.isdir(root):
        raise NotADirectoryError(f"{root} is no folder; name the one that the videos lie in.")
    names = [name for name in walk_files(os.path.abspath(root)) if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES]
    if not names:
        raise ValueError(f"there is no video below {root}: no file ends with {', '.join(sorted(VIDEO_SUFFIXES))}.")
    return sorted(names)


def walk_files(root: str) -> Iterator[str]:
    """Files below a folder, relative to it, with `/` between parts; names with a leading dot do not count."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real in seen:
            continue
        seen.add(real)
        for name in files:
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")


# One file -----------------------------------------------------------------------------------------------------------


def _scan_file(root: str, scanned_with: str, is_quick: bool, name: str) -> Entry:
    """The entry of a file; in a process of its own."""
    entry = _untried(root, name, scanned_with)
    path = os.path.join(root, name)
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("it is no regular file")  # reading a pipe would never end
        entry = replace(entry, sha256=file_sha256(path))
        entry = replace(entry, **_packet_facts(path))
        return replace(entry, readable=True, **(_ends_facts(path) if is_quick else _frame_facts(path)))
    except VideoDecodeError as error:
        return replace(entry, error=error.reason)
    except OSError as error:  # not the content's fault, so nothing to believe later
        return replace(entry, bytes=0, mtime_ns=0, error=f"{type(error).__name__}: {error.strerror or error}")


def _untried(root: str, name: str, scanned_with: str) -> Entry:
    """An entry of what the folder says of a file."""
    try:
        status = os.stat(os.path.join(root, name))
        size, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:  # it vanished, or is a link that leads nowhere
        size, mtime_ns = 0, 0
    return Entry(readable_name(name), size, mtime_ns, None, False, scanned_with=scanned_with)


def _packet_facts(path: str) -> dict[str, Any]:
    """What demuxing tells; nothing of a file that only decoding can say more of."""
    try:
        index = index_packets(path)
    except VideoDecodeError:
        return {}
    return {
        "codec": index.codec,
        "container": index.container,
        "keyframe_distance": index.keyframe_distance,
        "seekable": index.refusal is None,
    }


def _frame_facts(path: str) -> dict[str, Any]:
    """What decoding every frame tells."""
    stream = FrameReader(path)
    num_frames = stream.read_through()
    times = stream.timestamps
    return _picture_facts(num_frames, (times[0], times[-1]), stream.fps, stream.shape, stream.rotation)


def _ends_facts(path: str) -> dict[str, Any]:
    """What the first and the last frame tell."""
    video = load_video(path, indices=lambda num_frames: (0, num_frames - 1))
    assert video.total_frames is not None  # of a video read to its end
    times = video.timestamps.tolist()
    return _picture_facts(video.total_frames, times, video.fps, video.frames.shape[1:3], video.rotation)


def _picture_facts(
    num_frames: int, times: Sequence[float], fps: float, shape: Sequence[int], rotation: int
) -> dict[str, Any]:
    """Columns of an entry from the times of the first and the last frame, the rate (NaN if unknown), and (H,W)."""
    duration = times[1] - times[0] + 1 / fps
    height, width = shape
    return {
        "frames": num_frames,
        "duration": None if math.isnan(duration) else duration,
        "fps": None if math.isnan(fps) else fps,
        "width": width,
        "height": height,
        "rotation": rotation,
    }


# What is known ------------------------------------------------------------------------------------------------------


def _scanned_with(how: str) -> str:
    return f"PyAV {available_decoders()['pyav']}, {how}"


def _still_true(
    known: Mapping[str, Entry], root: str, name: str, scanned_with: str, time_limit_s: float
) -> Entry | None:
    """What is known of a file, if another scan would find the same, with the time at which the file was changed.

    A file that took too long has another chance at another limit.
    """
    entry, path = known.get(readable_name(name)), os.path.join(root, name)
    if entry is None or entry.scanned_with not in (scanned_with, _scanned_with(_FULL)):
        return None
    if str(entry.error).startswith(TOOK_TOO_LONG) and entry.error != time_out_reason(time_limit_s):
        return None
    return replace(entry, mtime_ns=os.stat(path).st_mtime_ns) if entry.holds_for(path) else None


def _known_manifest(out: str | os.PathLike[str], root: str) -> dict[str, Entry]:
    """The entries of the manifest that is to be replaced; none if there is no file."""
    if not Path(out).exists():
        return {}
    manifest = Manifest.read(out)
    if manifest.root != readable_name(root):
        raise ValueError(f"{out} is the manifest of {manifest.root}, not of {root}; choose another file by --out.")
    return dict(manifest.entries)


class _EntryJournal:
    """The entries of a scan that is not finished, on disk as they come; a context manager.

    Args:
        out: the manifest that they are for.
        root: the folder that is scanned.

    Raises:
        ValueError: on entering, if it is of another folder, damaged, or written by another process.
    """

    def __init__(self, out: str | os.PathLike[str], root: str) -> None:
        self._journal = OutputJournal(f"{os.fspath(out)}.journal")
        self._root = root

    def __enter__(self) -> Self:
        for record in read_journal(self._journal.path):  # before a lock is left beside it
            if record["root"] != self._root:
                raise ValueError(
                    f"{self._journal.path} is of an unfinished scan of {record['root']}, not of {self._root}; finish "
                    "that, remove the file, or choose another manifest by --out."
                )
        self._journal.__enter__()
        entries = [Entry(**record["entry"]) for record in self._journal.records]
        self.entries = {entry.path: entry for entry in entries}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.__exit__(kind, error, trace)

    def add(self, entry: Entry) -> None:
        record = {"record": "entry", "root": self._root, "entry": dataclasses.asdict(entry)}
        self._journal.append(record, is_precious=False)  # to wait for the disk takes longer than to scan a small file

    def remove(self) -> None:
        """Removes the file, once the manifest is there."""
        self._journal.path.unlink(missing_ok=True)
        Path(f"{self._journal.path.resolve()}.lock").unlink(missing_ok=True)
