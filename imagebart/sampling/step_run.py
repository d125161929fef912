"""A step being drawn: its networks, what they have kept, and guidance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imagebart.sampling.calibration import threads
from imagebart.sampling.engine import Engine
from imagebart.sampling.logits import guided
from imagebart.sampling.network import Network
from imagebart.sampling.steps import Step


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
