r"""What is known of the video files below a folder: which can be read, and what they hold.

`kinetext scan` writes a manifest, as parquet; training and evaluation take from it which clips not to try. What it says
of a file is believed as long as the file is the one that was scanned: same size and time of change or, where only the
time differs, as after copying, same size and SHA-256.

Paths are relative to the scanned folder, with `/` between parts. Bytes of a name that are no UTF-8, which parquet
cannot hold, are written out as `\udce9`, and backslashes twice (`readable_name`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from ..descriptions.files import write_atomically
from ..processing.video_decoders import decode_error
from ..processing.video_decoding import DECODERS
from .clip_lists import Clip, ClipList
from .output import writing

__all__ = ["Entry", "Manifest", "UnreadableVideo", "file_sha256", "is_same_file", "readable_name"]

logger = logging.getLogger(__name__)

_ROOT_KEY = b"kinetext_root"
_USUAL_NAME = "manifest.parquet"


@dataclass(frozen=True)
class Entry:
    """What is known of one video file; None where it could not be found out.

    Attributes:
        path: relative to the scanned folder, as `readable_name` writes it.
        bytes: size of the file; 0 where it could not be read at all, so that nothing here is believed later.
        mtime_ns: when it was changed, nanoseconds since 1970; likewise.
        sha256: of the file; None where no process lived to tell.
        readable: whether every frame, or those that were tried, could be decoded.
        error: why not.
        frames: number of frames: counted by decoding them, in a quick scan as the packets say.
        duration: seconds from the first frame to the end of the last.
        fps: frames per second, as of `VideoFrames`.
        width: of the upright picture, in pixels.
        height: of the upright picture, in pixels.
        codec: as FFmpeg calls it.
        container: as FFmpeg calls it.
        rotation: degrees clockwise by which the stored pictures are turned.
        keyframe_distance: the largest number of frames from one that can be decoded alone to the next, or to the end.
        seekable: whether frames can be reached without decoding all before them.
        scanned_with: version of the decoder, and how much was decoded.
    """

    path: str
    bytes: int
    mtime_ns: int
    sha256: str | None
    readable: bool
    error: str | None = None
    frames: int | None = None
    duration: float | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    codec: str | None = None
    container: str | None = None
    rotation: int | None = None
    keyframe_distance: int | None = None
    seekable: bool | None = None
    scanned_with: str = ""

    def holds_for(self, file: str | os.PathLike[str]) -> bool:
        """Whether this file is the one that was scanned; False also if there is none."""
        return is_same_file(file, self.bytes, self.mtime_ns, self.sha256)


@dataclass(frozen=True)
class UnreadableVideo(os.PathLike[str]):
    """A clip's source that is known to be unreadable: reading it raises what decoding it would.

    Args:
        path: of the file.
        reason: what is wrong with it.
    """

    path: str
    reason: str

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return self.path

    def __call__(self) -> Any:
        """Raises VideoDecodeError."""
        raise decode_error(self.path, DECODERS[0], self.reason)


@dataclass(frozen=True)
class Manifest:
    """The entries of a scanned folder.

    Args:
        root: the folder that paths are relative to, absolute.
        entries: by path.
    """

    root: str
    entries: Mapping[str, Entry]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """The manifest in a parquet file.

        Raises:
            FileNotFoundError: if there is none.
            IsADirectoryError: if it is a folder.
            ValueError: if the file is something else.
        """
        import pyarrow
        import pyarrow.parquet

        if Path(path).is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a file for the manifest: {Path(path, _USUAL_NAME)}.")
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no manifest at {path}; `kinetext scan ROOT --out {path}` writes it.")
        try:
            table = pyarrow.parquet.read_table(path)
            root = table.schema.metadata[_ROOT_KEY].decode()
            entries = [Entry(**row) for row in table.to_pylist()]
        except (pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no manifest of `kinetext scan` ({error}).") from error
        return cls(root, {entry.path: entry for entry in entries})

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes parquet, whole or not at all, in the order of paths; raises OutputError where that is not possible."""
        import pyarrow
        import pyarrow.parquet

        rows = [dataclasses.asdict(self.entries[name]) for name in sorted(self.entries)]
        schema = _arrow_schema().with_metadata({_ROOT_KEY: readable_name(self.root).encode()})
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), sink)
        with writing(path):
            write_atomically(path, sink.getvalue().to_pybytes())

    def mark_unreadable(self, clips: ClipList, data_root: str | os.PathLike[str]) -> ClipList:
        """The clips, those that are known to be unreadable with an [`UnreadableVideo`] as source.

        Entries of files that have changed since are left aside, and counted in a warning; so is a manifest that names
        none of the clips. Clips that are no files, such as those in tar shards, stay as they are.

        Args:
            clips: any list.
            data_root: where they lie; it stands for the scanned folder where that is not there any more.
        """
        root = self.root if os.path.isdir(self.root) else os.path.abspath(data_root)
        marked: list[Clip] = []
        stale: list[str] = []
        num_known = 0
        for clip in clips.clips:
            entry = self._entry_of(clip, root)
            num_known += entry is not None
            if entry is not None and not entry.readable:
                if entry.holds_for(clip.source):
                    clip = replace(clip, source=UnreadableVideo(str(clip.source), str(entry.error)))
                else:
                    stale.append(clip.clip_id)
            marked.append(clip)
        if not num_known:
            logger.warning(
                "the manifest of %s names none of the %d clips of %s; scan the folder that they lie in.",
                *(self.root, len(clips), data_root),
            )
        if stale:
            logger.warning(
                "%d clips that the manifest calls unreadable have changed since, e.g. %s; they are tried. Scan again.",
                *(len(stale), stale[0]),
            )
        return replace(clips, clips=tuple(marked))

    def _entry_of(self, clip: Clip, root: str) -> Entry | None:
        if not isinstance(clip.source, (str, os.PathLike)):
            return None
        folder, name = os.path.split(os.path.abspath(clip.source))
        for real in (str, os.path.realpath):  # links below the scanned folder, or on the way to it
            relative = os.path.relpath(os.path.join(real(folder), name), real(root))
            if entry := self.entries.get(readable_name(Path(relative).as_posix())):
                return entry
        return None


def readable_name(name: str) -> str:
    """The name of a file with bytes that are no UTF-8 written out, so that it can be stored and shown.

    Backslashes are doubled: no two names become one.
    """
    return name.replace("\\", "\\\\").encode(errors="backslashreplace").decode()


def is_same_file(file: str | os.PathLike[str], size: int, mtime_ns: int, sha256: str | None) -> bool:
    """Whether a file is there and is the one that had this size, time of change and, where only that differs, hash."""
    try:
        status = os.stat(file)
        if status.st_size != size:
            return False
        return status.st_mtime_ns == mtime_ns or (sha256 is not None and file_sha256(file) == sha256)
    except OSError:
        return False


def file_sha256(file: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _arrow_schema() -> Any:
    import pyarrow

    kinds = {"str": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64(), "bool": pyarrow.bool_()}
    return pyarrow.schema(
        [(item.name, kinds[str(item.type).removesuffix(" | None")]) for item in dataclasses.fields(Entry)]
    )
