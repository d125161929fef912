"""95 % intervals around what samples say.

Shares: Wilson's score interval. Attributes of one picture are right or wrong together more often than chance would
have it, so the number of trials is the effective one, n / (design effect), from the variance between pictures (the
ratio estimator of cluster sampling; Cochran, Sampling Techniques, 1977, section 3.12).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Z = 1.959964  # standard deviations that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Interval:
    """A measured value and the 95 % interval around it."""

    value: float
    low: float
    high: float


def wilson(share: float, trials: float) -> Interval:
    """Wilson's score interval of a share, 0 to 1, of so many independent trials (1 or more)."""
    if not 0 <= share <= 1 or trials < 1:
        raise ValueError(f"a share of {share} in {trials} trials; expected 0 to 1 in at least 1")
    scale = 1 + Z * Z / trials
    centre = (share + Z * Z / (2 * trials)) / scale
    half = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials)) / scale
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def share_of(right: Sequence[int], asked: Sequence[int] | None = None) -> Interval:
    """The share of right answers in all, given how many were asked and were right in each picture.

    asked: None for one of each. Pictures of which nothing was asked do not count. Raises ValueError where nothing was
    asked at all.
    """
    pairs = [(r, a) for r, a in zip(right, asked or [1] * len(right), strict=True) if a]
    if not pairs:
        raise ValueError("nothing was asked of any picture, expected at least one answer")
    total = sum(a for _, a in pairs)
    share = sum(r for r, _ in pairs) / total
    clusters = len(pairs)
    spread = sum((r - share * a) ** 2 for r, a in pairs)
    if clusters < 2 or spread == 0:
        return wilson(share, clusters)  # all alike: each picture counts once
    variance = clusters / (clusters - 1) * spread / total**2
    return wilson(share, min(max(share * (1 - share) / variance, 1.0), total))


def mean_of(values: Sequence[float]) -> Interval:
    """The mean of independent values, at least 1, with the normal interval of its standard error."""
    if not values:
        raise ValueError("the mean of no values, expected at least one")
    numbers = torch.tensor(values, dtype=torch.float64)
    mean = float(numbers.mean())
    half = Z * float(numbers.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Interval(mean, mean - half, mean + half)


def median_of(values: Sequence[float]) -> Interval:
    """The median of independent values, at least 6, between the order statistics that hold it in 95 % of samples.

    Whatever their distribution: the values below the median are as many as heads in so many tosses (Conover, Practical
    Nonparametric Statistics, 1999, section 3.2). Raises ValueError for fewer values, of which no two do.
    """
    ordered, count = sorted(values), len(values)
    tail, rank = 0.5**count, 0
    while tail <= 0.025:
        rank += 1
        tail += math.comb(count, rank) * 0.5**count
    if rank == 0:
        raise ValueError(f"the median of {count} values, expected at least 6")
    return Interval(statistics.median(ordered), ordered[rank - 1], ordered[count - rank])


def replicates(statistic: Callable[[Tensor], float], count: int, groups: int = 10) -> Tensor:
    """A statistic of all of `count` items, then without each of their groups: float64 [1 + groups].

    statistic: takes the numbers of the items to use, int64 [n].
    """
    if not 2 <= groups <= count:
        raise ValueError(f"{groups} groups of {count} items, expected 2 to {count}")
    everything = torch.arange(count)
    without = [statistic(everything[everything % groups != g]) for g in range(groups)]
    return torch.tensor([statistic(everything), *without], dtype=torch.float64)


def jackknife(values: Tensor) -> Interval:
    """The normal interval of the grouped jackknife around the first of `replicates`.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 11.5. Unlike resampling, it repeats no item,
    which would shrink a covariance.
    """
    value, without = float(values[0]), values[1:]
    error = math.sqrt((len(without) - 1) * float(without.var(correction=0)))
    return Interval(value, value - Z * error, value + Z * error)
