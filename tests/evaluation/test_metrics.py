"""Metrics and their intervals against loops, brute force, known distributions and what is known by hand."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from imagebart.errors import InputError
from imagebart.evaluation.metrics import (
    frechet_distance,
    inside,
    jackknife,
    mean_of,
    median_of,
    nearest,
    replicates,
    share_of,
    ssim,
    wilson,
)
from imagebart.models.vqgan import psnr


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


def test_few_images_have_the_variance_of_a_sample() -> None:
    """By hand: 2, 0 and 1 right of 2 each; spread 2, variance 3 / 2 * 2 / 36, so 3 trials in place of 6."""
    found, by_hand = share_of([2, 0, 1], [2, 2, 2]), wilson(0.5, 3)
    assert (found.low, found.high) == pytest.approx((by_hand.low, by_hand.high))


def gaussian(n: int, mean: torch.Tensor, root: torch.Tensor, seed: int) -> torch.Tensor:
    """A sample with exactly this mean and this covariance, root @ root.T."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return white @ root.T + mean


def test_frechet_distance_of_known_gaussians() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 0.5, 1.0]).double()
    m, w = torch.tensor([0.0, 1.0, -1.0]).double(), torch.tensor([1.0, 1.0, 1.0]).double()
    # Commuting covariances: |m - w|^2 + sum (a_i - b_i)^2.
    x, y = gaussian(50, m, torch.diag(a), 0), gaussian(40, w, torch.diag(b), 1)
    expected = float((m - w).square().sum() + (a - b).square().sum())
    assert frechet_distance(x, y) == pytest.approx(expected)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64))[0]
    assert frechet_distance(x @ rotation, y @ rotation) == pytest.approx(expected)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    root = torch.tensor([[2.0, 0.0], [1.5, 0.5]]).double()
    nothing = torch.zeros(2).double()
    x, y = gaussian(60, nothing, root, 0), gaussian(60, nothing, torch.eye(2).double(), 1)
    values = torch.linalg.eigvals(root @ root.T).real  # of C D, with D the identity
    assert frechet_distance(x, y) == pytest.approx(float((root @ root.T).trace() + 2 - 2 * values.sqrt().sum()))
    with pytest.raises(ValueError, match="expected"):
        frechet_distance(x, y[:, :1])


def test_psnr_of_a_known_error() -> None:
    x = torch.zeros(2, 3, 12, 12)
    y = torch.stack([x[0] + 0.2, x[0] - 2.0])
    # 0.2 of a range of 2 is a tenth: 20 dB; the whole range: 0 dB.
    assert psnr(x, y).tolist() == pytest.approx([20.0, 0.0])


def test_ssim_against_a_loop_over_windows() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 2, 13, 12, generator=generator, dtype=torch.float64) * 2 - 1
    y = (x + 0.3 * torch.randn(x.shape, generator=generator, dtype=torch.float64)).clamp(-1, 1)
    line = torch.exp(-(torch.arange(-5.0, 6.0).double() ** 2) / 4.5)
    window = torch.outer(line, line) / line.sum() ** 2
    values = []
    for c, i, j in product(range(2), range(3), range(2)):
        a, b = ((image[0, c, i : i + 11, j : j + 11] + 1) / 2 for image in (x, y))
        ma, mb = (window * a).sum(), (window * b).sum()
        va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
        vab = (window * (a - ma) * (b - mb)).sum()
        above = (2 * ma * mb + 0.0001) * (2 * vab + 0.0009)
        values.append(float(above / ((ma**2 + mb**2 + 0.0001) * (va + vb + 0.0009))))
    assert float(ssim(x, y)) == pytest.approx(sum(values) / len(values))
    assert float(ssim(x, x)) == pytest.approx(1)
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(x[..., :10], y[..., :10])


def test_points_inside_are_within_a_third_neighbours_distance() -> None:
    others = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]])
    points = torch.tensor([[1.5], [5.9], [6.1], [-3.1], [190.0]])
    # Third neighbours are 3, 2, 2, 3 and 99 away.
    assert inside(points, others).tolist() == [True, True, True, False, True]
    assert inside(torch.tensor([[6.1]]), others[:4]).tolist() == [False]
    line = torch.arange(10.0)[:, None]
    assert inside(line, line[:5]).tolist() == [True] * 8 + [False] * 2  # from 0 to 4 to the third neighbours': up to 7
    assert not inside(line, line + 100).any()
    with pytest.raises(InputError, match="2 images are too few"):
        inside(line, line[:2])


def test_the_nearest() -> None:
    distance, index = nearest(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [6.0, 8.0]]))
    assert distance[:, 0].tolist() == pytest.approx([1.0, 18**0.5]) and index.tolist() == [[0], [0]]
    line = torch.arange(5.0)[:, None]
    assert nearest(line[:2] + 0.1, line, 3)[1].tolist() == [[0, 1, 2], [1, 2, 0]]
    assert nearest(line, line[:2], 3)[1].shape == (5, 2)
