"""What a protocol makes of predictions: which of them count, the metrics of a split, and these as statistics of clips.

Metrics are numbers of all clips that count. Statistics are the same as functions of how often each clip was drawn, from
which bootstrap intervals come (`statistics`).
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch

from .metrics import average_precisions, mean_average_precision, median_rank
from .predictions import TOP_K, EvaluationResult, Prediction, hits_of, shares_and_counts
from .protocol import Protocol
from .statistics import Statistic, class_mean_of, map_of, median_of, share_of

__all__ = [
    "METRIC_TITLES",
    "class_values",
    "counted",
    "is_counted",
    "is_share",
    "primary_metric",
    "split_metrics",
    "split_statistics",
]

METRIC_TITLES = {  # how metrics are called where people read, in this order
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "mean class accuracy",
    "recall_at_1": "R@1",
    "recall_at_5": "R@5",
    "recall_at_10": "R@10",
    "median_rank": "median rank",
    "map": "mAP",
}
_PRIMARY = {"classification": "top1", "retrieval": "recall_at_1", "multi_label": "map"}
_K_OF = {"classification": TOP_K, "retrieval": {f"recall_at_{k}": k for k in (1, 5, 10)}}
_BOUNDS = {f"{name}_{bound}" for name in _PRIMARY.values() for bound in ("worst", "best")}
_SHARES = (set(METRIC_TITLES) - {"median_rank"}) | _BOUNDS


def primary_metric(protocol: Protocol) -> str:
    """The name of the metric that counts: top1, recall_at_1 or map."""
    return _PRIMARY[protocol.task]


def is_share(metric: str) -> bool:
    """Whether a metric is a share of clips, not a rank or a count."""
    return metric in _SHARES


def is_counted(protocol: Protocol, prediction: Prediction) -> bool:
    """Whether a clip counts: a decoded one does, and a failed one where the protocol counts it as wrong."""
    return prediction.error is None or protocol.failed_clips == "wrong"


def counted(protocol: Protocol, result: EvaluationResult) -> list[Prediction]:
    """The clips of a split that count."""
    return [one for one in result.predictions if is_counted(protocol, one)]


def split_metrics(protocol: Protocol, result: EvaluationResult) -> dict[str, float]:
    """The metrics of a split, with coverage, and the bounds of the primary one if failed clips were wrong or right."""
    coverage = result.coverage()
    if protocol.task == "multi_label":
        return {"map": mean_average_precision(*_scores_and_relevant(result)), **coverage}
    shares, right = shares_and_counts(counted(protocol, result), _K_OF[protocol.task])
    if protocol.task == "retrieval":
        more = {"median_rank": median_rank(_ranks(protocol, result))}
    else:
        accuracies = [share for share, _ in class_values(protocol, [result]).values()]
        more = {"mean_class_accuracy": statistics.fmean(accuracies) if accuracies else math.nan}
    primary, num_listed = primary_metric(protocol), coverage["num_listed"]
    at_least = right[f"{primary}_count"]
    at_most = at_least + num_listed - coverage["num_decoded"]
    bounds = {f"{primary}_worst": at_least / num_listed, f"{primary}_best": at_most / num_listed}
    return {**shares, **more, **bounds, **right, **coverage}


def split_statistics(protocol: Protocol, result: EvaluationResult) -> dict[str, Statistic]:
    """Metric -> statistic of the clips of a split that count; of none, there is no mean over classes."""
    if protocol.task == "multi_label":
        return {"map": map_of(*_scores_and_relevant(result))}
    predictions = counted(protocol, result)
    of_metric = {name: share_of(hits_of(predictions, k)) for name, k in _K_OF[protocol.task].items()}
    if protocol.task == "retrieval":
        of_metric["median_rank"] = median_of(_ranks(protocol, result))
    elif predictions:
        labels = [prediction.label for prediction in predictions]
        of_metric["mean_class_accuracy"] = class_mean_of(hits_of(predictions, 1), labels)
    return of_metric


def class_values(protocol: Protocol, results: Iterable[EvaluationResult]) -> dict[str, tuple[float, int]]:
    """Class -> (share of its clips that are right, how many of its clips count in all splits), in no order.

    Where clips have several classes, it is average precision instead, the mean over splits. Classes without clips are
    left out.

    Args:
        protocol: says which clips count.
        results: of each split.
    """
    values: dict[str, list[float]] = {}
    num_clips: Counter[str] = Counter()
    for result in results:
        names = result.class_names
        num_clips.update(names[label] for one in counted(protocol, result) for label in one.labels)
        for label, value in _values_of_labels(protocol, result):
            values.setdefault(names[label], []).append(value)
    return {name: (float(np.mean(own)), num_clips[name]) for name, own in values.items()}


def _values_of_labels(protocol: Protocol, result: EvaluationResult) -> list[tuple[int, float]]:
    """(label, 1 if it comes first, else 0) of each clip, or (class, average precision) of each class with clips."""
    if protocol.task != "multi_label":
        return [(one.label, float(one.rank == 1)) for one in counted(protocol, result)]
    precisions = average_precisions(*_scores_and_relevant(result)).tolist()
    return [(label, value) for label, value in enumerate(precisions) if not math.isnan(value)]


def _ranks(protocol: Protocol, result: EvaluationResult) -> torch.Tensor:
    """(B,) int64 rank of each label; of failed clips, where they are wrong, behind all texts."""
    last = len(result.class_names) + len(protocol.distractors) + 1
    ranks = [last if each.rank is None else each.rank for each in counted(protocol, result)]
    return torch.tensor(ranks, dtype=torch.int64)


def _scores_and_relevant(result: EvaluationResult) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (B, N) float32 and whether they are of a class of the clip, bool (B, N), of the decoded clips."""
    decoded, num_classes = result.decoded, len(result.class_names)
    scores = [torch.from_numpy(prediction.log_probabilities)[:num_classes] for prediction in decoded]
    relevant = torch.zeros(len(decoded), num_classes, dtype=torch.bool)
    for row, prediction in enumerate(decoded):
        relevant[row, list(prediction.labels)] = True
    return torch.stack(scores) if scores else torch.empty(0, num_classes), relevant
