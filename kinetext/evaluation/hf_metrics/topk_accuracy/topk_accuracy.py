"""Top-k and mean class accuracy as a module of `evaluate`; load it by `kinetext.evaluation.metrics.path_of`.

`evaluate` copies this file and reads its imports: each stands on a line of its own, and none is relative.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import torch

from kinetext.evaluation.metrics import counts_of, label_ranks, mean_class_accuracy, recall_at, scores_of

_DESCRIPTION = """\
The share of clips whose class is among the k highest scores, and the mean of the top-1 shares of the classes.
Ties count against the clip: a model that scores all classes alike gets 0, whatever the order of the classes.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: per clip, the scores of all N classes (probabilities or logits).
    references: per clip, the id of its class, 0 to N - 1.
    k: the k to compute, one or several; (1, 5) unless told otherwise.
Returns:
    `top<k>` for each k, and `mean_class_accuracy`: the mean over the classes with clips of their top-1 share.
Examples:
    >>> metric = evaluate.load(path_of("topk_accuracy"))
    >>> scores = [[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3]]
    >>> metric.compute(predictions=scores, references=[0, 1, 2], k=[1, 2])
    {'top1': 0.6666666666666666, 'top2': 1.0, 'mean_class_accuracy': 0.6666666666666666}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class TopkAccuracy(evaluate.Metric):
    """Top-k and mean class accuracy."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Any, references: Any, k: int | Sequence[int] = (1, 5)) -> dict[str, float]:
        scores, labels = scores_of(predictions), torch.tensor(references)
        ranks = label_ranks(scores, labels)
        return {
            **{f"top{count}": recall_at(ranks, count) for count in counts_of(k)},
            "mean_class_accuracy": mean_class_accuracy(ranks == 1, labels, scores.shape[1]),
        }
