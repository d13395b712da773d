"""What a run shows of itself, driven by transformers' own Trainer on a model of one weight."""

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from transformers import PrinterCallback, ProgressCallback, Trainer

from kinetext.training import progress
from kinetext.training.arguments import VideoTextTrainingArguments
from kinetext.training.progress import RunProgress, figures, headline, show_progress

RATES = {"learning_rate/clip": 8e-6, "learning_rate/clip_no_decay": 8e-6, "learning_rate/new": 8e-5}
SPEED = {"clips_per_second": 12.34, "data_wait": 0.04, "failed_clips": 2}


class OneWeight(nn.Module):
    """A model whose loss is its weight, or fails from a step on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.steps_left = 1000

    def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
        self.steps_left -= 1
        if self.steps_left < 0:
            raise RuntimeError("out of memory")
        return {"loss": self.weight.square().sum()}


class LoggingTrainer(Trainer):
    """Logs what `VideoTextTrainer` logs, and evaluates to fixed numbers."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log({**logs, **RATES, **SPEED} if "loss" in logs else logs, start_time)

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        metrics = {"eval_top1": 0.5, "eval_top5": 1.0, "eval_coverage": 0.75}
        self.log(metrics)
        return metrics


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., LoggingTrainer]:
    def make(**options: Any) -> LoggingTrainer:
        defaults = {"report_to": "none", "save_strategy": "no", "logging_steps": 2, "warmup_epochs": 0, "use_cpu": True}
        defaults |= {"num_train_epochs": 2, "per_device_train_batch_size": 2, "eval_strategy": "epoch"}
        args = VideoTextTrainingArguments(str(tmp_path / "out"), **{**defaults, **options})
        data: Any = [{"x": 1.0}] * 8
        return LoggingTrainer(OneWeight(), args, train_dataset=data, eval_dataset=data)

    return make


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Callable[..., io.StringIO]:
    """Has the progress go into a text, as on a terminal or not."""

    def make(*, is_terminal: bool) -> io.StringIO:
        file = io.StringIO()
        made = Console(file=file, force_terminal=is_terminal, width=150, height=20, color_system=None)
        monkeypatch.setattr(progress, "progress_console", lambda: made)
        return file

    return make


def test_without_a_terminal_every_log_is_one_line(make_trainer: Callable, console: Callable) -> None:
    output = console(is_terminal=False)
    trainer = make_trainer()
    with show_progress(trainer):
        trainer.train()
    lines = output.getvalue().splitlines()
    assert len(lines) == 6  # two epochs of four steps, two logs and an evaluation each
    assert lines[0].startswith("epoch 0.50/2, step 2/8: loss ")
    assert "lr clip 8.00e-06 new 8.00e-05" in lines[0] and "_no_decay" not in lines[0]
    assert "clips/s 12.3, waiting for data 4%, 2 failed clips, 0:00:0" in lines[0] and lines[0].endswith(" left")
    assert lines[2].startswith("epoch 1.00/2, step 4/8: top-1 0.5000, top-5 1.0000, coverage 0.7500, 0:00:0")
    assert lines[5] == "epoch 2.00/2, step 8/8: top-1 0.5000, top-5 1.0000, coverage 0.7500"


def test_a_terminal_gets_a_bar_and_keeps_the_evaluations(make_trainer: Callable, console: Callable) -> None:
    output = console(is_terminal=True)
    trainer = make_trainer()
    with show_progress(trainer):
        trainer.train()
    screen = output.getvalue()
    assert "epoch 1.00/2, step 4/8: top-1 0.5000, top-5 1.0000, coverage 0.7500\n" in screen
    last = screen[screen.rindex("epoch 2.00/2 ") :]
    assert "━━━━ 8/8" in last and "waiting for data 4%" in last
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")  # the cursor is visible again


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_stream_has_steps_and_no_epochs(make_trainer: Callable, console: Callable, is_terminal: bool) -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter([{"x": 1.0}] * 100)

    output = console(is_terminal=is_terminal)
    trainer = make_trainer(max_steps=4, eval_strategy="no")
    trainer.train_dataset = Stream()
    with show_progress(trainer):
        trainer.train()
    assert "epoch" not in output.getvalue() and "4/4" in output.getvalue()


