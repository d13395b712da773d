"""A crash or a hang costs one process and one item, never the rest, and leaves no process behind."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from isolated_functions import act, map_and_hang
from training_runs import start, wait_until

from kinetext.data.isolated import Failure, map_isolated, time_out_reason


def outcomes(items: list[str], *, jobs: int = 2, time_limit_s: float = 60) -> dict[str, str | Failure]:
    return dict(map_isolated(act, items, jobs=jobs, time_limit_s=time_limit_s))


def process_of(answer: str | Failure) -> str:
    assert isinstance(answer, str)
    return answer.rpartition(" ")[2]


def test_each_item_has_its_answer_or_its_reason() -> None:
    items = ["one", "segfault", "two", "exit", "raise", "three", "hang", "four"]
    found = outcomes(items, time_limit_s=1)
    assert found.keys() == set(items)
    assert all(str(found[name]).startswith(f"{name} by ") for name in ("one", "two", "three", "four"))
    assert found["segfault"] == Failure(f"the decoder crashed (signal {signal.SIGSEGV})")
    assert found["exit"] == Failure("the decoder ended its process (status 3)")
    assert found["raise"] == Failure("KeyError: 'nothing there'")
    assert found["hang"] == Failure(time_out_reason(1))


def test_children_live_on_as_long_as_nothing_happens() -> None:
    found = outcomes([f"item {number}" for number in range(1000)])
    assert len(found) == 1000 and len({process_of(answer) for answer in found.values()}) == 2


def test_a_crash_that_others_may_have_caused_counts_only_where_it_happens_again() -> None:
    found = outcomes(["before", "segfault when used", "after"], jobs=1)
    assert process_of(found["before"]) != process_of(found["segfault when used"]) == process_of(found["after"])


def test_a_child_that_was_asked_to_stop_is_no_crash() -> None:
    def stop_once() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        time.sleep(0.5)
        os.kill(children[0].pid or 0, signal.SIGTERM)

    thread = threading.Thread(target=stop_once)
    thread.start()
    found = outcomes(["hang"], jobs=1, time_limit_s=2)
    thread.join()
    assert found == {"hang": Failure(time_out_reason(2))}


def test_items_are_taken_as_they_are_needed_and_none_needs_no_process() -> None:
    endless = map_isolated(act, map(str, itertools.count()), jobs=2, time_limit_s=60)
    assert [item for item, _ in itertools.islice(endless, 5)]
    endless.close()
    assert multiprocessing.active_children() == []
    assert outcomes([]) == {}


def test_a_library_that_is_missing_is_no_fault_of_the_item() -> None:
    with pytest.raises(ImportError, match="no module named av"):
        outcomes(["no library"])


def test_a_function_that_children_cannot_import_is_said() -> None:
    with pytest.raises(RuntimeError, match="did not come up"):
        list(map_isolated(_Unloadable(), [1], jobs=1, time_limit_s=60))


def _fail() -> None:
    raise ValueError("not here")


class _Unloadable:
    """A function that can be sent and not be received."""

    __module__ = "isolated_functions"

    def __reduce__(self) -> tuple[object, ...]:
        return eval, ("1 / 0",)

    def __call__(self, item: int) -> int:
        return item


def test_ctrl_c_while_the_first_child_comes_up_is_for_the_parent_alone() -> None:
    program = (
        "from isolated_functions import act; from kinetext.data.isolated import map_isolated\n"
        "try:\n    list(map_isolated(act, ['hang'], jobs=1, time_limit_s=600))\n"
        "except KeyboardInterrupt:\n    print('stopped')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    try:
        until = time.monotonic() + 60
        while not (server := _server_of(run.pid)):
            assert run.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        while server.cpu_times().user < 0.3:  # it runs Python, and loads libraries for seconds
            assert time.monotonic() < until
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        assert run.communicate(timeout=60) == ("stopped\n", "")
    finally:
        run.kill()


def _server_of(parent: int) -> psutil.Process | None:
    children = psutil.Process(parent).children()
    return next((child for child in children if "multiprocessing.forkserver" in " ".join(child.cmdline())), None)


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    run = start(tmp_path / "log", job=map_and_hang)
    assert wait_until(lambda: "who by " in run.output(), run)
    child = int(run.output().split()[2])
    assert psutil.pid_exists(child)
    run.processes[0].kill()
    run.wait()
    until = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)
