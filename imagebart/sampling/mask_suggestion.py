"""Mask suggestion: the tokens of an image that a prompt would change, as DiffEdit finds them (Couairon et al. 2022).

Noise is added to the image's tokens, a few times. For each x_t the denoiser predicts p(x_0) with the prompt, and with
another text (what the image shows, or none). The mask is where the two predictions differ.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from imagebart.diffusion import add_noise_rows, row_generators
from imagebart.errors import InputError
from imagebart.models.denoiser import Denoiser
from imagebart.models.imagebart import ImageBARTModel

NOISE_LEVEL = 0.97  # with less noise, the image outweighs the prompt; with more, it has no influence
DRAWS = 2  # noisy versions of the image
THRESHOLD = 0.25  # distance, 0 to 1, from which a token belongs to the mask
NEIGHBOR_WEIGHT = 0.13  # of each neighbor's distance, beside 1 for the token's own
ADVICE = "paint over what should change"


@torch.no_grad()
def suggest_mask(model: ImageBARTModel, pixels: Tensor, prompt: str, texts: tuple[str, str] | None = None) -> Tensor:
    """The tokens of an image that a prompt would change: bool [rows, columns].

    pixels: float [1, 3, size, size] in [-1, 1]. texts: the prompt completed by what else the image shows, and a
    caption of the image; None: the prompt alone, and no words. Raises InputError where nothing is found.
    """
    conditioner = model.conditioner
    if model.denoiser is None or conditioner.kind != "text":
        raise InputError(f"This model cannot find a place by words; {ADVICE}.")
    if not prompt.strip():
        raise InputError(f"Without words there is no place to find; say what should be there, or {ADVICE}.")
    cond, other = conditioner.encode([prompt]).tokens, conditioner.unconditional(1)
    if torch.equal(cond, other):
        raise InputError(f'The model knows no word of "{prompt:.60}", so that it finds no place for it; {ADVICE}.')
    if texts is not None:
        cond, other = conditioner.encode(texts).tokens.split(1)
    tokens = model.first_stage.encode(pixels)
    distance = distances(model.denoiser, tokens, cond.to(model.device), other.to(model.device)).cpu()
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
