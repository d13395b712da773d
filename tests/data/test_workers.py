"""Data workers end with their loader or their trainer, and at no request to stop, however they were started."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import psutil
import pytest
from torch.utils.data import DataLoader, Dataset

from kinetext.data.workers import ignore_sigterm, sigterm_held


class ProcessIds(Dataset[int]):
    """Which process loads."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return os.getpid()


def loader(**options: Any) -> Any:
    return DataLoader(ProcessIds(), batch_size=None, num_workers=1, worker_init_fn=ignore_sigterm, **options)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_worker_that_is_asked_to_stop_goes_on_and_ends_with_its_loader(method: str) -> None:
    batches = iter(loader(multiprocessing_context=method, prefetch_factor=1))
    worker = next(batches)
    os.kill(worker, signal.SIGTERM)
    assert set(batches) == {worker}

    del batches
    assert not is_running(worker)


def test_no_worker_is_hit_while_it_starts() -> None:
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(0.002):
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.send_signal(signal.SIGTERM)

    sender = threading.Thread(target=ask)
    sender.start()
    try:
        for _ in range(20):
            with sigterm_held():
                batches = iter(loader(multiprocessing_context="fork"))
            assert len(list(batches)) == 8
    finally:
        is_over.set()
        sender.join()


def test_a_worker_ends_when_its_trainer_is_killed() -> None:
    code = "import time, test_workers; b = iter(test_workers.loader()); print(next(b), flush=True); time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, os.path.dirname(__file__)])}
    trainer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert trainer.stdout is not None
    worker = int(trainer.stdout.readline())
    trainer.kill()
    trainer.wait()

    until = time.monotonic() + 30
    while is_running(worker) and time.monotonic() < until:
        time.sleep(0.2)
    assert not is_running(worker)


def test_a_program_ends_though_it_still_holds_a_loader_with_workers() -> None:
    code = (
        "import test_workers as t\n"
        "loader = t.loader(persistent_workers=True)\n"
        "with t.sigterm_held(): batches = iter(loader)\n"
        "print(next(batches), flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, os.path.dirname(__file__)])}
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert program.stdout is not None
    worker = int(program.stdout.readline())
    try:
        assert program.wait(timeout=30) == 0
        assert not is_running(worker)
    finally:
        for pid in (program.pid, worker):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether there is such a process, other than as a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
