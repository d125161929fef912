"""Where words belong in a picture: how far they move the denoiser's p(x_0), token by token.

All tokens become noise at one rate, over a few draws; what is left of the picture says where its parts are. The
denoiser then reads the same noise twice, with the words and with others (those that are true of the picture, or none).
Where its two predictions lie apart, the words ask for something else. DiffEdit (Couairon et al. 2022) finds masks in
this way for continuous diffusion.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from imagebart.errors import InputError
from imagebart.models.denoiser import Denoiser, DenoiserInput
from imagebart.models.imagebart import ImageBARTModel
from imagebart.sampling.sampler import add_noise_rows, row_generators

RATE = 0.97  # of noise: with less, the image outweighs the prompt; with more, it has no influence
DRAWS = 2
LEAST = 0.25  # distance, 0 to 1, from which words are about a token
AROUND = 0.13  # how much each neighbour's distance counts, over the token's own
ADVICE = "paint over what should change"


@torch.no_grad()
def suggest_mask(model: ImageBARTModel, pixels: Tensor, prompt: str, texts: tuple[str, str] | None = None) -> Tensor:
    """The tokens of an image that a prompt is about: bool [rows, columns].

    pixels: float [1, 3, size, size] in [-1, 1]; texts: the prompt with all else that the image shows, and what the
    image shows; the prompt is compared with no words where None. Raises InputError where nothing is found.
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
        raise InputError(f'The model finds nothing that "{prompt:.60}" would change in this picture; {ADVICE}.')
    return found


@torch.no_grad()
def distances(denoiser: Denoiser, known: Tensor, cond: Tensor, other: Tensor, seed: int = 0) -> Tensor:
    """How far apart p(x_0) is under two prompts, by token: float [N], 0 (the same) to 1 (nothing in common).

    known: a picture's tokens int64 [1, N]; cond, other: conditioning tokens int64 [1, L]. Hellinger's distance, in
    the mean over the draws, which are always the same for a seed.
    """
    noisy = add_noise_rows(known.expand(DRAWS, -1), RATE, denoiser.config.vocab_size, row_generators(seed, DRAWS))
    both, conds = noisy.repeat(2, 1), torch.cat([cond, other]).repeat_interleave(DRAWS, 0)
    noise_t = torch.full(both.shape, RATE, device=both.device)
    # The decoder's input is the noise, too: nothing is sampled.
    p, q = denoiser.logits(both, DenoiserInput(both, noise_t, noise_t, conds)).float().softmax(-1).sqrt().chunk(2)
    return (1 - (p * q).sum(-1)).clamp(min=0).sqrt().mean(0)


def threshold(distance: Tensor) -> Tensor:
    """The tokens that words are about, bool [rows, columns], by distances float [rows, columns] with their neighbours.

    Past the edge there is what is at the edge.
    """
    padded = F.pad(distance[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    columns = padded[:, 1:-1] + AROUND * (padded[:, :-2] + padded[:, 2:])
    rows = columns[1:-1] + AROUND * (columns[:-2] + columns[2:])
    return rows / (1 + 2 * AROUND) ** 2 > LEAST
