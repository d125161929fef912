"""What one pass of the chain draws: x_s from x_t, by a published stage or by the denoiser at a pair of noise rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from imagebart.diffusion import reverse_step
from imagebart.models.denoiser import Denoiser
from imagebart.models.stages import EncoderDecoderStage, Stage
from imagebart.models.transformer import Context, Encode, Transformer
from imagebart.sampling.logits import guided
from imagebart.sampling.packed_linear import Engine, Network, threads


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


# A step being drawn: its networks, what they have kept, and guidance.


@dataclass(frozen=True)
class Condition:
    """What a run is told besides its tokens; None where a model is told nothing."""

    cond: Tensor | None  # conditioning tokens, int64 [B, L]
    null: Tensor | None  # those of an absent condition, for guidance
    seen: Tensor | None = None  # the colours of what is kept, bool [B, N, K]: see `masked.glance`

    def select(self, rows: Tensor) -> Condition:
        """Of some rows, int64 [B']."""
        return Condition(*(part if part is None else part[rows] for part in (self.cond, self.null, self.seen)))


def _encode(network: Network, tokens: Tensor, extra: Tensor | None) -> Tensor:
    """An encoder's output for tokens [B, S]."""
    return network.forward(tokens, [0] * len(tokens), network.new_cache(len(tokens)), extra=extra)


class StepRun:
    """A step being drawn, some positions at a time.

    The decoder takes positions of its own: it is fed token i of [prefix, x] at its position i, and predicts position n
    of x at its position `first` + n.
    """

    def __init__(
        self, step: Step, engine: Engine, c: Tensor, doubt: Tensor, cond: Tensor | None, seen: Tensor | None = None
    ) -> None:
        self.step, self.engine, self.decoder = step, engine, engine.decoder
        encoder = engine.encoder
        encode = None if encoder is None else lambda tokens, extra: _encode(encoder, tokens, extra)
        with torch.autocast(c.device.type, torch.bfloat16, enabled=engine.rounds):
            context = step.start(c, doubt, cond, encode, seen)
        given = self.decoder.transformer.position_embedding.dtype
        self.context = context.of_types(self.decoder.kept.dtype, given)
        self.cache = self.decoder.new_cache(len(c))
        self.first = self.context.prefix.shape[1] - 1
        self.doubt = doubt

    def known(self, begins: list[int], length: int) -> tuple[Tensor, Tensor]:
        """x_t at the positions that these of the decoder predict, int64 [B, length], and its doubt."""
        device = self.doubt.device
        steps = torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
        places = (steps - self.first).clamp(min=0)
        return self.context.noisy.gather(1, places), self.doubt.gather(1, places)

    def logits(self, x: Tensor, begins: list[int], length: int, skip: int = 0) -> Tensor:
        """Feeds `length` tokens, row b's from the decoder's position begins[b] on; x int64 [B, N] holds them.

        Returns what all but the first `skip` predict, logits [B, length - skip, K]. Tokens before a row's first must
        have been fed as x has them now; one can be fed again, and then counts anew.
        """
        context, device = self.context, x.device
        positions = torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
        fed = torch.cat([context.prefix, x[:, :-1]], 1).gather(1, positions)
        rows = torch.arange(len(x), device=device)[:, None]
        extra = None if context.extra is None else context.extra[rows, positions]
        assert self.decoder.head is not None
        with threads(self.engine.threads(positions.numel())):
            hidden = self.decoder.forward(fed, begins, self.cache, context.memory, extra)[:, skip:]
            logits = self.decoder.head(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)
        known = self.known([begin + skip for begin in begins], length - skip)
        return self.step.finish(logits.to(hidden.dtype), *known)

    def select(self, rows: Tensor) -> None:
        """Goes on with some of the rows, int64 [B']."""
        self.context.select(rows)
        self.doubt = self.doubt[rows]
        self.cache.select(rows)


class GuidedRun:
    """A step being drawn under classifier-free guidance, in a batch of twice the size.

    With guidance 1, or without a condition, the step itself.
    """

    def __init__(
        self, step: Step, engine: Engine, c: Tensor, doubt: Tensor, condition: Condition, guidance: float
    ) -> None:
        self.guidance = guidance
        cond, seen = condition.cond, condition.seen
        self.guided = guidance != 1 and cond is not None and cond.shape[1] > 0
        if self.guided:
            if condition.null is None:
                raise ValueError("guidance needs a model that was trained with its condition dropped at random")
            assert cond is not None
            c, doubt, cond = torch.cat([c, c]), torch.cat([doubt, doubt]), torch.cat([cond, condition.null])
            seen = None if seen is None else torch.cat([seen, seen])
        self.run = StepRun(step, engine, c, doubt, cond, seen)
        self.first = self.run.first

    @property
    def rows(self) -> int:
        """Of the batch that the decoder is fed."""
        return len(self.run.context.noisy)

    def known(self, begins: list[int], length: int) -> tuple[Tensor, Tensor]:
        """As `StepRun.known`."""
        c, doubt = self.run.known(begins + begins if self.guided else begins, length)
        return c[: len(begins)], doubt[: len(begins)]

    @property
    def drafts(self) -> Tensor | None:
        """Logits of every token at once, [B, N, K], if the step has any."""
        drafts = self.run.context.drafts
        return drafts if drafts is None or not self.guided else guided(drafts, self.guidance)

    def logits(self, x: Tensor, begins: list[int], length: int, skip: int) -> Tensor:
        """As `StepRun.logits`."""
        if not self.guided:
            return self.run.logits(x, begins, length, skip)
        return guided(self.run.logits(torch.cat([x, x]), begins + begins, length, skip), self.guidance)

    def select(self, rows: Tensor, batch: int) -> None:
        """Goes on with some rows of a batch."""
        self.run.select(torch.cat([rows, rows + batch]) if self.guided else rows)
