"""Token merging of keys and values, against a naive reference written from the definition in the ToMe paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from testing_utils import largest_difference
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from kinetext.modeling import token_merging
from kinetext.modeling.token_merging import merge_keys_values


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def random_tokens(
    num_tokens: int, *, batch_size: int = 2, num_heads: int = 3, head_dim: int = 8
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values (B, h, N, d), the same each time."""
    generator = torch.Generator().manual_seed(num_tokens)
    tokens = torch.randn(2, batch_size, num_heads, num_tokens, head_dim, generator=generator)
    return tokens[0], tokens[1]


def plain_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, sizes: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(q k / sqrt(d) + log size) v."""
    logits = queries @ keys.mT / math.sqrt(keys.shape[-1])
    if sizes is not None:
        logits = logits + sizes.log()[:, None, None, :]
    return logits.softmax(dim=-1) @ values


# The reference


class Group:
    """Tokens merged so far: their mean, their number and who they are."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor, members: list[int]) -> None:
        self.key, self.value, self.members = key, value, members  # (h, d), (h, d)

    def direction(self) -> torch.Tensor:
        mean = self.key.detach().mean(dim=0)
        return mean / mean.norm()

    def absorb(self, others: list[Group]) -> Group:
        groups = [self, *others]
        size = sum(len(group.members) for group in groups)
        key = sum(len(group.members) * group.key for group in groups) / size
        value = sum(len(group.members) * group.value for group in groups) / size
        return Group(key, value, [member for group in groups for member in group.members])


def one_round(groups: list[Group], num_links: int) -> list[Group]:
    """Alternate into A and B; the strongest links from A to B are merged; unlinked A, strongest first, then all B."""
    a, b = groups[::2], groups[1::2]
    scores = [[float(left.direction() @ right.direction()) for right in b] for left in a]
    best = [max(range(len(b)), key=row.__getitem__) for row in scores]
    strongest = sorted(range(len(a)), key=lambda index: -scores[index][best[index]])
    linked, unlinked = strongest[:num_links], strongest[num_links:]
    merged = [b[place].absorb([a[index] for index in linked if best[index] == place]) for place in range(len(b))]
    return [a[index] for index in unlinked] + merged


def merge_naively(
    keys: torch.Tensor, values: torch.Tensor, max_tokens: int, num_windows: Callable[[int], int] = lambda _: 1
) -> list[list[Group]]:
    """For each clip of the batch its groups, by loops."""
    result = []
    for clip_keys, clip_values in zip(keys, values, strict=True):
        groups = [Group(clip_keys[:, n], clip_values[:, n], [n]) for n in range(keys.shape[2])]
        while len(groups) > max_tokens:
            windows = num_windows(len(groups))
            length = len(groups) // windows
            links = min(length // 2, math.ceil((len(groups) - max_tokens) / windows))
            parts = [groups[start : start + length] for start in range(0, len(groups), length)]
            groups = [group for part in parts for group in one_round(part, links)]
        result.append(groups)
    return result


def assert_equals_reference(
    merged: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None],
    reference: list[list[Group]],
    tolerance: float = 1e-5,
) -> None:
    keys, values, sizes, merged_into = merged
    assert sizes is not None and merged_into is not None
    for row, groups in enumerate(reference):
        assert sizes[row].tolist() == [len(group.members) for group in groups]
        assert largest_difference(keys[row], torch.stack([group.key for group in groups], dim=1)) <= tolerance
        assert largest_difference(values[row], torch.stack([group.value for group in groups], dim=1)) <= tolerance
        for place, group in enumerate(groups):
            assert (merged_into[row] == place).nonzero().flatten().tolist() == sorted(group.members)


# What is merged


@pytest.mark.parametrize(
    ("num_tokens", "max_tokens"),
    [(12, 11), (12, 6), (12, 5), (13, 12), (13, 7), (13, 6), (13, 3), (40, 1), (33, 2), (2, 1), (3, 1), (61, 20)],
)
def test_merging_equals_the_definition_by_loops(num_tokens: int, max_tokens: int) -> None:
    keys, values = random_tokens(num_tokens)
    merged = merge_keys_values(keys, values, max_tokens)
    assert merged[0].shape == merged[1].shape == (2, 3, max_tokens, 8)
    assert_equals_reference(merged, merge_naively(keys, values, max_tokens))


