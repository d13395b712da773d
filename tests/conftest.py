"""Settings and fixtures of the whole test run: offline, one thread, fixed seeds."""

import os

# Before any import that reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tiny tensors only wait for further threads, and long where other work runs beside.
os.environ["OMP_NUM_THREADS"] = "1"

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_stub import HubStub

# A run that a shell started in the background ignores Ctrl-C, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real clips and reference weights beside the repository."""
    path = REPOSITORY.parent / "shared"
    if not (path / "data").is_dir():
        pytest.skip(f"needs the real clips and reference weights of {path}, which are not part of the repository")
    return path


class HubClient:
    """Runs programs in fresh processes that talk to a stub of the Hub, as `alice` unless told otherwise."""

    def __init__(self, hub: HubStub, home: Path) -> None:
        self.hub = hub
        self.home = home

    def start(self, *arguments: str, user: str = "alice", cache: str = "hf", **variables: str) -> subprocess.Popen[str]:
        """A process of this Python interpreter with `arguments`; `cache` is where it keeps what it downloads."""
        environment = {**os.environ, **self.hub.environment(user), "HF_HUB_OFFLINE": "0", **variables}
        environment |= {"HF_HOME": str(self.home / cache), "PYTHONPATH": str(REPOSITORY)}
        return subprocess.Popen(
            [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str, fails: bool = False, **options: str) -> str:
        """What the process printed; of one that is to fail, on standard error."""
        process = self.start(*arguments, **options)
        output, errors = process.communicate(timeout=240)
        assert (process.returncode != 0) == fails, f"exit code {process.returncode}: {output[-2000:]}{errors[-3000:]}"
        return errors if fails else output


@pytest.fixture
def hub_client(tmp_path: Path) -> Iterator[HubClient]:
    """A stub of the Hub (`.hub`) and processes that talk to it."""
    with HubStub() as hub:
        yield HubClient(hub, tmp_path)
