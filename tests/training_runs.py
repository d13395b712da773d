"""Training runs of a tiny model on rendered clips, in processes of their own that can be killed at any moment."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from safetensors.torch import load_file
from transformers.trainer_utils import get_last_checkpoint

from kinetext.data.motion_shapes import render_clip, write_clip

REPOSITORY = Path(__file__).resolve().parents[1]
CLASSES = ("growing", "moving left", "orbiting clockwise", "shrinking")

# Processes are forked from one that has the libraries loaded and has not computed: a run starts in a tenth of a second.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["kinetext.training.run", "kinetext.training.arguments", "torch.distributed"])

TINY_MODEL = {
    "projection_dim": 32,
    "prompt_num_attention_heads": 2,
    "text_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2
    },
    "vision_config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 16, "mit_hidden_size": 32, "mit_intermediate_size": 64, "mit_num_attention_heads": 4,
        "drop_path_rate": 0.2,  # random numbers of the process, besides those of the clips
    },
}  # fmt: skip


def write_recipe(path: Path, **settings: Any) -> Path:
    """A recipe of 16 steps of 8 clips with all that is random: augmentation, blending, drop path; averages, too."""
    recipe: dict[str, Any] = {
        "model_config": TINY_MODEL,
        "num_frames": 4,
        "short_side": 36,
        "train": "train",
        "eval": "train",
        "eval_strategy": "steps",
        "eval_steps": 8,
        "learning_rate": 1e-3,
        "warmup_steps": 4,
        "max_steps": 16,
        "total_train_batch_size": 8,
        "max_clips_per_device": 2,  # so gradients of several batches are accumulated, also on two processes
        "ema_decay": 0.8,
        "max_grad_norm": 1.0,
        "logging_strategy": "steps",
        "logging_steps": 2,
        "save_strategy": "steps",
        "save_steps": 3,
        "dataloader_num_workers": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    path.write_text(yaml.safe_dump({**recipe, **settings}))
    return path


def render_clips(folder: Path, per_class: int = 8, *, num_frames: int = 8, size: int = 32) -> Path:
    """The folder, with `train/<class>/<number>.mp4` in it."""
    for name in CLASSES:
        (folder / "train" / name).mkdir(parents=True)
        for number in range(per_class):
            frames = render_clip(name, number, num_frames=num_frames, size=size)
            write_clip(frames, folder / "train" / name / f"{number:03d}.mp4", fps=8)
    return folder


class Run:
    """A training run that was started: one process or several, each with its data workers."""

    def __init__(self, processes: Sequence[Any], log: Path) -> None:
        self.processes = list(processes)
        self.log = log

    @property
    def is_running(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def wait(self, timeout_s: float = 240) -> list[int]:
        """The exit codes; of a process that a signal ended, its negative number."""
        deadline = time.monotonic() + timeout_s
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        if None in codes:
            self.kill()
            raise TimeoutError(f"still running after {timeout_s} s: {self.output()[-3000:]}")
        return codes

    def finish(self) -> None:
        codes = self.wait()
        assert not any(codes), f"exit codes {codes}: {self.output()[-4000:]}"

    def ask_to_stop(self) -> None:
        """SIGTERM to every process, data workers, too, as launchers and schedulers do; a launcher does so itself."""
        for process in self.processes:
            for one in _family(process.pid) if process.name == _in_group.__name__ else [psutil.Process(process.pid)]:
                one.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 of every process, at once as far as that is possible."""
        everyone = [one for process in self.processes for one in _family(process.pid)]
        for one in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        for process in self.processes:
            process.join()

    def output(self) -> str:
        return self.log.read_text()


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def train(arguments: list[str]) -> None:
    """What `train.py` does with these arguments."""
    from kinetext.training.arguments import parse_recipe
    from kinetext.training.run import run_training

    run_training(parse_recipe(arguments))


def start(log: Path, *arguments: object, num_processes: int = 1, job: Callable[[list[str]], None] = train) -> Run:
    """Starts a run as `train.py` with these arguments does, or another job, on processes that know each other."""
    port, words = _free_port(), [str(argument) for argument in arguments]
    return _started(log, [(_in_group, (job, words, rank, num_processes, port)) for rank in range(num_processes)])


