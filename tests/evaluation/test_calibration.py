"""Temperature, calibration error and abstention: values by hand, logits of a known temperature, and the verb."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from testing_utils import tiny_video_clip
from typer.testing import CliRunner

from kinetext import VideoTextProcessor
from kinetext.cli.calibrate import calibrate
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation.calibration import (
    CALIBRATION_FILE,
    Calibration,
    abstention_threshold,
    calibrate_results,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    scaled,
)
from kinetext.evaluation.prediction_files import predictions_as_bytes
from kinetext.evaluation.predictions import Prediction
from kinetext.evaluation.results import model_facts


def rows(*probabilities: list[float]) -> torch.Tensor:
    """(B, N) log-probabilities."""
    return torch.tensor(probabilities, dtype=torch.float64).log()


def drawn(temperature: float, *, num_clips: int = 4_000, num_classes: int = 5, seed: int = 0) -> Any:
    """Logits that are too sure by this factor, and labels drawn from what they ought to say."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_clips, num_classes, generator=generator).double() * 2
    labels = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(1)
    return logits * temperature, labels


# Temperature --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0, 40.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature)
    fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert fit_temperature(logits.log_softmax(dim=-1).float(), labels) == pytest.approx(fitted, rel=1e-4)
    assert fit_temperature(logits + 100, labels) == pytest.approx(fitted, rel=1e-6)


