"""Leave-one-group-out: who is held out, what is kept, what a failing fold does, and what is written."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from PIL import Image
from rendered_clips import render_clip
from testing_utils import run_cli
from typer.testing import Result

from kinetext.data.annotations import Clip, ClipList
from kinetext.training.cross_validation import CrossValidation, RecipeScores, cross_validate, group_clips

CLASSES, PEOPLE = ("running", "waving"), ("ann", "bob", "cleo")
RECIPE = {
    "model_config": {
        "text_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
        "vision_config": {
            **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
            **{"mit_hidden_size": 32, "mit_num_attention_heads": 2, "mit_intermediate_size": 32},
            **{"image_size": 32, "patch_size": 16, "num_frames": 2},
        },
        **{"projection_dim": 32, "prompt_num_attention_heads": 2},
    },
    "total_train_batch_size": 4,
    "max_steps": 1,
    "warmup_epochs": 0,
    "max_failed_share": 1.0,
    "report_to": "none",
    "save_strategy": "steps",
    "save_steps": 1,
    "eval_strategy": "no",
    "use_cpu": True,
}


def write_recipe(folder: Path, name: str, **settings: object) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **settings}), "utf-8")
    return path


def validate(folder: Path, *recipes: Path) -> CrossValidation:
    return cross_validate(recipes, data_root=folder / "clips", output_dir=folder / "out", group_by="([a-z]+)_")


def wait_until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of two classes and three people, one of them unreadable, and two finished recipes.

    The clip that is unreadable is one of four that the folds of the others train on, which is more than the recipe
    "strict" allows: only the fold that holds this person out can be run.
    """
    folder = tmp_path_factory.mktemp("loso")
    for name in CLASSES:
        (folder / "clips" / name).mkdir(parents=True)
        for person in PEOPLE:
            render_clip(folder / "clips" / name / f"{person}_{name}.mp4", 6)
    (folder / "clips/running/ann_running.mp4").write_bytes(b"no video")
    write_recipe(folder, "patient", hold_out=["bob_*"])  # another group than most folds: it must not matter
    write_recipe(folder, "strict", max_failed_share=0.1)
    return folder


@dataclass(frozen=True)
class Done:
    """What the command printed and wrote, and the recipe that has all folds."""

    printed: Result
    written: dict[str, Any]
    page: str
    patient: RecipeScores


@pytest.fixture(scope="module")
def done(world: Path) -> Done:
    options = ("--data-root", world / "clips", "--output-dir", world / "out", "--group-by", "([a-z]+)_", "--jobs", 2)
    printed = run_cli("cross-validate", world / "patient.yaml", world / "strict.yaml", *options)
    written = json.loads((world / "out/cross_validation.json").read_text())
    page = (world / "out/cross_validation.md").read_text()
    (patient,) = validate(world, world / "patient.yaml").scores
    return Done(printed, written, page, patient)


def test_each_group_is_held_out_once(world: Path, done: Done) -> None:
    patient = done.patient
    assert (patient.recipe, patient.class_names, list(patient.folds)) == ("patient", CLASSES, list(PEOPLE))
    for person, result in patient.folds.items():
        assert [one.clip_id for one in result.predictions] == [f"{name}/{person}_{name}.mp4" for name in CLASSES]
        settings = json.loads((world / "out/patient" / person / "results.json").read_text())["settings"]
        assert settings["hold_out"] == [f"{person}_{name}.mp4" for name in CLASSES]
    assert [len(result.decoded) for result in patient.folds.values()] == [1, 2, 2]
    assert [one.label for one in patient.pooled.predictions] == [0, 1] * 3


def test_a_failing_fold_does_not_lose_the_others_and_is_named_with_its_reason(world: Path, done: Done) -> None:
    assert list(done.written["recipes"][1]["folds"]) == ["ann"]
    assert set(done.written["failures"]) == {"strict/bob", "strict/cleo"}
    for name, reason in done.written["failures"].items():
        log = world / "out" / name / "log.txt"
        assert "1 of 4 training clips cannot be decoded" in reason and str(log) in reason
        assert "Traceback" in log.read_text()
    assert done.printed.exit_code == 1
    assert f"failed: strict/bob: {done.written['failures']['strict/bob']}" in done.printed.output
    assert f"- strict/bob: {done.written['failures']['strict/bob']}" in done.page


def test_table_and_json_say_what_the_predictions_say(done: Done) -> None:
    assert (done.written["groups"], done.written["jobs"], done.written["folds_run"]) == (list(PEOPLE), 2, 6)
    first, second = done.written["recipes"]
    decoded = done.patient.pooled.decoded
    right = [one for one in decoded if one.predicted == one.label]
    assert (first["top1_count"], first["num_decoded"], first["num_listed"]) == (len(right), 5, 6)
    per_fold = [np.mean([one.predicted == one.label for one in fold.decoded]) for fold in done.patient.folds.values()]
    assert first["fold_mean"] == pytest.approx(np.mean(per_fold))
    assert first["fold_std"] == pytest.approx(np.std(per_fold, ddof=1))
    confusion = np.array(first["confusion"])
    assert confusion.sum(1).tolist() == [2, 3] and np.trace(confusion) == len(right)
    assert confusion.sum(0).tolist() == [[one.predicted for one in decoded].count(label) for label in (0, 1)]
    assert first["class_accuracy"] == {"running": confusion[0, 0] / 2, "waving": confusion[1, 1] / 3}
    assert second["class_accuracy"]["running"] is None  # its only clip cannot be decoded
    all_clips = f"{len(right) / 5:.3f} ({len(right)}/5)"
    assert all_clips in done.printed.output and f"| all clips | {all_clips} |" in done.page
    assert "| folds | 3/3 | 1/3 |" in done.page
    assert f"| running | {confusion[0, 0] / 2:.3f} | – |" in done.page


