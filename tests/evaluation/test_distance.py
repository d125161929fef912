"""Distances against what is known of Gaussians and against loops over pixels."""

import math

import pytest
import torch

from imagebart.evaluation.metrics import frechet_distance, ssim
from imagebart.models.vqgan import psnr


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
    weight = [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for j in range(11)] for i in range(11)]
    window = torch.tensor(weight, dtype=torch.float64)
    window /= window.sum()
    values = []
    for c in range(2):
        for i in range(3):
            for j in range(2):
                a = (x[0, c, i : i + 11, j : j + 11] + 1) / 2
                b = (y[0, c, i : i + 11, j : j + 11] + 1) / 2
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
                vab = (window * (a - ma) * (b - mb)).sum()
                top = (2 * ma * mb + 0.0001) * (2 * vab + 0.0009)
                values.append(float(top / ((ma**2 + mb**2 + 0.0001) * (va + vb + 0.0009))))
    assert float(ssim(x, y)) == pytest.approx(sum(values) / len(values))
    assert float(ssim(x, x)) == pytest.approx(1)
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(x[..., :10], y[..., :10])
