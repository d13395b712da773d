"""Recall@k and median rank as a module of `evaluate`; load it by `kinetext.evaluation.metrics.path_of`.

`evaluate` copies this file and reads its imports: each stands on a line of its own, and none is relative.
"""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import torch

from kinetext.evaluation.metrics import counts_of, label_ranks, median_rank, recall_at, scores_of

_DESCRIPTION = """\
How well the text of a clip is found among N texts: the share of clips for which it is among the first k (R@k), and the
median of its ranks. Ties count against the clip: of texts that score alike, its own comes last.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: per clip, the scores of all N texts.
    references: per clip, the index of its text, 0 to N - 1; texts that are nobody's are distractors.
    k: the k to compute, one or several; (1, 5, 10) unless told otherwise.
Returns:
    `recall_at_<k>` for each k, and `median_rank` (1 is the best; the mean of the two in the middle of an even number).
Examples:
    >>> metric = evaluate.load(path_of("text_retrieval"))
    >>> scores = [[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3]]
    >>> metric.compute(predictions=scores, references=[0, 1, 0], k=[1, 2])
    {'recall_at_1': 0.6666666666666666, 'recall_at_2': 0.6666666666666666, 'median_rank': 1.0}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class TextRetrieval(evaluate.Metric):
    """Recall@k and median rank."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Any, references: Any, k: int | Sequence[int] = (1, 5, 10)) -> dict[str, float]:
        ranks = label_ranks(scores_of(predictions), torch.tensor(references))
        recalls = {f"recall_at_{count}": recall_at(ranks, count) for count in counts_of(k)}
        return {**recalls, "median_rank": median_rank(ranks)}
