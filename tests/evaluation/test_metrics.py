"""Top-k hits against a plain loop, with ties and broken scores."""

import re

import pytest
import torch

from kinetext.evaluation.metrics import topk_hits


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
