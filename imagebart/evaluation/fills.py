"""Filling a hole without a prompt: the holes, two classical ways of filling them, and how well a filling joins."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor

from imagebart.imaging.masks import ready

RADIUS = 3  # pixels around that OpenCV's ways look at
CLASSICAL = {"Telea": cv2.INPAINT_TELEA, "Navier-Stokes": cv2.INPAINT_NS}


HOLES = {"centre box": partial(ready, "centre"), "lower half": partial(ready, "lower half")}


def inpainted(images: Tensor, hole: np.ndarray, way: int) -> Tensor:
    """Images float [B, 3, H, W] in [-1, 1] with the hole, bool [H, W], filled by OpenCV."""
    pixels = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    mask = hole.astype(np.uint8)
    filled = np.stack([cv2.inpaint(np.ascontiguousarray(one), mask, RADIUS, way) for one in pixels])
    return torch.from_numpy(filled).permute(0, 3, 1, 2).float() / 127.5 - 1


def edge_distance(images: Tensor, hole: np.ndarray) -> Tensor:
    """How much colours jump over the hole's edge: mean difference of neighbours, in levels of 255, [B].

    images: float [B, 3, H, W] in [-1, 1]; hole: bool [H, W], neither empty nor everything.
    """
    mask = torch.from_numpy(hole)
    jumps = []
    for axis in (-1, -2):
        over = mask.diff(dim=axis)  # True where one of two neighbours is in the hole
        difference = images.diff(dim=axis).abs().mean(1)
        jumps.append(difference[:, over])
    every = torch.cat(jumps, 1)
    if not every.shape[1]:
        raise ValueError("the hole has no edge in the picture, expected some pixels in it and some not")
    return 127.5 * every.mean(1)
