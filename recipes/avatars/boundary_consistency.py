"""Whether what is drawn goes on with what is kept: skin, background, hair and clothes on both sides of a mask.

The reader looks at whole pictures, so that it cannot tell the value inside a mask from the one outside. So the value
inside is read off the pixels there, by comparison with drawings: the avatar that the reader finds in the picture is
rendered once with each value of the attribute. Where these renders differ is where the attribute shows. Each such
pixel in the mask votes for the value whose render is nearest to it in colour, and most votes win. Edges are left out:
there a pixel is a mixture, or a reading that is wrong about a lock of hair is off by some.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imagebart.avatars.attributes import VALUES, Attributes
from imagebart.imaging.files import denormalize
from recipes.avatars.artwork import render

SIDE = 128  # pixels a side of the pictures that are compared
CONTRAST = 40  # grey levels by which an attribute's values change a pixel, in one channel, where the attribute shows
LEAST = 12  # pixels, edges left out, from which an attribute counts as showing in an area

COLOURS = ("skin", "background", "hair_colour", "hat_colour", "facial_hair_colour", "clothing_colour")
"""The attributes that are one colour over an area, which a mask may cut."""


def where(attributes: Attributes, name: str) -> np.ndarray:
    """Where an avatar shows an attribute, its edges left out: bool [SIDE, SIDE]; nowhere if it is hidden."""
    return _flat(_renders(attributes, name))


def shows(attributes: Attributes, name: str, area: np.ndarray) -> bool:
    """Whether an avatar shows an attribute in an area, bool [SIDE, SIDE]."""
    return name in attributes.visible() and int(np.count_nonzero(where(attributes, name) & area)) >= LEAST


def read_within(picture: np.ndarray, area: np.ndarray, reading: Attributes, name: str) -> str | None:
    """The value of an attribute in an area of a picture; None where the picture as read does not show it there.

    picture: uint8 [SIDE, SIDE, 3]; area: bool [SIDE, SIDE]; reading: what the whole picture shows, as far as known.
    Its own value of the attribute does not matter.
    """
    if name not in reading.visible():
        return None
    renders = _renders(reading, name)
    seen = _flat(renders) & area
    if np.count_nonzero(seen) < LEAST:
        return None
    distance = np.abs(renders[:, seen] - picture[seen]).sum(2)  # [values, pixels]
    votes = np.bincount(distance.argmin(0), minlength=len(renders))
    return VALUES[name][int(votes.argmax())]


def boundary_consistency(
    images: Tensor,
    masks: np.ndarray,
    before: Sequence[Attributes],
    readings: Sequence[Attributes],
    names: Sequence[Iterable[str]],
) -> list[dict[str, bool]]:
    """Whether attributes have inside their masks the value that they have outside, for B edits of rendered avatars.

    images: the edited pictures, float [B, 3, size, size] in [-1, 1]; masks: bool [B, size, size]; before: the avatars
    that were edited; readings: what is read off the whole edited pictures; names: of the attributes to judge. Left out
    are those that the avatar does not show outside its mask, or the picture not inside.
    """
    found = []
    for picture, inside, outside, avatar, reading, asked in zip(
        *_at_side(images, masks), before, readings, names, strict=True
    ):
        values = avatar.as_dict()
        drawn = {n: read_within(picture, inside, reading, n) for n in asked if shows(avatar, n, outside)}
        found.append({name: value == values[name] for name, value in drawn.items() if value is not None})
    return found


def _renders(attributes: Attributes, name: str) -> np.ndarray:
    """An avatar with each value of an attribute in turn: int16 [values, SIDE, SIDE, 3]."""
    return np.stack([render(replace(attributes, **{name: v}), SIDE) for v in VALUES[name]]).astype(np.int16)


def _flat(renders: np.ndarray) -> np.ndarray:
    """Where renders differ clearly, and all around do: bool [SIDE, SIDE]."""
    clear = np.ptp(renders, axis=0).max(2) >= CONTRAST
    return cv2.erode(clear.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)


def _at_side(images: Tensor, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures uint8 [B, SIDE, SIDE, 3], and the pixels wholly inside and wholly outside the masks."""
    painted = torch.from_numpy(masks)[:, None].float()
    if images.shape[-1] != SIDE:
        images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        painted = F.interpolate(painted, (SIDE, SIDE), mode="area")
    pictures = denormalize(images).permute(0, 2, 3, 1).numpy()
    inside, outside = (painted == 1)[:, 0].numpy(), (painted == 0)[:, 0].numpy()
    return pictures, inside, outside
