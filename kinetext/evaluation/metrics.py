"""Metrics as plain tensor functions."""

from __future__ import annotations

import torch


def topk_hits(scores: torch.Tensor, labels: torch.Tensor, k: int) -> torch.Tensor:
    """Whether each label is among the k best scores, bool (B,).

    Ties count against the label: it is a hit if fewer than k classes score at least as high. So a model that scores all
    classes alike is not credited by the order of its classes.

    Args:
        scores: (B, N) float.
        labels: (B,) int64.
        k: how many classes may be named; with k >= N every label is a hit.

    Raises:
        ValueError: if a score is not finite.
    """
    if not torch.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity; the model diverged or was given broken weights.")
    own = scores.gather(1, labels[:, None])  # (B, 1)
    others = (scores >= own).sum(dim=1) - 1  # the label itself is always among them
    return others < k
