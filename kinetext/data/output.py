"""Writing what long runs make: a disk that is full or closed ends the run, and the error names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from ..descriptions.journal import Journal

__all__ = ["OutputError", "OutputJournal", "writing"]


class OutputError(OSError):
    """A place for results cannot be written, which is the fault of no source: it ends a run."""


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns an OSError of the body, which does nothing but write `path`, into an [`OutputError`] that names it."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{os.fspath(path)} cannot be written ({error.strerror or error}); make room or give the right to write "
            "there, or choose another place. The same call then goes on."
        ) from error


class OutputJournal(Journal):
    """A [`Journal`] whose errors of writing are [`OutputError`]s."""

    def __enter__(self) -> Self:
        with writing(self.path):
            super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(self.path):
            super().__exit__(kind, error, trace)

    def append(self, record: dict[str, Any], *, is_precious: bool = True) -> None:
        """As of a [`Journal`]."""
        with writing(self.path):
            super().append(record, is_precious=is_precious)
