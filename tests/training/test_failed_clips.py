"""Clips that cannot be decoded: replaced, counted, listed with their reasons; too many of them stop the run."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import pytest
from training_runs import (
    CLASSES,
    SIGTERM_STATUS,
    last_checkpoint,
    last_step,
    render_clips,
    start,
    wait_until,
    write_recipe,
)

from kinetext.hub_cards.markdown import cell

NUM_CLIPS, NUM_FAILING = 1000, 50


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """(a folder with `all.csv`, which lists 1,000 clips; those that cannot be decoded), of all kinds and classes."""
    root = render_clips(tmp_path_factory.mktemp("thousand"), per_class=2, num_frames=4)
    rows, failing = [], set()
    for number in range(NUM_CLIPS):
        name = CLASSES[number % len(CLASSES)]
        good = root / "train" / name / f"{number // len(CLASSES) % 2:03d}.mp4"
        path = root / "many" / name / f"{number:04d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.append((path.relative_to(root).as_posix(), name))
        if number % (NUM_CLIPS // NUM_FAILING) == number // 100:
            failing.add(rows[-1][0])
            write_failing(path, good, kind=len(failing) % 4)
        else:
            os.link(good, path)
    with open(root / "all.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    assert len(failing) == NUM_FAILING
    return root, failing


def write_failing(path: Path, good: Path, kind: int) -> None:
    """Cut off in the middle, empty, a text instead of a video, or (3) not there."""
    content = good.read_bytes()
    if kind < 3:
        path.write_bytes([content[: len(content) // 2], b"", b"<html>404 Not Found</html>"][kind])


def settings_of(folder: Path, root: Path, **settings: object) -> list[str]:
    """One epoch of 25 steps, on clips that cost little."""
    cheap = {"color_jitter_probability": 0.0, "num_frames": 2, "dataloader_num_workers": 0, "eval": None}
    batches = {"total_train_batch_size": 40, "max_clips_per_device": 40, "max_steps": 25, "save_steps": 5}
    recipe = write_recipe(folder / "recipe.yaml", train="all.csv", **{**cheap, **batches, **settings})
    return [str(recipe), "--data_root", str(root), "--output_dir", str(folder / "out")]


def saved_failures(output: Path) -> dict[str, str]:
    return json.loads((last_checkpoint(output) / "progress.json").read_text())["failed_clips"]


def test_a_run_gets_through_and_names_each_with_its_reason(listed, tmp_path: Path) -> None:
    root, failing = listed
    start(tmp_path / "log", *settings_of(tmp_path, root)).finish()
    failures = saved_failures(tmp_path / "out")

    assert set(failures) == failing
    report = (tmp_path / "out/report.md").read_text()
    assert "50 training clips could not be decoded" in report
    for clip_id, reason in failures.items():
        assert Path(clip_id).name in reason and f"| {cell(clip_id)} | {cell(reason)} |" in report
    for what in ("No such file", "Invalid data found"):
        assert any(what in reason for reason in failures.values()), set(failures.values())


def test_above_the_threshold_it_stops_with_the_list(listed, tmp_path: Path) -> None:
    root, failing = listed
    run = start(tmp_path / "log", *settings_of(tmp_path, root, max_failed_share=0.02))
    assert run.wait() == [1]

    message = r"(\d+) of 1000 training clips cannot be decoded, more than max_failed_share=0.02:\n((?:  .+: .+\n)+)Rep"
    found = re.search(message, run.output())
    assert found, run.output()
    named = {line.partition(":")[0].strip() for line in found[2].splitlines()}
    assert 20 < len(named) == int(found[1]) < 30 and named <= failing


def test_two_processes_find_the_same_and_a_run_that_goes_on_keeps_the_list(listed, tmp_path: Path) -> None:
    root, failing = listed
    arguments = [*settings_of(tmp_path, root, max_clips_per_device=10, save_steps=2), "--resume", "auto"]
    run = start(tmp_path / "log", *arguments, num_processes=2)
    assert wait_until(lambda: last_step(tmp_path / "out") >= 8, run)
    run.ask_to_stop()
    assert run.wait() == [SIGTERM_STATUS] * 2
    assert 0 < len(saved_failures(tmp_path / "out")) < NUM_FAILING
    assert set(saved_failures(tmp_path / "out")) < failing

    start(tmp_path / "log", *arguments, num_processes=2).finish()
    assert set(saved_failures(tmp_path / "out")) == failing
