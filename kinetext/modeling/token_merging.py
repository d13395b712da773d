"""Bipartite token merging of keys and values (Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023).

kinetext: https://github.com/kinetext/kinetext. This file is saved beside each checkpoint as remote code.

Attention over merged keys and values, with the logarithm of each key's size added to its logits ("proportional
attention"), equals attention over all tokens where the merged ones were equal. Queries are not merged, so every token
keeps its own output.

    keys, values (B,h,N,d) -> tokens alternate into A and B -> every A token finds its most similar B token
        -> the strongest links are merged, size-weighted mean -> again, until at most M tokens are left -> (B,h,M,d)

Legend: B batch, h heads, N tokens, M tokens left, d head width, w windows of n tokens, r links of a window.
"""

from __future__ import annotations

import torch
from torch.nn import functional

# More tokens are matched in windows of consecutive ones, or the similarity matrix, and with it time and memory, would
# grow with the square of the clip's length. Ours: 4096 is 20 frames of 14 x 14 patches.
_MAX_WINDOW = 4096


def merge_keys_values(
    keys: torch.Tensor, values: torch.Tensor, max_tokens: int, *, num_frames: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Merges the most similar tokens, by their keys averaged over heads, until at most `max_tokens` are left.

    Each round merges at most half of the tokens. What is merged with what is decided without gradient; the means are
    differentiable. More than 4096 tokens are matched in windows of consecutive ones.

    Tokens of a clip are ordered so that what stands at one place in neighbouring frames is in different sets, A and B:
    with an even number of patches, the background of a video could never be merged with itself otherwise (ours).

    Args:
        keys: (B, h, N, d) floats of any precision.
        values: (B, h, N, d).
        max_tokens: M, at least 1.
        num_frames: T of a clip, whose tokens stand frame after frame; 1 for tokens without frames.

    Returns:
        keys (B, h, M, d), values (B, h, M, d), sizes (B, M) float32: how many tokens each is the mean of, and
        merged_into (B, N) int64: which of the M each token went into. When N <= max_tokens, the arguments themselves
        and None twice.

    Raises:
        ValueError: if `max_tokens` is below 1.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens={max_tokens} must be at least 1: attention needs a key.")
    batch_size, num_heads, num_tokens, head_dim = keys.shape
    if num_tokens <= max_tokens:
        return keys, values, None, None
    order = _alternating_order(num_tokens, num_frames, keys.device)
    keys, values = keys[:, :, order], values[:, :, order]
    # One (B, N, 2hd) tensor, so that each round moves keys and values together.
    tokens = torch.stack([keys, values]).permute(1, 3, 0, 2, 4).reshape(batch_size, num_tokens, -1)
    sizes = torch.ones(batch_size, num_tokens, dtype=torch.float32, device=keys.device)
    merged_into = torch.arange(num_tokens, device=keys.device).expand(batch_size, -1)  # (B, N)
    while (remaining := tokens.shape[1]) > max_tokens:
        metric = tokens.detach()[..., : num_heads * head_dim].unflatten(-1, (num_heads, head_dim)).mean(dim=2)
        windows = _num_windows(remaining)
        num_links = min(remaining // windows // 2, -(-(remaining - max_tokens) // windows))  # of each window
        place = _match_in_windows(metric, windows, num_links)  # (B, remaining)
        tokens, sizes = _merge(tokens, sizes, place, remaining - windows * num_links)
        merged_into = place.gather(1, merged_into)
    merged = tokens.unflatten(-1, (2, num_heads, head_dim)).permute(2, 0, 3, 1, 4)  # (2, B, h, M, d)
    return merged[0], merged[1], sizes, merged_into[:, order.argsort()]


def _alternating_order(num_tokens: int, num_frames: int, device: torch.device) -> torch.Tensor:
    """(N,) the order in which tokens are split into A and B: every other frame is rolled by one where K is even."""
    order = torch.arange(num_tokens, device=device)
    if num_frames < 2 or num_tokens % (2 * num_frames):  # one frame, or an odd number of patches, which alternates
        return order
    frames = order.unflatten(0, (num_frames, -1)).clone()  # (T, K)
    frames[1::2] = frames[1::2].roll(-1, dims=1)
    return frames.flatten()


def _num_windows(num_tokens: int) -> int:
    """The fewest equal windows of at most 4096 tokens; 1 where the number of tokens has no suitable divisor."""
    fewest = -(-num_tokens // _MAX_WINDOW)
    return next((count for count in range(fewest, 4 * fewest + 1) if num_tokens % count == 0), 1)


@torch.no_grad()
def _match_in_windows(metric: torch.Tensor, windows: int, num_links: int) -> torch.Tensor:
    """Where each token of (B, w*n, d) goes: places (B, w*n), those of a window after those of the one before it."""
    place = _match(metric.unflatten(1, (windows, -1)).flatten(0, 1), num_links)  # (B*w, n)
    places_per_window = place.shape[1] - num_links
    offsets = places_per_window * torch.arange(windows, device=place.device)
    return (place.unflatten(0, (-1, windows)) + offsets[:, None]).flatten(1)


def _match(metric: torch.Tensor, num_links: int) -> torch.Tensor:
    """Where each of n tokens goes when the `num_links` strongest links are merged: unlinked A tokens, then all of B.

    Args:
        metric: (B, n, d) what similarity is measured on.
        num_links: r, at most n // 2.

    Returns:
        (B, n) int64, places from 0 to n - r - 1.
    """
    batch_size, num_tokens = metric.shape[:2]
    num_a, num_b = num_tokens - num_tokens // 2, num_tokens // 2
    metric = functional.normalize(metric, dim=-1)
    scores = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)  # (B, A, B)
    best_score, best_b = scores.max(dim=-1)  # (B, A)
    order = best_score.argsort(dim=-1, descending=True)  # (B, A) A tokens, strongest link first
    rank = order.argsort(dim=-1)  # (B, A) place of each A token in that order
    num_left = num_a - num_links  # unlinked A tokens
    place_of_a = torch.where(rank < num_links, num_left + best_b, rank - num_links)
    place_of_b = (num_left + torch.arange(num_b, device=metric.device)).expand(batch_size, -1)
    place = place_of_a.new_empty(batch_size, num_tokens)
    place[:, ::2] = place_of_a
    place[:, 1::2] = place_of_b
    return place


def _merge(
    tokens: torch.Tensor, sizes: torch.Tensor, place: torch.Tensor, num_places: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Size-weighted means of the tokens that go to the same place: (B, N, c) -> (B, M, c), and their sizes (B, M)."""
    new_sizes = sizes.new_zeros(sizes.shape[0], num_places).scatter_add(1, place, sizes)
    weights = (sizes / new_sizes.gather(1, place)).unsqueeze(-1)  # (B, N, 1), sum 1 at each place
    # In float32: a GPU adds one term after the other, and in half precision the mean of many tokens would fade away.
    weighted = tokens * weights
    index = place.unsqueeze(-1).expand_as(weighted)
    means = weighted.new_zeros(tokens.shape[0], num_places, tokens.shape[-1]).scatter_add(1, index, weighted)
    return means.to(tokens.dtype), new_sizes
