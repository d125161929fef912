"""Metrics and their intervals against loops, brute force, known distributions and what is known by hand."""

import math

import numpy as np
import pytest
import torch

from imagebart.evaluation.metrics import mean_of, median_of, share_of, two_sample_test, wilson
from imagebart.models.vqgan import psnr


def test_wilson_bounds_are_the_shares_that_the_score_test_just_allows() -> None:
    for right, trials in ((56, 70), (1, 9), (0, 10)):
        interval = wilson(right / trials, trials)
        for bound in {interval.low, interval.high} - {0.0}:
            score = (right / trials - bound) / math.sqrt(bound * (1 - bound) / trials)
            assert abs(score) == pytest.approx(1.959964, rel=1e-5)
        assert interval.low <= right / trials <= interval.high
    assert wilson(0, 10).low == 0


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


def test_images_without_answers_do_not_count() -> None:
    assert share_of([1, 0, 2], [2, 0, 2]) == share_of([1, 2], [2, 2])
    assert share_of([2, 3], [2, 3]) == wilson(1, 2)
    assert share_of([1, 0, 1, 1]) == share_of([1, 0, 1, 1], [1, 1, 1, 1])
    with pytest.raises(ValueError, match="nothing was asked"):
        share_of([0], [0])


def test_a_mean_has_the_normal_interval() -> None:
    interval = mean_of([1.0, 2.0, 3.0, 6.0])
    assert interval.value == 3
    assert interval.high - 3 == pytest.approx(1.959964 * math.sqrt(14 / 3) / 2)


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


def test_few_images_have_the_variance_of_a_sample() -> None:
    """By hand: 2, 0 and 1 right of 2 each; spread 2, variance 3 / 2 * 2 / 36, so 3 trials in place of 6."""
    found, by_hand = share_of([2, 0, 1], [2, 2, 2]), wilson(0.5, 3)
    assert (found.low, found.high) == pytest.approx((by_hand.low, by_hand.high))


def test_psnr_of_a_known_error() -> None:
    x = torch.zeros(2, 3, 12, 12)
    y = torch.stack([x[0] + 0.2, x[0] - 2.0])
    # 0.2 of a range of 2 is a tenth: 20 dB; the whole range: 0 dB.
    assert psnr(x, y).tolist() == pytest.approx([20.0, 0.0])


def test_blurred_images_are_told_and_others_of_the_same_kind_are_not() -> None:
    """A network is tested on images that it has not seen: memorizing them is of no use."""

    def noise(count: int, seed: int) -> torch.Tensor:
        return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    real, state = noise(60, 0), torch.get_rng_state()
    blurred = two_sample_test(real, torch.nn.functional.avg_pool2d(real, 3, 1, 1), steps=30)
    assert blurred.value > 0.95 and blurred.low > 0.8
    alike = two_sample_test(noise(60, 3), noise(60, 103), steps=15)
    assert alike.low < 0.5 < alike.high
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="3 images"):
        two_sample_test(real[:3], real[:3])
