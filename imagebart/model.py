"""ImageBART: a first stage, T stages, their schedule and a conditioner (Esser et al. 2021)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike

import torch
from torch import Tensor, nn

from imagebart.chain import ChainEvent, redraw_rows, row_generators, run_chain, uniform_tokens
from imagebart.conditioning import Conditioner
from imagebart.decoding import Condition
from imagebart.diffusion import Schedule
from imagebart.first_stage import FirstStage
from imagebart.settings import SamplingSettings
from imagebart.stage import Stage


@dataclass(frozen=True)
class About:
    """What people are told of a model, and the settings it is best used with."""

    name: str = ""
    knows: str = ""  # what its training pictures show, in plain words: "avatars"
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    # Words to add to a prompt, by what they describe: {"glasses": ("sunglasses", "no glasses")}.
    suggestions: dict[str, tuple[str, ...]] = field(default_factory=dict)


class ImageBART(nn.Module):
    """The whole model. `stages[t - 1]` is p(x_{t-1} | x_t); N tokens a picture, K different ones."""

    def __init__(
        self,
        first_stage: FirstStage,
        stages: Sequence[Stage],
        schedule: Schedule,
        conditioner: Conditioner,
        about: About | None = None,
    ) -> None:
        super().__init__()
        if len(stages) != schedule.stages:
            raise ValueError(f"{len(stages)} stages, but the schedule has {schedule.stages} betas")
        for t, stage in enumerate(stages, 1):
            if stage.config.t != t or stage.config.vocab_size != first_stage.config.vocab_size:
                raise ValueError(
                    f"stage {t} was made for t = {stage.config.t} and {stage.config.vocab_size} codes, "
                    f"expected t = {t} and the first stage's {first_stage.config.vocab_size}"
                )
        self.first_stage = first_stage
        self.stages: Sequence[Stage] = nn.ModuleList(stages)  # type: ignore[assignment]
        self.schedule = schedule
        self.conditioner = conditioner
        self.about = about or About()
        self.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls, source: str | PathLike[str], device: str = "cpu", dtype: str = "float32"
    ) -> ImageBART:
        """Loads a folder written by `save_pretrained`, a folder of published files, or a published model's name.

        dtype: float16, bfloat16, float32, float64; auto, the fastest without visible loss; or int8: see `weights.load`.
        Nothing that the files name is imported or run. Raises WeightsError naming the file and what is wrong.
        """
        from imagebart.weights import load

        return load(source, device, dtype)

    def save_pretrained(self, folder: str | PathLike[str], dtype: str = "float32") -> None:
        """Writes config.json and safetensors (first stage, stages) to a folder; `dtype` is what is stored."""
        from imagebart.weights import save

        save(self, folder, dtype)

    def prepare(self) -> None:
        """Readies each stage to draw, so that the first run need not; see `imagebart.preparation`."""
        for stage in self.stages:
            stage.prepared()

    @property
    def tokens(self) -> int:
        """N, tokens a picture."""
        return self.stages[0].config.tokens

    @property
    def vocab_size(self) -> int:
        """K, different tokens."""
        return self.first_stage.config.vocab_size

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def sample(
        self,
        batch_size: int = 1,
        cond: Tensor | None = None,
        start: Tensor | None = None,
        known: Tensor | None = None,
        keep: Tensor | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float = 1.0,
        passes: int = 1,
        seed: int | None = None,
        guidance: float = 1.0,
        start_stage: int | None = None,
    ) -> Tensor:
        """Runs the chain; returns x_0, int64 [B, N]. Arguments as for `stream`."""
        settings = SamplingSettings(temperature, top_k, top_p, guidance, passes, start_stage)
        tokens = self.starting_point(batch_size, start, known, keep, settings, seed)
        x = tokens[0]
        for event in self._events(*tokens, cond, settings):
            x = event.tokens
        return x

    def stream(
        self,
        batch_size: int = 1,
        cond: Tensor | None = None,
        start: Tensor | None = None,
        known: Tensor | None = None,
        keep: Tensor | None = None,
        settings: SamplingSettings | None = None,
        seed: int | None = None,
    ) -> Iterator[ChainEvent]:
        """Runs the chain, an event a token; the iterator can be closed at any moment.

        cond: conditioning tokens int64 [B, L]. start: x at the first stage to run (x_T, or x_t for
        `settings.start` = t), int64 [B, N]; drawn where None: noise, or `known` diffused to t. known, keep: tokens
        int64 [B, N] and bool [B, N] or [N], True = keep the known token. seed: row b draws from seed + b.
        Raises ValueError, before the first event, for shapes and tokens that do not fit.
        """
        settings = settings or SamplingSettings()
        return self._events(*self.starting_point(batch_size, start, known, keep, settings, seed), cond, settings)

    def partly_diffused(self, known: Tensor, strength: float, seed: int) -> tuple[Tensor, int]:
        """Where a variation of known tokens [B, N] starts: x with a share `strength` redrawn, and its stage.

        The stage is the finest that expects at least as much noise. Raises ValueError unless 0 < strength <= 1.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength is {strength}, expected over 0 and at most 1")
        noisiest = (t for t in range(1, self.schedule.stages) if 1 - self.schedule.alphacum(t) >= strength)
        stage = next(noisiest, self.schedule.stages)
        # Apart from the chain's own draws, which would follow this noise else. Only 32 bits of a seed count.
        generators = row_generators(seed + 0x9E3779B9, len(known))
        return redraw_rows(known, strength, self.vocab_size, generators), stage

    def starting_point(
        self,
        batch: int,
        start: Tensor | None,
        known: Tensor | None,
        keep: Tensor | None,
        settings: SamplingSettings,
        seed: int | None,
    ) -> tuple[Tensor, Tensor, list[torch.Generator]]:
        """Where the chain starts: x [B, N], what it keeps [B, N], and the rows' generators, which drew the noise.

        Arguments as for `stream`; with a seed, always the same.
        """
        shape = (batch, self.tokens)
        first = settings.start or self.schedule.stages
        if first > self.schedule.stages:
            raise ValueError(f"start stage {first}, expected 1 to {self.schedule.stages}")
        if batch < 1:
            raise ValueError(f"batch of {batch}, expected 1 or more")
        generators = row_generators(secrets.randbits(32) if seed is None else seed, batch)
        for name, tokens in (("start", start), ("known", known)):
            if tokens is not None:
                _check_tokens(name, tokens, shape, self.vocab_size)
        if keep is not None:
            _check_keep(keep, shape)
            if known is None:
                raise ValueError("keep was given without known, the tokens to keep")
        if start is None:
            if first < self.schedule.stages and known is None:
                raise ValueError(f"starting at stage {first} needs start or known tokens")
            start = uniform_tokens(self.tokens, self.vocab_size, generators)
            if first < self.schedule.stages:
                assert known is not None
                start = _mix(known.cpu(), start, self.schedule.alphacum(first), generators)
        start = start.to(self.device)
        if keep is None:
            return start, torch.zeros(shape, dtype=torch.bool, device=self.device), generators
        assert known is not None
        keep = keep.to(self.device).expand(shape)
        return torch.where(keep, known.to(self.device), start), keep, generators

    def _events(
        self,
        start: Tensor,
        keep: Tensor,
        generators: list[torch.Generator],
        cond: Tensor | None,
        settings: SamplingSettings,
    ) -> Iterator[ChainEvent]:
        stage = self.stages[0].config
        if cond is not None or stage.cond_length:
            given = torch.zeros(len(start), 0, dtype=torch.long) if cond is None else cond
            _check_tokens("cond", given, (len(start), stage.cond_length), self.conditioner.vocab_size)
        null = None
        if cond is not None and settings.guidance != 1:
            null = self.conditioner.null(len(start)).to(self.device)
        condition = Condition(None if cond is None else cond.to(self.device), null)
        return run_chain(self.stages, self.schedule, start, keep, condition, settings, generators)


def _check_tokens(name: str, tokens: Tensor, shape: tuple[int, int], vocab_size: int) -> None:
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


def _mix(known: Tensor, noise: Tensor, survive: float, generators: list[torch.Generator]) -> Tensor:
    """q(x_t | x_0) row by row: known tokens survive with a probability, else noise takes their place."""
    stay = [torch.rand(known.shape[1], generator=g) < survive for g in generators]
    return torch.where(torch.stack(stay), known, noise)


