"""Pushes in the middle of a run: after which epochs, of what, and that a failing one stops nothing."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from kinetext.training.pushing import PushCallback


class OneWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor, labels: Any = None) -> dict[str, torch.Tensor]:
        return {"loss": self.weight.square().sum()}


class Watched:
    """A run whose folder and pushes are lists."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.written: list[tuple[int, int]] = []  # (step, evaluations so far)
        self.pushed: list[str] = []
        self.error: Exception | None = None
        args = TrainingArguments(
            str(folder),
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            eval_strategy="epoch",
            per_device_train_batch_size=2,
            num_train_epochs=5,
            **options,
        )
        data: Any = [{"x": 1.0}] * 6  # three steps an epoch
        self.trainer = Trainer(OneWeight(), args, train_dataset=data, eval_dataset=data)
        self.trainer.add_callback(PushCallback(self.write, self.push, every_epochs=2))

    def write(self) -> None:
        evaluations = sum("eval_runtime" in entry for entry in self.trainer.state.log_history)
        self.written.append((self.trainer.state.global_step, evaluations))

    def push(self, message: str) -> None:
        assert len(self.written) == len(self.pushed) + 1
        self.pushed.append(message)
        if self.error is not None:
            raise self.error


def test_every_second_epoch_is_pushed_after_its_evaluation_and_the_end_is_left_to_the_run(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.trainer.train()
    assert watched.pushed == ["After epoch 2", "After epoch 4"]
    assert watched.written == [(6, 2), (12, 4)]


@pytest.mark.parametrize("error", [ConnectionError("no network"), ValueError("repository is public")])
def test_a_push_that_fails_is_a_warning_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    watched = Watched(tmp_path)
    watched.error = error
    with caplog.at_level(logging.WARNING):
        watched.trainer.train()
    assert watched.trainer.state.global_step == 15 and len(watched.pushed) == 2
    assert f"training goes on; after epoch 2 the push failed: {error}" in caplog.text


def test_other_processes_write_their_part_and_push_nothing(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    state = watched.trainer.state
    state.epoch, state.global_step, state.is_world_process_zero = 2.0, 6, False
    PushCallback(watched.write, watched.push, every_epochs=2).on_epoch_begin(None, state, None)
    assert (len(watched.written), watched.pushed) == (1, [])


def test_the_middle_of_an_epoch_where_a_run_goes_on_is_not_pushed(tmp_path: Path) -> None:
    Watched(tmp_path, save_steps=7, save_strategy="steps", max_steps=7).trainer.train()
    watched = Watched(tmp_path)
    watched.trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    assert watched.pushed == ["After epoch 4"]


def test_the_epoch_that_a_run_goes_on_from_is_not_pushed_again(tmp_path: Path) -> None:
    Watched(tmp_path, save_steps=6, save_strategy="steps", max_steps=6).trainer.train()
    watched = Watched(tmp_path)
    watched.trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert watched.pushed == ["After epoch 4"]
