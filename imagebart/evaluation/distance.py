"""How far pictures are from one another: as sets (Fréchet) and one by one (PSNR, SSIM)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The Fréchet distance between Gaussians fitted to features [n, F] and [m, F] (n, m over 1), 0 or more.

    Heusel et al., GANs trained by a two time-scale update rule (2017), eq. 6:
    |m - w|^2 + tr(C + D - 2 (C D)^(1/2)). Like any FID it is too large for few samples, so it is compared only with
    another of as many.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or len(x) < 2 or len(y) < 2:
        raise ValueError(f"features have shapes {list(x.shape)} and {list(y.shape)}, expected [n, F] and [m, F]")
    x, y = x.double(), y.double()
    first, second = torch.cov(x.T).reshape(x.shape[1], -1), torch.cov(y.T).reshape(x.shape[1], -1)
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    # C D has the eigenvalues of C^(1/2) D C^(1/2), which is symmetric.
    eigenvalues = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0)
    shift = (x.mean(0) - y.mean(0)).square().sum()
    distance = shift + first.trace() + second.trace() - 2 * eigenvalues.sqrt().sum()
    return max(float(distance), 0.0)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of images [B, C, H, W] in [-1, 1], in dB, [B]; at most 100."""
    error = (x - y).double().square().flatten(1).mean(1) / 4
    return -10 * error.clamp_min(1e-10).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of images [B, C, H, W] in [-1, 1], at least 11 pixels a side, [B], at most 1.

    Wang et al., Image quality assessment (2004), section III: an 11 x 11 Gaussian window of 1.5 pixels, only where it
    fits into the picture; the mean over places and channels.
    """
    if min(x.shape[-2:]) < 11:
        raise ValueError(f"images are {x.shape[-1]} x {x.shape[-2]} pixels, expected at least 11 x 11")
    at = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-at.square() / (2 * 1.5**2))
    line = line / line.sum()
    x, y = ((image.double() + 1) / 2 for image in (x, y))
    channels = x.shape[1]

    def blurred(image: Tensor) -> Tensor:
        kernel = line.to(image.device).expand(channels, 1, 11)
        rows = F.conv2d(image, kernel[:, :, None, :], groups=channels)
        return F.conv2d(rows, kernel[:, :, :, None], groups=channels)

    mean_x, mean_y = blurred(x), blurred(y)
    variance_x, variance_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).flatten(1).mean(1)