def test_the_temperature_of_two_clips_is_that_by_hand() -> None:
    # One of 2 clips with odds 9:1 is right: half of the answers are, so their odds must become 1:1 … but for 3 of 4,
    # odds of 3:1, which is 9 to the power of one half.
    sure = rows(*[[0.9, 0.1]] * 4)
    assert fit_temperature(sure, torch.tensor([0, 0, 0, 1])) == pytest.approx(math.log(9) / math.log(3), rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_likelihood_is_never_worse_than_without(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(int(torch.randint(1, 30, (), generator=generator)), 4, generator=generator) * 5
    labels = torch.randint(0, 4, (len(logits),), generator=generator)
    fitted = fit_temperature(logits, labels)
    best = negative_log_likelihood(logits, labels, fitted)
    assert best <= negative_log_likelihood(logits, labels) + 1e-12
    for factor in (0.9, 0.99, 1.01, 1.1):
        if 0.01 <= fitted * factor <= 100:
            assert best <= negative_log_likelihood(logits, labels, fitted * factor)


@pytest.mark.parametrize(("labels", "bound", "reason"), [([0, 1], 0.01, "all right"), ([1, 0], 100.0, "no higher")])
def test_clips_without_a_minimum_get_the_bound_and_a_warning(
    labels: list[int], bound: float, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert fit_temperature(rows([0.9, 0.1], [0.2, 0.8]), torch.tensor(labels)) == bound
    assert [reason in record.getMessage() for record in caplog.records] == [True]


def test_a_fitted_temperature_calibrates() -> None:
    logits, labels = drawn(4.0)
    before = expected_calibration_error(logits.log_softmax(dim=-1), labels)
    after = expected_calibration_error(scaled(logits, fit_temperature(logits, labels)), labels)
    assert before > 0.15 and after < 0.03


# Calibration error --------------------------------------------------------------------------------------------------


def test_the_calibration_error_is_that_by_hand() -> None:
    log_probabilities = rows([0.9, 0.1], [0.2, 0.8], [0.45, 0.55], [0.6, 0.4])
    labels = torch.tensor([0, 1, 0, 0])
    # Two bins: all scores are in (0.5, 1]. Mean score 0.7125, accuracy 3/4.
    assert expected_calibration_error(log_probabilities, labels, num_bins=2) == pytest.approx(0.0375)
    # Ten bins: 0.9 in (0.8, 0.9], 0.8 in (0.7, 0.8], 0.55 and 0.6 together, one of them right.
    wanted = (0.1 + 0.2 + 2 * abs(0.575 - 0.5)) / 4
    assert expected_calibration_error(log_probabilities, labels, num_bins=10) == pytest.approx(wanted)


def test_the_calibration_error_has_fifteen_bins() -> None:
    scores = torch.linspace(0.51, 1, 100).double()
    log_probabilities = torch.stack([scores, 1 - scores], dim=1).clamp(min=1e-9).log()
    labels = (torch.arange(100) % 3 == 0).long()
    by_hand = 0.0
    for low in range(15):
        inside = (scores > low / 15) & (scores <= (low + 1) / 15)
        if inside.any():
            gap = abs(scores[inside].mean() - (labels[inside] == 0).double().mean())
            by_hand += (gap * inside.sum() / 100).item()
    assert expected_calibration_error(log_probabilities, labels) == pytest.approx(by_hand, abs=1e-9)


def test_right_and_sure_is_calibrated_and_wrong_and_sure_is_not() -> None:
    sure = rows([1.0 - 1e-12, 1e-12])
    assert expected_calibration_error(sure, torch.tensor([0])) == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(sure, torch.tensor([1])) == pytest.approx(1, abs=1e-9)


# Abstention ---------------------------------------------------------------------------------------------------------

GRADED = rows([0.95, 0.05], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4])


@pytest.mark.parametrize(
    ("labels", "accuracy", "threshold"),
    [
        ([0, 0, 0, 0, 0], 1.0, 0.0),  # all may be answered
        ([0, 0, 0, 1, 1], 1.0, 0.8),
        ([0, 0, 0, 1, 0], 0.8, 0.0),
        ([0, 0, 0, 1, 0], 0.81, 0.8),
        ([0, 1, 0, 0, 1], 0.75, 0.7),  # fewer would not do: 1/2 and 2/3 are below
        ([1, 1, 1, 1, 0], 0.2, 0.0),
    ],
)
def test_the_threshold_is_the_smallest_that_reaches_the_accuracy(
    labels: list[int], accuracy: float, threshold: float
) -> None:
    assert abstention_threshold(GRADED, torch.tensor(labels), accuracy) == pytest.approx(threshold, abs=1e-12)


def test_answers_at_the_threshold_have_the_accuracy() -> None:
    logits, labels = drawn(2.0, num_clips=500)
    log_probabilities = logits.log_softmax(dim=-1)
    threshold = abstention_threshold(log_probabilities, labels, 0.9)
    scores, predicted = log_probabilities.exp().max(dim=-1)
    right = (predicted == labels).double()
    assert right[scores >= threshold].mean() >= 0.9 > right.mean()
    for lower in scores[scores < threshold]:
        assert right[scores >= lower].mean() < 0.9


def test_equal_scores_are_answered_together() -> None:
    log_probabilities = rows([0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2])
    assert abstention_threshold(log_probabilities, torch.tensor([0, 0, 1, 1]), 1.0) == pytest.approx(0.9)


def test_an_accuracy_that_no_threshold_reaches_is_refused() -> None:
    message = "no threshold reaches an accuracy of 0.9 on these 5 clips; the best that one reaches is 0.7500."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        abstention_threshold(GRADED, torch.tensor([1, 0, 0, 0, 1]))


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [fit_temperature, expected_calibration_error, abstention_threshold])
@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0).long(), "there are no clips to calibrate on."),
        (torch.zeros(2, 3), torch.tensor([0]), "log_probabilities have the shape (2, 3) and labels (1,)"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), "log_probabilities have the shape (3,)"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([0]), "a log-probability is not a finite number"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "labels lie in 0 to 3; with 3 scores to a clip"),
        (torch.zeros(2, 3), torch.tensor([-1, 1]), "labels lie in -1 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(measure: Any, values: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        measure(values, labels)


@pytest.mark.parametrize("measure", [expected_calibration_error, abstention_threshold])
def test_logits_are_no_log_probabilities(measure: Any) -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    with pytest.raises(ValueError, match=r"^these are logits; log-probabilities are at most 0, and the highest is 3"):
        measure(logits, torch.tensor([0, 1]))
    measure(logits.log_softmax(dim=-1) + 1e-6, torch.tensor([0, 1]))


@pytest.mark.parametrize(
    "measure", [fit_temperature, negative_log_likelihood, expected_calibration_error, abstention_threshold]
)
def test_labels_are_whole_numbers_of_any_width(measure: Any) -> None:
    labels = torch.tensor([0, 0, 0, 1, 0])
    assert measure(GRADED, labels.int()) == measure(GRADED, labels)
    with pytest.raises(ValueError, match="^labels are torch.float32; the ids of classes are whole numbers"):
        measure(GRADED, labels.float())


def test_one_class_has_no_temperature() -> None:
    with pytest.raises(ValueError, match="^there is only one class, whose probability is 1 at every temperature"):
        fit_temperature(torch.zeros(4, 1), torch.zeros(4).long())


def test_settings_out_of_range_are_refused() -> None:
    labels = torch.zeros(5).long()
    with pytest.raises(ValueError, match="^temperature=0 must be a positive number"):
        negative_log_likelihood(GRADED, labels, 0)
    with pytest.raises(ValueError, match="^num_bins=0 must be at least 1"):
        expected_calibration_error(GRADED, labels, num_bins=0)
    for accuracy in (0, 1.1, True):
        with pytest.raises(ValueError, match=f"^accuracy={accuracy} must be a share above 0 and at most 1"):
            abstention_threshold(GRADED, labels, accuracy)
    for temperature in (0, -1, math.inf, math.nan, "2", True, 10**400):
        with pytest.raises(ValueError, match="must be a positive number"):
            Calibration(temperature)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^temperature=1e-320 is too low"):
        Calibration(1e-320)
    with pytest.raises(ValueError, match="^threshold=1.5 must be a score from 0 to 1"):
        Calibration(1.0, 1.5)


# Files --------------------------------------------------------------------------------------------------------------


def test_a_calibration_is_saved_in_a_folder_or_a_file(tmp_path: Path) -> None:
    calibration = Calibration(1.7, 0.4, {"num_clips": 3})
    assert calibration.save(tmp_path) == tmp_path / CALIBRATION_FILE
    assert calibration.save(tmp_path / "other.json") == tmp_path / "other.json"
    for path in (tmp_path, str(tmp_path / CALIBRATION_FILE), tmp_path / "other.json"):
        assert Calibration.load(path) == calibration
    Calibration(np.float32(2), np.float32(0.5)).save(tmp_path)  # type: ignore[arg-type]
    assert Calibration.load(tmp_path) == Calibration(2.0, 0.5)


BAD_FILES = [
    "[]",
    "{",
    '{"temperature": -1}',
    '{"temperature": 1, "colour": "red"}',
    '"text"',
    f'{{"temperature": 1{"0" * 400}}}',
    '{"temperature": 2, "fitted_on": [1]}',
    '{"temperature": 2, "fitted_on": null}',
]


@pytest.mark.parametrize("content", BAD_FILES, ids=lambda content: content[:40])
def test_a_file_that_is_no_calibration_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / CALIBRATION_FILE).write_text(content)
    with pytest.raises(ValueError, match=r"calibration.json is no calibration that kinetext wrote: "):
        Calibration.load(tmp_path)


