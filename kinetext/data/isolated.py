"""Work on untrusted files in processes of their own, so that a crash or a hang costs a process and not the run.

    items ──► a child for each job, which lives on ──► (item, result)
                 └── died, or took too long: killed and replaced ──► (item, Failure)

A pool of `concurrent.futures` is broken for good by the first child that dies, and cannot end one that hangs. Where the
system can fork, children come from a server that has the libraries loaded, so that a replacement costs milliseconds.
They end with the program, however that ends.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from .output import OutputError

__all__ = ["TOOK_TOO_LONG", "Failure", "default_jobs", "map_isolated", "time_out_reason"]

Item = TypeVar("Item")
Result = TypeVar("Result")

TOOK_TOO_LONG = "took longer than"
_START_S = 120.0  # in which a child must have loaded its libraries
_NOTHING = object()
_ENDS_RUN = (ImportError, OutputError)  # the fault of no item


@dataclass(frozen=True)
class Failure:
    """Why there is no result for an item.

    Args:
        reason: in words, such as "the decoder crashed (signal 11)".
    """

    reason: str


def default_jobs() -> int:
    """Processors that this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def time_out_reason(time_limit_s: float) -> str:
    """What a [`Failure`] says of an item that took longer than this."""
    return f"{TOOK_TOO_LONG} {time_limit_s:g} s"


def map_isolated(
    function: Callable[[Item], Result], items: Iterable[Item], *, jobs: int, time_limit_s: float
) -> Generator[tuple[Item, Result | Failure], None, None]:
    """Every item with what `function` returns for it, or why it returned nothing, as they become ready.

    An exception is a `Failure`, too, but for a library that is missing and results that cannot be written. A crash
    counts against an item only in a child that has seen no other item; from any other, the item goes to a new child
    first.

    Args:
        function: like items and results it is pickled, so it stands at the top of a module.
        items: taken as they are needed.
        jobs: children at a time, at least 1.
        time_limit_s: for one item.

    Raises:
        ImportError, OutputError: if `function` does.
        RuntimeError: if children do not come up, e.g. because `function` cannot be imported there.
    """
    waiting = iter(items)
    first = list(itertools.islice(waiting, jobs))
    waiting, children = itertools.chain(first, waiting), [_Child(function) for _ in first]
    try:
        while True:
            for child in children:
                if child.is_idle and (item := next(waiting, _NOTHING)) is not _NOTHING:
                    child.give(item, time_limit_s)
            busy = [place for place, child in enumerate(children) if not child.is_idle]
            if not busy:
                return
            _wait([children[place] for place in busy])
            for place in busy:
                child = children[place]
                if child.has_answer:
                    yield child.take()
                elif child.is_dead or child.is_late:
                    reason = child.end()
                    children[place] = _Child(function)
                    if reason is None:
                        children[place].give(child.item, time_limit_s)
                    else:
                        yield child.item, Failure(reason)
    finally:
        for child in children:
            child.end()


class _Child:
    """A process that answers one item after the other."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = _context(function)
        self.connection, theirs = context.Pipe()
        self.process: Any = context.Process(target=_serve, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.item: Any = _NOTHING
        self._num_given = 0
        self._time_limit_s = self.deadline = 0.0

    @property
    def is_idle(self) -> bool:
        return self.item is _NOTHING

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self.deadline

    @property
    def is_dead(self) -> bool:
        return not self.process.is_alive()

    @property
    def has_answer(self) -> bool:
        """Whether there is one; the end of the connection, which polls alike, is none."""
        try:
            if not self.connection.poll():
                return False
            self._answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return False
        return True

    def give(self, item: Any, time_limit_s: float) -> None:
        """Starts work on an item."""
        if self._num_given == 0:
            self._await_start()
        self.item, self._num_given = item, self._num_given + 1
        self._time_limit_s, self.deadline = time_limit_s, time.monotonic() + time_limit_s
        with contextlib.suppress(OSError):  # it died while it was idle, which the caller finds out
            self.connection.send(item)

    def take(self) -> tuple[Any, Any]:
        """The item and the answer, which is there; the child is idle then."""
        item, self.item = self.item, _NOTHING
        if isinstance(self._answer, _ENDS_RUN):
            raise self._answer
        return item, self._answer

    def end(self) -> str | None:
        """Ends the process; the reason, if it is the fault of the item that there is no answer."""
        was_late = not self.is_dead
        self.process.kill()
        self.process.join()
        self.connection.close()
        if was_late:
            return time_out_reason(self._time_limit_s)
        code = self.process.exitcode
        if code == -signal.SIGTERM or self._num_given > 1:  # asked to stop, as whole groups of processes are
            return None
        return f"the decoder crashed (signal {-code})" if code < 0 else f"the decoder ended its process (status {code})"

    def _await_start(self) -> None:
        try:
            if self.connection.poll(_START_S):
                self.connection.recv()
                return
        except (EOFError, OSError):
            self.process.join()
        raise RuntimeError(
            f"a process that is to read files did not come up (exit code {self.process.exitcode}). In a program of "
            "your own, call this below `if __name__ == '__main__':`."
        )


def _wait(busy: Sequence[_Child]) -> None:
    """Returns when one of them has an answer, is dead, or is late."""
    until = min(child.deadline for child in busy) - time.monotonic()
    wait([source for child in busy for source in (child.connection, child.process.sentinel)], max(0.0, until))


def _context(function: Callable[..., Any]) -> Any:
    """How children are started; where they come from a server, it runs."""
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    if forkserver._forkserver._preload_modules == ["__main__"]:  # type: ignore[attr-defined]  # nobody asked for any
        context.set_forkserver_preload([__name__, getattr(function, "func", function).__module__])
    _start_server()
    return context


def _start_server() -> None:
    """Starts the server unless it runs; while it loads libraries, Ctrl-C is for the parent alone."""
    resource_tracker.ensure_running()  # by the server otherwise, and that unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which the server takes over
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    """What a child does: it answers until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal, and the parent ends this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        connection.send(None)
        while True:
            item = connection.recv()
            connection.send(_answer(function, item))
    except (EOFError, OSError):
        return


def _answer(function: Callable[[Any], Any], item: Any) -> Any:
    try:
        return function(item)
    except _ENDS_RUN as error:
        return error
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
