"""What a mask leaves of a picture, as tokens.

A cell that a mask cuts is drawn anew as a whole. Its own token would betray what was painted over, and noise would say
nothing of its other part; so its token is that of the cell with the painted pixels in the colours beside them. That is
likely to be the wrong one by the share that is painted: a noise rate of its own. Of a kept cell that several colours
share, their tokens tell more than its own, which is rare.
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
from imagebart.models.vqgan import FirstStage

PLAIN = 0.08  # how far apart the pixels of one colour may be in a channel of [-1, 1]
AT_ONCE = 256  # colours


def mask_coverage(painted: Tensor, tokens: int) -> Tensor:
    """How much of each of N tokens' cells is painted: masks bool [B, S, S] -> float [B, N] in [0, 1]."""
    return F.avg_pool2d(painted[:, None].float(), painted.shape[1] // math.isqrt(tokens)).flatten(1)


@torch.no_grad()
def encode_color_hints(first_stage: FirstStage, pixels: Tensor, painted: Tensor, parts: int) -> Tensor:
    """What is kept of cells that show several colours, as the tokens of these, bool [B, N, K].

    pixels: float [B, 3, S, S] in [-1, 1]; painted: bool [B, S, S]. A cell has P x P parts. Each that is kept as a whole
    and of one colour counts as the token that a cell all of that colour has. Where these are one and the same, the
    cell's own token says as much, and nothing is added.
    """
    size = first_stage.config.downsampling // parts
    apart = F.max_pool2d(pixels, size) + F.max_pool2d(-pixels, size)
    plain = (apart <= PLAIN).all(1) & (F.max_pool2d(painted.float(), size) == 0)
    plain = rearrange(plain, "b (h p) (w q) -> b (h w) (p q)", p=parts, q=parts)
    colours = rearrange(F.avg_pool2d(pixels, size), "b c (h p) (w q) -> b (h w) (p q) c", p=parts, q=parts)
    tokens = _tokens_of_colours(first_stage, colours[plain])
    found = torch.zeros(*plain.shape[:2], first_stage.config.vocab_size, dtype=torch.bool, device=pixels.device)
    rows, cells, _ = plain.nonzero(as_tuple=True)
    found[rows, cells, tokens] = True
    return found & (found.sum(-1, keepdim=True) > 1)


def _tokens_of_colours(first_stage: FirstStage, colours: Tensor) -> Tensor:
    """Tokens of cells that are all of one colour, [M, 3] in [-1, 1] -> int64 [M]; they are seen one by one."""
    side = first_stage.config.downsampling
    different, place = torch.unique((colours * 127.5).round() / 127.5, dim=0, return_inverse=True)
    found = [colours.new_zeros(0, dtype=torch.long)]
    for some in different.split(AT_ONCE) if len(different) else ():
        strip = some.T[None, :, None].repeat_interleave(side, 2).repeat_interleave(side, 3)
        found.append(first_stage.encode(strip)[0])
    return torch.cat(found)[place]


def fill_nearest(pixels: Tensor, painted: Tensor) -> Tensor:
    """Pictures [B, C, S, S] in which each painted pixel, bool [B, S, S], has the colour of the nearest that is not.

    A picture of which all is painted is as it was.
    """
    return torch.stack([_fill_nearest(*each) for each in zip(pixels, painted, strict=True)])


def _fill_nearest(pixels: Tensor, painted: Tensor) -> Tensor:
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
class MaskedTokens:
    """What is known of pictures that masks are on."""

    tokens: Tensor  # int64 [B, N]
    noise_level: Tensor  # of each the chance that it is wrong, float [B, N]: 0 where it is kept
    color_hints: Tensor | None  # a glance at what is kept of its cell, bool [B, N, K]; None where the model takes none


@torch.no_grad()
def encode_masked(model: ImageBART, pixels: Tensor, painted: Tensor) -> MaskedTokens:
    """What a model can be told of pictures, on its device.

    pixels: float [B, 3, S, S] in [-1, 1]; painted: bool [B, S, S], on the CPU. Of cut cells, a model that does not know
    them is told nothing: their noise_level is 1.
    """
    tokens, noise_level = model.first_stage.encode(pixels.to(model.device)), mask_coverage(painted, model.tokens)
    if model.denoiser is None or not model.denoiser.config.partial_patches:
        return MaskedTokens(tokens, (noise_level > 0).float().to(model.device), None)
    noise_level = noise_level.to(model.device)
    cut = (noise_level > 0) & (noise_level < 1)
    if cut.any():
        tokens = torch.where(cut, model.first_stage.encode(fill_nearest(pixels, painted).to(model.device)), tokens)
    if not model.color_hint_grid:
        return MaskedTokens(tokens, noise_level, None)
    on_device = pixels.to(model.device), painted.to(model.device)
    color_hints = encode_color_hints(model.first_stage, *on_device, model.color_hint_grid)
    return MaskedTokens(tokens, noise_level, color_hints)