def test_a_missing_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no calibration at .*; `kinetext calibrate RESULTS"):
        Calibration.load(tmp_path)


# From an evaluation -------------------------------------------------------------------------------------------------


def write_results(
    folder: Path,
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    task: str = "classification",
    splits: int = 1,
    weights_sha256: str = "cd" * 32,
) -> Path:
    """A folder as `kinetext eval` writes it, with a clip more that could not be decoded."""
    values = logits.log_softmax(dim=-1).float().numpy()
    predictions: list[tuple[str, int, Prediction]] = []
    for index, (row, label) in enumerate(zip(values, labels.tolist(), strict=True)):
        prediction = Prediction(f"{index}.mp4", label, int(row.argmax()), 1, row)
        predictions.append((f"split {index % splits + 1}", index, prediction))
    predictions.append(("split 1", len(values), Prediction("broken.mp4", 0, error="cannot be decoded")))
    folder.mkdir(exist_ok=True)
    (folder / "predictions.parquet").write_bytes(predictions_as_bytes(predictions))
    protocol = {"name": "mine", "version": 1, "sha256": "ab" * 32, "content": {"task": task}}
    model = {"name": "runs/mine", "weights_sha256": weights_sha256}
    (folder / "results.json").write_text(json.dumps({"format": 1, "protocol": protocol, "model": model}))
    return folder


@pytest.mark.parametrize("splits", [1, 3])
def test_results_give_the_calibration_of_their_predictions(splits: int, tmp_path: Path) -> None:
    logits, labels = drawn(3.0, num_clips=400)
    calibration = calibrate_results(write_results(tmp_path, logits, labels, splits=splits), accuracy=0.8)
    assert calibration.temperature == pytest.approx(fit_temperature(logits, labels), rel=1e-5)
    calibrated = scaled(logits, calibration.temperature)
    assert calibration.threshold == pytest.approx(abstention_threshold(calibrated, labels, 0.8), abs=1e-5)
    facts = calibration.fitted_on
    assert facts["protocol"] == {"name": "mine", "version": 1, "sha256": "ab" * 32}
    assert facts["model"]["weights_sha256"] == "cd" * 32
    assert (facts["num_clips"], facts["wanted_accuracy"]) == (400, 0.8)
    for name, measure in (
        ("negative_log_likelihood", negative_log_likelihood),
        ("expected_calibration_error", expected_calibration_error),
    ):
        wanted = [measure(logits.log_softmax(dim=-1), labels), measure(calibrated, labels)]
        assert facts[name] == pytest.approx(wanted, abs=1e-4)
        assert facts[name][1] < facts[name][0]
    answered = calibrated.exp().amax(dim=-1) >= calibration.threshold
    assert facts["share_answered"] == pytest.approx(answered.double().mean().item(), abs=1.5 / 400)  # rounding of one
    assert facts["accuracy_of_answers"] >= 0.8
    assert calibrate_results(tmp_path).threshold is None


def test_results_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    logits, labels = drawn(2.0, num_clips=20)
    with pytest.raises(FileNotFoundError, match="results.json; give the folder that `kinetext eval` wrote"):
        calibrate_results(tmp_path)
    write_results(tmp_path, logits, labels, task="multi_label")
    with pytest.raises(ValueError, match="is of a multi-label protocol, in which a clip has no single right class"):
        calibrate_results(tmp_path)
    (tmp_path / "results.json").write_text('{"metrics": {}}')
    with pytest.raises(ValueError, match="is no result of `kinetext eval` that names its protocol"):
        calibrate_results(tmp_path)
    write_results(tmp_path, logits, labels)
    (tmp_path / "predictions.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="predictions.parquet; give the folder that `kinetext eval` wrote"):
        calibrate_results(tmp_path)
    write_results(tmp_path, logits[:0], labels[:0])
    with pytest.raises(ValueError, match="has no clip that could be decoded"):
        calibrate_results(tmp_path)
    rows_of = [
        ("a", 0, Prediction("1.mp4", 0, 0, 1, np.zeros(3, dtype=np.float32))),
        ("b", 0, Prediction("2.mp4", 0, 0, 1, np.zeros(4, dtype=np.float32))),
    ]
    (tmp_path / "predictions.parquet").write_bytes(predictions_as_bytes(rows_of))
    with pytest.raises(
        ValueError, match="splits with different numbers of classes, which one temperature does not fit"
    ):
        calibrate_results(tmp_path)


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(calibrate)
    return CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "160"})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A saved model."""
    folder = tmp_path / "model"
    tiny_video_clip().save_pretrained(folder)
    VideoTextProcessor(small_tokenizer(["run"]), crop_size=32).save_pretrained(folder)
    return folder


def test_the_verb_says_what_it_did_and_saves_beside_the_model(tmp_path: Path, model: Path) -> None:
    logits, labels = drawn(3.0, num_clips=400)
    weights = model_facts("any", "video_clip", tiny_video_clip().state_dict())["weights_sha256"]
    results = write_results(tmp_path / "results", logits, labels, weights_sha256=weights)
    done = run(results, "--model", model, "--accuracy", "0.8")
    assert done.exit_code == 0, done.output
    saved = Calibration.load(model)
    assert saved == calibrate_results(results, accuracy=0.8)
    lines = done.stdout.splitlines()
    assert f"temperature {saved.temperature:.4f}, from 400 clips of mine" in lines
    (line,) = (line for line in lines if "expected calibration error" in line)
    assert all(f"{value:.4f}" in line for value in saved.fitted_on["expected_calibration_error"])
    assert f"threshold {saved.threshold:.4f}: answers {saved.fitted_on['share_answered']:.1%} of the c" in done.output
    assert lines[-1] == f"saved in {model / CALIBRATION_FILE}"
    done = run(results, "--model", model)
    assert "threshold" not in done.output and Calibration.load(model).threshold is None


def test_the_verb_refuses_another_model_than_that_of_the_results(tmp_path: Path, model: Path) -> None:
    results = write_results(tmp_path / "results", *drawn(3.0, num_clips=40))
    done = run(results, "--model", tmp_path)
    assert done.exit_code == 1 and "is no folder with a saved model (it has no config.json)" in done.stderr
    done = run(results, "--model", model)
    assert done.exit_code == 1 and "the results are of runs/mine with weights cdcdcdcdcdcd, " in done.stderr
    assert not (model / CALIBRATION_FILE).exists()
