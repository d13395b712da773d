"""Scores that mean what they say: one temperature, and a score below which the model says nothing.

    predictions of a validation set ──fit_calibration──► Calibration ──calibration.json──► pipeline(...)

Temperature scaling and the calibration error are those of Guo, Pleiss, Sun, Weinberger, *On Calibration of Modern
Neural Networks*, ICML 2017, sections 2 and 4.2. The temperature changes no ranking. It is fitted on clips of known
classes, so scores are calibrated for clips like these: of other classes, or of no class at all, it promises nothing.

Legend: B clips, N classes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..descriptions.files import write_atomically
from .classify import load_model
from .prediction_files import read_predictions
from .results import PREDICTIONS_NAME, RESULTS_NAME, model_facts

__all__ = [
    "CALIBRATION_FILE",
    "Calibration",
    "abstention_threshold",
    "calibrate_results",
    "check_evaluated_model",
    "check_weights",
    "expected_calibration_error",
    "fit_temperature",
    "negative_log_likelihood",
    "scaled",
]

logger = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.json"
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0  # of what is fitted
_LEAST_TEMPERATURE = 1e-200  # of what is given; float32 logits divided by less may overflow float64
_BISECTIONS = 50  # each halves the interval of log(1/T), which is 9.2 wide: exact to 1e-14
_NUM_BINS = 15  # as in the paper
_MAX_LOG_PROBABILITY = 1e-4  # but for rounding it is 0


@dataclass(frozen=True)
class Calibration:
    """How the scores of one model are read.

    Attributes:
        temperature: T > 0; logits are divided by it, so above 1 scores become less sure.
        threshold: the score, after the temperature, below which the model abstains; None if none was fitted.
        fitted_on: where both come from: protocol, number of clips, and what they brought there.
    """

    temperature: float = 1.0
    threshold: float | None = None
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.threshold is not None:
            check_threshold("threshold", self.threshold)
        if not isinstance(self.fitted_on, Mapping):
            raise ValueError(f"fitted_on={self.fitted_on!r} must be a mapping of names to facts.")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file `path`, or `calibration.json` in the folder `path`; returns where it is."""
        path = _file_of(path)
        write_atomically(path, (json.dumps(asdict(self), indent=2, default=float) + "\n").encode())
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Reads what `save` wrote: the file, or the folder with it.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the file is no calibration.
        """
        path = _file_of(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no calibration at {path}; `kinetext calibrate RESULTS --model FOLDER` fits one."
            )
        try:
            content = json.loads(path.read_bytes())
            return cls(**content)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is no calibration that kinetext wrote: {error}") from error


def _file_of(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix == ".json" and not path.is_dir() else path / CALIBRATION_FILE


def check_temperature(temperature: Any) -> None:
    """Raises ValueError unless it is a positive number."""
    try:
        value = float(temperature) if _is_number(temperature) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        value = math.inf
    if not 0 < value < math.inf:
        raise ValueError(f"temperature={temperature!r} must be a positive number; 1 leaves the scores as they are.")
    if value < _LEAST_TEMPERATURE:
        raise ValueError(f"temperature={temperature!r} is too low: logits divided by it are no numbers any more.")


def check_threshold(name: str, threshold: Any) -> None:
    """Raises ValueError unless it is a score."""
    if not _is_number(threshold) or not 0 <= threshold <= 1:
        raise ValueError(f"{name}={threshold!r} must be a score from 0 to 1; clips whose best is below get no label.")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def scaled(log_probabilities: torch.Tensor, temperature: float) -> torch.Tensor:
    """(B, N) float64 log-probabilities at a temperature, of log-probabilities or logits (B, N)."""
    return (log_probabilities.double() / float(temperature)).log_softmax(dim=-1)


def negative_log_likelihood(log_probabilities: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0) -> float:
    """Mean over the clips, in nats, of (B, N) log-probabilities or logits and (B,) labels."""
    _check(log_probabilities, labels)
    check_temperature(temperature)
    return torch.nn.functional.nll_loss(scaled(log_probabilities, temperature), labels.long()).item()


def fit_temperature(log_probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature, from 0.01 to 100, at which the labels are most likely.

    The negative log-likelihood is convex in 1/T, so bisection of its slope finds the only minimum. Clips that are all
    right have none: they are likelier the lower the temperature is, which is warned of.

    Args:
        log_probabilities: (B, N) log-probabilities or logits.
        labels: (B,) whole numbers.

    Raises:
        ValueError: if there are no clips, or only one class, a value is not finite, or a label is no column.
    """
    _check(log_probabilities, labels)
    if log_probabilities.shape[1] == 1:
        raise ValueError("there is only one class, whose probability is 1 at every temperature; name more classes.")
    logits = log_probabilities.double()
    own = logits.gather(1, labels.long()[:, None]).squeeze(1)  # (B,)

    def slope(inverse: float) -> float:
        """Of the negative log-likelihood over 1/T: expected logit minus that of the label, mean over the clips."""
        return ((logits * inverse).softmax(dim=-1).mul(logits).sum(dim=-1) - own).mean().item()

    low, high = math.log(1 / MAX_TEMPERATURE), math.log(1 / MIN_TEMPERATURE)
    if slope(math.exp(low)) >= 0:
        logger.warning("the true classes score no higher than others, so the temperature is the highest there is.")
        return MAX_TEMPERATURE
    if slope(math.exp(high)) <= 0:
        logger.warning(
            "the clips are all right, so the temperature is the lowest there is and says nothing: fit it on clips that "
            "the model was not trained on."
        )
        return MIN_TEMPERATURE
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if slope(math.exp(middle)) < 0:
            low = middle
        else:
            high = middle
    return math.exp(-(low + high) / 2)


