"""Masks grown and shrunk by a disc, as the sketchpad's script does it: what it is compared with."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image


def grow(mask: Image.Image, pixels: int) -> np.ndarray:
    """An "L" mask widened by `pixels` in every direction; discs over 6 are built of smaller ones."""
    values = np.array(mask)
    for done in range(0, pixels, 6):
        radius = min(6, pixels - done)
        y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        values = cv2.dilate(values, (x * x + y * y <= radius * radius).astype(np.uint8))
    return values


def shrink(mask: Image.Image, pixels: int) -> np.ndarray:
    """The mask narrowed on all sides, but not where it meets the image's edge."""
    return 255 - grow(Image.fromarray(255 - np.array(mask)), pixels)
