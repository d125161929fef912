"""One step of the chain, x_t to x_s: by a published stage, or by the denoiser between two noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from imagebart.diffusion import reverse_step
from imagebart.models.denoiser import Denoiser, DenoiserInput
from imagebart.models.stages import EncoderDecoderStage, Stage
from imagebart.models.transformer import DecoderInput, Encode, Transformer
from imagebart.sampling.logits import guided
from imagebart.sampling.packed_linear import PackedModel, use_threads


class Step(Protocol):
    """A reverse step, x_t to x_s."""

    vocab_size: int  # K
    beta: float  # share of tokens that is redrawn from x_s to x_t

    @property
    def networks(self) -> tuple[Transformer, Transformer | None]:
        """Its decoder, and its encoder if any."""

    def keeps(self, noise_level: Tensor) -> Tensor:
        """Which tokens it leaves as they are, bool [B, N].

        noise_level: the probability that a known token is not the image's, float [B, N]; 0 where a mask keeps it, 1
        where nothing is known of it.
        """

    def sees(self, noise_level: Tensor) -> Tensor:
        """Which tokens of the start are x_t as far as it is concerned, bool [B, N]."""

    def prepare(
        self,
        x_t: Tensor,
        noise_level: Tensor,
        cond: Tensor | None,
        encode: Encode | None,
        color_hints: Tensor | None = None,
    ) -> DecoderInput:
        """Everything that is computed once: x_t int64 [B, N], noise_level [B, N], cond int64 [B, L] or None.

        encode: computes what its encoder would. color_hints: the colours of what is kept, bool [B, N, K].
        """

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        """The decoder's logits [B, S, K], x_t and its noise_level -> logits that temperature and filters act on."""

    def reverse(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        """Filtered logits [B, S, K] -> log p(x_s | x_t), up to a constant."""


class StageStep:
    """A published stage, which predicts x_{t-1} itself."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.vocab_size, self.beta = stage.config.vocab_size, stage.config.beta

    @property
    def networks(self) -> tuple[Transformer, Transformer | None]:
        stage = self.stage
        return stage.decoder, stage.encoder if isinstance(stage, EncoderDecoderStage) else None

    def keeps(self, noise_level: Tensor) -> Tensor:
        return noise_level == 0

    sees = keeps

    def prepare(
        self,
        x_t: Tensor,
        noise_level: Tensor,
        cond: Tensor | None,
        encode: Encode | None,
        color_hints: Tensor | None = None,
    ) -> DecoderInput:
        return self.stage.prepare(x_t, cond, encode)

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        return self.stage.add_x_t_evidence(logits, x_t)

    def reverse(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        return logits


class DenoisingStep:
    """The denoiser from noise level noise_t to noise_s: it predicts x_0, from which x_s follows.

    A token whose own level is below noise_t keeps it, and waits for the step whose noise_s is lower still.
    """

    def __init__(self, denoiser: Denoiser, noise_t: float, noise_s: float) -> None:
        if not 0 <= noise_s < noise_t <= 1:
            raise ValueError(f"a step from noise {noise_t:g} to {noise_s:g}, expected 0 <= noise_s < noise_t <= 1")
        self.denoiser, self.noise_t, self.noise_s = denoiser, noise_t, noise_s
        self.vocab_size = denoiser.config.vocab_size
        self.beta = 1 - (1 - noise_t) / (1 - noise_s)

    @property
    def networks(self) -> tuple[Transformer, Transformer | None]:
        return self.denoiser.decoder, self.denoiser.encoder

    def keeps(self, noise_level: Tensor) -> Tensor:
        return noise_level <= self.noise_s

    def sees(self, noise_level: Tensor) -> Tensor:
        return (noise_level <= self.noise_t) & (noise_level < 1)

    def prepare(
        self,
        x_t: Tensor,
        noise_level: Tensor,
        cond: Tensor | None,
        encode: Encode | None,
        color_hints: Tensor | None = None,
    ) -> DecoderInput:
        noise_t, noise_s = noise_level.clamp(max=self.noise_t), noise_level.clamp(max=self.noise_s)
        context, encoded = self.denoiser.prepare(DenoiserInput(x_t, noise_t, noise_s, cond, color_hints), encode)
        context.drafts = self.add_x_t_evidence(self.denoiser.draft_head(encoded), x_t, noise_level)
        return context

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        return self.denoiser.add_x_t_evidence(logits, x_t, self._noise_t(noise_level))

    def reverse(self, logits: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
        if self.noise_s == 0:
            return logits  # x_s is x_0
        return reverse_step(logits.softmax(-1), x_t, self._noise_t(noise_level), self.noise_s).log()

    def _noise_t(self, noise_level: Tensor) -> Tensor:
        """Of the tokens that are drawn; r_t for the others, of which nothing is asked."""
        return torch.where(self.keeps(noise_level), self.noise_t, noise_level.clamp(max=self.noise_t))


def denoising_steps(denoiser: Denoiser, scales: int, noise_t: float = 1.0) -> list[DenoisingStep]:
    """Steps of the denoiser from a noise rate down to 0, finest first, each losing as many tokens (geometric betas)."""
    levels = [noise_t * t / scales for t in range(scales + 1)]
    return [DenoisingStep(denoiser, levels[t], levels[t - 1]) for t in range(1, scales + 1)]


def stage_steps(stages: Sequence[Stage]) -> list[StageStep]:
    """Published stages as steps, t = 1 first."""
    return [StageStep(stage) for stage in stages]


@dataclass(frozen=True)
class ChainState:
    """Where a chain starts: B images of N tokens, and what they are conditioned on."""

    steps: Sequence[Step]  # to run, t = 1 first
    scales: int  # T, of which these are the last
    x: Tensor  # x at the last of them, with the known tokens where they are visible, int64 [B, N]
    noise_level: Tensor  # of each token of x, float [B, N]: 0 where it is kept, 1 where nothing is known
    generators: list[torch.Generator]  # of the rows
    cond: Tensor | None = None  # conditioning tokens, int64 [B, L]
    unconditional: Tensor | None = None  # those of an absent condition, int64 [B, L], for guidance
    color_hints: Tensor | None = None  # colors of kept parts, bool [B, N, K]: see `imagebart.inpainting`

    @property
    def total(self) -> int:
        """Tokens to sample in a pass of the coarsest step."""
        return int((~self.steps[-1].keeps(self.noise_level)).any(0).sum())

    def select(self, rows: Tensor) -> ChainState:
        """The conditions, x and noise levels of some rows, int64 [B']."""
        parts = {name: getattr(self, name) for name in ("x", "noise_level", "cond", "unconditional", "color_hints")}
        return replace(self, **{name: part[rows] for name, part in parts.items() if part is not None})


class StepRun:
    """A step while its tokens are sampled, some positions at a time; under guidance in a batch of twice the size.

    The decoder has positions of its own: it gets token i of [prefix, x_s] at its position i, and predicts position n of
    x_s at its position `first` + n.
    """

    def __init__(self, step: Step, packed: PackedModel, state: ChainState, guidance: float = 1.0) -> None:
        """state: its x is x_t."""
        self.step, self.packed, self.guidance = step, packed, guidance
        self.x_t, self.noise_level, cond = state.x, state.noise_level, state.cond
        self.guided = guidance != 1 and cond is not None and cond.shape[1] > 0
        if self.guided:
            if state.unconditional is None:
                raise ValueError("guidance needs a model that was trained with its condition dropped at random")
            assert cond is not None
            cond = torch.cat([cond, state.unconditional])
        hints = None if state.color_hints is None else self._both(state.color_hints)
        with torch.autocast(self.x_t.device.type, torch.bfloat16, enabled=packed.rounds):
            given = step.prepare(self._both(self.x_t), self._both(self.noise_level), cond, packed.encoder, hints)
        self.given = given.to(packed.kv_like.dtype, packed.decoder.position_embedding.dtype)
        self.cache = packed.new_cache(len(given.prefix))
        self.first = given.prefix.shape[1] - 1

    @property
    def rows(self) -> int:
        """Of the decoder's batch."""
        return len(self.given.prefix)

    @property
    def drafts(self) -> Tensor | None:
        """Logits of every token at once, [B, N, K], if the step has any."""
        drafts = self.given.drafts
        return guided(drafts, self.guidance) if self.guided and drafts is not None else drafts

    def known(self, begins: list[int], length: int) -> tuple[Tensor, Tensor]:
        """x_t at the positions that these of the decoder predict, int64 [B, length], and its noise levels."""
        device = self.x_t.device
        positions = torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
        places = (positions - self.first).clamp(min=0)
        return self.x_t.gather(1, places), self.noise_level.gather(1, places)

    def logits(self, x_s: Tensor, begins: list[int], length: int, skip: int = 0) -> Tensor:
        """Runs the decoder over `length` tokens, row b's from its position begins[b] on; x_s int64 [B, N] holds them.

        Returns what all but the first `skip` predict, logits [B, length - skip, K]. Tokens before a row's first must
        have been run as x_s has them now; one can be run again, and then replaces what it was.
        """
        x_t, noise_level = self.known([begin + skip for begin in begins], length - skip)
        if self.guided:
            begins = begins + begins
        given, device = self.given, x_s.device
        positions = torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
        tokens = torch.cat([given.prefix, self._both(x_s)[:, :-1]], 1).gather(1, positions)
        rows = torch.arange(len(tokens), device=device)[:, None]
        added_embeds = None if given.added_embeds is None else given.added_embeds[rows, positions]
        decoder = self.packed.decoder
        assert decoder.head is not None
        with use_threads(self.packed.threads):
            hidden = decoder(tokens, added_embeds, given.cross_kv, self.cache, begins)[:, skip:]
            logits = decoder.head(hidden).to(hidden.dtype)
        logits = self.step.add_x_t_evidence(logits, self._both(x_t), self._both(noise_level))
        return guided(logits, self.guidance) if self.guided else logits

    def select(self, rows: Tensor) -> None:
        """Goes on with some of the rows, int64 [B']."""
        both = torch.cat([rows, rows + len(self.x_t)]) if self.guided else rows
        self.given.select(both)
        self.cache.select(both)
        self.x_t, self.noise_level = self.x_t[rows], self.noise_level[rows]

    def _both(self, rows: Tensor) -> Tensor:
        """Rows with the condition, and again for those without it."""
        return torch.cat([rows, rows]) if self.guided else rows
