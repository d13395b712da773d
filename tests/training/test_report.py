"""The report of a run: everything it states is of the run, and every clip that failed is named with its reason."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kinetext import VideoTextProcessor, __version__
from kinetext.data.annotations import Clip, ClipList
from kinetext.data.datasets import EvalClips
from kinetext.data.list_facts import list_fingerprint
from kinetext.evaluation.predictions import EvaluationResult, Prediction
from kinetext.evaluation.protocol import protocol_of
from kinetext.hub_cards.model_card import RunFacts
from kinetext.training import report
from kinetext.training.arguments import VideoTextTrainingArguments
from kinetext.training.report import gather_facts, write_report

NAMES = ("running", "waving")
RESULT = EvaluationResult(
    NAMES,
    (
        Prediction("a", 0, 0, 1),
        Prediction("b", 1, 0, 2),
        Prediction("c", 1, 1, 1),
        Prediction("broken|clip", 1, error="moov atom\nnot found"),
    ),
)
FACTS = RunFacts(81, 4, "d" * 64, "p" * 64, {"device": "cpu", "processes": 2, "torch": "2.13.0"}, 75.2)
SETTINGS = {"learning_rate": 3e-4, "hold_out": ["eli_*"]}


def history(num_steps: int = 8) -> list[dict[str, Any]]:
    """As transformers keeps it: steps, an evaluation every fourth, and the summary that ends a run."""
    entries: list[dict[str, Any]] = []
    for step in range(1, num_steps + 1):
        rates = {"learning_rate/clip": 1e-6 * step, "learning_rate/new": 1e-5 * step}
        speed = {"clips_per_second": 20.0, "data_wait": 0.05, "failed_clips": 0}
        entries.append({"loss": 3 / step, "grad_norm": 2.0, **rates, **speed, "epoch": step / 4, "step": step})
        if step % 4 == 0:
            top1 = {"eval_top1": step / 10, "eval_top5": 1.0, "eval_coverage": 0.75}
            entries.append({**top1, "epoch": step / 4, "step": step})
    return [*entries, {"train_runtime": 9.0, "train_loss": 0.5, "epoch": num_steps / 4, "step": num_steps}]


def written(folder: Path, **changes: Any) -> str:
    defaults: dict[str, Any] = {"log_history": history(), "settings": SETTINGS, "facts": FACTS, "result": RESULT}
    write_report(folder, **{**defaults, "failures": {}, **changes})
    return (folder / "report.md").read_text("utf-8")


def test_a_report_states_result_course_settings_data_and_environment(tmp_path: Path) -> None:
    text = written(tmp_path / "my run")
    assert text.startswith("# my run\n")
    assert (
        "top-1 0.6667 (2), top-5 1.0000 (3); 3 of 4 clips decoded (coverage 0.7500), 2 classes, chance 0.5000." in text
    )
    assert f"SHA-256 `{FACTS.protocol}`" in text
    assert "| 1.00 | 4 | 0.4000 | 1.0000 | 0.7500 |\n| 2.00 | 8 | 0.8000 | 1.0000 | 0.7500 |" in text
    assert "| `learning_rate` | `0.0003` |\n| `hold_out` | `['eli_*']` |" in text
    assert "81 clips to train on, 4 to evaluate; trained for 1 min 15 s." in text and FACTS.data_fingerprint in text
    assert "| `device` | `cpu` |\n| `processes` | `2` |\n| `torch` | `2.13.0` |" in text
    assert "| `broken\\|clip` | `moov atom not found` |" in text  # the clip that no accuracy speaks of
    for picture in ("curves.png", "confusion.png"):
        assert f"]({picture})" in text
        Image.open(tmp_path / "my run" / picture).verify()


def test_every_failed_clip_is_listed_with_its_reason(tmp_path: Path) -> None:
    failures = {f"class/clip {i:03}.mp4": f"reason {i}" for i in range(50)}
    lines = written(tmp_path, failures=failures).splitlines()
    listed = [line for line in lines if line.startswith("| `class/clip")]
    assert listed == [f"| `{clip_id}` | `{reason}` |" for clip_id, reason in failures.items()]
    assert any(line.startswith("50 training clips could not be decoded") for line in lines)
    assert "Every training clip that was drawn could be decoded." in written(tmp_path)


def test_curves_are_those_that_were_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(report, "draw_curves", lambda panels, path, title: drawn.extend(panels))
    written(tmp_path)
    series = {panel.title: panel.series for panel in drawn}
    steps = list(range(1, 9))
    assert series["loss"] == {"loss": (steps, [3 / step for step in steps])}
    assert series["learning rate"] == {
        "clip": (steps, [1e-6 * step for step in steps]),
        "new": (steps, [1e-5 * step for step in steps]),
    }
    assert series["evaluation clips that were right"] == {"top-1": ([4, 8], [0.4, 0.8]), "top-5": ([4, 8], [1.0, 1.0])}
    assert series["clips per second"]["clips per second"][1] == [20.0] * 8
    assert series["share of the time spent waiting for data"]["waiting"][1] == [0.05] * 8


def test_a_run_that_logged_and_evaluated_nothing_says_so_and_keeps_no_older_picture(tmp_path: Path) -> None:
    written(tmp_path)
    text = written(tmp_path, log_history=[], result=None, facts=replace(FACTS, protocol=None))
    assert "Nothing was evaluated." in text and "rotocol" not in text and "None" not in text and ".png" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_an_evaluation_without_a_decoded_clip_states_no_number(tmp_path: Path) -> None:
    broken = {"eval_top1": math.nan, "eval_top5": math.nan, "eval_coverage": 0.0, "epoch": 1.0, "step": 4}
    text = written(tmp_path, result=EvaluationResult(NAMES, RESULT.predictions[3:]), log_history=[broken])
    assert "None of the 1 clips listed could be decoded." in text and "chance" not in text


def test_facts_are_of_this_run_and_machine(tmp_path: Path) -> None:
    args = VideoTextTrainingArguments(str(tmp_path), use_cpu=True, bf16=True)
    clips = ClipList((Clip("a", "a.mp4", 0), Clip("b", "b.mp4", 1)), NAMES)
    dataset = EvalClips(ClipList(clips.clips[:1], NAMES), VideoTextProcessor(None, num_frames=4, crop_size=32))
    options: dict[str, Any] = {"class_texts": NAMES, "clips_seen": 8, "duration_s": 2.5, "failures": {"b": "broken"}}
    facts = gather_facts(args, train_clips=clips, eval_dataset=dataset, **options)
    assert (facts.num_train_clips, facts.num_eval_clips, facts.num_failed_clips, facts.duration_s) == (2, 1, 1, 2.5)
    assert facts.data_fingerprint == list_fingerprint(clips)
    assert facts.protocol == protocol_of(dataset, NAMES).sha256
    assert (
        facts.environment.items()
        >= {
            "device": "cpu",
            "processes": 1,
            "precision": "bf16",
            "kinetext": __version__,
        }.items()
    )
    assert {"processor", "cores", "torch"} <= set(facts.environment)
    without = gather_facts(args, train_clips=clips, eval_dataset=None, **options)
    assert (without.num_eval_clips, without.protocol) == (0, None)
