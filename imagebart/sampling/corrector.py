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

from imagebart.models.denoiser import Denoiser
from imagebart.models.transformer import Transformer
from imagebart.sampling.speculative import ChainEvent, sample_step
from imagebart.sampling.steps import ChainState, Step
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
    denoiser = state.steps[0].network
    assert isinstance(denoiser, Denoiser), "stages predict x_{t-1} and have no corrector"
    step, decoder, state = Step(denoiser, 1.0, 0.0), packed(denoiser.decoder), state.without_guidance()
    settings = settings.replace(guidance=1.0, top_p=min(settings.top_p or 1.0, TOP_P))
    again = torch.ones_like(x, dtype=torch.bool)
    for number in range(1, settings.corrector_steps + 1):
        (rows,) = again.any(1).nonzero(as_tuple=True)  # an image of which nothing was sampled again is finished
        if not len(rows):
            return
        noise = state.gumbel()
        noisy = torch.where(state.noise_level < 1, state.x, state.uniform())
        chances = probabilities(denoiser, state.select(rows), x[rows], noisy[rows])
        again = torch.zeros_like(again).index_copy(0, rows, chances < settings.corrector_threshold)
        begun = ChainEvent(
            tokens=x,
            stage=1,
            stages=state.scales,
            resample_index=settings.resamples - 1,
            resamples=settings.resamples,
            corrector_step=number,
        )
        unknown = replace(state, x=torch.where(again, noisy, x), noise_level=state.noise_level.where(again, 0.0))
        for event in sample_step(step, decoder, unknown, settings, noise, begun):
            x = event.tokens
            yield event


def probabilities(denoiser: Denoiser, state: ChainState, x: Tensor, noisy: Tensor) -> Tensor:
    """p(x_0^i | other tokens, condition) of every token that the state does not keep, float [B, n]; 1 where it does.

    x: x_0, int64 [B, n]; noisy: x_t at the state's noise levels, int64 [B, n]. Two passes: first the black squares of a
    chessboard are noisy, then the white ones, so that each token sees those above, below, left and right of it.
    """
    chances = torch.ones(x.shape, device=x.device)
    side, place = math.isqrt(denoiser.config.tokens), state.places
    if place is None:
        place = torch.arange(x.shape[1], device=x.device)
    color = (place // side + place % side) % 2
    for part in range(2):
        unknown = (color == part) & (state.noise_level > 0)
        if unknown.any():
            logits = denoiser.draft_logits(
                x_t=torch.where(unknown, noisy, x),
                noise_t=state.noise_level.where(unknown, 0.0),
                cond=state.cond,
                prompt_embeds=state.prompt_embeds,
                hint_embeds=state.hint_embeds,
                places=state.places,
            )
            p = logits.float().softmax(-1).gather(-1, x[..., None])[..., 0]
            chances = torch.where(unknown, p, chances)
    return chances
