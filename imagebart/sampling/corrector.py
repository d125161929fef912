"""The corrector: after the chain, tokens that do not fit the others are sampled again.

A chain never looks back at a token that it has sampled. The corrector asks the denoiser's encoder how likely each
token is given all others, p(x_0^i | x_0^j, j != i), and samples the unlikely ones again with the decoder, all others
kept. Sampling a token from its conditional distribution leaves the model's distribution of images unchanged (Gibbs
sampling; the forward-backward of ImageBART, section 3.4, does it with all tokens). Choosing unlikely tokens, and
sampling with a lower top-p, moves images towards the modes of that distribution: it is meant to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from imagebart.diffusion import gumbel_noise, uniform_tokens
from imagebart.models.denoiser import Denoiser, DenoiserInput
from imagebart.models.transformer import Transformer
from imagebart.sampling.speculative import ChainEvent, sample_step
from imagebart.sampling.steps import ChainState, DenoisingStep
from imagebart.settings import SamplingSettings

TOP_P = 0.5  # at most, for tokens that are sampled again


@torch.no_grad()
def correct(
    state: ChainState, x: Tensor, packed: Callable[[Transformer], Transformer], settings: SamplingSettings
) -> Iterator[ChainEvent]:
    """Corrects the x_0 of a chain, int64 [B, N], `settings.corrector_steps` times; an event after every pass.

    state: the chain's start; what it keeps is never changed. packed: packs a decoder's weights. There is no guidance:
    the few tokens that are sampled follow from the others, and half the passes are saved.
    """
    first = state.steps[0]
    assert isinstance(first, DenoisingStep), "stages predict x_{t-1} and have no corrector"
    step = DenoisingStep(first.denoiser, 1.0, 0.0)
    decoder = packed(step.decoder)
    state = state.embed()
    own = settings.replace(guidance=1.0, top_p=min(settings.top_p or 1.0, TOP_P))
    again = torch.ones_like(x, dtype=torch.bool)
    for number in range(1, settings.corrector_steps + 1):
        (rows,) = again.any(1).nonzero(as_tuple=True)  # an image of which nothing was sampled again is finished
        if not len(rows):
            return
        noise = gumbel_noise((x.shape[1], step.vocab_size), state.generators).to(x.device)
        uniform = uniform_tokens(x.shape[1], step.vocab_size, state.generators).to(x.device)
        noisy = torch.where(state.noise_level < 1, state.x, uniform)
        chances = probabilities(step.denoiser, state.select(rows), x[rows], noisy[rows])
        again = torch.zeros_like(again).index_copy(0, rows, chances < settings.corrector_threshold)
        begun = ChainEvent(1, state.scales, own.resamples - 1, own.resamples, x, corrector_step=number)
        unknown = replace(state, x=torch.where(again, noisy, x), noise_level=state.noise_level.where(again, 0.0))
        for event in sample_step(step, decoder, unknown, own, noise, begun):
            x = event.tokens
            yield event


def probabilities(denoiser: Denoiser, state: ChainState, x: Tensor, noisy: Tensor) -> Tensor:
    """p(x_0^i | other tokens, condition) of every token that the state does not keep, float [B, N]; 1 where it does.

    state: with its embeddings. x: x_0, int64 [B, N]; noisy: x_t at the state's noise levels, int64 [B, N]. Two passes:
    first the black squares of a chessboard are noisy, then the white ones, so that each token sees those above, below,
    left and right of it.
    """
    found = torch.ones(x.shape, device=x.device)
    if state.window is not None:
        cropped, places = state.crop()
        x, noisy = x.gather(1, places), noisy.gather(1, places)
        return found.scatter(1, places, probabilities(denoiser, cropped, x, noisy))
    side, place = math.isqrt(denoiser.config.tokens), state.places
    if place is None:
        place = torch.arange(x.shape[1], device=x.device)
    color = (place // side + place % side) % 2
    for part in range(2):
        unknown = (color == part) & (state.noise_level > 0)
        if unknown.any():
            noise_t = state.noise_level.where(unknown, 0.0)
            x_t, embeds = torch.where(unknown, noisy, x), (state.prompt_embeds, state.hint_embeds)
            given = DenoiserInput(x_t, noise_t, noise_t, state.cond, None, state.places, None, *embeds)
            p = denoiser.draft_logits(given).float().softmax(-1).gather(-1, x[..., None])[..., 0]
            found = torch.where(unknown, p, found)
    return found
