"""A journal of answers: each on disk before anything is done with it, one JSON object per line.

It is only ever added to. A process killed while writing leaves a last line without its end, which is dropped when the
next record is written, not before: its owner may find until then that the file is something else. A last line that
lacks its line break alone is whole, and kept. Damage anywhere else is an error, for a lost answer would be asked for
again, and paid for, without a word.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Journal", "read_journal"]


def read_journal(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a journal, in the order in which they were written; none if there is no file.

    Raises:
        ValueError: if a line that was written to its end is not a JSON object, names it; or if the rest of the file is
            not the beginning of one.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines, torn = _lines(path)
    # A file without one whole line may be somebody's notes, unless it begins as the journal of a paid run does.
    if torn and not (lines and torn[:2] in (b"{", b'{"')) and not torn.startswith(b'{"record": '):
        raise ValueError(
            f"{path} ends with {torn[:40]!r}, which is not what kinetext writes there; choose another file, or remove "
            "that line if the file is a journal whose writer was killed."
        )
    return [_record(line, path, number) for number, line in enumerate(lines, start=1)]


def _lines(path: Path) -> tuple[list[bytes], bytes]:
    """The whole lines of a file and what is torn of the last; a JSON object without its line break is whole."""
    *lines, last = path.read_bytes().split(b"\n")
    try:
        is_whole = isinstance(json.loads(last), dict)
    except (ValueError, RecursionError):
        is_whole = False
    return ([*lines, last], b"") if is_whole else (lines, last)


def _record(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}, line {number} is damaged ({error}); bring the file back from a copy, or remove that line: "
            "its answer is then asked for again."
        ) from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}, line {number} is not a JSON object; this is no journal of kinetext.")
    return record


class Journal:
    """A journal that this process alone writes, as a context manager; `records` are those on disk.

    Raises:
        ValueError: on entering, if another process has it or a line is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.records: list[dict[str, Any]] = []

    def __enter__(self) -> Journal:
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Of the operating system: it goes with the process, however it ends. One for all spellings of the path.
        self._lock = FileLock(f"{self.path.resolve()}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"{self.path} is being written by another process; wait for it, stop it, or choose another place."
            ) from None
        try:
            self.records = read_journal(self.path)
            self._file = open(self.path, "ab")
            lines, torn = _lines(self.path)
            self._size: int | None = self.path.stat().st_size - len(torn)  # of whole lines; None once mended
            self._lacks_break = not torn and bool(lines) and not self.path.read_bytes().endswith(b"\n")
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.release()

    def append(self, record: dict[str, Any], *, is_precious: bool = True) -> None:
        """Writes a record to disk before it returns; one that is not precious may be lost with the power."""
        if self._size is not None:
            self._file.truncate(self._size)
            self._file.write(b"\n" if self._lacks_break else b"")
            self._size = None
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        if is_precious:
            os.fsync(self._file.fileno())
        self.records.append(record)
