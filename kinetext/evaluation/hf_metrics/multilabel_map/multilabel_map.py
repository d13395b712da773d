"""Mean average precision of clips with several classes as a module of `evaluate`; see `kinetext.evaluation.metrics`.

`evaluate` copies this file and reads its imports: each stands on a line of its own, and none is relative.
"""

from typing import Any

import datasets
import evaluate
import torch

from kinetext.evaluation.metrics import mean_average_precision, scores_of

_DESCRIPTION = """\
Mean average precision of clips that show any number of classes: for each class, clips are ranked by its score, and the
precision is averaged over the clips that show it; then the mean over the classes that some clip shows.
Tied clips count as one group, as in scikit-learn's average_precision_score.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: per clip, the scores of all N classes.
    references: per clip, the ids of the classes that it shows, each 0 to N - 1; an empty list for none.
Returns:
    `map`: the mean average precision.
Examples:
    >>> metric = evaluate.load(path_of("multilabel_map"))
    >>> scores = [[0.9, 0.1], [0.8, 0.7], [0.1, 0.6]]
    >>> metric.compute(predictions=scores, references=[[0], [1], [0, 1]])
    {'map': 0.9166666666666666}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MultilabelMap(evaluate.Metric):
    """Mean average precision over classes."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        scores = scores_of(predictions)  # (B, N)
        relevant = torch.zeros(scores.shape, dtype=torch.bool)
        for row, classes in enumerate(references):
            _check_classes(classes, scores.shape[1])
            relevant[row, torch.tensor(classes, dtype=torch.int64)] = True
        return {"map": mean_average_precision(scores, relevant)}


def _check_classes(classes: list[int], num_classes: int) -> None:
    if len(set(classes)) < len(classes):
        raise ValueError(f"a clip shows the classes {classes}, one of them twice; give ids, not 0/1 columns.")
    wrong = [index for index in classes if not 0 <= index < num_classes]
    if wrong:
        raise ValueError(
            f"a clip shows the class {wrong[0]}, which has no score: with {num_classes} scores to a clip, ids lie in "
            f"0 to {num_classes - 1}."
        )