def test_confusion_matrices_are_drawn_and_everything_written_is_named(world: Path, done: Done) -> None:
    for name in ("confusion_patient.png", "confusion_strict.png"):
        assert Image.open(world / "out" / name).size[0] > 100
        assert f"({name})" in done.page
    for name in ("confusion_patient.png", "confusion_strict.png", "cross_validation.json", "cross_validation.md"):
        assert f"written: {world / 'out' / name}" in done.printed.output


def test_finished_folds_are_kept_and_a_stopped_one_goes_on(world: Path, done: Done, tmp_path: Path) -> None:
    shutil.copytree(world / "out", tmp_path / "out")
    marks = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("patient/*/fold.json")}
    (tmp_path / "out/patient/cleo/fold.json").unlink()  # as if this fold had been stopped, with a checkpoint
    (weights,) = (tmp_path / "out/patient/cleo").glob("checkpoint-*/model.safetensors")
    written = weights.stat().st_mtime_ns
    again = cross_validate(
        [world / "patient.yaml"], data_root=world / "clips", output_dir=tmp_path / "out", group_by="([a-z]+)_", jobs=2
    )  # as many as at first: other numbers of threads round otherwise
    assert json.loads((tmp_path / "out/cross_validation.json").read_text())["folds_run"] == 1
    assert not again.failures and again.scores[0].pooled == done.patient.pooled
    assert weights.stat().st_mtime_ns == written
    assert {path.parent.name for path, mark in marks.items() if path.stat().st_mtime_ns != mark} == {"cleo"}


def test_finished_folds_of_other_settings_are_an_error(world: Path, done: Done, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "patient", hold_out=["bob_*"], weight_decay=0.5)
    with pytest.raises(ValueError, match=r"made with other settings: weight_decay is None there, 0\.5 wanted"):
        validate(world, recipe)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_cross_validation_that_is_stopped_stops_its_folds(how: signal.Signals, world: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "endless", max_steps=100_000)
    options = f"data_root=Path({str(world / 'clips')!r}), output_dir=Path({str(tmp_path)!r}), group_by='([a-z]+)_'"
    program = (
        "from pathlib import Path; from kinetext.training.cross_validation import cross_validate; "
        f"cross_validate([Path({str(recipe)!r})], {options}, jobs=1)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    workers: list[psutil.Process] = []
    try:
        wait_until(lambda: len(list(tmp_path.glob("endless/*/log.txt"))) == 1)
        workers = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(how)  # to it alone: a terminal would send Ctrl-C to the workers, too
        parent.communicate(timeout=60)
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
        assert len(list(tmp_path.glob("endless/*/log.txt"))) == 1  # no other fold was begun
    finally:
        for process in (parent, *(worker for worker in workers if worker.is_running())):
            process.kill()


# Groups


def clip_list(*names: str) -> ClipList:
    return ClipList(tuple(Clip(f"{label}/{name}", None, label) for label, name in enumerate(names)), names)


def test_a_group_is_what_the_first_parentheses_match() -> None:
    clips = clip_list("person02_walk_d1.avi", "person01_run_d1.avi", "person01_run_d2.avi")
    assert group_clips(clips, "person([0-9]+)_([a-z]+)") == {
        "01": ["person01_run_d1.avi", "person01_run_d2.avi"],
        "02": ["person02_walk_d1.avi"],
    }
    assert set(group_clips(clips, "_(d[0-9])")) == {"d1", "d2"}  # anywhere in the name


@pytest.mark.parametrize(
    ("group_by", "message"),
    [
        ("([a-z]", "group_by='([a-z]' is no regular expression: "),
        ("[a-z]+_", "group_by='[a-z]+_' has no parentheses; put them around what names the group."),
        ("(b[a-z]+)_", "finds no group in 'ann_run.avi'; it must find one in every name."),
        ("([0-9]*)", "finds no group in 'ann_run.avi'"),
        ("_(run)", "finds the single group ['run']; none would be left to train on."),
    ],
)
def test_groups_that_make_no_sense_are_errors(group_by: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        group_clips(clip_list("ann_run.avi", "bob_run.avi"), group_by)


def test_recipes_that_cannot_share_a_table_are_errors(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"two recipes have one name: \['patient', 'patient'\]"):
        validate(world, world / "patient.yaml", world / "patient.yaml")
    other = write_recipe(tmp_path, "other", classes=str(tmp_path / "classes.txt"))
    (tmp_path / "classes.txt").write_text("waving\nrunning\n")
    with pytest.raises(ValueError, match="name different clips or classes; one table is for the same ones"):
        validate(world, world / "patient.yaml", other)
    split = write_recipe(tmp_path, "split", eval="elsewhere")
    with pytest.raises(ValueError, match=r"names clips of its own to evaluate on \(eval\)"):
        validate(world, split)
    pushed = write_recipe(tmp_path, "pushed", push_to_hub="alice/x", license="mit")
    with pytest.raises(ValueError, match=r"pushes to alice/x \(push_to_hub\), where the folds would replace"):
        validate(world, pushed)