def expected_calibration_error(
    log_probabilities: torch.Tensor, labels: torch.Tensor, *, num_bins: int = _NUM_BINS
) -> float:
    """How far scores are from the accuracy of clips that have them, from 0 (calibrated) to 1.

    Clips are put in bins of equal width by the score of their best class; the error is the mean, over clips, of the
    distance between mean score and accuracy of their bin.

    Args:
        log_probabilities: (B, N) log-probabilities.
        labels: (B,) whole numbers.
        num_bins: bins of (0, 1]; each holds its upper end.

    Raises:
        ValueError: as `negative_log_likelihood`, or for logits, or no bins.
    """
    _check(log_probabilities, labels)
    _check_probabilities(log_probabilities)
    if num_bins < 1:
        raise ValueError(f"num_bins={num_bins} must be at least 1.")
    scores, is_right = _best(log_probabilities, labels)
    bins = (scores * num_bins).ceil().long().clamp(1, num_bins) - 1  # (B,)
    gap = torch.zeros(num_bins, dtype=torch.float64).index_add(0, bins, scores - is_right)  # sums over each bin
    return gap.abs().sum().item() / len(scores)


def abstention_threshold(log_probabilities: torch.Tensor, labels: torch.Tensor, accuracy: float = 0.9) -> float:
    """The smallest score such that of the clips whose best class has it or more, that share is right.

    It is 0 if all clips together reach the accuracy, else the score of a clip. It holds for these clips: on few, the
    accuracy of others may be lower.

    Args:
        log_probabilities: (B, N) log-probabilities, after the temperature.
        labels: (B,) whole numbers.
        accuracy: the share of answers to be right, above 0 and at most 1.

    Raises:
        ValueError: if no threshold reaches the accuracy, for logits, or as `negative_log_likelihood`.
    """
    _check(log_probabilities, labels)
    _check_probabilities(log_probabilities)
    if not _is_number(accuracy) or not 0 < accuracy <= 1:
        raise ValueError(f"accuracy={accuracy!r} must be a share above 0 and at most 1.")
    scores, is_right = _best(log_probabilities, labels)
    scores, order = scores.sort(descending=True)
    answered = torch.arange(1, len(scores) + 1)
    reached = is_right[order].cumsum(dim=0) / answered  # (B,) accuracy if the threshold is this clip's score
    is_last_of_score = torch.cat([scores[1:] < scores[:-1], torch.tensor([True])])  # equal scores are answered together
    enough = (reached >= accuracy - 1e-12) & is_last_of_score  # 0.9 of 10 clips is 9, whatever float64 makes of it
    if not enough.any():
        best = reached[is_last_of_score].max().item()
        raise ValueError(
            f"no threshold reaches an accuracy of {accuracy:g} on these {len(scores)} clips; the best that one reaches "
            f"is {best:.4f}. Ask for less, or leave the accuracy out."
        )
    count = int(enough.nonzero().max()) + 1
    return 0.0 if count == len(scores) else scores[count - 1].item()


