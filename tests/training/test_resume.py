"""A run that was killed, however often and wherever, ends as if it had never been."""

from __future__ import annotations

import random
import re
import shutil
import time
from pathlib import Path

import pytest
from training_runs import (
    SIGTERM_STATUS,
    Run,
    checkpoint_content,
    differences,
    last_step,
    launch,
    logged_losses,
    render_clips,
    start,
    wait_until,
    write_recipe,
)

from kinetext.training.arguments import parse_recipe
from kinetext.training.run import run_training

STEPS, SAVE_STEPS = 16, 3


@pytest.fixture(scope="session")
def clips_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clips(tmp_path_factory.mktemp("clips"))


def settings_of(folder: Path, clips_root: Path, name: str, **settings: object) -> list[object]:
    """The command line of a run of that name; it goes on where it can."""
    recipe = write_recipe(folder / "recipe.yaml", **settings)
    return [recipe, "--data_root", clips_root, "--output_dir", folder / name, "--resume", "auto"]


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, clips_root: Path) -> Path:
    """What a run of one process leaves behind that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    start(folder / "log", *settings_of(folder, clips_root, "whole")).finish()
    return folder / "whole"


def is_saving(output: Path) -> bool:
    """Whether a checkpoint is being written at this moment."""
    return any(path for partial in output.glob(".checkpoint-*.partial") for path in partial.glob("checkpoint-*/*"))


def kill_during_save(run: Run, output: Path, chance: random.Random) -> None:
    assert wait_until(lambda: is_saving(output), run), run.output()[-3000:]
    time.sleep(chance.uniform(0, 0.1))
    run.kill()


def kill_anywhere(run: Run, output: Path, chance: random.Random) -> None:
    """At a random moment, but before a second checkpoint is there, so that some of the run is left to kill."""
    first, deadline = last_step(output), time.monotonic() + chance.uniform(0, 12)
    wait_until(lambda: time.monotonic() > deadline or last_step(output) > first, run)
    time.sleep(chance.uniform(0, 0.2))
    run.kill()


def checkpoints(output: Path) -> list[Path]:
    return sorted(output.glob("checkpoint-*"))


def train_with_kills(begin, log: Path, arguments: list[object], num_processes: int, kills: list) -> list[int]:
    """Starts a run again after each kill and lets it end after the last; returns the steps it was killed after."""
    output, chance, steps = Path(str(arguments[4])), random.Random(5), []
    for kill in kills:
        kill(begin(log, *arguments, num_processes=num_processes), output, chance)
        steps.append(last_step(output))
        contents = [checkpoint_content(path) for path in checkpoints(output)]
        assert all(content.keys() == contents[0].keys() for content in contents)
    begin(log, *arguments, num_processes=num_processes).finish()
    return steps


def assert_the_same(output: Path, uninterrupted: Path) -> None:
    assert differences(output, uninterrupted) == []
    assert logged_losses(output) == logged_losses(uninterrupted)
    assert (output / "predictions.parquet").read_bytes() == (uninterrupted / "predictions.parquet").read_bytes()
    assert not list(output.glob(".*.partial"))


def test_a_run_that_is_killed_three_times_ends_as_if_it_had_not_been(clips_root, uninterrupted, tmp_path) -> None:
    arguments = settings_of(tmp_path, clips_root, "killed")
    kills = [kill_during_save, kill_anywhere, kill_during_save]
    steps = train_with_kills(start, tmp_path / "log", arguments, 1, kills)

    assert steps[0] <= SAVE_STEPS and steps[-1] < STEPS
    assert_the_same(tmp_path / "killed", uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_kill_9_at_ten_random_moments_changes_nothing(clips_root, tmp_path, num_processes) -> None:
    whole = settings_of(tmp_path, clips_root, "whole", max_steps=36)
    launch(tmp_path / "log", *whole, num_processes=num_processes).finish()
    arguments = settings_of(tmp_path, clips_root, "killed", max_steps=36)
    kills = [kill_anywhere, kill_during_save] * 5
    steps = train_with_kills(launch, tmp_path / "log", arguments, num_processes, kills)

    assert len(steps) == 10 and steps[-1] < 36
    assert_the_same(tmp_path / "killed", tmp_path / "whole")


def test_sigterm_saves_and_ends_with_its_status(clips_root, uninterrupted, tmp_path) -> None:
    arguments = settings_of(tmp_path, clips_root, "asked")
    run = start(tmp_path / "log", *arguments)
    assert wait_until(lambda: last_step(tmp_path / "asked") >= SAVE_STEPS, run), run.output()
    run.ask_to_stop()
    assert run.wait() == [SIGTERM_STATUS]
    step = last_step(tmp_path / "asked")
    assert f"SIGTERM: saved after step {step}; go on with --resume auto." in run.output()
    assert not (tmp_path / "asked/results.json").exists()

    start(tmp_path / "log", *arguments).finish()
    assert differences(tmp_path / "asked", uninterrupted) == []


@pytest.mark.slow
def test_sigterm_to_a_launch_of_two_saves_and_the_run_goes_on(clips_root, tmp_path) -> None:
    start(tmp_path / "log", *settings_of(tmp_path, clips_root, "whole"), num_processes=2).finish()
    arguments = settings_of(tmp_path, clips_root, "asked")
    run = launch(tmp_path / "log", *arguments, num_processes=2)
    assert wait_until(lambda: last_step(tmp_path / "asked") >= SAVE_STEPS, run), run.output()
    run.ask_to_stop()
    assert run.wait() != [0]
    assert f"SIGTERM: saved after step {last_step(tmp_path / 'asked')}" in run.output()

    launch(tmp_path / "log", *arguments, num_processes=2).finish()
    assert_the_same(tmp_path / "asked", tmp_path / "whole")


# Another recipe


@pytest.mark.parametrize(
    "changed, named",
    [
        ({"learning_rate": 2e-3}, "learning_rate: 0.001 -> 0.002"),
        ({"flip_probability": 0.25, "seed": 7}, "flip_probability: 0.5 -> 0.25; seed: 42 -> 7"),
        ({"total_train_batch_size": 16}, "effective_batch_size: 8 -> 16"),
        ({"class_texts": {"growing": "swelling"}}, "class_texts: '"),
        ({"num_frames": 2, "max_steps": 20}, "max_steps: 16 -> 20; num_frames: 4 -> 2"),
        ({"train": "fewer"}, "training_clips: '"),
    ],
)
def test_a_changed_recipe_is_refused_and_what_changed_is_named(
    clips_root, uninterrupted, tmp_path, changed, named
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "again")
    if not (clips_root / "fewer").exists():
        shutil.copytree(clips_root / "train", clips_root / "fewer")
        (clips_root / "fewer/growing/000.mp4").unlink()
    arguments = settings_of(tmp_path, clips_root, "again", **changed)

    with pytest.raises(ValueError, match=re.escape(f"checkpoint-16 was written by another run: {named}")):
        run_training(parse_recipe([str(argument) for argument in arguments]))


def test_without_resume_a_folder_with_checkpoints_is_refused(clips_root, uninterrupted, tmp_path) -> None:
    *arguments, _, _ = settings_of(tmp_path, clips_root, "again")
    shutil.copytree(uninterrupted, tmp_path / "again")

    with pytest.raises(ValueError, match="holds checkpoint-16 of an earlier run; go on with resume: auto"):
        run_training(parse_recipe([str(argument) for argument in arguments]))


def test_workers_places_and_logging_may_change(clips_root, uninterrupted, tmp_path) -> None:
    shutil.copytree(clips_root / "train", tmp_path / "moved/train")
    shutil.copytree(uninterrupted, tmp_path / "again")
    shutil.rmtree(tmp_path / "again/checkpoint-16")
    others = {"dataloader_num_workers": 0, "logging_steps": 5, "save_steps": 8, "eval": None}
    arguments = settings_of(tmp_path, tmp_path / "moved", "again", **others)
    start(tmp_path / "log", *arguments).finish()

    assert last_step(tmp_path / "again") == STEPS
    assert differences(tmp_path / "again", uninterrupted) == []