def launch(log: Path, *arguments: object, num_processes: int = 1) -> Run:
    """Starts a run as a user does, by `python train.py` or `accelerate launch`."""
    command = [sys.executable]
    if num_processes > 1:
        accelerate = str(Path(sys.executable).with_name("accelerate"))
        command = [accelerate, "launch", "--multi_gpu", "--num_processes", str(num_processes)]
        command += ["--main_process_port", str(_free_port())]
    return _started(log, [(_execute, ([*command, str(REPOSITORY / "train.py"), *map(str, arguments)],))])


def _started(log: Path, jobs: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> Run:
    log.write_text("")
    processes = [
        _PROCESSES.Process(target=_with_log, args=(log, job, arguments), name=job.__name__) for job, arguments in jobs
    ]
    for process in processes:
        process.start()
    return Run(processes, log)


def _with_log(log: Path, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    job(*arguments)


def _in_group(job: Callable[[list[str]], None], arguments: list[str], rank: int, num_processes: int, port: int) -> None:
    torch.set_num_threads(1)
    if num_processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    job(arguments)


def _execute(command: list[str]) -> None:
    os.execv(command[0], command)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# What a run leaves behind


def last_step(output: Path) -> int:
    """The step of the last checkpoint, 0 if there is none."""
    last = get_last_checkpoint(str(output)) if output.is_dir() else None
    return 0 if last is None else int(last.rpartition("-")[2])


def last_checkpoint(output: Path) -> Path:
    return output / f"checkpoint-{last_step(output)}"


def tensors_of(content: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors and numbers inside nested containers, by where they are."""
    if isinstance(content, torch.Tensor):
        yield name, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from tensors_of(value, f"{name}.{key}")
    elif isinstance(content, (list, tuple)):
        for index, value in enumerate(content):
            yield from tensors_of(value, f"{name}.{index}")
    elif isinstance(content, (int, float)):
        yield name, torch.tensor(content, dtype=torch.float64)


def checkpoint_content(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Weights, averages, optimizer, schedule and random state of a checkpoint, which are there only if it is whole."""
    assert (checkpoint / "run.json").is_file()
    content: dict[str, torch.Tensor] = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        content |= {f"{path.name} {name}": value for name, value in load_file(path).items()}
    for path in sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]):
        state = torch.load(path, weights_only=False)
        content |= {f"{path.name} {name}": value for name, value in tensors_of(state)}
    step = json.loads((checkpoint / "trainer_state.json").read_text())["global_step"]
    assert checkpoint.name == f"checkpoint-{step}"
    return content


def logged_losses(output: Path) -> list[tuple[int, float, float]]:
    """(step, loss, norm of the gradient) of all that was logged, over all starts of the run."""
    state = json.loads((last_checkpoint(output) / "trainer_state.json").read_text())
    return [(entry["step"], entry["loss"], entry["grad_norm"]) for entry in state["log_history"] if "loss" in entry]


def differences(one: Path, other: Path) -> list[str]:
    """The names of all that is not the same to the bit in the last checkpoints and the saved models of two runs."""
    names: list[str] = []
    for left, right in (
        (load_file(one / "model.safetensors"), load_file(other / "model.safetensors")),
        (checkpoint_content(last_checkpoint(one)), checkpoint_content(last_checkpoint(other))),
    ):
        names += [name for name in left.keys() | right.keys() if not _same(left.get(name), right.get(name))]
    return sorted(names)


def _same(left: torch.Tensor | None, right: torch.Tensor | None) -> bool:
    return left is not None and right is not None and left.shape == right.shape and torch.equal(left, right)


def wait_until(condition: Callable[[], bool], run: Run, *, timeout_s: float = 120) -> bool:
    """Whether the condition came true before the run ended; looks every millisecond or so."""
    deadline = time.monotonic() + timeout_s
    while run.is_running:
        if condition():
            return True
        if time.monotonic() > deadline:
            run.kill()
            raise TimeoutError(run.output()[-3000:])
        time.sleep(0.001)
    return condition()


SIGTERM_STATUS = 128 + signal.SIGTERM
