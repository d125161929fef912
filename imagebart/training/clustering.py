"""Principal directions and k-means, for codebooks that are found rather than learned."""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 0.05  # of the mean number of points: a code with fewer is put elsewhere
SETTLING = 5  # last rounds, in which no code is put elsewhere


def principal_directions(points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean of points [M, D], and the orthonormal directions of largest variance, [D, count]."""
    mean = points.mean(0)
    centered = points - mean
    _, vectors = torch.linalg.eigh(centered.T @ centered / len(points))
    return mean, vectors[:, -count:].flip(1)


def nearest(points: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Of points [M, d] the nearest codes [K, d] and the squared distances."""
    found = [(codes.square().sum(1) - 2 * part @ codes.T).min(1) for part in points.split(8192)]
    distances = torch.cat([values for values, _ in found]) + points.square().sum(1)
    return torch.cat([indices for _, indices in found]), distances.clamp_min(0)


def k_means(points: Tensor, count: int, rounds: int) -> Tensor:
    """Codes [count, d]; those that few points are nearest to are put where points are far from theirs."""
    codes = points[torch.randperm(len(points))[:count]].clone()
    for number in range(rounds):
        labels, distances = nearest(points, codes)
        members = torch.bincount(labels, minlength=count)
        codes = torch.zeros_like(codes).index_add_(0, labels, points) / members.clamp_min(1)[:, None]
        few = members < FEW * len(points) / count
        if number < rounds - SETTLING:
            codes[few] = points[(distances + 1e-9).multinomial(int(few.sum()))] if few.any() else codes[few]
    return codes
