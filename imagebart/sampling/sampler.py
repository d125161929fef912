"""The reverse chain: steps T ... 1, coarse to fine, with forward-backward repeats (ImageBART, section 3.4)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imagebart.diffusion import add_uniform_noise
from imagebart.errors import InputError
from imagebart.models.imagebart import ImageBART
from imagebart.sampling.logits import gumbel_noise
from imagebart.sampling.packed_linear import PackedModel, PackedModels
from imagebart.sampling.speculative import draw_step
from imagebart.sampling.steps import Condition, Step, denoising_steps, stage_steps
from imagebart.settings import SamplingSettings


@dataclass(frozen=True)
class ChainEvent:
    """Where the chain is. Positions not yet drawn in this pass hold drafts: x_t, and then what is guessed of x_s."""

    stage: int  # t, from T down to 1
    stages: int  # T
    resample_index: int  # from 0
    resamples: int
    position: int  # tokens drawn in this pass
    total: int  # tokens to draw in this pass
    tokens: Tensor  # int64 [B, N]
    done: bool  # the pass is finished
    nfe: int = 0  # of the decoder in this pass, so far


def row_generators(seed: int, batch: int) -> list[torch.Generator]:
    """Row b draws as a run of its own with seed + b would."""
    return [torch.Generator().manual_seed((seed + row) % 2**63) for row in range(batch)]


def uniform_tokens(tokens: int, vocab_size: int, generators: list[torch.Generator]) -> Tensor:
    """x_T: uniform noise, int64 [B, N]."""
    return torch.stack([torch.randint(vocab_size, (tokens,), generator=g) for g in generators])


def add_noise_rows(x: Tensor, probability: float, vocab_size: int, generators: list[torch.Generator]) -> Tensor:
    """Draws each token anew with a probability, row b with generator b."""
    rows = [add_uniform_noise(row.cpu(), probability, vocab_size, g) for row, g in zip(x, generators, strict=True)]
    return torch.stack(rows).to(x.device)


@torch.no_grad()
def run_chain(
    steps: Sequence[Step],
    packed_model: Callable[[Step], PackedModel],
    start: Tensor,
    noise_level: Tensor,
    condition: Condition,
    settings: SamplingSettings,
    generators: list[torch.Generator],
) -> Iterator[ChainEvent]:
    """From x_T down to x_0; an event after every pass of a network, the last holds x_0.

    steps: t = 1 first; packed_model: of a step. start int64 [B, N] is x at the last of them, with the known tokens
    where noise_level, float [B, N] (see `Step.keeps`), is below 1. Repeat r of n first adds noise to
    its result, with probability (1 - r/n) beta_t. The iterator can be closed at any moment.
    """
    known, x = start, start
    for t in range(len(steps), 0, -1):
        step, own = steps[t - 1], settings.at(t)
        for repeat in range(settings.resamples):
            if repeat:
                x = add_noise_rows(x, (1 - repeat / settings.resamples) * step.beta, step.vocab_size, generators)
            x_t = torch.where(step.sees(noise_level), known, x)
            noise = gumbel_noise((start.shape[1], step.vocab_size), generators).to(start.device)
            for drawn in draw_step(step, packed_model(step), x_t, None, noise_level, condition, own, noise):
                x, done = drawn.tokens, drawn.position == drawn.total
                yield ChainEvent(
                    t, len(steps), repeat, settings.resamples, drawn.position, drawn.total, x, done, drawn.nfe
                )


# Drawing from a whole model: where the chain starts, which steps it takes, and the packed_models that draw them.


APART = 0x9E3779B9  # added to a seed: what starts a variation must not be the chain's own draws


@dataclass(frozen=True)
class Start:
    """Where a chain starts."""

    steps: Sequence[Step]  # to run, t = 1 first
    scales: int  # T, of which these are the last
    x: Tensor  # x at the last of them, with the known tokens where they are kept, int64 [B, N]
    noise_level: Tensor  # of each token of x, float [B, N]: 0 where it is kept, 1 where nothing is known
    generators: list[torch.Generator]  # of the rows, which drew x
    color_hints: Tensor | None = None  # the colours of what is kept, bool [B, N, K]: see `imagebart.inpainting`

    @property
    def total(self) -> int:
        """Tokens to draw in a pass."""
        return int((~self.steps[-1].keeps(self.noise_level)).any(0).sum())


class Sampler:
    """Draws from a model."""

    def __init__(self, model: ImageBART) -> None:
        self.model, self.packed_models = model, PackedModels()

    def prepare(self) -> None:
        """Readies the networks to draw, so that the first run need not: those that it needs first, if not all fit."""
        for step in reversed(self.steps(SamplingSettings())):
            if not self.packed_models.has_room(self.model.precision, *step.networks):
                return
            self.packed_model(step)

    def packed_model(self, step: Step) -> PackedModel:
        """What draws a step."""
        return self.packed_models.get(self.model.precision, *step.networks)

    def steps(self, settings: SamplingSettings, strength: float = 1.0) -> Sequence[Step]:
        """The chain's steps, t = 1 first, from a share `strength` of noise; raises ValueError for those it has not.

        A model of stages begins with the finest that expects at least as much noise. `settings.start` leaves out those
        before it.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength is {strength}, expected over 0 and at most 1")
        scales = self.model.scales_of(settings.scales)
        settings.check_scales(scales)
        if settings.start is not None and settings.start > scales:
            raise InputError(f"The first stage is {settings.start}; there are {scales}.")
        if self.model.denoiser is not None:
            return denoising_steps(self.model.denoiser, scales, strength)[: settings.start]
        noisy = [t for t in range(1, scales) if 1 - self.model.schedule.alphacum(t) >= strength]
        first = noisy[0] if noisy else scales
        return stage_steps(self.model.stages[: min(first, settings.start or first)])

    def start(
        self,
        batch: int,
        settings: SamplingSettings,
        x: Tensor | None = None,
        known: Tensor | None = None,
        keep: Tensor | None = None,
        strength: float = 1.0,
        seed: int | None = None,
        noise_level: Tensor | None = None,
        color_hints: Tensor | None = None,
    ) -> Start:
        """Where the chain starts; with a seed, always the same. Arguments as for `ImageBART.stream`."""
        model, shape = self.model, (batch, self.model.tokens)
        steps, scales = self.steps(settings, strength), model.scales_of(settings.scales)
        if batch < 1:
            raise ValueError(f"batch of {batch}, expected 1 or more")
        seed = secrets.randbits(32) if seed is None else seed
        generators = row_generators(seed, batch)
        for name, tokens in (("start", x), ("known", known)):
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
            color_hints = color_hints.to(model.device).expand(batch, -1, -1)
        noise = min(strength, 1 - math.prod(1 - step.beta for step in steps))
        if x is None and noise < 1:
            if known is None:
                raise ValueError("starting from less than pure noise needs start or known tokens")
            x = add_noise_rows(known, noise, model.vocab_size, row_generators(seed + APART, batch))
        x = uniform_tokens(model.tokens, model.vocab_size, generators) if x is None else x
        x = x.to(model.device)
        if keep is None or known is None:
            return Start(steps, scales, x, torch.ones(shape, device=model.device), generators, color_hints)
        drawn = (~keep).float() if noise_level is None else noise_level.where(~keep, 0.0)
        drawn = drawn.to(model.device).expand(shape)
        x = torch.where(steps[-1].sees(drawn), known.to(model.device), x)
        return Start(steps, scales, x, drawn, generators, color_hints)

    def stream(self, start: Start, cond: Tensor | None, settings: SamplingSettings) -> Iterator[ChainEvent]:
        """Runs the chain from a start; cond: conditioning tokens int64 [B, L]. Raises ValueError where they misfit."""
        model = self.model
        if cond is not None or model.cond_length:
            given = torch.zeros(len(start.x), 0, dtype=torch.long) if cond is None else cond
            check_tokens("cond", given, (len(start.x), model.cond_length), model.conditioner.vocab_size)
        unconditional = None
        if cond is not None and settings.guidance != 1:
            unconditional = model.conditioner.unconditional(len(start.x)).to(model.device)
        condition = Condition(None if cond is None else cond.to(model.device), unconditional, start.color_hints)
        chain = run_chain(
            start.steps, self.packed_model, start.x, start.noise_level, condition, settings, start.generators
        )
        return (replace(event, stages=start.scales) for event in chain)


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


def _check_noise_level(noise_level: Tensor, shape: tuple[int, int], keep: Tensor | None) -> None:
    """Raises ValueError unless these are chances, float [B, N] or [N], of tokens of which some may be kept."""
    if keep is None:
        raise ValueError("noise_level was given without keep: it is of tokens that are known and not kept")
    if tuple(noise_level.shape) not in (shape, shape[1:]):
        raise ValueError(f"noise_level has shape {list(noise_level.shape)}, expected {list(shape)} or [{shape[1]}]")
    if not (noise_level.min() >= 0 and noise_level.max() <= 1):
        raise ValueError(f"noise_level is from {noise_level.min():g} to {noise_level.max():g}, expected 0 to 1")


def _check_color_hints(color_hints: Tensor, expected: tuple[int, int, int], takes: bool) -> None:
    """Raises ValueError unless these are the tokens of colours, [B, N, K] or [1, N, K], and the model takes such."""
    if not takes:
        raise ValueError("color_hints was given, but this model takes none")
    if tuple(color_hints.shape) not in (expected, (1, *expected[1:])):
        raise ValueError(f"color_hints has shape {list(color_hints.shape)}, expected {list(expected)}")
