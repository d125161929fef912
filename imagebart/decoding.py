"""Drawing the tokens of one stage in raster order, many at once, with the outcome of one by one.

A token is argmax(filtered logits + noise), and the noise of every position is fixed before the first is drawn. So
drawing one by one has a single outcome, and whatever finds it is exact (predictive sampling, Wiggers and Hoogeboom,
ICML 2020). Each pass feeds a window of drafts: first x_t, whose tokens mostly stay, then what the last pass predicted.
Its predictions are right up to and including the first that differs from its draft. Tokens that the mask keeps are
drafts that are always right; after the last unknown token nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from imagebart.settings import SamplingSettings
from imagebart.stage import Stage, StageRun
from imagebart.windows import Adaptive, Windows


@dataclass(frozen=True)
class Condition:
    """Conditioning tokens [B, L] and those of an absent condition, for guidance; None where a model has none."""

    cond: Tensor | None
    null: Tensor | None


def gumbel_noise(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """Gumbel noise [B, *shape], row b from generator b: a row's draws do not depend on the rows beside it."""
    rows = [torch.empty(shape).exponential_(generator=generator) for generator in generators]
    return -torch.stack(rows).log()


def filter_logits(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Temperature, top-k and top-p: logits [..., K] -> float32 [..., K], excluded tokens at -inf."""
    logits = logits.float() / settings.temperature
    if settings.top_k is not None and settings.top_k < logits.shape[-1]:
        least = logits.topk(settings.top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if settings.top_p is not None and settings.top_p < 1:
        ordered, order = logits.softmax(-1).sort(descending=True)
        before = ordered.cumsum(-1) - ordered  # the likeliest token always stays
        excluded = (before >= settings.top_p).scatter(-1, order, before >= settings.top_p)
        logits = logits.masked_fill(excluded, -torch.inf)
    return logits


def draw(logits: Tensor, noise: Tensor, settings: SamplingSettings) -> Tensor:
    """Draws from softmax(filtered logits) by the Gumbel-max trick: logits, noise [..., K] -> tokens [...]."""
    return (filter_logits(logits, settings) + noise).argmax(-1)


class GuidedRun:
    """A stage being drawn under classifier-free guidance: null + guidance (cond - null), in a batch of twice the size.

    With guidance 1, or without a condition, the stage itself.
    """

    def __init__(self, stage: Stage, c: Tensor, condition: Condition, guidance: float) -> None:
        self.guidance = guidance
        cond = condition.cond
        self.guided = guidance != 1 and cond is not None and cond.shape[1] > 0
        if self.guided:
            if condition.null is None:
                raise ValueError("guidance needs a model that was trained with its condition dropped at random")
            assert cond is not None
            c, cond = torch.cat([c, c]), torch.cat([cond, condition.null])
        self.run = StageRun(stage, c, cond)

    def logits(self, x: Tensor, begins: list[int], length: int, skip: int) -> Tensor:
        """As `StageRun.logits`."""
        if not self.guided:
            return self.run.logits(x, begins, length, skip)
        logits = self.run.logits(torch.cat([x, x]), begins + begins, length, skip)
        with_cond, without = logits.float().chunk(2)
        return without + self.guidance * (with_cond - without)

    def select(self, rows: Tensor, batch: int) -> None:
        """Goes on with some rows of a batch."""
        self.run.select(torch.cat([rows, rows + batch]) if self.guided else rows)


@dataclass(frozen=True)
class Drawn:
    """x_{t-1} as far as it is drawn; the tensor is the caller's to keep."""

    tokens: Tensor  # int64 [B, N]; what is not drawn yet holds what was given
    position: int  # tokens drawn, of every row
    total: int
    forwards: int  # passes of the decoder so far


class _Row:
    """Where a row stands. Tokens before `settled` are final, and it is unknown unless all are."""

    def __init__(self, index: int, tokens: list[int], keep: list[bool]) -> None:
        self.index = index
        self.drafts, self.keep = tokens, keep
        self.end = max((i + 1 for i, kept in enumerate(keep) if not kept), default=0)
        self.steps = 0  # of the decoder, that were taken with final tokens
        self.settled = 0
        self._skip_known()

    @property
    def done(self) -> bool:
        return self.settled >= self.end

    def accept(self, predictions: list[int], position: int, first: int) -> int:
        """Takes what a pass predicts from a position on; returns how many tokens that settles.

        All tokens before self.settled were fed as they are; predictions before that are of no use.
        """
        drafts, keep = self.drafts, self.keep
        right, drawn = True, 0  # what was fed so far
        for place in range(self.settled, min(position + len(predictions), self.end)):
            if right:
                self.settled = place + 1
            if not keep[place]:
                token = predictions[place - position]
                drawn += right
                right = right and drafts[place] == token
                drafts[place] = token  # after a wrong one, a better guess than the last, no more
        self.steps = first + self.settled
        self._skip_known()
        return drawn

    def _skip_known(self) -> None:
        while self.settled < self.end and self.keep[self.settled]:
            self.settled += 1


@torch.no_grad()
def decode_stage(
    stage: Stage,
    c: Tensor,
    x: Tensor,
    keep: Tensor,
    condition: Condition,
    settings: SamplingSettings,
    noise: Tensor,
    windows: Windows | None = None,
) -> Iterator[Drawn]:
    """Draws x_{t-1} given x_t = c; yields after every pass.

    x int64 [B, N] holds the known tokens where keep [B, N] is true and drafts elsewhere; noise is Gumbel [B, N, K].
    Rows advance on their own; one that is done leaves the batch. windows: how many to verify at once; None: as many
    as are worth it here. The outcome is that of any other, but for rounding where two tokens are all but equal.
    """
    rows = [_Row(b, *row) for b, row in enumerate(zip(x.tolist(), keep.tolist(), strict=True))]
    wanted = (~keep).any(0).tolist()
    total, shown, forwards = sum(wanted), x.clone(), 0
    active = [row for row in rows if not row.done]
    if not active:
        return
    batch = torch.tensor([row.index for row in active], device=x.device)
    condition = Condition(*(part if part is None else part[batch] for part in (condition.cond, condition.null)))
    run = GuidedRun(stage, c[batch], condition, settings.guidance)
    if windows is None:
        windows = Adaptive(run.run.prepared.seconds, len(run.run.context.noisy))
    first = run.run.first
    while active:
        last = max(row.end for row in active)
        slowest = min(active, key=lambda row: row.settled)
        needed = max(first + row.settled + 1 - row.steps for row in active)
        ahead = (not kept for kept in slowest.keep[slowest.settled : slowest.end])
        length = min(windows.steps(needed, ahead), first + last)
        begins = [min(row.steps, first + last - length) for row in active]
        skip = min(first + row.settled - begin for row, begin in zip(active, begins, strict=True))
        drafts = torch.tensor([row.drafts for row in active], device=x.device)
        logits = run.logits(drafts, begins, length, skip)
        places = [begin + skip - first for begin in begins]
        tokens = draw(logits, _windows_of(noise, active, places, length - skip), settings).tolist()
        forwards += 1
        drawn = 0
        for row, predictions, place in zip(active, tokens, places, strict=True):
            before = row.settled
            drawn += row.accept(predictions, place, first)
            shown[row.index, before : row.settled] = torch.tensor(row.drafts[before : row.settled], device=x.device)
        windows.learn(drawn / len(active))
        position = sum(wanted[: min(row.settled if not row.done else len(wanted) for row in rows)])
        yield Drawn(shown.clone(), position, total, forwards)
        going = [i for i, row in enumerate(active) if not row.done]
        if len(going) < len(active) and going:
            run.select(torch.tensor(going, device=x.device), len(active))
        active = [active[i] for i in going]


def _windows_of(noise: Tensor, rows: list[_Row], places: list[int], length: int) -> Tensor:
    """Each row's noise from its place on, [B', length, K]; places before the first or after the last count as these."""
    positions = torch.tensor(places, device=noise.device)[:, None] + torch.arange(length, device=noise.device)
    index = torch.tensor([row.index for row in rows], device=noise.device)
    return noise[index[:, None], positions.clamp(0, noise.shape[1] - 1)]
