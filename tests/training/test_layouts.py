"""However a batch is divided over processes and accumulation steps, the run is the same but for rounding."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from testing_utils import largest_difference
from training_runs import (
    SIGTERM_STATUS,
    TINY_MODEL,
    Run,
    last_step,
    logged_losses,
    render_clips,
    start,
    wait_until,
    write_recipe,
)

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def clips_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clips(tmp_path_factory.mktemp("clips"))


def begin(output: Path, clips_root: Path, num_processes: int, clips_per_device: int, **settings: Any) -> Run:
    """20 steps of 8 clips, augmented and blended, without what each process draws for itself (drop path)."""
    model = copy.deepcopy(TINY_MODEL)
    model["vision_config"]["drop_path_rate"] = 0.0
    recipe: dict[str, Any] = {"model_config": model, "max_steps": 20, "save_steps": 5, "logging_steps": 1}
    recipe |= {"dataloader_num_workers": 0, "eval": None, "ema_decay": None, "resume": "auto", **settings}
    path = write_recipe(output.with_suffix(".yaml"), max_clips_per_device=clips_per_device, **recipe)
    arguments = [path, "--data_root", clips_root, "--output_dir", output]
    return start(output.with_suffix(".log"), *arguments, num_processes=num_processes)


def train(folder: Path, clips_root: Path, num_processes: int, clips_per_device: int, **settings: Any) -> Path:
    output = folder / f"{num_processes}x{clips_per_device}"
    begin(output, clips_root, num_processes, clips_per_device, **settings).finish()
    return output


def assert_equal(one: Path, other: Path) -> None:
    losses, others = logged_losses(one), logged_losses(other)
    assert len(losses) == len(others) == 20
    assert max(abs(left - right) for (_, left, _), (_, right, _) in zip(losses, others, strict=True)) <= TOLERANCE
    weights, other_weights = (load_file(folder / "model.safetensors") for folder in (one, other))
    differing = {name: largest_difference(value, other_weights[name]) for name, value in weights.items()}
    assert max(differing.values()) <= TOLERANCE, max(differing.items(), key=lambda item: item[1])


# Some gradients are zero but for rounding: the bias of keys has no effect on attention, and message attention, which
# starts at zero, hides its queries and keys. Adam divides a gradient by its own size, so it makes whole steps of that
# rounding; with this epsilon, still far below true gradients, it does not.
FAST = {"learning_rate": 1e-3, "adam_epsilon": 1e-6}


@pytest.fixture(scope="module")
def whole(clips_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process with all 8 clips at once leaves behind."""
    return train(tmp_path_factory.mktemp("whole"), clips_root, 1, 8, **FAST)


@pytest.mark.parametrize("num_processes, clips_per_device", [(1, 4), (2, 4)])
def test_processes_and_accumulation_change_nothing(
    whole, clips_root: Path, tmp_path: Path, num_processes, clips_per_device
) -> None:
    assert_equal(whole, train(tmp_path, clips_root, num_processes, clips_per_device, **FAST))


@pytest.mark.parametrize("num_processes, clips_per_device", [(1, 8), (2, 4)])
def test_one_process_or_two_go_on_from_a_checkpoint_of_two(
    whole, clips_root: Path, tmp_path: Path, num_processes, clips_per_device
) -> None:
    run = begin(tmp_path / "out", clips_root, 2, 4, **FAST)
    assert wait_until(lambda: last_step(tmp_path / "out") == 5, run)
    run.ask_to_stop()
    assert run.wait() == [SIGTERM_STATUS] * 2
    assert 5 < last_step(tmp_path / "out") < 20

    begin(tmp_path / "out", clips_root, num_processes, clips_per_device, **FAST).finish()
    assert_equal(whole, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("num_processes, clips_per_device", [(4, 2), (2, 2), (1, 2)])
def test_more_ways_to_divide_a_batch(whole, clips_root: Path, tmp_path: Path, num_processes, clips_per_device) -> None:
    assert_equal(whole, train(tmp_path, clips_root, num_processes, clips_per_device, **FAST))


@pytest.mark.slow
def test_at_the_published_rates_nothing_need_be_said_of_adam(clips_root: Path, tmp_path: Path) -> None:
    whole = train(tmp_path, clips_root, 1, 8, learning_rate=8e-6)
    assert_equal(whole, train(tmp_path, clips_root, 2, 4, learning_rate=8e-6))
