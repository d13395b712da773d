"""Metrics as plain tensor functions: ranks of the true label and what they add up to, and average precision.

Others use them through `evaluate`: `evaluate.load(path_of("topk_accuracy"))`, see `METRICS`.

Legend: B clips, N classes.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "METRICS",
    "average_precisions",
    "class_accuracies",
    "counts_of",
    "label_ranks",
    "mean_average_precision",
    "mean_class_accuracy",
    "median_rank",
    "path_of",
    "recall_at",
    "scores_of",
    "topk_hits",
]

METRICS = ("topk_accuracy", "text_retrieval", "multilabel_map")  # the `evaluate` modules that `path_of` finds
_FOLDER = Path(__file__).parent / "hf_metrics"


def label_ranks(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The rank of each label among the N scores of its clip, int64 (B,); 1 is the best.

    Ties count against the label: its rank is how many classes score at least as high, itself included. So a model that
    scores all classes alike ranks each label last, and is not credited by the order of its classes.

    Args:
        scores: (B, N) float; what is only a distractor has a column too.
        labels: (B,) int64.

    Raises:
        ValueError: if a score is not finite, a label is no column, or the shapes do not fit.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"scores have the shape {tuple(scores.shape)} and labels {tuple(labels.shape)}; (B, N) and (B,) are wanted."
        )
    _check_finite(scores)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[1]:
        raise ValueError(
            f"labels lie in {int(labels.min())} to {int(labels.max())}; with {scores.shape[1]} scores to a clip they "
            f"must lie in 0 to {scores.shape[1] - 1}."
        )
    own = scores.gather(1, labels[:, None])  # (B, 1)
    return (scores >= own).sum(dim=1)  # the label itself is always among them


def topk_hits(scores: torch.Tensor, labels: torch.Tensor, k: int) -> torch.Tensor:
    """Whether each label is among the k best scores, bool (B,); ties count against it (`label_ranks`).

    Args:
        scores: (B, N) float.
        labels: (B,) int64.
        k: how many classes may be named; with k >= N every label is a hit.

    Raises:
        ValueError: as `label_ranks`.
    """
    return label_ranks(scores, labels) <= k


def recall_at(ranks: torch.Tensor, k: int) -> float:
    """The share of clips whose label is among the first k: top-k accuracy, or R@k where texts are retrieved.

    Args:
        ranks: (B,) int64, from `label_ranks`; of no clip, the share is NaN.
        k: how many may be named.
    """
    return float((ranks <= k).double().mean())


def median_rank(ranks: torch.Tensor) -> float:
    """The median of the ranks (B,), the mean of the two in the middle where B is even; of no clip NaN."""
    if not len(ranks):
        return float("nan")
    ordered = ranks.sort().values  # torch.quantile takes 2^24 values at most
    return float(ordered[(len(ranks) - 1) // 2] + ordered[len(ranks) // 2]) / 2


def class_accuracies(hits: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """The share of hits of each class, float64 (N,); NaN for a class without clips.

    Args:
        hits: (B,) bool, from `topk_hits`.
        labels: (B,) int64.
        num_classes: N.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    return torch.bincount(labels, weights=hits.double(), minlength=num_classes) / counts


def mean_class_accuracy(hits: torch.Tensor, labels: torch.Tensor, num_classes: int) -> float:
    """The mean of `class_accuracies`, whose arguments it takes, over the classes with clips."""
    return float(class_accuracies(hits, labels, num_classes).nanmean())


def average_precisions(scores: torch.Tensor, relevant: torch.Tensor) -> torch.Tensor:
    """Average precision of each class over the clips ranked by its score, float64 (N,); NaN for one without clips.

    The mean, over the clips of a class, of the precision among all clips that score at least as high. So the order of
    tied clips does not matter: scikit-learn's `average_precision_score` sums the same terms. It is not interpolated.

    Args:
        scores: (B, N) float.
        relevant: (B, N) bool, whether a clip shows a class.

    Raises:
        ValueError: if a score is not finite, or the shapes differ.
    """
    if scores.ndim != 2 or scores.shape != relevant.shape:
        raise ValueError(
            f"scores have the shape {tuple(scores.shape)} and relevant {tuple(relevant.shape)}; both must be (B, N)."
        )
    _check_finite(scores)
    columns = zip(scores.T, relevant.bool().T, strict=True)
    return torch.stack([_average_precision(*column) for column in columns])


def mean_average_precision(scores: torch.Tensor, relevant: torch.Tensor) -> float:
    """The mean of `average_precisions`, whose arguments it takes, over the classes that some clip shows (macro mAP).

    scikit-learn counts a class without clips as 0 and warns; here it does not count. If no class has clips it is NaN.
    """
    return float(average_precisions(scores, relevant).nanmean())


def scores_of(predictions: Any) -> torch.Tensor:
    """(B, N) float64 scores of what an `evaluate` module was given.

    Raises:
        ValueError: if it was given no clips.
    """
    if not len(predictions):
        raise ValueError("there are no clips to measure; predictions and references are empty.")
    return torch.tensor(predictions, dtype=torch.float64)


def counts_of(k: int | Sequence[int]) -> list[int]:
    """The k of an `evaluate` module, one or several, as a list.

    Raises:
        ValueError: if one is no whole number of at least 1.
    """
    try:
        counts = [operator.index(count) for count in (k if hasattr(k, "__iter__") else [k])]
    except TypeError:
        counts = []
    if not counts or min(counts) < 1:
        raise ValueError(f"k={k!r} must be whole numbers of at least 1, such as [1, 5].")
    return counts


def path_of(metric: str) -> str:
    """The folder of a metric for `evaluate.load`, which loads it without network.

    Args:
        metric: one of `METRICS`.

    Raises:
        ValueError: for another name.
    """
    if metric not in METRICS:
        raise ValueError(f"there is no metric {metric!r}; choose one of {', '.join(METRICS)}.")
    return str(_FOLDER / metric)


def _average_precision(scores: torch.Tensor, relevant: torch.Tensor) -> torch.Tensor:
    """Of one class: scores and relevant (B,)."""
    ascending = scores.sort().values
    own = scores[relevant].sort().values  # of the clips of the class
    as_high = len(scores) - torch.searchsorted(ascending, own, side="left")
    own_as_high = len(own) - torch.searchsorted(own, own, side="left")
    return (own_as_high.double() / as_high).mean()  # NaN without clips


def _check_finite(scores: torch.Tensor) -> None:
    if not torch.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity; the model diverged or was given broken weights.")
