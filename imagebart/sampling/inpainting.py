"""Inpainting: from an image and a mask to tokens with noise levels; and where a mask should be.

A patch that a mask covers in part is regenerated as a whole. Its own token would reveal what was painted over, and
noise would say nothing of its other part; so its token is that of the patch with the painted pixels filled with the
nearest colors, and its noise level the share that is painted. A kept patch with several colors has a rare token,
which says little to the model: the tokens of these colors, its color hints, say more.

Where a mask's strength s is below 1, a patch is masked as above with probability s; else its token is that of the image
(see `Sampler.prepare`). So its noise level is s times the above.
"""

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from imagebart.core.errors import InputError
from imagebart.models.denoiser import Denoiser
from imagebart.models.diffusion import add_noise_rows, row_generators
from imagebart.models.imagebart import ImageBARTModel
from imagebart.models.vqgan import FirstStage, psnr
from imagebart.sampling.steps import KnownTokens

FLAT = 0.08  # difference of pixels of one color in a channel of [-1, 1], at most
AT_ONCE = 256  # colors that are encoded at a time


@torch.no_grad()
def encode_masked(
    model: ImageBARTModel, pixels: Tensor, painted: Tensor, strength: Tensor | None = None
) -> KnownTokens:
    """Masked images as tokens with noise levels, on the model's device.

    pixels: float [B, 3, S, S] in [-1, 1]; painted: bool [B, S, S], on the CPU. For a model that was not trained with
    partial patches, their noise level is 1. strength: of each token, float [B, N]; that of kept ones is not used.
    """
    first_stage, device = model.first_stage, model.device
    tokens, noise_level = first_stage.encode(pixels.to(device)), mask_coverage(painted, model.tokens).to(device)
    keep, color_hints = noise_level == 0, None
    soft: dict[str, Tensor] = {}
    if strength is not None and (strength.to(device) < 1)[~keep].any():
        soft = {"strength": strength.to(device), "original": tokens}
    if model.denoiser is None or not model.denoiser.config.partial_patches:
        return KnownTokens(tokens, keep, (~keep).float(), **soft)
    cut = ~keep & (noise_level < 1)
    if cut.any():
        tokens = torch.where(cut, first_stage.encode(fill_nearest(pixels.cpu(), painted).to(device)), tokens)
    if model.color_hint_grid:
        color_hints = encode_color_hints(first_stage, pixels.to(device), painted.to(device), model.color_hint_grid)
    return KnownTokens(tokens, keep, noise_level, color_hints=color_hints, **soft)


