"""Where things are in an avatar: every avatar has its face at the same place."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from imagebart.avatars.artwork import FRAME, render
from imagebart.avatars.attributes import VALUES, Attributes

# Boxes in units of the drawing: left, top, right, bottom. Made by hand from the artwork: each holds its
# attributes' parts as far as it can without holding much of others.
FACE = (62.0, 76.0, 204.0, 188.0)
PRINT = (90.0, 226.0, 176.0, 272.0)
BOXES = {
    "eyes": (58.0, 78.0, 206.0, 142.0),
    "mouth": (92.0, 140.0, 174.0, 188.0),
    "chin": (68.0, 116.0, 198.0, 226.0),
    "clothes": (16.0, 186.0, 248.0, 272.0),
}
HEAD = (132.0, 121.0, 56.0, 85.0)
"""The ellipse of the bare head: centre x, centre y, half width, half height."""

REGIONS = ("hair", *BOXES, "background")


def face_weight(size: int) -> Tensor:
    """Return where an error of the picture counts more: float [size, size], 0 to 1.

    1 on eyes, eyebrows, glasses, beard and mouth, 0.5 on a shirt's print, 0 elsewhere, with soft edges.
    """
    x, y = _units(size)
    weight = np.maximum(_soft_box(FACE, x, y), 0.5 * _soft_box(PRINT, x, y))
    return torch.from_numpy(weight.astype(np.float32))


def region_mask(name: str, size: int) -> np.ndarray:
    """Return the area to paint over to change something of any avatar: bool [size, size], True inside.

    name: one of `REGIONS`. "hair" is all around the face, for hair and hats; "eyes" holds glasses and
    eyebrows; "chin" holds beards and the mouth among them; "background" is what no head and shoulders ever
    cover, but long hair may: `background_mask` is exact for one avatar.
    """
    x, y = _units(size)
    if name in BOXES:
        left, top, right, bottom = BOXES[name]
        return (x >= left) & (x < right) & (y >= top) & (y < bottom)
    centre_x, centre_y, half_width, half_height = HEAD
    if name == "hair":
        aside = np.abs(x - centre_x)
        face = (aside < 48) & (y > 84) & (y < 160)
        chin_and_neck = (aside < 30) & (y >= 160) & (y < 206)
        chest = (aside < 58) & (y >= 206)
        return ~(face | chin_and_neck | chest)
    if name == "background":
        head = ((x - centre_x) / (half_width + 14)) ** 2 + ((y - centre_y) / (half_height + 6)) ** 2 < 1
        shoulders = ((x - centre_x) / 104) ** 2 + ((y - 280) / 86) ** 2 < 1
        return ~(head | shoulders)
    raise ValueError(f"{name!r} is not a region of an avatar; the regions are {', '.join(REGIONS)}.")


def background_mask(attributes: Attributes, size: int) -> np.ndarray:
    """Return where an avatar's picture shows its background, wholly or at an edge: bool [size, size]."""
    values = attributes.as_dict()
    first, second = (
        render(Attributes(**{**values, "background": value}), size).astype(int) for value in VALUES["background"][:2]
    )
    return np.abs(first - second).max(axis=2) > 0


def _units(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the drawing's x and y at the centre of each pixel."""
    left, top, side = FRAME
    centres = (np.arange(size) + 0.5) / size * side
    return np.broadcast_to(left + centres, (size, size)), np.broadcast_to((top + centres)[:, None], (size, size))


def _soft_box(box: tuple[float, float, float, float], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return 1 within a box, falling to 0 over 10 units outside it."""
    left, top, right, bottom = box
    outside = np.maximum(np.maximum(left - x, x - right), np.maximum(top - y, y - bottom))
    return np.clip(1 - outside / 10, 0, 1)
