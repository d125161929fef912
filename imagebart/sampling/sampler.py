"""The reverse chain: steps T ... 1, coarse to fine, with forward-backward repeats (ImageBART, section 3.4)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from imagebart.diffusion import add_noise_rows, gumbel_noise, row_generators, uniform_tokens
from imagebart.errors import InputError
from imagebart.models.denoiser import context_window
from imagebart.models.imagebart import ImageBARTModel
from imagebart.models.transformer import Transformer
from imagebart.sampling.corrector import correct
from imagebart.sampling.packed_linear import PackedDecoder
from imagebart.sampling.speculative import ChainEvent, sample_step
from imagebart.sampling.steps import ChainState, KnownTokens, StageStep, Step, check_tokens, denoising_steps
from imagebart.settings import SamplingSettings

SEED_OFFSET = 0x9E3779B9  # added to a seed for the noise that a variation starts from, which is not the chain's own


@torch.no_grad()
def sample_chain(
    state: ChainState, packed: Callable[[Transformer], Transformer], settings: SamplingSettings
) -> Iterator[ChainEvent]:
    """From x_T down to x_0, and through the corrector; an event after every pass of a network, the last holds x_0.

    packed: packs a decoder's weights. Resample r of n first adds noise to the last result, with probability
    (1 - r/n) beta_t (section 3.4). The iterator can be closed at any moment.
    """
    x, resamples, state = state.x, settings.resamples, state.embed()
    for t in range(len(state.steps), 0, -1):
        step = state.steps[t - 1]
        own = step.stage.config.sampling(settings) if isinstance(step, StageStep) else settings
        for repeat in range(resamples):
            if repeat:
                x = add_noise_rows(x, (1 - repeat / resamples) * step.beta, step.vocab_size, state.generators)
            x_t = torch.where(step.sees(state.noise_level), state.x, x)
            noise = gumbel_noise((x.shape[1], step.vocab_size), state.generators).to(x.device)
            begun = ChainEvent(t, state.scales, repeat, resamples, x_t)
            for event in sample_step(step, packed(step.decoder), replace(state, x=x_t), own, noise, begun):
                x = event.tokens
                yield event
    if settings.corrector_steps:
        yield from correct(state, x, packed, settings)


class Sampler:
    """Samples from a model."""

    def __init__(self, model: ImageBARTModel) -> None:
        self.model, self.packed = model, PackedDecoder()

    def warm_up(self) -> None:
        """Packs what the first run begins with."""
        self.packed(self.steps(SamplingSettings())[-1].decoder)

    def steps(self, settings: SamplingSettings, strength: float = 1.0) -> Sequence[Step]:
        """The chain's steps, t = 1 first, from noise level `strength` on.

        A model of stages starts with the finest that expects at least as much noise. Raises ValueError for steps that
        the model does not have.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength is {strength}, expected over 0 and at most 1")
        scales = self.model.scales_of(settings.scales)
        if settings.corrector_steps and self.model.denoiser is None:
            raise InputError("This model has no corrector: the number of corrector steps must be 0.")
        if self.model.denoiser is not None:
            return denoising_steps(self.model.denoiser, scales, strength)
        noisy = [t for t in range(1, scales) if 1 - self.model.schedule.alphacum(t) >= strength]
        first = noisy[0] if noisy else scales
        return [StageStep(stage) for stage in self.model.stages[:first]]

    def prepare(
        self,
        batch: int,
        settings: SamplingSettings,
        cond: Tensor | None = None,
        *,
        start: Tensor | None = None,
        known: KnownTokens | None = None,
        strength: float = 1.0,
        seed: int | Sequence[int] | None = None,
    ) -> ChainState:
        """Where the chain starts; with a seed, always the same. Arguments as for `ImageBART.stream`.

        known: its strengths are each token's probability to start as `strength` says, else it is that of the image, and
        its noise level is as many times lower; stages use the largest strength for all. seed: also one for each row,
        which then samples as a run of its own with that seed would. Raises ValueError for what does not fit.
        """
        model, shape, device = self.model, (batch, self.model.tokens), self.model.device
        if batch < 1:
            raise ValueError(f"batch of {batch}, expected 1 or more")
        if start is not None:
            check_tokens("start", start, shape, model.vocab_size)
        if known is not None:
            known = known.expand(shape, model.vocab_size, device)
            strength = known.max_strength or strength
            if known.color_hints is not None and not model.color_hint_grid:
                raise ValueError("color_hints was given, but this model takes none")
        steps = self.steps(settings, strength)
        unconditional = None
        if cond is not None or model.cond_length:
            given = torch.zeros(batch, 0, dtype=torch.long) if cond is None else cond
            check_tokens("cond", given, (batch, model.cond_length), model.conditioner.vocab_size)
        if cond is not None:
            cond = cond.to(device)
            unconditional = model.conditioner.unconditional(batch).to(device) if settings.guidance != 1 else None
        first = secrets.randbits(32) if seed is None else seed
        seeds = range(first, first + batch) if isinstance(first, int) else first
        generators, start_seeds = row_generators(seeds), [seed + SEED_OFFSET for seed in seeds]
        noise = min(strength, 1 - math.prod(1 - step.beta for step in steps))
        if start is not None:
            x = start
        elif noise == 1:
            x = uniform_tokens(model.tokens, model.vocab_size, generators)
        elif known is not None:
            x = add_noise_rows(known.tokens, noise, model.vocab_size, row_generators(start_seeds))
        else:
            raise ValueError("starting from less than pure noise needs start or known tokens")
        x, levels = x.to(device), torch.ones(shape, device=device)
        if known is not None and known.keep is not None:
            tokens = known.tokens
            levels = (~known.keep).float() if known.noise_level is None else known.noise_level.where(~known.keep, 0.0)
            if known.strength is not None:  # each token's chance of being masked; else it is that of the image
                rows = row_generators(start_seeds)
                uniform = uniform_tokens(model.tokens, model.vocab_size, rows).to(device)
                chances = torch.stack([torch.rand(model.tokens, generator=row) for row in rows]).to(device)
                masked = torch.where(levels < 1, tokens, uniform)
                own = tokens if known.original is None else known.original
                tokens, levels = torch.where(chances < known.strength, masked, own), levels * known.strength
            x = torch.where(steps[-1].sees(levels), tokens, x)
        hints = None if known is None else known.color_hints
        scales = model.scales_of(settings.scales)
        margin = None if model.denoiser is None else model.denoiser.config.context_margin
        window = None if margin is None else context_window(levels > 0, margin)
        if window is not None and window.all():
            window = None
        return ChainState(steps, scales, x, levels, generators, cond, unconditional, hints, window)

    def stream(self, state: ChainState, settings: SamplingSettings) -> Iterator[ChainEvent]:
        """Runs the chain, an event a pass of a network.

        Images with windows of different sizes are sampled one size after another: events begin anew with each.
        """
        if state.window is None:
            yield from sample_chain(state, self.packed, settings)
            return
        sizes, x = state.window.sum(1), state.x
        for size in sizes.unique():
            (rows,) = (sizes == size).nonzero(as_tuple=True)
            part = replace(state.select(rows), generators=[state.generators[row] for row in rows.tolist()])
            for event in sample_chain(part, self.packed, settings):
                x = x.index_copy(0, rows, event.tokens)
                yield replace(event, tokens=x)
