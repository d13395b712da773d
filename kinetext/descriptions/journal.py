"""A journal of answers: each on disk before anything is done with it, one JSON object per line.

It is only ever added to. A process killed while writing leaves a last line without its end, which is dropped; damage
anywhere else is an error, for a lost answer would be asked for again, and paid for, without a word.
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
        ValueError: if a line that was written to its end is not a JSON object; names it.
    """
    path = Path(path)
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")  # a whole file ends with a line break: nothing is torn
    return [_record(line, path, number) for number, line in enumerate(lines, start=1)]


def _record(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
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
        self._lock = FileLock(f"{self.path}.lock")  # of the operating system: it goes with the process, however it ends
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"{self.path} is being written by another process; wait for it, stop it, or choose another place."
            ) from None
        try:
            self.records = read_journal(self.path)
            self._file = self._opened_at_its_end()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _opened_at_its_end(self) -> Any:
        """The file, cut behind its last whole line."""
        file = open(self.path, "ab+")  # noqa: SIM115 (closed in __exit__)
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.seek(whole)
        return file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.release()

    def append(self, record: dict[str, Any]) -> None:
        """Writes a record to disk before it returns."""
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.append(record)
