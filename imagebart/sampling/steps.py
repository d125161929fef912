"""What one pass of the chain draws: x_s from x_t, by a published stage or by the denoiser at a pair of noise rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from imagebart.diffusion import reverse_step
from imagebart.models.denoiser import Denoiser, DenoiserInput
from imagebart.models.stages import EncoderDecoderStage, Stage
from imagebart.models.transformer import DecoderInput, Encode, Transformer
from imagebart.sampling.logits import guided
from imagebart.sampling.packed_linear import Network, PackedModel, threads


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


# A step being drawn: its networks, what they have kept, and guidance.


@dataclass(frozen=True)
class Condition:
    """What a run is told besides its tokens; None where a model is told nothing."""

    cond: Tensor | None  # conditioning tokens, int64 [B, L]
    unconditional: Tensor | None  # those of an absent condition, for guidance
    color_hints: Tensor | None = None  # the colours of what is kept, bool [B, N, K]: see `imagebart.inpainting`

    def select(self, rows: Tensor) -> Condition:
        """Of some rows, int64 [B']."""
        return Condition(
            *(part if part is None else part[rows] for part in (self.cond, self.unconditional, self.color_hints))
        )


def _encode(network: Network, tokens: Tensor, added_embeds: Tensor | None) -> Tensor:
    """An encoder's output for tokens [B, S]."""
    return network.forward(tokens, [0] * len(tokens), network.new_cache(len(tokens)), added_embeds=added_embeds)


class StepRun:
    """A step being drawn, some positions at a time.

    The decoder takes positions of its own: it is fed token i of [prefix, x_s] at its position i, and predicts position
    n of x_s at its position `first` + n.
    """

    def __init__(
        self,
        step: Step,
        packed_model: PackedModel,
        x_t: Tensor,
        noise_level: Tensor,
        cond: Tensor | None,
        color_hints: Tensor | None = None,
    ) -> None:
        self.step, self.packed_model, self.decoder = step, packed_model, packed_model.decoder
        encoder = packed_model.encoder
        encode = None if encoder is None else lambda tokens, added_embeds: _encode(encoder, tokens, added_embeds)
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=packed_model.rounds):
            context = step.prepare(x_t, noise_level, cond, encode, color_hints)
        given = self.decoder.transformer.position_embedding.dtype
        self.context = context.of_types(self.decoder.kept.dtype, given)
        self.cache = self.decoder.new_cache(len(x_t))
        self.first = self.context.prefix.shape[1] - 1
        self.noise_level = noise_level

    def known(self, begins: list[int], length: int) -> tuple[Tensor, Tensor]:
        """x_t at the positions that these of the decoder predict, int64 [B, length], and its noise_level."""
        device = self.noise_level.device
        steps = torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
        places = (steps - self.first).clamp(min=0)
        return self.context.x_t.gather(1, places), self.noise_level.gather(1, places)

    def logits(self, x_s: Tensor, begins: list[int], length: int, skip: int = 0) -> Tensor:
        """Feeds `length` tokens, row b's from the decoder's position begins[b] on; x_s int64 [B, N] holds them.

        Returns what all but the first `skip` predict, logits [B, length - skip, K]. Tokens before a row's first must
        have been fed as x_s has them now; one can be fed again, and then counts anew.
        """
        context, device = self.context, x_s.device
        positions = torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
        fed = torch.cat([context.prefix, x_s[:, :-1]], 1).gather(1, positions)
        rows = torch.arange(len(x_s), device=device)[:, None]
        added_embeds = None if context.added_embeds is None else context.added_embeds[rows, positions]
        assert self.decoder.head is not None
        with threads(self.packed_model.threads(positions.numel())):
            hidden = self.decoder.forward(fed, begins, self.cache, context.cross_kv, added_embeds)[:, skip:]
            logits = self.decoder.head(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)
        known = self.known([begin + skip for begin in begins], length - skip)
        return self.step.add_x_t_evidence(logits.to(hidden.dtype), *known)

    def select(self, rows: Tensor) -> None:
        """Goes on with some of the rows, int64 [B']."""
        self.context.select(rows)
        self.noise_level = self.noise_level[rows]
        self.cache.select(rows)


class GuidedRun:
    """A step being drawn under classifier-free guidance, in a batch of twice the size.

    With guidance 1, or without a condition, the step itself.
    """

    def __init__(
        self,
        step: Step,
        packed_model: PackedModel,
        x_t: Tensor,
        noise_level: Tensor,
        condition: Condition,
        guidance: float,
    ) -> None:
        self.guidance = guidance
        cond, color_hints = condition.cond, condition.color_hints
        self.guided = guidance != 1 and cond is not None and cond.shape[1] > 0
        if self.guided:
            if condition.unconditional is None:
                raise ValueError("guidance needs a model that was trained with its condition dropped at random")
            assert cond is not None
            x_t, noise_level = torch.cat([x_t, x_t]), torch.cat([noise_level, noise_level])
            cond = torch.cat([cond, condition.unconditional])
            color_hints = None if color_hints is None else torch.cat([color_hints, color_hints])
        self.run = StepRun(step, packed_model, x_t, noise_level, cond, color_hints)
        self.first = self.run.first

    @property
    def rows(self) -> int:
        """Of the batch that the decoder is fed."""
        return len(self.run.context.x_t)

    def known(self, begins: list[int], length: int) -> tuple[Tensor, Tensor]:
        """As `StepRun.known`."""
        x_t, noise_level = self.run.known(begins + begins if self.guided else begins, length)
        return x_t[: len(begins)], noise_level[: len(begins)]

    @property
    def drafts(self) -> Tensor | None:
        """Logits of every token at once, [B, N, K], if the step has any."""
        drafts = self.run.context.drafts
        return drafts if drafts is None or not self.guided else guided(drafts, self.guidance)

    def logits(self, x_s: Tensor, begins: list[int], length: int, skip: int) -> Tensor:
        """As `StepRun.logits`."""
        if not self.guided:
            return self.run.logits(x_s, begins, length, skip)
        return guided(self.run.logits(torch.cat([x_s, x_s]), begins + begins, length, skip), self.guidance)

    def select(self, rows: Tensor, batch: int) -> None:
        """Goes on with some rows of a batch."""
        self.run.select(torch.cat([rows, rows + batch]) if self.guided else rows)
