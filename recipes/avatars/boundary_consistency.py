"""Whether generated pixels continue what is kept: skin, background, hair and clothes on both sides of a mask.

The reader sees whole images, so it cannot tell the value inside a mask from the one outside. The value inside is found
by comparison with renders: the avatar that the reader finds in the image is rendered with each value of the attribute.
Where these renders differ, the attribute shows. Each such pixel in the mask votes for the value whose render is nearest
in color, and most votes win. Edges are left out: there a pixel is a mixture, or the reading is a little off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imagebart.worlds.avatars import VALUES, Attributes
from recipes.avatars.artwork import pixels_of, render

SIDE = 128  # pixels a side of the images that are compared
CONTRAST = 40  # levels of 255 by which an attribute's values differ in a channel, where the attribute shows
LEAST = 12  # pixels without edges from which an attribute counts as showing in an area

COLORS = ("skin", "background", "hair_color", "hat_color", "facial_hair_color", "clothing_color")
"""The attributes that are one color over an area, which a mask may cut."""


def shows(attributes: Attributes, name: str, area: np.ndarray) -> bool:
    """Whether an avatar shows an attribute in an area, bool [SIDE, SIDE]."""
    if name not in attributes.visible():
        return False
    return int(np.count_nonzero(_interior(_renders(attributes, name)) & area)) >= LEAST


def read_within(image: np.ndarray, area: np.ndarray, reading: Attributes, name: str) -> str | None:
    """The value of an attribute in an area of an image; None where the reading does not show it there.

    image: uint8 [SIDE, SIDE, 3]; area: bool [SIDE, SIDE]; reading: of the whole image. Its own value of the attribute
    does not matter.
    """
    if not shows(reading, name, area):
        return None
    renders = _renders(reading, name)
    pixels = _interior(renders) & area
    distance = np.abs(renders[:, pixels] - image[pixels]).sum(2)  # [values, pixels]
    votes = np.bincount(distance.argmin(0), minlength=len(renders))
    return VALUES[name][int(votes.argmax())]


def boundary_consistency(
    images: Tensor,
    masks: np.ndarray,
    before: Sequence[Attributes],
    readings: Sequence[Attributes],
    names: Sequence[Iterable[str]],
) -> list[dict[str, bool]]:
    """Whether attributes have the same value inside and outside of the masks, for B edits of rendered avatars.

    images: the edited ones, float [B, 3, size, size] in [-1, 1]; masks: bool [B, size, size]; before: the avatars that
    were edited; readings: of the edited images; names: of the attributes to compare. Left out are those that the avatar
    does not show outside its mask, or the image not inside.
    """
    masked = F.interpolate(torch.from_numpy(masks)[:, None].float(), (SIDE, SIDE), mode="area")
    pixels = pixels_of(images, SIDE)
    inside, outside = (masked == 1)[:, 0].numpy(), (masked == 0)[:, 0].numpy()
    found = []
    for image, within, kept, avatar, reading, asked in zip(
        pixels, inside, outside, before, readings, names, strict=True
    ):
        values = {n: read_within(image, within, reading, n) for n in asked if shows(avatar, n, kept)}
        found.append({n: value == getattr(avatar, n) for n, value in values.items() if value is not None})
    return found


@lru_cache(maxsize=64)
def _renders(attributes: Attributes, name: str) -> np.ndarray:
    """An avatar with each value of an attribute in turn: int16 [values, SIDE, SIDE, 3], not to be written to."""
    return np.stack([render(replace(attributes, **{name: v}), SIDE) for v in VALUES[name]]).astype(np.int16)


def _interior(renders: np.ndarray) -> np.ndarray:
    """Where renders differ clearly, and all around do: bool [SIDE, SIDE]."""
    clear = np.ptp(renders, axis=0).max(2) >= CONTRAST
    return cv2.erode(clear.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