def test_a_run_that_goes_on_shows_the_steps_that_are_behind_it(make_trainer: Callable, console: Callable) -> None:
    make_trainer(save_strategy="epoch", max_steps=4, num_train_epochs=2).train()
    output = console(is_terminal=True)
    trainer = make_trainer(save_strategy="epoch")
    with show_progress(trainer):
        trainer.train(resume_from_checkpoint=str(Path(trainer.args.output_dir) / "checkpoint-4"))
    counts = [
        line.split("/8")[0].split()[-1] for line in output.getvalue().splitlines() if "/8 " in line and "━" in line
    ]
    assert counts[0] == "4" and counts[-1] == "8"


def test_a_run_that_fails_leaves_the_terminal_in_order(make_trainer: Callable, console: Callable) -> None:
    output = console(is_terminal=True)
    trainer = make_trainer()
    trainer.model.steps_left = 3
    with pytest.raises(RuntimeError, match="out of memory"), show_progress(trainer):
        trainer.train()
    screen = output.getvalue()
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_disable_tqdm_is_silent(
    make_trainer: Callable, console: Callable, capfd: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    output = console(is_terminal=is_terminal)
    trainer = make_trainer(disable_tqdm=True)
    capfd.readouterr()
    with show_progress(trainer):
        trainer.train()
    assert output.getvalue() == "" and capfd.readouterr() == ("", "")


def test_other_processes_are_silent(make_trainer: Callable, console: Callable) -> None:
    for is_terminal in (True, False):
        output = console(is_terminal=is_terminal)
        trainer = make_trainer()
        with show_progress(trainer):
            trainer.state.is_world_process_zero = False
            shown = next(one for one in trainer.callback_handler.callbacks if isinstance(one, RunProgress))
            shown.on_train_begin(trainer.args, trainer.state, trainer.control)
            shown.on_log(trainer.args, trainer.state, trainer.control, logs={"loss": 1.0})
        assert output.getvalue() == ""


def test_transformers_own_bars_are_gone(make_trainer: Callable) -> None:
    for options in ({}, {"disable_tqdm": True}):
        trainer = make_trainer(**options)
        with show_progress(trainer):
            shown = [type(callback) for callback in trainer.callback_handler.callbacks]
        assert not {ProgressCallback, PrinterCallback} & set(shown)
        assert (RunProgress in shown) == (not options)


def test_figures_are_of_steps_and_evaluations_only() -> None:
    assert figures({"train_runtime": 3.0, "train_loss": 0.4, "epoch": 2.0}) == ""
    assert figures({"loss": 1.0, "gpu_memory_gib": 71.23, "failed_clips": 0}) == "loss 1.0000, GPU GiB 71.2"


def test_the_first_line_says_what_trains_on_what(tmp_path: Path) -> None:
    args = VideoTextTrainingArguments(
        str(tmp_path), use_cpu=True, total_train_batch_size=12, max_clips_per_device=4, bf16=True
    )
    assert headline(args, num_train_clips=81, num_eval_clips=9, num_classes=10) == (
        "1 process on cpu, bf16; 81 clips to train on, 9 to evaluate, 10 classes; effective batch 12 = 1 (processes) x "
        f"4 (clips) x 3 (accumulated); output in {tmp_path}"
    )


# Trackers are transformers' own; what they need is that every logged value has a name of its own.


def logged_by_tensorboard(folder: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_gets_every_figure(make_trainer: Callable, tmp_path: Path) -> None:
    trainer = make_trainer(report_to="tensorboard")
    trainer.train()
    (file,) = tmp_path.rglob("events.out.tfevents*")
    values = logged_by_tensorboard(file.parent)
    assert values["train/clips_per_second"] == pytest.approx([12.34] * 4)
    assert values["train/learning_rate/new"] == pytest.approx([8e-5] * 4)
    assert values["eval/top1"] == [0.5, 0.5]


@pytest.mark.skipif(
    importlib.util.find_spec("trackio") is None, reason='needs trackio: pip install "kinetext[tracking]"'
)
def test_trackio_gets_every_figure(make_trainer: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trainer = make_trainer(report_to="trackio", project="test")
    trainer.train()
    (database,) = (tmp_path / "trackio").rglob("*.db")
    assert b"train/data_wait" in database.read_bytes()