def mask_coverage(painted: Tensor, tokens: int) -> Tensor:
    """The share of each of N tokens' patches that is painted: masks bool [B, S, S] -> float [B, N] in [0, 1]."""
    return F.avg_pool2d(painted[:, None].float(), painted.shape[1] // math.isqrt(tokens)).flatten(1)


@torch.no_grad()
def encode_color_hints(first_stage: FirstStage, pixels: Tensor, painted: Tensor, parts: int) -> Tensor:
    """The colors of patches, as tokens of these colors, bool [B, N, K].

    pixels: float [B, 3, S, S] in [-1, 1]; painted: bool [B, S, S]. A patch has P x P parts. Each that is kept and of
    one color adds the token of a patch all of that color. Where there is only one such token, there are no hints.
    """
    size = first_stage.config.downsampling // parts
    apart = F.max_pool2d(pixels, size) + F.max_pool2d(-pixels, size)
    flat = (apart <= FLAT).all(1) & (F.max_pool2d(painted.float(), size) == 0)
    flat = rearrange(flat, "b (h p) (w q) -> b (h w) (p q)", p=parts, q=parts)
    colors = rearrange(F.avg_pool2d(pixels, size), "b c (h p) (w q) -> b (h w) (p q) c", p=parts, q=parts)
    tokens = _tokens_of_colors(first_stage, colors[flat])
    hints = torch.zeros(*flat.shape[:2], first_stage.config.vocab_size, dtype=torch.bool, device=pixels.device)
    rows, patches, _ = flat.nonzero(as_tuple=True)
    hints[rows, patches, tokens] = True
    return hints & (hints.sum(-1, keepdim=True) > 1)


def _tokens_of_colors(first_stage: FirstStage, colors: Tensor) -> Tensor:
    """The tokens of patches all of one color, [M, 3] in [-1, 1] -> int64 [M]."""
    side = first_stage.config.downsampling
    different, place = torch.unique((colors * 127.5).round() / 127.5, dim=0, return_inverse=True)
    tokens = [colors.new_zeros(0, dtype=torch.long)]
    for some in different.split(AT_ONCE) if len(different) else ():
        strip = some.T[None, :, None].repeat_interleave(side, 2).repeat_interleave(side, 3)
        tokens.append(first_stage.encode(strip)[0])
    return torch.cat(tokens)[place]


def fill_nearest(pixels: Tensor, painted: Tensor) -> Tensor:
    """Images [B, C, S, S] with the nearest kept pixel's color, if any, at each painted one, bool [B, S, S]; on CPU."""
    result = pixels.clone()
    for image, mask in zip(result, painted, strict=True):
        if mask.any() and not mask.all():
            _, labels = cv2.distanceTransformWithLabels(
                mask.numpy().astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3, labelType=cv2.DIST_LABEL_PIXEL
            )
            places = torch.from_numpy(labels).long()
            colors = torch.zeros(len(image), int(labels.max()) + 1, dtype=image.dtype)
            colors[:, places[~mask]] = image[:, ~mask]
            image[:] = colors[:, places]
    return result


def out_of_domain(
    model: ImageBARTModel, before: Tensor, after: Tensor, keep: Tensor, margin: float = 0.0
) -> tuple[str, ...]:
    """A note where the model does not know such images: its first stage does not reconstruct what is kept.

    before, after: float [1, 3, size, size] in [-1, 1]; keep: bool [N]. margin: dB that may be lost, as the decoder sees
    what is regenerated beside what is kept.
    """
    side = model.first_stage.config.downsampling
    kept = keep.view(before.shape[2] // side, -1).repeat_interleave(side, 0).repeat_interleave(side, 1)
    knows, least = model.about.knows, model.about.in_domain_psnr - margin
    if knows and kept.any() and psnr(after.clamp(-1, 1)[..., kept], before[..., kept]) < least:
        return (f"This model knows {knows} only; in another kind of image, expect odd results.",)
    return ()


# Mask suggestion: the tokens of an image that a prompt would change, as DiffEdit finds them (Couairon et al. 2022).
#
# Noise is added to the image's tokens, a few times. For each x_t the denoiser predicts p(x_0) with the prompt, and with
# another text (what the image shows, or none). The mask is where the two predictions differ.

NOISE_LEVEL = 0.97  # with less noise, the image outweighs the prompt; with more, it has no influence
DRAWS = 2  # noisy versions of the image
THRESHOLD = 0.25  # distance, 0 to 1, from which a token belongs to the mask
NEIGHBOR_WEIGHT = 0.13  # of each neighbor's distance, beside 1 for the token's own
ADVICE = "paint over what should change"


@torch.no_grad()
def suggest_mask(
    model: ImageBARTModel, denoiser: Denoiser | None, pixels: Tensor, prompt: str, texts: tuple[str, str] | None = None
) -> Tensor:
    """The tokens of an image that a prompt would change: bool [rows, columns].

    denoiser: the model's, which may be packed. pixels: float [1, 3, size, size] in [-1, 1]. texts: the prompt completed
    by what else the image shows, and a caption of the image; None: the prompt alone, and no words. Raises InputError
    where nothing is found.
    """
    conditioner = model.conditioner
    if denoiser is None or conditioner.kind != "text":
        raise InputError(f"This model cannot find a place by words; {ADVICE}.")
    if not prompt.strip():
        raise InputError(f"Without words there is no place to find; say what should be there, or {ADVICE}.")
    cond, other = conditioner.encode([prompt]).tokens, conditioner.unconditional(1)
    if torch.equal(cond, other):
        raise InputError(f'The model knows no word of "{prompt:.60}", so that it finds no place for it; {ADVICE}.')
    if texts is not None:
        cond, other = conditioner.encode(texts).tokens.split(1)
    tokens = model.first_stage.encode(pixels)
    distance = distances(denoiser, tokens, cond.to(model.device), other.to(model.device)).cpu()
    found = threshold(distance.view(-1, model.first_stage.config.side))
    if not found.any():
        raise InputError(f'The model finds nothing that "{prompt:.60}" would change in this image; {ADVICE}.')
    return found


@torch.no_grad()
def distances(denoiser: Denoiser, known: Tensor, cond: Tensor, other: Tensor, seed: int = 0) -> Tensor:
    """The Hellinger distance of p(x_0) under two prompts, for each token: float [N], 0 (the same) to 1.

    known: an image's tokens int64 [1, N]; cond, other: conditioning tokens int64 [1, L]. The mean over a few noisy
    versions of the image, which the seed decides.
    """
    vocab_size, generators = denoiser.config.vocab_size, row_generators(range(seed, seed + DRAWS))
    noisy = add_noise_rows(known.expand(DRAWS, -1), NOISE_LEVEL, vocab_size, generators)
    both, conds = noisy.repeat(2, 1), torch.cat([cond, other]).repeat_interleave(DRAWS, 0)
    noise_t = torch.full(both.shape, NOISE_LEVEL, device=both.device)
    # The decoder gets x_t as well, so that nothing has to be sampled.
    p, q = denoiser.logits(both, both, noise_t, noise_t, cond=conds).float().softmax(-1).sqrt().chunk(2)
    return (1 - (p * q).sum(-1)).clamp(min=0).sqrt().mean(0)


def threshold(distance: Tensor) -> Tensor:
    """The mask of distances: float [rows, columns] -> bool [rows, columns], after averaging with the neighbors."""
    padded = F.pad(distance[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    columns = padded[:, 1:-1] + NEIGHBOR_WEIGHT * (padded[:, :-2] + padded[:, 2:])
    rows = columns[1:-1] + NEIGHBOR_WEIGHT * (columns[:-2] + columns[2:])
    return rows / (1 + 2 * NEIGHBOR_WEIGHT) ** 2 > THRESHOLD
