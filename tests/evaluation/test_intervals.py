"""Intervals hold the truth as often as they say, and match what is known."""

import math

import numpy as np
import pytest
import torch

from imagebart.evaluation.metrics import jackknife, mean_of, median_of, replicates, share_of, wilson


def test_wilson_bounds_are_the_shares_that_the_score_test_just_allows() -> None:
    for right, trials in ((56, 70), (1, 9), (0, 10)):
        interval = wilson(right / trials, trials)
        for bound in {interval.low, interval.high} - {0.0}:
            score = (right / trials - bound) / math.sqrt(bound * (1 - bound) / trials)
            assert abs(score) == pytest.approx(1.959964, rel=1e-5)
        assert interval.low <= right / trials <= interval.high
    assert wilson(0, 10).low == 0
    with pytest.raises(ValueError, match="a share of 2"):
        wilson(2, 10)


@pytest.mark.parametrize("correlated", [False, True])
def test_shares_hold_the_truth_about_95_times_in_100(correlated: bool) -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        asked = random.integers(1, 7, 60)
        chance = random.beta(1.6, 0.4, 60) if correlated else np.full(60, 0.8)
        interval = share_of(random.binomial(asked, chance).tolist(), asked.tolist())
        held += interval.low <= 0.8 <= interval.high
    assert 920 <= held <= 985


def test_pictures_of_which_nothing_is_asked_do_not_count() -> None:
    assert share_of([1, 0, 2], [2, 0, 2]) == share_of([1, 2], [2, 2])
    assert share_of([2, 3], [2, 3]) == wilson(1, 2)
    with pytest.raises(ValueError, match="nothing was asked"):
        share_of([0], [0])


def test_a_mean_has_the_normal_interval() -> None:
    interval = mean_of([1.0, 2.0, 3.0, 6.0])
    assert interval.value == 3
    assert interval.high - 3 == pytest.approx(1.959964 * math.sqrt(14 / 3) / 2)


def test_the_jackknife_of_a_mean_is_that_of_its_groups() -> None:
    values = torch.randn(200, generator=torch.Generator().manual_seed(1))
    interval = jackknife(replicates(lambda rows: float(values[rows].mean()), 200, groups=200))
    plain = mean_of(values.tolist())
    assert interval.value == pytest.approx(plain.value, abs=1e-6)
    assert interval.high == pytest.approx(plain.high, rel=1e-3)
    with pytest.raises(ValueError, match="10 groups of 4"):
        replicates(lambda rows: 0.0, 4)


def test_the_median_lies_between_the_order_statistics_of_the_sign_test() -> None:
    """Ranks from tables of the sign test; samples in which it is missed are as rare as is said."""
    for count, rank in ((6, 1), (10, 2), (20, 6), (100, 40)):
        interval = median_of(list(range(1, count + 1)))
        assert (interval.low, interval.high) == (rank, count + 1 - rank)
        assert interval.value == (count + 1) / 2
    samples = np.random.default_rng(0).exponential(size=(2000, 25))
    held = [(found := median_of(row.tolist())).low <= math.log(2) <= found.high for row in samples]
    assert 0.95 <= np.mean(held) < 0.98
    with pytest.raises(ValueError, match="at least 6"):
        median_of([1.0] * 5)


def test_one_is_asked_of_each_unless_said() -> None:
    assert share_of([1, 0, 1, 1]) == share_of([1, 0, 1, 1], [1, 1, 1, 1])


def test_of_few_pictures_the_spread_is_that_of_a_sample() -> None:
    """By hand: 2, 0 and 1 right of 2 each; spread 2, variance 3 / 2 * 2 / 36, so 3 trials in place of 6."""
    found, by_hand = share_of([2, 0, 1], [2, 2, 2]), wilson(0.5, 3)
    assert (found.low, found.high) == pytest.approx((by_hand.low, by_hand.high))
