"""Ranks, hits and average precision against plain loops and hand-computed cases, with ties and broken scores."""

import itertools
import math
import re

import pytest
import torch

from kinetext.evaluation.metrics import (
    average_precisions,
    class_accuracies,
    label_ranks,
    mean_average_precision,
    mean_class_accuracy,
    median_rank,
    path_of,
    recall_at,
    topk_hits,
)


def naive_hits(scores: list[list[float]], labels: list[int], k: int) -> list[bool]:
    hits = []
    for row, label in zip(scores, labels, strict=True):
        at_least_as_high = [name for name in range(len(row)) if name != label and row[name] >= row[label]]
        hits.append(len(at_least_as_high) < k)
    return hits


@pytest.mark.parametrize("levels", [None, 4], ids=["distinct scores", "many ties"])
@pytest.mark.parametrize("k", [1, 2, 5, 7, 10])
def test_hits_are_those_of_a_plain_loop(k: int, levels: int | None) -> None:
    scores = torch.rand(50, 7)
    if levels is not None:
        scores = (scores * levels).round() / levels
    labels = torch.randint(0, 7, (50,))
    hits = topk_hits(scores, labels, k)
    assert hits.dtype == torch.bool and hits.shape == (50,)
    assert hits.tolist() == naive_hits(scores.tolist(), labels.tolist(), k)


def test_hits_without_ties_are_those_of_topk() -> None:
    scores, labels = torch.randn(200, 11), torch.randint(0, 11, (200,))
    for k in (1, 5):
        expected = (scores.topk(k).indices == labels[:, None]).any(dim=1)
        assert torch.equal(topk_hits(scores, labels, k), expected)


def test_ties_count_against_the_label() -> None:
    alike = torch.zeros(6, 6)
    labels = torch.arange(6)
    assert not topk_hits(alike, labels, 1).any()
    assert not topk_hits(alike, labels, 5).any()
    assert topk_hits(alike, labels, 6).all()  # with k >= N every label is a hit
    scores = torch.tensor([[0.4, 0.4, 0.2]])
    assert topk_hits(scores, torch.tensor([0]), 1).tolist() == [False]
    assert topk_hits(scores, torch.tensor([0]), 2).tolist() == [True]
    assert topk_hits(scores, torch.tensor([2]), 2).tolist() == [False]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_an_error(broken: float) -> None:
    scores = torch.rand(3, 4)
    scores[2, 1] = broken
    message = "scores hold NaN or infinity; the model diverged or was given broken weights."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        topk_hits(scores, torch.zeros(3, dtype=torch.int64), 1)


# Ranks and what they add up to


@pytest.mark.parametrize("levels", [None, 3], ids=["distinct scores", "many ties"])
def test_ranks_are_those_of_a_plain_loop(levels: int | None) -> None:
    scores = torch.rand(60, 8)
    if levels is not None:
        scores = (scores * levels).round() / levels
    labels = torch.randint(0, 6, (60,))  # the last two columns are distractors
    ranks = label_ranks(scores, labels)
    expected = [sum(other >= row[label] for other in row) for row, label in zip(scores, labels, strict=True)]
    assert ranks.dtype == torch.int64 and ranks.tolist() == [int(rank) for rank in expected]
    assert torch.equal(topk_hits(scores, labels, 3), ranks <= 3)


def test_labels_and_shapes_that_do_not_fit_are_named() -> None:
    scores = torch.rand(3, 4)
    message = "labels lie in 0 to 4; with 4 scores to a clip they must lie in 0 to 3."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        label_ranks(scores, torch.tensor([0, 4, 1]))
    with pytest.raises(ValueError, match="labels lie in -1 to 1"):
        label_ranks(scores, torch.tensor([0, -1, 1]))
    message = "scores have the shape (3, 4) and labels (2,); (B, N) and (B,) are wanted."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        label_ranks(scores, torch.tensor([0, 1]))
    assert label_ranks(torch.empty(0, 4), torch.empty(0, dtype=torch.int64)).shape == (0,)