@pytest.mark.parametrize("max_tokens", [5, 6, 1000])
def test_nothing_happens_where_tokens_are_few_enough(max_tokens: int) -> None:
    keys, values = random_tokens(5)
    got = merge_keys_values(keys, values, max_tokens)
    assert got[0] is keys and got[1] is values and got[2] is None and got[3] is None


@pytest.mark.parametrize(("num_tokens", "max_tokens"), [(50, 7), (51, 25), (9, 8), (128, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_means_and_sizes_are_those_of_the_tokens_that_went_there(
    num_tokens: int, max_tokens: int, dtype: torch.dtype, tolerance: float
) -> None:
    keys, values = (tensor.to(dtype) for tensor in random_tokens(num_tokens))
    new_keys, new_values, sizes, merged_into = merge_keys_values(keys, values, max_tokens)
    assert new_keys.dtype == new_values.dtype == dtype
    assert sizes.dtype == torch.float32 and sizes.shape == (2, max_tokens)
    assert merged_into.dtype == torch.int64 and merged_into.shape == (2, num_tokens)
    assert sizes.sum(dim=1).tolist() == [num_tokens] * 2
    for row in range(2):
        assert torch.equal(merged_into[row].bincount(minlength=max_tokens).float(), sizes[row])
        for place in range(max_tokens):
            members = merged_into[row] == place
            for new, old in ((new_keys, keys), (new_values, values)):
                mean = old[row][:, members].float().mean(dim=1)
                assert largest_difference(new[row, :, place].float(), mean) <= tolerance


class NotesOfSums(TorchFunctionMode):
    """Notes in which types `scatter_add` adds up."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is torch.Tensor.scatter_add:
            self.types.add(result.dtype)
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_are_taken_in_float32(dtype: torch.dtype) -> None:
    """A CPU would not show it, but a GPU adds in the type of the sum, one term after the other."""
    keys, values = (tensor.to(dtype) for tensor in random_tokens(20))
    with NotesOfSums() as notes:
        merged = merge_keys_values(keys, values, 4)
    assert notes.types == {torch.float32}
    assert merged[0].dtype == merged[1].dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mean_of_thousands_of_equal_tokens_is_that_token_in_every_precision(dtype: torch.dtype) -> None:
    """A black clip: all tokens go to one place, where small terms must not be lost beside a large sum."""
    token = torch.randn(1, 2, 1, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    keys, values, sizes, _ = merge_keys_values(token.expand(1, 2, 3136, 4), -token.expand(1, 2, 3136, 4), 100)
    assert largest_difference(keys, token.expand_as(keys)) <= 0.01
    assert largest_difference(values, -token.expand_as(values)) <= 0.01
    assert sizes.sum() == 3136


def test_matching_reads_keys_and_not_values() -> None:
    keys, values = random_tokens(20)
    merged_into = merge_keys_values(keys, values, 8)[3]
    assert torch.equal(merge_keys_values(keys, 7 * values.flip(2), 8)[3], merged_into)
    assert torch.equal(merge_keys_values(3 * keys, values, 8)[3], merged_into), "directions count, not lengths"
    assert not torch.equal(merge_keys_values(values, keys, 8)[3], merged_into)


def test_clips_of_a_batch_do_not_see_each_other() -> None:
    keys, values = random_tokens(30, batch_size=4)
    order = torch.tensor([2, 0, 3, 1])
    whole = merge_keys_values(keys, values, 9)
    for got, expected in zip(merge_keys_values(keys[order], values[order], 9), whole, strict=True):
        assert largest_difference(got, expected[order]) <= 1e-6
    for row in range(4):
        alone = merge_keys_values(keys[row : row + 1], values[row : row + 1], 9)
        for got, expected in zip(alone, whole, strict=True):
            assert largest_difference(got, expected[row : row + 1]) <= 1e-6


# Proportional attention


@pytest.mark.parametrize(("copies", "rounds"), [(2, 1), (3, 2), (4, 2), (8, 3)])
def test_attention_over_merged_equal_tokens_equals_attention_over_all(
    copies: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    merge = token_merging._merge
    monkeypatch.setattr(token_merging, "_merge", lambda *arguments: calls.append(1) or merge(*arguments))
    keys, values = random_tokens(4)
    keys = torch.linalg.qr(keys.mT)[0].mT.contiguous() * 3  # far apart
    keys, values = (tensor.repeat_interleave(copies, dim=2) for tensor in (keys, values))
    queries = random_tokens(7)[0]
    new_keys, new_values, sizes, _ = merge_keys_values(keys, values, 4)
    assert sizes.tolist() == [[copies] * 4] * 2 and len(calls) == rounds
    expected = plain_attention(queries, keys, values)
    assert largest_difference(plain_attention(queries, new_keys, new_values, sizes), expected) <= 1e-5


def test_attention_counts_each_token_once_where_copies_are_uneven() -> None:
    keys, values = random_tokens(4)
    keys = torch.linalg.qr(keys.mT)[0].mT.contiguous() * 3
    which = torch.tensor([0, 0, 1, 1, 2, 3, 1, 1])  # one 2 and one 3 beside more of the others
    keys, values = keys[:, :, which], values[:, :, which]
    queries = random_tokens(7)[0]
    new_keys, new_values, sizes, _ = merge_keys_values(keys, values, 5)
    assert sizes.max() > 2
    expected = plain_attention(queries, keys, values)
    assert largest_difference(plain_attention(queries, new_keys, new_values, sizes), expected) <= 1e-5
    assert largest_difference(plain_attention(queries, new_keys, new_values), expected) > 1e-2


# Windows


def test_many_tokens_are_matched_in_windows() -> None:
    keys, values = random_tokens(5000, num_heads=1, head_dim=4)
    new_keys, new_values, sizes, merged_into = merge_keys_values(keys, values, 3000)
    for window in range(2):  # 2500 tokens, of which 1500 are left
        old, new = slice(2500 * window, 2500 * (window + 1)), slice(1500 * window, 1500 * (window + 1))
        alone = merge_keys_values(keys[:, :, old], values[:, :, old], 1500)
        assert torch.equal(new_keys[:, :, new], alone[0]) and torch.equal(new_values[:, :, new], alone[1])
        assert torch.equal(sizes[:, new], alone[2])
        assert torch.equal(merged_into[:, old], alone[3] + 1500 * window)


def test_tokens_up_to_the_window_are_matched_among_all() -> None:
    keys, values = random_tokens(4096, batch_size=1, num_heads=1, head_dim=16)
    keys[:, :, 4094] = keys[:, :, 1]  # the only pair that is equal, from one end to the other
    merged_into = merge_keys_values(keys, values, 4095)[3][0]
    assert merged_into[4094] == merged_into[1]


@pytest.mark.parametrize(
    ("num_tokens", "max_tokens", "left"),
    [
        (40, 13, 12),  # 4 windows of 10, then 2 of 10: windows lose equally many, so one token more may go
        (16, 5, 5),  # one window
        (34, 20, 20),  # no number from 3 to 12 divides 34: one window
        (54, 30, 30),  # 6 windows of 9
        (33, 30, 30),
    ],
)
def test_windows_equal_the_definition_by_loops(
    num_tokens: int, max_tokens: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_merging, "_MAX_WINDOW", 16)

    def num_windows(tokens: int) -> int:
        fewest = math.ceil(tokens / 16)
        divisors = [count for count in range(fewest, 4 * fewest + 1) if tokens % count == 0]
        return divisors[0] if divisors else 1

    keys, values = random_tokens(num_tokens)
    merged = merge_keys_values(keys, values, max_tokens)
    assert merged[0].shape[2] == left
    assert_equals_reference(merged, merge_naively(keys, values, max_tokens, num_windows))


@pytest.mark.parametrize("num_tokens", [4097, 4099, 8192])
def test_tokens_beyond_the_window_all_arrive(num_tokens: int) -> None:
    keys, values = random_tokens(num_tokens, batch_size=1, num_heads=1, head_dim=2)
    new_keys, _, sizes, merged_into = merge_keys_values(keys, values, 1568)
    assert 1560 <= new_keys.shape[2] <= 1568
    assert torch.equal(merged_into[0].bincount(minlength=new_keys.shape[2]).float(), sizes[0])
    assert sizes.sum() == num_tokens and sizes.min() >= 1


@pytest.mark.parametrize(("num_frames", "num_patches"), [(4, 6), (3, 4), (2, 8), (5, 3)])
def test_a_static_clip_loses_nothing(num_frames: int, num_patches: int) -> None:
    """A patch that is the same in all frames is merged with itself, also where K is even (and indices keep parity)."""
    keys, values = (tensor.repeat(1, 1, num_frames, 1) for tensor in random_tokens(num_patches))
    queries, _ = random_tokens(5)
    new_keys, new_values, sizes, merged_into = merge_keys_values(
        keys, values, num_patches * -(-num_frames // 2), num_frames=num_frames
    )
    plain = functional.scaled_dot_product_attention(queries, keys, values)
    merged = functional.scaled_dot_product_attention(
        queries, new_keys, new_values, attn_mask=sizes.log()[:, None, None]
    )
    assert (plain - merged).abs().max() < 1e-5
    for row in range(len(keys)):  # what a token went into is what it was
        assert (new_keys[row][:, merged_into[row]] - keys[row]).abs().max() < 1e-5


# Gradients, precision, compiler


def test_gradients_are_those_of_the_means() -> None:
    tokens = [tensor.clone().requires_grad_() for tensor in random_tokens(21)]
    weights = random_tokens(5)
    merged = merge_keys_values(*tokens, 5)
    sum((tensor * weight).sum() for tensor, weight in zip(merged[:2], weights, strict=True)).backward()
    got = [tensor.grad.clone() for tensor in tokens]
    assert not merged[2].requires_grad

    for tensor in tokens:
        tensor.grad = None
    for row, groups in enumerate(merge_naively(*tokens, 5)):
        for place, group in enumerate(groups):
            loss = (group.key * weights[0][row, :, place]).sum() + (group.value * weights[1][row, :, place]).sum()
            loss.backward(retain_graph=True)
    for gradient, tensor in zip(got, tokens, strict=True):
        assert gradient.isfinite().all() and (gradient != 0).any()
        assert largest_difference(gradient, tensor.grad) <= 1e-6


@pytest.mark.parametrize("how", ["autocast", "bf16"])
def test_half_precision_gives_finite_means_and_gradients(how: str) -> None:
    keys, values = (tensor.clone().requires_grad_() for tensor in random_tokens(30))
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        inputs = (keys, values) if how == "autocast" else (keys.bfloat16(), values.bfloat16())
        new_keys, new_values, sizes, _ = merge_keys_values(*inputs, 4)
        output = functional.scaled_dot_product_attention(
            new_keys, new_keys, new_values, attn_mask=sizes.log()[:, None, None, :].to(new_keys.dtype)
        )
    assert new_keys.dtype == (torch.float32 if how == "autocast" else torch.bfloat16)
    output.float().sum().backward()
    assert output.isfinite().all() and keys.grad.isfinite().all() and values.grad.isfinite().all()
    assert (values.grad != 0).all()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_merging_has_no_graph_break_and_equals_eager(backend: str) -> None:
    keys, values = random_tokens(21)
    compiled = torch.compile(merge_keys_values, fullgraph=True, backend=backend)
    for got, expected in zip(compiled(keys, values, 5), merge_keys_values(keys, values, 5), strict=True):
        assert largest_difference(got, expected) <= 1e-6
    assert compiled(keys, values, 21)[2] is None


@pytest.mark.parametrize("max_tokens", [0, -3])
def test_no_tokens_left_is_refused(max_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"^max_tokens={max_tokens} must be at least 1: attention needs a key.$"):
        merge_keys_values(*random_tokens(4), max_tokens)
