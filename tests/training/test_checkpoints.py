"""Checkpoints are whole or not there, and belong to one run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kinetext.training.checkpoints import (
    check_same_run,
    checkpoint_to_resume,
    fingerprint,
    keep_newest,
    partial_folder,
    publish,
    remove_partial,
)


def write_checkpoint(output: Path, step: int, **run: object) -> Path:
    partial = partial_folder(output, f"checkpoint-{step}")
    (partial / "inner").mkdir(parents=True)
    (partial / "inner" / "weights").write_text(str(step))
    publish(partial, output / f"checkpoint-{step}", run)
    return output / f"checkpoint-{step}"


def names(output: Path) -> set[str]:
    return {path.name for path in output.iterdir()}


def test_publishing_moves_the_folder_as_a_whole_and_says_whose_it_is(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 3, seed=1)

    assert names(tmp_path) == {"checkpoint-3"}
    assert (checkpoint / "inner/weights").read_text() == "3"
    assert json.loads((checkpoint / "run.json").read_text()) == {"seed": 1}


def test_a_checkpoint_that_is_there_stays(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 3, seed=1)
    write_checkpoint(tmp_path, 3, seed=2)

    assert json.loads((tmp_path / "checkpoint-3/run.json").read_text()) == {"seed": 1}


def test_what_is_half_written_is_no_checkpoint_and_goes_away(tmp_path: Path) -> None:
    (partial_folder(tmp_path, "checkpoint-9") / "checkpoint-9").mkdir(parents=True)
    assert checkpoint_to_resume(tmp_path, "auto") is None
    write_checkpoint(tmp_path, 3)
    assert checkpoint_to_resume(tmp_path, "auto") == tmp_path / "checkpoint-3"
    (tmp_path / ".hidden").mkdir()
    remove_partial(tmp_path)
    assert names(tmp_path) == {"checkpoint-3", ".hidden"}


def test_the_last_checkpoint_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    for step in (10, 9):
        write_checkpoint(tmp_path, step)

    assert checkpoint_to_resume(tmp_path, "auto") == tmp_path / "checkpoint-10"
    assert checkpoint_to_resume(tmp_path, str(tmp_path / "checkpoint-9")) == tmp_path / "checkpoint-9"


def test_a_run_that_starts_needs_no_folder(tmp_path: Path) -> None:
    assert checkpoint_to_resume(tmp_path / "new", "auto") is None
    assert checkpoint_to_resume(tmp_path / "new", None) is None


@pytest.mark.parametrize("resume", [None, "elsewhere/checkpoint-1"])
def test_a_folder_with_checkpoints_is_not_written_over(tmp_path: Path, monkeypatch, resume: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "elsewhere", 1)
    write_checkpoint(tmp_path / "out", 4)

    with pytest.raises(ValueError, match="out holds checkpoint-4 of an earlier run; go on with resume: auto, or"):
        checkpoint_to_resume("out", resume)


@pytest.mark.parametrize("resume", ["auto", "out/checkpoint-4"])
def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path, monkeypatch, resume: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out/checkpoint-4").mkdir(parents=True)

    with pytest.raises(FileNotFoundError, match=r"checkpoint-4 is no checkpoint of kinetext \(no run.json in it\)"):
        checkpoint_to_resume("out", resume)


def test_the_folder_of_a_run_is_no_checkpoint_but_holds_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run", 9)
    with pytest.raises(FileNotFoundError, match=r"run is no checkpoint .*; did you mean .*run/checkpoint-9\?$"):
        checkpoint_to_resume(tmp_path / "new", str(tmp_path / "run"))


def test_clips_that_are_named_otherwise_are_explained(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 1, training_clips="a")
    with pytest.raises(ValueError, match="Clips are known by the paths .*: write these relative to data_root.$"):
        check_same_run(checkpoint, {"training_clips": "b"})


def test_another_run_is_refused_and_each_change_named(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 1, seed=1, crop="centre", sizes=(1, 2), gone=True)

    check_same_run(checkpoint, {"seed": 1, "crop": "centre", "sizes": [1, 2], "gone": True})
    changes = "crop: 'centre' -> 'random_resized'; gone: True -> None; new: None -> 5"
    with pytest.raises(ValueError, match=re.escape(f"was written by another run: {changes}. Restore these settings")):
        check_same_run(checkpoint, {"seed": 1, "crop": "random_resized", "sizes": (1, 2), "new": 5})


def test_the_oldest_go_first_but_never_the_best(tmp_path: Path) -> None:
    for step in (2, 4, 10, 8, 6):
        write_checkpoint(tmp_path, step)

    keep_newest(tmp_path, 3, best=str(tmp_path / "checkpoint-2"))
    assert names(tmp_path) == {"checkpoint-2", "checkpoint-8", "checkpoint-10"}
    keep_newest(tmp_path, 1, best=str(tmp_path / "checkpoint-2"))
    assert names(tmp_path) == {"checkpoint-2", "checkpoint-10"}
    keep_newest(tmp_path, 1, best=None)
    assert names(tmp_path) == {"checkpoint-10"}


def test_a_checkpoint_is_hidden_before_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        keep_newest(tmp_path, 1, best=None)
    assert names(tmp_path) == {".checkpoint-1.partial", "checkpoint-2"}


def test_fingerprints_differ_by_value_and_order() -> None:
    assert fingerprint([["a", 1], ["b", 2]]) == fingerprint([("a", 1), ("b", 2)])
    assert len({fingerprint(items) for items in ([], ["a"], ["b"], ["a", "b"], ["b", "a"], [["a", "b"]])}) == 6
