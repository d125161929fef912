"""How much of real pictures is drawn, how much of what is drawn is like them, and whether anything is a copy."""

from __future__ import annotations

import torch
from torch import Tensor

from imagebart.errors import InputError

NEIGHBOURS = 3


def inside(points: Tensor, others: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Which points [n, F] lie in the manifold of others [m, F], m over `neighbours`: bool [n].

    That is, within the distance of one of them to its own so manieth neighbour (Kynkäänniemi et al., Improved Precision
    and Recall Metric for Assessing Generative Models, 2019, eq. 1). Drawn among real pictures it gives the precision,
    real among drawn ones the recall.
    """
    if len(others) <= neighbours:
        raise InputError(f"{len(others)} pictures are too few to compare with; there must be over {neighbours}.")
    own = torch.cdist(others.double(), others.double())
    radii = own.sort(1).values[:, neighbours]  # the nearest is itself
    return (torch.cdist(points.double(), others.double()) <= radii).any(1)


def nearest(points: Tensor, others: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """The `count` of others [m, F] nearest to each point [n, F], or all m: distances and numbers, [n, count]."""
    distance, index = torch.cdist(points.double(), others.double()).sort(stable=True, dim=1)
    return distance[:, :count], index[:, :count]
