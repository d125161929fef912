"""Drawing the tokens of one step in raster order, many at once, with the outcome of one by one.

A token is argmax(filtered logits + noise), and the noise of every position is fixed before the first is drawn. So
drawing one by one has a single outcome, and whatever finds it is exact (predictive sampling, Wiggers and Hoogeboom,
ICML 2020). Each pass feeds a row of drafts: first those that the step's encoder made of all positions at once, if
it makes any, else x_t, whose tokens mostly stay; then what the last pass predicted. Its predictions are right up to and
including the first that differs from its draft. Tokens that the mask keeps are drafts that are always right; after the
last unknown token nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from imagebart.sampling.draft_length import Adaptive, DraftLength
from imagebart.sampling.engine import Engine
from imagebart.sampling.logits import filter_logits
from imagebart.sampling.step_run import Condition, GuidedRun
from imagebart.sampling.steps import Step
from imagebart.settings import SamplingSettings


@dataclass(frozen=True)
class StepEvent:
    """x_{t-1} as far as it is drawn; the tensor is the caller's to keep."""

    tokens: Tensor  # int64 [B, N]; what is not drawn yet holds its draft
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
def draw_step(
    step: Step,
    engine: Engine,
    c: Tensor,
    x: Tensor | None,
    doubt: Tensor,
    condition: Condition,
    settings: SamplingSettings,
    noise: Tensor,
    ahead: DraftLength | None = None,
) -> Iterator[StepEvent]:
    """Draws x_s given x_t = c; yields the step's own drafts, if it makes any, and after every pass.

    c int64 [B, N] holds the known tokens where doubt, float [B, N] (see `Step.keeps`), is below 1. x: drafts and the
    known tokens, int64 [B, N]; None: such drafts as the step makes itself. noise: Gumbel [B, N, K]. Rows advance on
    their own; one that is done leaves the batch. ahead: how many to verify at once; None: as many as are worth it here.
    The outcome is that of any other, but for rounding where two tokens are all but equal.
    """
    shown, keep = c.clone() if x is None else x.clone(), step.keeps(doubt)
    rows = [_Row(b, *row) for b, row in enumerate(zip(shown.tolist(), keep.tolist(), strict=True))]
    wanted = (~keep).any(0).tolist()
    total, forwards = sum(wanted), 0
    active = [row for row in rows if not row.done]
    if not active:
        return
    batch = torch.tensor([row.index for row in active], device=c.device)
    run = GuidedRun(step, engine, c[batch], doubt[batch], condition.select(batch), settings.guidance)
    guesses = run.drafts if x is None else None
    if guesses is not None:
        guessed = (step.reverse(filter_logits(guesses, settings), c[batch], doubt[batch]) + noise[batch]).argmax(-1)
        for row, draft in zip(active, guessed.tolist(), strict=True):
            row.drafts = [old if kept else new for old, new, kept in zip(row.drafts, draft, row.keep, strict=True)]
            shown[row.index] = torch.tensor(row.drafts)
        yield StepEvent(shown.clone(), 0, total, 0)
    if ahead is None:
        ahead = Adaptive(engine.seconds, run.rows)
    first = run.first
    while active:
        begins, length, skip = _span(active, ahead, first)
        drafts = torch.tensor([row.drafts for row in active], device=c.device)
        logits = filter_logits(run.logits(drafts, begins, length, skip), settings)
        places = [begin + skip - first for begin in begins]
        likelihood = step.reverse(logits, *run.known([begin + skip for begin in begins], length - skip))
        tokens = (likelihood + _noise_at(noise, active, places, length - skip)).argmax(-1).tolist()
        forwards += 1
        drawn = 0
        for row, predictions, place in zip(active, tokens, places, strict=True):
            drawn += row.accept(predictions, place, first)
            shown[row.index] = torch.tensor(row.drafts)
        ahead.learn(drawn / len(active))
        position = sum(wanted[: min(row.settled if not row.done else len(wanted) for row in rows)])
        yield StepEvent(shown.clone(), position, total, forwards)
        going = [i for i, row in enumerate(active) if not row.done]
        if len(going) < len(active) and going:
            run.select(torch.tensor(going, device=c.device), len(active))
        active = [active[i] for i in going]


def _span(active: list[_Row], ahead: DraftLength, first: int) -> tuple[list[int], int, int]:
    """What the next pass feeds: from which of the decoder's positions on, row by row; how many; how many for their
    keys and values only."""
    last = max(row.end for row in active)
    slowest = min(active, key=lambda row: row.settled)
    needed = max(first + row.settled + 1 - row.steps for row in active)
    unknown = (not kept for kept in slowest.keep[slowest.settled : slowest.end])
    length = min(ahead.steps(needed, unknown), first + last)
    begins = [min(row.steps, first + last - length) for row in active]
    return begins, length, min(first + row.settled - begin for row, begin in zip(active, begins, strict=True))


def _noise_at(noise: Tensor, rows: list[_Row], places: list[int], length: int) -> Tensor:
    """Each row's noise from its place on, [B', length, K]; places before the first or after the last count as these."""
    positions = torch.tensor(places, device=noise.device)[:, None] + torch.arange(length, device=noise.device)
    index = torch.tensor([row.index for row in rows], device=noise.device)
    return noise[index[:, None], positions.clamp(0, noise.shape[1] - 1)]
