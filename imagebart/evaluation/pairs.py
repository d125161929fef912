"""Two first stages in a blind test: pairs of reconstructions in an order that only the key tells."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from imagebart.evaluation.intervals import Interval, share_of, wilson
from imagebart.evaluation.told_apart import STEPS, doubts
from imagebart.imaging.files import to_images
from imagebart.imaging.sheet import sheet

PAIRS = 40
ABREAST = 4  # pairs in a row of the sheet


@dataclass(frozen=True)
class Pairs:
    """Pictures, and how each came back from two first stages: float [B, 3, H, W] in [-1, 1]."""

    real: Tensor
    ours: Tensor
    theirs: Tensor
    seed: int = 0

    @property
    def first(self) -> list[bool]:
        """Of which pairs ours stands first."""
        generator = torch.Generator().manual_seed(self.seed)
        return (torch.rand(min(PAIRS, len(self.real)), generator=generator) < 0.5).tolist()

    def key(self) -> dict[str, str]:
        """The number of each pair, and which of its pictures is ours: "A" or "B"."""
        return {str(number): "A" if first else "B" for number, first in enumerate(self.first, 1)}

    def sheet(self) -> Image.Image:
        """The pairs, each picture between what came back of it: A, the picture, B."""
        cells, captions = [], []
        for number, first in enumerate(self.first, 1):
            a, b = (self.ours, self.theirs) if first else (self.theirs, self.ours)
            cells += to_images(torch.stack([a[number - 1], self.real[number - 1], b[number - 1]]))
            captions.append(f"{number}: A, the picture, B")
        rows = [cells[i : i + 3 * ABREAST] for i in range(0, len(cells), 3 * ABREAST)]
        named = [captions[i : i + ABREAST] for i in range(0, len(captions), ABREAST)]
        return sheet(rows, self.real.shape[-1], captions=named)


def judged(pairs: Pairs, steps: int = STEPS) -> tuple[Interval, Interval, Interval]:
    """What a network says that was trained to tell real pictures from both kinds of reconstructions.

    The share of the pairs in which ours looks more real, and the shares of all pictures of which ours, and of which
    theirs, is taken for real.
    """
    _, (ours, theirs) = doubts(pairs.real, [pairs.ours, pairs.theirs], steps, pairs.seed)
    count = len(pairs.first)
    better = (ours[:count] < theirs[:count]).float().mean()
    fooled = [share_of((kind < 0).int().tolist()) for kind in (ours, theirs)]
    return wilson(float(better), count), fooled[0], fooled[1]
