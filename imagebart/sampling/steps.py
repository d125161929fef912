"""What one pass of the chain draws: x_s from x_t, by a published stage or by the denoiser at a pair of noise rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from imagebart.diffusion import reverse_step
from imagebart.models.context import Context, Encode
from imagebart.models.denoiser import Denoiser
from imagebart.models.published import EncoderDecoderStage, Stage
from imagebart.models.transformer import Transformer


class Step(Protocol):
    """A reverse step, x_t to x_s."""

    vocab_size: int  # K
    beta: float  # share of tokens that is redrawn from x_s to x_t

    @property
    def networks(self) -> tuple[Transformer, Transformer | None]:
        """Its decoder, and its encoder if any."""

    def keeps(self, doubt: Tensor) -> Tensor:
        """Which tokens it leaves as they are, bool [B, N].

        doubt: the chance that a token of the start is not the picture's, float [B, N]; 0 where a mask keeps it, 1 where
        nothing is known of it.
        """

    def sees(self, doubt: Tensor) -> Tensor:
        """Which tokens of the start are x_t as far as it is concerned, bool [B, N]."""

    def start(
        self, c: Tensor, doubt: Tensor, cond: Tensor | None, encode: Encode | None, seen: Tensor | None = None
    ) -> Context:
        """Everything that is computed once: x_t = c int64 [B, N], doubt [B, N], cond int64 [B, L] or None.

        encode: computes what its encoder would. seen: the colours of what is kept, bool [B, N, K].
        """

    def finish(self, logits: Tensor, c: Tensor, doubt: Tensor) -> Tensor:
        """The decoder's logits [B, S, K], x_t and its doubt -> logits that temperature and filters act on."""

    def reverse(self, logits: Tensor, c: Tensor, doubt: Tensor) -> Tensor:
        """Filtered logits [B, S, K] -> log p(x_s | x_t = c), up to a constant."""


class StageStep:
    """A published stage, which predicts x_{t-1} itself."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.vocab_size, self.beta = stage.config.vocab_size, stage.config.beta

    @property
    def networks(self) -> tuple[Transformer, Transformer | None]:
        stage = self.stage
        return stage.decoder, stage.encoder if isinstance(stage, EncoderDecoderStage) else None

    def keeps(self, doubt: Tensor) -> Tensor:
        return doubt == 0

    sees = keeps

    def start(
        self, c: Tensor, doubt: Tensor, cond: Tensor | None, encode: Encode | None, seen: Tensor | None = None
    ) -> Context:
        return self.stage.start(c, cond, encode)

    def finish(self, logits: Tensor, c: Tensor, doubt: Tensor) -> Tensor:
        return self.stage.finish(logits, c)

    def reverse(self, logits: Tensor, c: Tensor, doubt: Tensor) -> Tensor:
        return logits


class DenoisingStep:
    """The denoiser from noise rate r_t to r_s: it predicts x_0, from which x_s follows.

    A token that is doubted by less than r_t has that for its rate, and waits for the step whose r_s is lower still.
    """

    def __init__(self, denoiser: Denoiser, rate: float, next_rate: float) -> None:
        if not 0 <= next_rate < rate <= 1:
            raise ValueError(f"a step from rate {rate:g} to {next_rate:g}, expected 0 <= next rate < rate <= 1")
        self.denoiser, self.rate, self.next_rate = denoiser, rate, next_rate
        self.vocab_size = denoiser.config.vocab_size
        self.beta = 1 - (1 - rate) / (1 - next_rate)

    @property
    def networks(self) -> tuple[Transformer, Transformer | None]:
        return self.denoiser.decoder, self.denoiser.encoder

    def keeps(self, doubt: Tensor) -> Tensor:
        return doubt <= self.next_rate

    def sees(self, doubt: Tensor) -> Tensor:
        return (doubt <= self.rate) & (doubt < 1)

    def start(
        self, c: Tensor, doubt: Tensor, cond: Tensor | None, encode: Encode | None, seen: Tensor | None = None
    ) -> Context:
        rates, next_rates = doubt.clamp(max=self.rate), doubt.clamp(max=self.next_rate)
        slots = self.denoiser.read(cond)
        context, encoded = self.denoiser.start(c, rates, next_rates, cond, slots, encode, seen)
        context.drafts = self.finish(self.denoiser.draft_head(encoded), c, doubt)
        return context

    def finish(self, logits: Tensor, c: Tensor, doubt: Tensor) -> Tensor:
        return self.denoiser.finish(logits, c, self._rates(doubt))

    def reverse(self, logits: Tensor, c: Tensor, doubt: Tensor) -> Tensor:
        if self.next_rate == 0:
            return logits  # x_s is x_0
        return reverse_step(logits.softmax(-1), c, self._rates(doubt), self.next_rate).log()

    def _rates(self, doubt: Tensor) -> Tensor:
        """Of the tokens that are drawn; r_t for the others, of which nothing is asked."""
        return torch.where(self.keeps(doubt), self.rate, doubt.clamp(max=self.rate))


def denoising_steps(denoiser: Denoiser, scales: int, rate: float = 1.0) -> list[DenoisingStep]:
    """Steps of the denoiser from a noise rate down to 0, finest first, each losing as many tokens (geometric betas)."""
    rates = [rate * t / scales for t in range(scales + 1)]
    return [DenoisingStep(denoiser, rates[t], rates[t - 1]) for t in range(1, scales + 1)]


def stage_steps(stages: Sequence[Stage]) -> list[StageStep]:
    """Published stages as steps, t = 1 first."""
    return [StageStep(stage) for stage in stages]