def _best(log_probabilities: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probability of the best class, and whether it is the label as 0 or 1, both (B,) float64."""
    values, predicted = log_probabilities.double().max(dim=-1)
    return values.exp(), (predicted == labels).double()


def _check(log_probabilities: torch.Tensor, labels: torch.Tensor) -> None:
    if log_probabilities.ndim != 2 or labels.shape != log_probabilities.shape[:1]:
        raise ValueError(
            f"log_probabilities have the shape {tuple(log_probabilities.shape)} and labels {tuple(labels.shape)}; "
            "(B, N) and (B,) are wanted."
        )
    if len(labels) == 0:
        raise ValueError("there are no clips to calibrate on.")
    if labels.is_floating_point():
        raise ValueError(f"labels are {labels.dtype}; the ids of classes are whole numbers.")
    if not log_probabilities.isfinite().all():
        raise ValueError("a log-probability is not a finite number; the model gave NaN or infinity for that clip.")
    if not 0 <= int(labels.min()) <= int(labels.max()) < log_probabilities.shape[1]:
        raise ValueError(
            f"labels lie in {int(labels.min())} to {int(labels.max())}; with {log_probabilities.shape[1]} scores to a "
            f"clip they must lie in 0 to {log_probabilities.shape[1] - 1}."
        )


def _check_probabilities(log_probabilities: torch.Tensor) -> None:
    highest = log_probabilities.max().item()
    if highest > _MAX_LOG_PROBABILITY:
        raise ValueError(
            f"these are logits; log-probabilities are at most 0, and the highest is {highest:g}: pass "
            "scaled(logits, temperature)."
        )


# From an evaluation


def calibrate_results(results: str | os.PathLike[str], *, accuracy: float | None = None) -> Calibration:
    """The calibration that the predictions of `kinetext eval` on a validation set give.

    Args:
        results: the folder with `results.json` and `predictions.parquet`. Clips that could not be decoded do not count.
        accuracy: the share of answers that are to be right, for a threshold; None for none.

    Raises:
        FileNotFoundError: if the files are not there.
        ValueError: if these are no results of a classification, or as `fit_temperature` and `abstention_threshold`.
    """
    folder = Path(results)
    protocol, model = _read_facts(folder)
    log_probabilities, labels = _read_scores(folder / PREDICTIONS_NAME)
    temperature = fit_temperature(log_probabilities, labels)
    calibrated = scaled(log_probabilities, temperature)
    threshold = None if accuracy is None else abstention_threshold(calibrated, labels, accuracy)
    fitted_on: dict[str, Any] = {
        "protocol": protocol,
        "model": model,
        "num_clips": len(labels),
        "negative_log_likelihood": _before_and_after(negative_log_likelihood, log_probabilities, calibrated, labels),
        "expected_calibration_error": _before_and_after(
            expected_calibration_error, log_probabilities, calibrated, labels
        ),
    }
    if threshold is not None:
        scores, is_right = _best(calibrated, labels)
        answered = scores >= threshold
        fitted_on |= {
            "wanted_accuracy": accuracy,
            "accuracy_of_answers": is_right[answered].mean().item(),
            "share_answered": answered.double().mean().item(),
        }
    return Calibration(temperature, threshold, fitted_on)


def check_evaluated_model(calibration: Calibration, folder: str | os.PathLike[str]) -> None:
    """Raises ValueError if a calibration was fitted on predictions of another model than that of the folder."""
    model, _ = load_model(str(folder))
    own = model_facts(str(folder), model.config.model_type, model.state_dict())["weights_sha256"]
    theirs = calibration.fitted_on["model"]
    if theirs["weights_sha256"] != own:
        raise ValueError(
            f"the results are of {theirs['name']} with weights {theirs['weights_sha256'][:12]}, {folder} has "
            f"{own[:12]}: the temperature of one model does not fit another. Evaluate this one, or name the other."
        )


def check_weights(calibration: Calibration, model: Any) -> None:
    """Raises ValueError if a calibration says what weights it was fitted on, and those of the model are others.

    A model that was loaded in another precision than it was saved in is compared with what it was loaded from.
    """
    facts = calibration.fitted_on.get("model")
    theirs = facts.get("weights_sha256") if isinstance(facts, Mapping) else None
    if theirs is None or theirs == (own := _sha256_of(model)):
        return
    with contextlib.suppress(OSError, ValueError):  # it may be nowhere any more, or never was
        saved, _ = load_model(model.name_or_path or "nowhere")
        if saved.dtype != model.dtype and theirs == _sha256_of(saved) and own == _sha256_of(saved.to(model.dtype)):
            return
    raise ValueError(
        f"the calibration was fitted on weights {str(theirs)[:12]}, the model has {own[:12]}: the temperature of one "
        "model does not fit another. Fit one with `kinetext calibrate`, or pass calibration=False."
    )


def _sha256_of(model: Any) -> str:
    return str(model_facts("", model.config.model_type, model.state_dict())["weights_sha256"])


def _before_and_after(measure: Any, before: torch.Tensor, after: torch.Tensor, labels: torch.Tensor) -> list[float]:
    return [measure(before, labels), measure(after, labels)]


def _read_facts(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Name, version and hash of the protocol, and the model, of a result."""
    path = folder / RESULTS_NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; give the folder that `kinetext eval` wrote.")
    try:
        content = json.loads(path.read_bytes())
        protocol, model = content["protocol"], content["model"]
        task = protocol["content"]["task"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no result of `kinetext eval` that names its protocol ({error}).") from error
    if task == "multi_label":
        raise ValueError(
            f"{path} is of a multi-label protocol, in which a clip has no single right class; a temperature is fitted "
            "on classification."
        )
    return {name: protocol[name] for name in ("name", "version", "sha256")}, model


def _read_scores(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, N) log-probabilities and (B,) labels of the decoded clips of all splits."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; give the folder that `kinetext eval` wrote.")
    decoded = [prediction for _, _, prediction in read_predictions(path) if prediction.log_probabilities is not None]
    if not decoded:
        raise ValueError(f"{path} has no clip that could be decoded.")
    scores = [torch.as_tensor(prediction.log_probabilities) for prediction in decoded]
    if len({len(row) for row in scores}) > 1:
        raise ValueError(
            f"{path} has splits with different numbers of classes, which one temperature does not fit; calibrate on a "
            "protocol whose splits share their classes."
        )
    return torch.stack(scores), torch.tensor([prediction.label for prediction in decoded])
