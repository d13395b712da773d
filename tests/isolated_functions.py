"""What other processes are made to do in tests of `map_isolated`, of `kinetext scan` and of `kinetext prepare`."""

from __future__ import annotations

import os
import signal
import time

from kinetext.data.isolated import map_isolated

_seen: list[str] = []


def act(item: str) -> str:
    """Does what the item names; else says which process did it."""
    _seen.append(item)
    if item == "segfault" or (item == "segfault when used" and len(_seen) > 1):
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "exit":
        os._exit(3)
    if item == "hang":
        time.sleep(3600)
    if item == "raise":
        raise KeyError("nothing there")
    if item == "no library":
        raise ImportError("no module named av")
    return f"{item} by {os.getpid()}"


def map_and_hang(arguments: list[str]) -> None:
    """Prints the number of a child, and then waits for one that hangs."""
    for _, result in map_isolated(act, ["who", "hang"], jobs=1, time_limit_s=600):
        print(result, flush=True)


def run_verb(arguments: list[str]) -> None:
    """`kinetext` with these arguments."""
    from kinetext.cli import app

    app(arguments, standalone_mode=False)