def test_recall_and_median_of_ranks() -> None:
    ranks = torch.tensor([1, 7, 2, 1])
    assert [recall_at(ranks, k) for k in (1, 2, 6, 7)] == [0.5, 0.75, 0.75, 1.0]
    assert median_rank(ranks) == 1.5 and median_rank(ranks[:3]) == 2.0
    none = torch.empty(0, dtype=torch.int64)
    assert math.isnan(median_rank(none)) and math.isnan(recall_at(none, 1))
    assert median_rank(torch.arange(1, 20_000_002)) == 10_000_001  # more than torch.quantile takes


def test_mean_class_accuracy_gives_each_class_with_clips_one_vote() -> None:
    hits = torch.tensor([True, True, True, False, True, False])
    labels = torch.tensor([0, 0, 0, 0, 2, 3])
    shares = class_accuracies(hits, labels, 5)
    assert shares[[0, 2, 3]].tolist() == [0.75, 1.0, 0.0] and shares[[1, 4]].isnan().all()
    assert mean_class_accuracy(hits, labels, 5) == pytest.approx(1.75 / 3)


# Average precision


def test_average_precision_is_the_hand_computed_one() -> None:
    # Ranked: shown, not, shown, shown -> (1/1 + 2/3 + 3/4) / 3
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    relevant = torch.tensor([[True], [False], [True], [True]])
    assert average_precisions(scores, relevant).item() == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    # The example in scikit-learn's documentation of average_precision_score: 0.83...
    documented = average_precisions(torch.tensor([[0.1], [0.4], [0.35], [0.8]]), torch.tensor([[0], [0], [1], [1]]))
    assert documented.item() == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_tied_clips_count_as_one_group_in_any_order() -> None:
    # All alike: the precision at the only threshold is the share of clips that are shown.
    relevant = torch.tensor([[True], [False], [False], [True]])
    assert average_precisions(torch.zeros(4, 1), relevant).item() == 0.5
    # One shown clip first, then a group of three with one shown: 1/2 * 1 + 1/2 * 2/4
    scores = torch.tensor([[0.9], [0.5], [0.5], [0.5]])
    for order in itertools.permutations(range(4)):
        assert average_precisions(scores[[*order]], relevant[[*order]]).item() == pytest.approx(0.75)


def naive_average_precision(scores: list[float], relevant: list[bool]) -> float:
    """Sum of precision times gain in recall over thresholds, as scikit-learn defines it."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        named = [shown for score, shown in zip(scores, relevant, strict=True) if score >= threshold]
        recall = sum(named) / sum(relevant)
        total += (recall - recall_before) * sum(named) / len(named)
        recall_before = recall
    return total


def test_average_precision_is_the_sum_over_thresholds() -> None:
    scores = (torch.rand(40, 6) * 8).round() / 8
    relevant = torch.rand(40, 6) < 0.3
    expected = [naive_average_precision(scores[:, n].tolist(), relevant[:, n].tolist()) for n in range(6)]
    assert average_precisions(scores, relevant).tolist() == pytest.approx(expected)
    assert mean_average_precision(scores, relevant) == pytest.approx(sum(expected) / 6)


def test_a_class_without_clips_is_in_no_mean() -> None:
    scores, relevant = torch.tensor([[0.9, 0.1], [0.8, 0.7]]), torch.tensor([[False, False], [True, False]])
    assert average_precisions(scores, relevant).tolist() == pytest.approx([0.5, float("nan")], nan_ok=True)
    assert mean_average_precision(scores, relevant) == 0.5
    assert math.isnan(mean_average_precision(scores, torch.zeros(2, 2)))


def test_average_precision_refuses_what_it_cannot_rank() -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        average_precisions(torch.tensor([[float("nan")]]), torch.tensor([[True]]))
    with pytest.raises(
        ValueError, match=re.escape("scores have the shape (2, 3) and relevant (2,); both must be (B, N).")
    ):
        average_precisions(torch.rand(2, 3), torch.ones(2))


def test_only_metrics_that_are_there_have_a_path() -> None:
    message = "there is no metric 'top1'; choose one of topk_accuracy, text_retrieval, multilabel_map."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        path_of("top1")
