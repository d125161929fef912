"""What a denoiser is asked to draw while it is trained: a region, and noise rates before and after a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WHOLE = 0.3  # share of pictures of which nothing is known
INVERTED = 0.5  # share of regions that are all but what was drawn up
MOST_BOXES = 3
BLIND, LEAST = 0.5, 0.1  # share of steps from pure noise; the least rate of the others
FINAL = 0.65  # share of steps that end at x_0


def unknown_regions(batch: int, side: int) -> Tensor:
    """Regions to draw, bool [B, side^2]: everything, half planes, one to three boxes, or all but those."""
    regions = torch.stack([_region(side) for _ in range(batch)])
    inverted = torch.rand(batch, 1, 1) < INVERTED
    regions = torch.where(inverted, ~regions, regions)
    whole = (torch.rand(batch) < WHOLE) | ~regions.flatten(1).any(1)
    return (regions | whole[:, None, None]).flatten(1)


def _region(side: int) -> Tensor:
    """A half plane, or one to three boxes: bool [side, side]."""
    rows, columns = torch.arange(side)[:, None], torch.arange(side)[None]
    kind = int(torch.randint(4, ()))
    if kind == 0:
        along = rows if torch.rand(()) < 0.5 else columns
        return (along < int(torch.randint(1, side, ()))).expand(side, side)
    region = torch.zeros(side, side, dtype=torch.bool)
    for _ in range(int(torch.randint(1, MOST_BOXES + 1, ()))):
        (top, bottom), (left, right) = _span(side), _span(side)
        region |= (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return region


def _span(side: int) -> tuple[int, int]:
    """From and to along one side."""
    length = int(torch.randint(1, side, ()))
    begin = int(torch.randint(0, side - length + 1, ()))
    return begin, begin + length


@dataclass(frozen=True)
class Step:
    """Noise rates of a step of each row, [B, 1]: r_t before it and r_s after it, 0 <= r_s < r_t <= 1."""

    rate: Tensor
    next_rate: Tensor

    @classmethod
    def random(cls, batch: int) -> Step:
        rate = torch.where(torch.rand(batch, 1) < BLIND, 1.0, LEAST + (1 - LEAST) * torch.rand(batch, 1))
        return cls(rate, torch.where(torch.rand(batch, 1) < FINAL, 0.0, rate * torch.rand(batch, 1)))

    @property
    def beta(self) -> Tensor:
        """The share of tokens that is redrawn from x_s to x_t."""
        return 1 - (1 - self.rate) / (1 - self.next_rate)

    def to(self, device: torch.device) -> Step:
        return Step(self.rate.to(device), self.next_rate.to(device))
