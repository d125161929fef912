"""The reverse chain: steps T ... 1, coarse to fine, with forward-backward repeats (ImageBART, section 3.4)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from imagebart.errors import InputError
from imagebart.models.imagebart import ImageBARTModel
from imagebart.sampling.corrector import correct
from imagebart.sampling.noise import add_noise_rows, gumbel_noise, row_generators, uniform_tokens
from imagebart.sampling.packed_linear import PackedModel, PackedModels
from imagebart.sampling.speculative import ChainEvent, sample_step
from imagebart.sampling.steps import ChainState, Step, denoising_steps, stage_steps
from imagebart.settings import SamplingSettings

SEED_OFFSET = 0x9E3779B9  # added to a seed for the noise that a variation starts from, which is not the chain's own


@torch.no_grad()
def sample_chain(
    state: ChainState, packed: Callable[[Step], PackedModel], settings: SamplingSettings
) -> Iterator[ChainEvent]:
    """From x_T down to x_0, and through the corrector; an event after every pass of a network, the last holds x_0.

    packed: gives a step's packed model. Resample r of n first adds noise to the last result, with probability
    (1 - r/n) beta_t (section 3.4). The iterator can be closed at any moment.
    """
    x, resamples, state = state.x, settings.resamples, state.embed(packed(state.steps[0]))
    for t in range(len(state.steps), 0, -1):
        step, own = state.steps[t - 1], settings.at(t)
        for repeat in range(resamples):
            if repeat:
                x = add_noise_rows(x, (1 - repeat / resamples) * step.beta, step.vocab_size, state.generators)
            x_t = torch.where(step.sees(state.noise_level), state.x, x)
            noise = gumbel_noise((x.shape[1], step.vocab_size), state.generators).to(x.device)
            begun = ChainEvent(t, state.scales, repeat, resamples, 0, 0, x_t, False)
            for event in sample_step(step, packed(step), replace(state, x=x_t), own, noise, begun):
                x = event.tokens
                yield event
    if settings.corrector_steps:
        yield from correct(state, x, packed, settings)


class Sampler:
    """Samples from a model."""

    def __init__(self, model: ImageBARTModel) -> None:
        self.model, self.packed_models = model, PackedModels()

    def warm_up(self) -> None:
        """Packs the networks before the first run: if not all fit into memory, those that it needs first."""
        for step in reversed(self.steps(SamplingSettings())):
            if not self.packed_models.has_room(self.model.precision, *step.networks):
                return
            self.packed(step)

    def packed(self, step: Step) -> PackedModel:
        """The packed model of a step."""
        return self.packed_models.get(self.model.precision, *step.networks)

    def steps(self, settings: SamplingSettings, strength: float = 1.0) -> Sequence[Step]:
        """The chain's steps, t = 1 first, from noise level `strength` on, or from `settings.start`.

        A model of stages starts with the finest that expects at least as much noise. Raises ValueError for steps that
        the model does not have.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength is {strength}, expected over 0 and at most 1")
        scales = self.model.scales_of(settings.scales)
        settings.check_scales(scales)
        if settings.start is not None and settings.start > scales:
            raise InputError(f"The first stage is {settings.start}; there are {scales}.")
        if settings.corrector_steps and self.model.denoiser is None:
            raise InputError("This model has no corrector: the number of corrector steps must be 0.")
        if self.model.denoiser is not None:
            return denoising_steps(self.model.denoiser, scales, strength)[: settings.start]
        noisy = [t for t in range(1, scales) if 1 - self.model.schedule.alphacum(t) >= strength]
        first = noisy[0] if noisy else scales
        return stage_steps(self.model.stages[: min(first, settings.start or first)])

    def prepare(
        self,
        batch: int,
        settings: SamplingSettings,
        cond: Tensor | None = None,
        *,
        start: Tensor | None = None,
        known: Tensor | None = None,
        keep: Tensor | None = None,
        noise_level: Tensor | None = None,
        color_hints: Tensor | None = None,
        strength: float | Tensor = 1.0,
        original: Tensor | None = None,
        seed: int | Sequence[int] | None = None,
    ) -> ChainState:
        """Where the chain starts; with a seed, always the same. Arguments as for `ImageBART.stream`.

        seed: also one for each row, which then samples as a run of its own with that seed would.
        """
        model, shape, device = self.model, (batch, self.model.tokens), self.model.device
        strengths = None
        if isinstance(strength, Tensor):
            _check_strength(strength, shape, keep)
            strengths, kept = strength.to(device).expand(shape), keep.to(device)  # type: ignore[union-attr]
            strength = float(strengths.masked_fill(kept, 0).max()) or 1.0
        steps = self.steps(settings, strength)
        if batch < 1:
            raise ValueError(f"batch of {batch}, expected 1 or more")
        for name, tokens in (("start", start), ("known", known), ("original", original)):
            if tokens is not None:
                check_tokens(name, tokens, shape, model.vocab_size)
        if keep is not None:
            _check_keep(keep, shape)
            if known is None:
                raise ValueError("keep was given without known, the tokens to keep")
        if noise_level is not None:
            _check_noise_level(noise_level, shape, keep)
        if color_hints is not None:
            _check_color_hints(color_hints, (*shape, model.vocab_size), model.color_hint_grid > 0)
            color_hints = color_hints.to(device).expand(batch, -1, -1)
        unconditional = None
        if cond is not None or model.cond_length:
            given = torch.zeros(batch, 0, dtype=torch.long) if cond is None else cond
            check_tokens("cond", given, (batch, model.cond_length), model.conditioner.vocab_size)
        if cond is not None:
            cond = cond.to(device)
            unconditional = model.conditioner.unconditional(batch).to(device) if settings.guidance != 1 else None
        first = secrets.randbits(32) if seed is None else seed
        seeds = range(first, first + batch) if isinstance(first, int) else first
        generators = row_generators(seeds, batch)
        noise = min(strength, 1 - math.prod(1 - step.beta for step in steps))
        if start is not None:
            x = start
        elif noise == 1:
            x = uniform_tokens(model.tokens, model.vocab_size, generators)
        elif known is not None:
            again = row_generators([seed + SEED_OFFSET for seed in seeds], batch)
            x = add_noise_rows(known, noise, model.vocab_size, again)
        else:
            raise ValueError("starting from less than pure noise needs start or known tokens")
        x, levels = x.to(device), torch.ones(shape, device=device)
        if keep is not None and known is not None:
            levels = (~keep).float() if noise_level is None else noise_level.where(~keep, 0.0)
            levels, known = levels.to(device).expand(shape), known.to(device)
            if strengths is not None:  # each token's chance of being masked; else it is that of the image
                again = row_generators([seed + SEED_OFFSET for seed in seeds], batch)
                uniform = uniform_tokens(model.tokens, model.vocab_size, again).to(device)
                chances = torch.stack([torch.rand(model.tokens, generator=rows) for rows in again]).to(device)
                masked = torch.where(levels < 1, known, uniform)
                own = known if original is None else original.to(device)
                known, levels = torch.where(chances < strengths, masked, own), levels * strengths
            x = torch.where(steps[-1].sees(levels), known, x)
        scales = model.scales_of(settings.scales)
        return ChainState(steps, scales, x, levels, generators, cond, unconditional, color_hints)

    def stream(self, state: ChainState, settings: SamplingSettings) -> Iterator[ChainEvent]:
        """Runs the chain, an event a pass of a network."""
        return sample_chain(state, self.packed, settings)


