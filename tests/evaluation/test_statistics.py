"""Intervals and tests against hand-counted cases, plain loops and the share of intervals that hold the truth."""

import itertools
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from kinetext.evaluation import statistics
from kinetext.evaluation.metrics import class_accuracies, mean_average_precision
from kinetext.evaluation.statistics import (
    bootstrap_interval,
    class_mean_of,
    holm,
    map_of,
    mcnemar_p_value,
    mean_and_std,
    median_of,
    share_of,
)


def draws(num_clips: int, num_resamples: int, seed: int = 0) -> np.ndarray:
    return np.concatenate(list(statistics._draws(num_clips, num_resamples, seed)))


# Draws


def test_draws_are_of_as_many_clips_each_as_likely() -> None:
    counts = draws(7, 20_000)
    assert counts.shape == (20_000, 7) and (counts.sum(axis=1) == 7).all()
    assert np.abs(counts.mean(axis=0) - 1).max() < 0.03
    assert abs((counts[:, 0] == 0).mean() - (6 / 7) ** 7) < 0.01


def test_draws_are_the_same_everywhere_and_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert draws(5, 3).tolist() == [[2, 1, 2, 0, 0], [1, 2, 0, 0, 2], [1, 1, 1, 1, 1]]
    whole = draws(100, 50)
    monkeypatch.setattr(statistics, "_CHUNK", 700)
    assert np.array_equal(draws(100, 50), whole)
    assert not np.array_equal(draws(100, 50, seed=1), whole)


def test_an_interval_is_the_same_in_another_process() -> None:
    code = (
        "from kinetext.evaluation.statistics import *; print(bootstrap_interval(share_of([1, 0, 1, 1, 0] * 40), 200))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == str(bootstrap_interval(share_of([1, 0, 1, 1, 0] * 40), 200))


# Statistics of counts


def repeated(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.repeat(values, counts.astype(int), axis=0)


def test_statistics_of_counts_are_those_of_repeated_clips() -> None:
    generator = np.random.default_rng(1)
    hits, ranks, labels = generator.random(40) < 0.6, generator.integers(1, 9, 40), generator.integers(0, 5, 40)
    scores = generator.integers(0, 6, (40, 3)) / 6  # many ties
    relevant = generator.random((40, 3)) < 0.4
    counts = np.concatenate([np.ones((1, 40)), draws(40, 30), generator.integers(0, 3, (20, 40)).astype(float)])
    counts[1:10, labels == 0] = 0  # as if no clip of a class were drawn
    for row in counts:
        one = row[None]
        own_hits, own_labels = repeated(hits, row), repeated(labels, row)
        assert share_of(hits)(one)[0] == pytest.approx(own_hits.mean())
        assert median_of(ranks)(one)[0] == np.median(repeated(ranks, row))
        by_class = [own_hits[own_labels == label].mean() for label in np.unique(own_labels)]
        assert class_mean_of(hits, labels)(one)[0] == pytest.approx(np.mean(by_class))
        own = torch.from_numpy(repeated(scores, row)), torch.from_numpy(repeated(relevant, row))
        assert map_of(scores, relevant)(one)[0] == pytest.approx(mean_average_precision(*own))


def test_mean_of_classes_is_that_of_the_metrics() -> None:
    hits, labels = torch.rand(60) < 0.5, torch.randint(0, 4, (60,))
    expected = float(class_accuracies(hits, labels, 9).nanmean())
    assert class_mean_of(hits, labels)(np.ones((1, 60)))[0] == pytest.approx(expected)


# Intervals


def test_an_interval_of_a_share_is_the_binomial_one() -> None:
    low, high = bootstrap_interval(share_of([1] * 300 + [0] * 100), 400, num_resamples=20_000)
    deviation = math.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(0.75 - 1.96 * deviation, abs=0.004)
    assert high == pytest.approx(0.75 + 1.96 * deviation, abs=0.004)


@pytest.mark.parametrize("kind", ["share", "median"])
def test_intervals_hold_the_truth_as_often_as_they_say(kind: str) -> None:
    generator, held = np.random.default_rng(5), 0
    for study in range(300):
        if kind == "share":
            statistic, truth = share_of(generator.random(150) < 0.7), 0.7
        else:
            statistic, truth = median_of(generator.exponential(size=150)), math.log(2)
        low, high = bootstrap_interval(statistic, 150, num_resamples=200, seed=study)
        held += low <= truth <= high
    assert 0.9 <= held / 300 <= 0.98


def test_no_clips_and_too_many_draws_without_a_value_have_no_interval() -> None:
    assert all(map(math.isnan, bootstrap_interval(share_of([]), 0)))
    rare = np.zeros(50)
    rare[0] = 1
    only_rare = lambda counts: (counts @ rare) / (counts @ rare)  # noqa: E731 NaN without that clip, in 1 of 3 draws
    assert all(map(math.isnan, bootstrap_interval(only_rare, 50)))
    assert bootstrap_interval(share_of([1] * 10), 10) == (1.0, 1.0)


def test_a_paired_interval_is_narrower_than_the_intervals_of_the_two() -> None:
    generator = np.random.default_rng(3)
    first = generator.random(500) < 0.6
    second = first ^ (generator.random(500) < 0.05)  # nearly the same clips right
    both = [bootstrap_interval(share_of(hits), 500) for hits in (first, second)]
    difference = lambda counts: share_of(second)(counts) - share_of(first)(counts)  # noqa: E731
    low, high = bootstrap_interval(difference, 500)
    assert high - low < 0.5 * min(top - bottom for bottom, top in both)


# McNemar's test, Holm's correction, mean and deviation


def test_mcnemar_counts_every_equally_uneven_outcome() -> None:
    for only_first, only_second in itertools.product(range(7), repeat=2):
        total = only_first + only_second
        uneven = [
            sum(outcome) for outcome in itertools.product((0, 1), repeat=total)
            if abs(2 * sum(outcome) - total) >= abs(only_first - only_second)
        ]  # fmt: skip
        assert mcnemar_p_value(only_first, only_second) == float(Fraction(len(uneven), 2**total))


def test_mcnemar_of_many_clips_neither_overflows_nor_takes_long() -> None:
    assert mcnemar_p_value(0, 0) == 1.0
    assert mcnemar_p_value(0, 20_000) == 0.0  # below the smallest float
    assert mcnemar_p_value(10_000, 10_000) == 1.0
    # The normal approximation with correction for continuity.
    z = (10_200 - 9_800 - 1) / math.sqrt(20_000)
    assert mcnemar_p_value(9_800, 10_200) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_mcnemar_rejects_equal_results_at_most_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    rejected = 0
    for only_first in generator.binomial(60, 0.5, 2000):
        rejected += mcnemar_p_value(int(only_first), 60 - int(only_first)) <= 0.05
    assert 0.01 < rejected / 2000 <= 0.05


def test_holm_is_the_textbook_case() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02] and holm([]) == []


def test_deviation_over_splits_is_the_sample_one() -> None:
    assert mean_and_std([0.5, 0.6, 0.7]) == (pytest.approx(0.6), pytest.approx(0.1))
    assert mean_and_std([0.4]) == (0.4, None)
    with pytest.raises(ValueError, match="no values to average"):
        mean_and_std([])
