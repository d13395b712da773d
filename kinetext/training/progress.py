"""How a run is going: a bar in a terminal, plain lines elsewhere, and the line that a run starts with."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.training_args import TrainingArguments

from ..evaluation.bars import progress_console
from .arguments import VideoTextTrainingArguments

__all__ = ["RunProgress", "device_name", "figures", "group_rates", "headline", "precision_name", "show_progress"]

_RATE = "learning_rate/"


def headline(
    args: VideoTextTrainingArguments, *, num_train_clips: int | None, num_eval_clips: int, num_classes: int
) -> str:
    """The first line of a run: what trains on what, so that a wrong launch is seen before it has cost anything.

    A stream has no number of clips.
    """
    processes = f"{args.world_size} process{'es' if args.world_size > 1 else ''}"
    clips = "a stream of" if num_train_clips is None else num_train_clips
    return (
        f"{processes} on {device_name(args)}, {precision_name(args)}; {clips} clips to train on, "
        f"{num_eval_clips} to evaluate, {num_classes} classes; effective batch {args.effective_batch_size} = "
        f"{args.world_size} (processes) x {args.train_batch_size} (clips) x {args.gradient_accumulation_steps} "
        f"(accumulated); output in {args.output_dir}"
    )


def device_name(args: TrainingArguments) -> str:
    """What one process computes on, e.g. `cpu` or `cuda (NVIDIA H100)`."""
    device = args.device
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def precision_name(args: TrainingArguments) -> str:
    """The precision of the forward pass: bf16 and fp16 are autocast, weights stay in fp32."""
    return "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"


@contextmanager
def show_progress(trainer: Trainer) -> Iterator[None]:
    """While the block runs, the trainer shows itself by [`RunProgress`], not by transformers' own bar.

    Nothing is shown with `disable_tqdm`. The terminal is left in order, also where the run fails.
    """
    trainer.remove_callback(PrinterCallback if trainer.args.disable_tqdm else DEFAULT_PROGRESS_CALLBACK)
    if trainer.args.disable_tqdm:
        yield
        return
    progress = RunProgress()
    trainer.add_callback(progress)
    try:
        yield
    finally:
        progress.close()


class RunProgress(TrainerCallback):
    """Epoch, step, loss, speed, waiting, rates and memory, on standard error of the main process.

    A terminal gets a bar with the figures of the last log below it; evaluations stay above it as lines. Anything else
    gets one line per log.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = progress_console() if console is None else console
        self._bar: _Bar | None = None
        self._begun = 0.0  # seconds
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the bar where a run, or what is left of it, starts."""
        self._begun, self._first_step = time.monotonic(), state.global_step
        if state.is_world_process_zero and self.console.is_terminal:
            self._bar = _Bar(self.console, state.global_step, state.max_steps)
            self._bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.move(state.global_step, _epoch(state) or "steps")

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Shows what was logged."""
        text = figures(logs or {})
        if not state.is_world_process_zero or not text:
            return
        if self._bar is not None and "loss" in (logs or {}):
            self._bar.show(text)
            return
        place = ", ".join(filter(None, [_epoch(state), f"step {state.global_step}/{state.max_steps}"]))
        self.console.print(f"{place}: {text}{self._remaining(state)}", highlight=False, markup=False, soft_wrap=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the bar."""
        self.close()

    def close(self) -> None:
        """Ends the bar, also of a run that failed."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _remaining(self, state: Any) -> str:
        """The time left at the mean speed so far, for lines without a bar that says it."""
        done, left = state.global_step - self._first_step, state.max_steps - state.global_step
        if self._bar is not None or done <= 0 or left <= 0:
            return ""
        return f", {timedelta(seconds=round((time.monotonic() - self._begun) / done * left))} left"


def _epoch(state: Any) -> str:
    """How many epochs are done; "" of a stream, which has none: transformers counts as many as there are numbers."""
    return "" if state.num_train_epochs == sys.maxsize else f"epoch {state.epoch or 0:.2f}/{state.num_train_epochs:g}"


class _Bar(Progress):
    """One bar of optimiser steps, and a line of figures below it."""

    def __init__(self, console: Console, step: int, num_steps: int) -> None:
        self._figures = ""
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._steps = self.add_task("", total=num_steps, completed=step)

    def get_renderables(self) -> Any:
        """The bar, and what was logged last."""
        yield self.make_tasks_table(self.tasks)
        if self._figures:
            below: RenderableType = Text(self._figures, style="dim")
            yield below

    def move(self, step: int, place: str) -> None:
        self.update(self._steps, completed=step, description=place)

    def show(self, text: str) -> None:
        self._figures = text
        self.refresh()


def figures(logs: Mapping[str, Any]) -> str:
    """What was logged of a step or an evaluation as one line; "" where it is of neither."""
    parts = [f"{name} {logs[key]:{pattern}}" for name, key, pattern in _FIGURES if key in logs]
    if rates := group_rates(logs):
        parts.insert(1, "lr " + " ".join(f"{name} {rate:.2e}" for name, rate in rates.items()))
    if logs.get("failed_clips"):
        parts.append(f"{logs['failed_clips']} failed clips")
    return ", ".join(parts)


_FIGURES = (
    ("loss", "loss", ".4f"),
    ("gradient norm", "grad_norm", ".3g"),
    ("clips/s", "clips_per_second", ".1f"),
    ("waiting for data", "data_wait", ".0%"),
    ("GPU GiB", "gpu_memory_gib", ".1f"),
    ("top-1", "eval_top1", ".4f"),
    ("top-5", "eval_top5", ".4f"),
    ("coverage", "eval_coverage", ".4f"),
)


def group_rates(logs: Mapping[str, Any]) -> dict[str, float]:
    """Group -> learning rate of a log; those with and without weight decay learn alike and are one."""
    rates = {key.removeprefix(_RATE): rate for key, rate in logs.items() if key.startswith(_RATE)}
    return {name.removesuffix("_no_decay"): rate for name, rate in rates.items()}