def check_tokens(name: str, tokens: Tensor, shape: tuple[int, int], vocab_size: int) -> None:
    """Raises ValueError unless these are tokens in [0, vocab_size) of a shape."""
    if tuple(tokens.shape) != shape:
        raise ValueError(f"{name} has shape {list(tokens.shape)}, expected {list(shape)}")
    if tokens.dtype != torch.long:
        raise ValueError(f"{name} is of type {tokens.dtype}, expected torch.int64")
    if tokens.numel() and not (int(tokens.min()) >= 0 and int(tokens.max()) < vocab_size):
        raise ValueError(
            f"{name} has tokens from {int(tokens.min())} to {int(tokens.max())}, expected 0 to {vocab_size - 1}"
        )


def _check_keep(keep: Tensor, shape: tuple[int, int]) -> None:
    """Raises ValueError unless this is a bool mask [B, N] or [N]."""
    if tuple(keep.shape) not in (shape, shape[1:]):
        raise ValueError(f"keep has shape {list(keep.shape)}, expected {list(shape)} or [{shape[1]}]")
    if keep.dtype != torch.bool:
        raise ValueError(f"keep is of type {keep.dtype}, expected torch.bool")


def _check_strength(strength: Tensor, shape: tuple[int, int], keep: Tensor | None) -> None:
    """Raises ValueError unless these are strengths, float [B, N] or [N], of known tokens."""
    if keep is None:
        raise ValueError("a strength of each token was given without keep: it is of known tokens that are not kept")
    if tuple(strength.shape) not in (shape, shape[1:]):
        raise ValueError(f"strength has shape {list(strength.shape)}, expected {list(shape)} or [{shape[1]}]")
    own = strength.expand(shape)[~keep.expand(shape)]
    if own.numel() and not (own.min() > 0 and own.max() <= 1):
        raise ValueError(f"strength is from {own.min():g} to {own.max():g}, expected over 0 and at most 1")


def _check_noise_level(noise_level: Tensor, shape: tuple[int, int], keep: Tensor | None) -> None:
    """Raises ValueError unless these are levels, float [B, N] or [N], of known tokens."""
    if keep is None:
        raise ValueError("noise_level was given without keep: it is of tokens that are known and not kept")
    if tuple(noise_level.shape) not in (shape, shape[1:]):
        raise ValueError(f"noise_level has shape {list(noise_level.shape)}, expected {list(shape)} or [{shape[1]}]")
    if not (noise_level.min() >= 0 and noise_level.max() <= 1):
        raise ValueError(f"noise_level is from {noise_level.min():g} to {noise_level.max():g}, expected 0 to 1")


def _check_color_hints(color_hints: Tensor, expected: tuple[int, int, int], takes: bool) -> None:
    """Raises ValueError unless these are the tokens of colors, [B, N, K] or [1, N, K], and the model takes such."""
    if not takes:
        raise ValueError("color_hints was given, but this model takes none")
    if tuple(color_hints.shape) not in (expected, (1, *expected[1:])):
        raise ValueError(f"color_hints has shape {list(color_hints.shape)}, expected {list(expected)}")
