"""Mixup and CutMix against their formulas, pixel by pixel, and whatever way a batch is divided."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from kinetext.training.mixing import MixDraw, draw_mix, mix, soft_targets

HEIGHT, WIDTH = 20, 30
MIXUP, CUTMIX = MixDraw(0.7), MixDraw(1 - 6 * 10 / 600, (4, 12, 10, 22))


def draws(count: int, **changes: float) -> list[MixDraw]:
    """Draws of one stream with the published settings, but for the changes."""
    generator = torch.Generator().manual_seed(0)
    settings = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "cutmix_probability": 0.5, **changes}
    return [draw_mix(generator, height=HEIGHT, width=WIDTH, **settings) for _ in range(count)]


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.randn(8, 2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def targets() -> torch.Tensor:
    return soft_targets(torch.arange(8) % 5, 5, 0.1)


# Targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_are_the_published_on_and_off_values(smoothing: float) -> None:
    targets = soft_targets(torch.tensor([2, 0]), 4, smoothing)
    off, on = smoothing / 4, 1 - smoothing + smoothing / 4
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets, torch.tensor([[off, off, on, off], [on, off, off, off]]), rtol=0, atol=1e-7)
    torch.testing.assert_close(targets.sum(1), torch.ones(2))


def test_soft_targets_give_the_loss_of_label_smoothing() -> None:
    logits, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    own = torch.nn.functional.cross_entropy(logits, soft_targets(labels, 5, 0.1))
    torch.testing.assert_close(own, torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1))


# Draws


def test_cutmix_comes_with_its_probability() -> None:
    share = sum(draw.box is not None for draw in draws(2000, cutmix_probability=0.3)) / 2000
    assert share == pytest.approx(0.3, abs=0.03)
    assert all(draw.box is None for draw in draws(50, cutmix_probability=0.0))
    assert all(draw.box is not None for draw in draws(50, cutmix_probability=1.0))


def test_an_alpha_of_zero_switches_its_kind_off() -> None:
    assert all(draw.box is None for draw in draws(50, cutmix_alpha=0.0))
    assert all(draw.box is not None for draw in draws(50, mixup_alpha=0.0))
    with pytest.raises(ValueError, match=r"both 0, so there is nothing to draw; make one positive\."):
        draws(1, mixup_alpha=0.0, cutmix_alpha=0.0)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 4.0])
def test_mixup_shares_follow_the_beta_distribution(alpha: float) -> None:
    shares = np.array([draw.own_share for draw in draws(4000, mixup_alpha=alpha, cutmix_probability=0.0)])
    assert shares.min() >= 0 and shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)  # of Beta(a, a)


def published_boxes() -> Counter[tuple[int, ...]]:
    """Chance of every box by the formula of VideoX `blending.py`: 1 - lambda uniform, as Beta(1, 1), any centre."""
    boxes: Counter[tuple[int, ...]] = Counter()
    ratios = sorted({i / HEIGHT for i in range(HEIGHT + 1)} | {i / WIDTH for i in range(WIDTH + 1)})
    for ratio, larger in itertools.pairwise(ratios):  # between them the sides are cut to the same pixels
        cut_height, cut_width = (int(length * (ratio + larger) / 2) for length in (HEIGHT, WIDTH))
        for y, x in itertools.product(range(HEIGHT), range(WIDTH)):
            top, bottom = (min(max(y + sign * (cut_height // 2), 0), HEIGHT) for sign in (-1, 1))
            left, right = (min(max(x + sign * (cut_width // 2), 0), WIDTH) for sign in (-1, 1))
            boxes[top, left, bottom, right] += (larger**2 - ratio**2) / (HEIGHT * WIDTH)
    return boxes


def test_cutmix_boxes_are_distributed_as_in_the_published_formula() -> None:
    drawn = Counter(draw.box for draw in draws(3000, cutmix_probability=1.0))
    published = published_boxes()
    assert drawn.keys() <= published.keys()
    for side in range(4):  # the distribution functions of top, left, bottom and right
        ours, theirs = (
            np.cumsum([sum(chance for box, chance in boxes.items() if box[side] == at) for at in range(WIDTH + 1)])
            for boxes in (drawn, published)
        )
        assert np.abs(ours / 3000 - theirs).max() < 0.03


def test_cutmix_shares_are_counted_in_the_clipped_box() -> None:
    for draw in draws(300, cutmix_probability=1.0):
        inside = torch.zeros(HEIGHT, WIDTH)
        top, left, bottom, right = draw.box
        inside[top:bottom, left:right] = 1
        assert draw.own_share == pytest.approx(1 - float(inside.mean()), abs=1e-6)


def test_draws_depend_on_their_generator_alone() -> None:
    assert draws(20) == draws(20)
    assert len(set(draws(20))) == 20


# Blending


def test_mixup_blends_each_clip_with_its_neighbour(clips: torch.Tensor, targets: torch.Tensor) -> None:
    mixed, mixed_targets = mix(clips, targets, MIXUP)
    for own, other in ((0, 1), (1, 0), (6, 7), (7, 6)):
        torch.testing.assert_close(mixed[own], 0.7 * clips[own] + 0.3 * clips[other])
        torch.testing.assert_close(mixed_targets[own], 0.7 * targets[own] + 0.3 * targets[other])


def test_cutmix_takes_the_box_of_every_frame_from_the_neighbour(clips: torch.Tensor, targets: torch.Tensor) -> None:
    mixed, mixed_targets = mix(clips, targets, CUTMIX)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            source = 3 if 4 <= y < 10 and 12 <= x < 22 else 2
            assert torch.equal(mixed[2, ..., y, x], clips[source, ..., y, x])
    torch.testing.assert_close(mixed_targets[2], 0.9 * targets[2] + 0.1 * targets[3])


@pytest.mark.parametrize("draw", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
def test_a_divided_batch_is_mixed_as_the_whole(draw: MixDraw, clips: torch.Tensor, targets: torch.Tensor) -> None:
    whole = mix(clips, targets, draw)
    for size in (2, 4, 6):
        parts = [mix(*part, draw) for part in zip(clips.split(size), targets.split(size), strict=True)]
        for own, expected in zip(zip(*parts, strict=True), whole, strict=True):
            assert torch.equal(torch.cat(own), expected)


@pytest.mark.parametrize("draw", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_last_odd_clip_stays_as_it_is(count: int, draw: MixDraw, clips: torch.Tensor, targets: torch.Tensor) -> None:
    mixed, mixed_targets = mix(clips[:count], targets[:count], draw)
    assert torch.equal(mixed[-1], clips[count - 1])
    assert torch.equal(mixed_targets[-1], targets[count - 1])
    assert count == 1 or not torch.equal(mixed[0], clips[0])


@pytest.mark.parametrize("draw", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
def test_inputs_are_left_alone_and_targets_sum_to_one(
    draw: MixDraw, clips: torch.Tensor, targets: torch.Tensor
) -> None:
    before = clips.clone(), targets.clone()
    mixed, mixed_targets = mix(clips, targets, draw)
    assert torch.equal(clips, before[0]) and torch.equal(targets, before[1])
    assert (mixed.dtype, mixed.shape) == (clips.dtype, clips.shape)
    torch.testing.assert_close(mixed_targets.sum(1), torch.ones(8))
