"""What a model said of each clip of a list, and how often it was right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

__all__ = ["TOP_K", "EvaluationResult", "Prediction", "hits_of", "shares_and_counts"]

TOP_K = {"top1": 1, "top5": 5}  # metric -> k


@dataclass(frozen=True)
class Prediction:
    """What the model said of one clip.

    Attributes:
        clip_id: the clip.
        label: its class, an index.
        other_labels: further classes of it, in a multi-label evaluation.
        predicted: the text with the highest score: a class, or above those a distractor.
        rank: of the label among all scores, 1 for the best; ties count against it.
        log_probabilities: (N,) float32 over all texts, averaged over views and templates.
        error: why there is no prediction, or None; then the three before are None.
    """

    clip_id: str
    label: int
    predicted: int | None = None
    rank: int | None = None
    log_probabilities: np.ndarray | None = field(default=None, compare=False, repr=False)
    other_labels: tuple[int, ...] = ()
    error: str | None = None

    @property
    def labels(self) -> tuple[int, ...]:
        """All classes of the clip, the label first."""
        return (self.label, *self.other_labels)

    @property
    def score(self) -> float | None:
        """Probability of the predicted class."""
        if self.log_probabilities is None or self.predicted is None:
            return None
        return math.exp(self.log_probabilities[self.predicted])


@dataclass(frozen=True)
class EvaluationResult:
    """Predictions of all listed clips, in list order, and what they add up to."""

    class_names: tuple[str, ...]
    predictions: tuple[Prediction, ...]

    @property
    def decoded(self) -> list[Prediction]:
        """The clips that could be decoded."""
        return [prediction for prediction in self.predictions if prediction.error is None]

    @property
    def failed(self) -> dict[str, str]:
        """The others: clip -> reason."""
        return {prediction.clip_id: prediction.error for prediction in self.predictions if prediction.error is not None}

    def metrics(self) -> dict[str, float]:
        """top1 and top5 over decoded clips, the counts behind them, and coverage = decoded / listed."""
        shares, counts = shares_and_counts(self.decoded, TOP_K)
        return {**shares, **counts, **self.coverage()}

    def coverage(self) -> dict[str, float]:
        """How many clips were decoded and listed, and the share of the one in the other."""
        num_decoded, num_listed = len(self.decoded), len(self.predictions)
        return {"num_decoded": num_decoded, "num_listed": num_listed, "coverage": num_decoded / num_listed}

    def confusion(self) -> np.ndarray:
        """(N, N) counts of decoded clips; row: true class, column: predicted class. A distractor is no column."""
        counts = np.zeros((len(self.class_names), len(self.class_names)), dtype=int)
        for prediction in self.decoded:
            if prediction.predicted is not None and prediction.predicted < len(self.class_names):
                counts[prediction.label, prediction.predicted] += 1
        return counts


def hits_of(predictions: Sequence[Prediction], k: int) -> torch.Tensor:
    """Whether the label is among the first k, bool (B,); of a failed clip it is not."""
    return torch.tensor([each.rank is not None and each.rank <= k for each in predictions], dtype=torch.bool)


def shares_and_counts(
    predictions: Sequence[Prediction], k_of: Mapping[str, int]
) -> tuple[dict[str, float], dict[str, int]]:
    """Metric -> share of the clips whose label is among the first k, NaN of none; `<metric>_count` -> how many.

    Args:
        predictions: of the clips that count.
        k_of: metric -> k, such as `TOP_K`.
    """
    hits = {name: hits_of(predictions, k) for name, k in k_of.items()}
    shares = {name: float(own.double().mean()) for name, own in hits.items()}
    return shares, {f"{name}_count": int(own.sum()) for name, own in hits.items()}
