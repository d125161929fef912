"""How crisp the edges of reconstructions are, and how clean what is flat in the originals."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

EDGE = 40.0  # grey levels a pixel over which an original has an edge
FLAT = 7  # a square of so many pixels a side without any gradient is flat in its middle


def gradient(images: Tensor) -> Tensor:
    """How much colours change from pixel to pixel, in grey levels: [B, 3, H, W] in [-1, 1] -> [B, H - 1, W - 1].

    The Euclidean norm of six numbers: red, green and blue of the pixel to the right and of the one below, less its own.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 2:
        raise ValueError(f"images have shape {tuple(images.shape)}, expected [B, 3, H, W], 2 pixels a side or more")
    levels = images * 127.5
    here = levels[..., :-1, :-1]
    across, down = levels[..., :-1, 1:] - here, levels[..., 1:, :-1] - here
    return (across.square() + down.square()).sum(1).sqrt()


@dataclass(frozen=True)
class Sharpness:
    """Of each of B pictures, float64 [B]: gradients summed up over the original's edges and flat places."""

    edges: Tensor
    originals: Tensor  # the originals' own at their edges
    flats: Tensor
    flat_pixels: Tensor

    @classmethod
    def of(cls, originals: Tensor, pictures: Tensor) -> Sharpness:
        """Pictures [B, 3, H, W] beside what they should be, in [-1, 1], in whole grey levels.

        Raises ValueError where shapes differ or a side has less than 2 pixels.
        """
        if originals.shape != pictures.shape:
            raise ValueError(f"pictures have shape {tuple(pictures.shape)}, expected {tuple(originals.shape)}")
        own, found = gradient(originals).double(), gradient(pictures).double()
        edge = own > EDGE
        # Half a grey level: what is rounded before is not quite 0 in floating-point numbers.
        flat = F.max_pool2d(own[:, None], FLAT, 1, FLAT // 2)[:, 0] < 0.5
        return cls(*(total.flatten(1).sum(1) for total in (found * edge, own * edge, found * flat, flat.double())))

    def crispness(self, rows: Tensor | slice = slice(None)) -> float:
        """Mean gradient of these pictures at the originals' edges, over the originals' own there; 1 is as crisp."""
        return float(self.edges[rows].sum() / self.originals[rows].sum())

    def cleanness(self, rows: Tensor | slice = slice(None)) -> float:
        """Mean gradient of these pictures where the originals are flat, in grey levels; 0 is as clean."""
        return float(self.flats[rows].sum() / self.flat_pixels[rows].sum())
