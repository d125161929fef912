"""What a mask leaves of a picture, as tokens.

A cell that a mask cuts is drawn anew as a whole. Its own token would betray what was painted over, and noise would say
nothing of its other part; so its token is that of the cell with the painted pixels in the colours beside them. That is
likely to be the wrong one by the share that is painted: a noise rate of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from imagebart.models.imagebart import ImageBART


def painted_share(painted: Tensor, tokens: int) -> Tensor:
    """How much of each of N tokens' cells is painted: masks bool [B, S, S] -> float [B, N] in [0, 1]."""
    return F.avg_pool2d(painted[:, None].float(), painted.shape[1] // math.isqrt(tokens)).flatten(1)


def glance(pixels: Tensor, painted: Tensor, tokens: int, parts: int) -> Tensor:
    """What masks keep of the pixels of N cells, in P x P parts of each, float [B, N, 4 P^2].

    pixels: [B, 3, S, S] in [-1, 1]; painted: bool [B, S, S]. Part by part the mean of its pixels, painted ones being 0,
    in three channels, and the share that is kept. All is 0 where nothing is.
    """
    kept = (~painted)[:, None].to(pixels.dtype)
    size = pixels.shape[2] // (math.isqrt(tokens) * parts)
    means = F.avg_pool2d(torch.cat([pixels * kept, kept], 1), size)
    return rearrange(means, "b c (h p) (w q) -> b (h w) (p q c)", p=parts, q=parts)


def extended(pixels: Tensor, painted: Tensor) -> Tensor:
    """Pictures [B, C, S, S] in which each painted pixel, bool [B, S, S], has the colour of the nearest that is not.

    A picture of which all is painted is as it was.
    """
    return torch.stack([_extended(*each) for each in zip(pixels, painted, strict=True)])


def _extended(pixels: Tensor, painted: Tensor) -> Tensor:
    if painted.all() or not painted.any():
        return pixels
    _, labels = cv2.distanceTransformWithLabels(
        painted.numpy().astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = torch.zeros(len(pixels), int(labels.max()) + 1, dtype=pixels.dtype)
    places, kept = torch.from_numpy(labels).long(), ~painted
    nearest[:, places[kept]] = pixels[:, kept]
    return nearest[:, places]


@dataclass(frozen=True)
class Known:
    """What is known of pictures that masks are on."""

    tokens: Tensor  # int64 [B, N]
    doubt: Tensor  # of each the chance that it is wrong, float [B, N]: 0 where it is kept
    seen: Tensor | None  # a glance at what is kept of its cell, float [B, N, 4 P^2]; None where the model takes none


@torch.no_grad()
def known(model: ImageBART, pixels: Tensor, painted: Tensor) -> Known:
    """What a model can be told of pictures, on its device.

    pixels: float [B, 3, S, S] in [-1, 1]; painted: bool [B, S, S], on the CPU. Of cut cells, a model that does not know
    them is told nothing: their doubt is 1.
    """
    tokens, doubt = model.first_stage.encode(pixels.to(model.device)), painted_share(painted, model.tokens)
    if model.denoiser is None or not model.denoiser.config.knows_cut_cells:
        return Known(tokens, (doubt > 0).float().to(model.device), None)
    doubt = doubt.to(model.device)
    cut = (doubt > 0) & (doubt < 1)
    if cut.any():
        tokens = torch.where(cut, model.first_stage.encode(extended(pixels, painted).to(model.device)), tokens)
    seen = glance(pixels, painted, model.tokens, model.glances).to(model.device) if model.glances else None
    return Known(tokens, doubt, seen)
