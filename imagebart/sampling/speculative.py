"""How many tokens to verify at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from imagebart.sampling.logits import filter_logits
from imagebart.sampling.packed_linear import PackedModel
from imagebart.sampling.steps import Condition, GuidedRun, Step
from imagebart.settings import SamplingSettings

LEAST = 4  # steps of a pass: for fewer, kernels add in another order
QUANTUM = 2  # steps are multiples of this
WIDTHS = (4, 6, 8, 12, 16, 24, 32, 64)  # drafts of a pass, of tokens to draw
NEWEST = 0.3  # what the last pass counts in a mean
PRIOR = 2  # passes that the power counts for


class DraftLength(Protocol):
    """Chooses how many drafts a pass verifies, and is told how it went."""

    def steps(self, needed: int, drafts: Iterable[bool]) -> int:
        """Steps of the next pass.

        needed: steps up to the first prediction that counts. drafts: for each position from that one on, whether it
        must be drawn; others are known.
        """

    def learn(self, drawn: float) -> None:
        """How many tokens of a row the pass drew, the mean of all rows."""


class OneByOne:
    """No drafts: a pass for every token drawn."""

    def steps(self, needed: int, drafts: Iterable[bool]) -> int:
        return needed

    def learn(self, drawn: float) -> None:
        pass


class Adaptive:
    """The length that draws the most tokens a second, by what a pass costs and by how many tokens passes drew so far.

    A single draft draws one token; more of them a power of their number, the width. It is less than 1, for drafts fail,
    and more than 0, for those that wait are predicted again in every pass: 1/2 is assumed at first. What passes of a
    width drew counts the more, the more of them there were.
    """

    def __init__(self, seconds: Callable[[int], float], rows: int) -> None:
        """seconds: of a pass, by the steps of all rows. rows: variants, twice that under guidance."""
        self.seconds, self.rows = seconds, rows
        self.power, self.passes = 0.5, 0
        self.drawn: dict[int, tuple[int, float]] = {}  # passes of a width, and tokens that one draws
        self.width, self.whole = WIDTHS[0], False  # of the last pass; whether it was one of WIDTHS

    def learn(self, drawn: float) -> None:
        if self.whole:
            passes, mean = self.drawn.get(self.width, (0, 0.0))
            self.drawn[self.width] = passes + 1, mean + max(NEWEST, 1 / (passes + 1)) * (drawn - mean)
            self.passes += 1
            share = max(NEWEST, 1 / (self.passes + 1))  # 1/2 counts as a pass
            self.power += share * (math.log(max(drawn, 1.0)) / math.log(self.width) - self.power)

    def steps(self, needed: int, drafts: Iterable[bool]) -> int:
        spans = _spans(drafts)
        widths = [*(width for width in WIDTHS if width in spans), len(spans)]
        self.width = max(widths, key=lambda w: self._drawn(w) / self.seconds(spans[w] * self.rows)) if spans else 1
        self.whole = self.width in WIDTHS
        span = spans.get(self.width, 1)
        return max(-(-(needed - 1 + span) // QUANTUM) * QUANTUM, LEAST)

    def _drawn(self, width: int) -> float:
        """What a pass of a width draws, or should."""
        passes, mean = self.drawn.get(width, (0, 0.0))
        return (passes * mean + PRIOR * width**self.power) / (passes + PRIOR)


def _spans(drafts: Iterable[bool]) -> dict[int, int]:
    """For 1, 2, ... tokens to draw, up to the largest width: how many positions it takes to reach them."""
    spans: dict[int, int] = {}
    for ahead, drawn in enumerate(drafts, 1):
        if drawn:
            spans[len(spans) + 1] = ahead
            if len(spans) == WIDTHS[-1]:
                break
    return spans


# Drawing the tokens of one step in raster order, many at once, with the outcome of one by one.
#
# A token is argmax(filtered logits + noise), and the noise of every position is fixed before the first is drawn. So
# drawing one by one has a single outcome, and whatever finds it is exact (predictive sampling, Wiggers and Hoogeboom,
# ICML 2020). Each pass feeds a row of drafts: first those that the step's encoder made of all positions at once, if
# it makes any, else x_t, whose tokens mostly stay; then what the last pass predicted. Its predictions are right up to
# and
# including the first that differs from its draft. Tokens that the mask keeps are drafts that are always right; after
# the
# last unknown token nothing is computed.


@dataclass(frozen=True)
class StepEvent:
    """x_{t-1} as far as it is drawn; the tensor is the caller's to keep."""

    tokens: Tensor  # int64 [B, N]; what is not drawn yet holds its draft
    position: int  # tokens drawn, of every row
    total: int
    nfe: int  # passes of the decoder so far


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
    packed_model: PackedModel,
    x_t: Tensor,
    x_s: Tensor | None,
    noise_level: Tensor,
    condition: Condition,
    settings: SamplingSettings,
    noise: Tensor,
    draft_length: DraftLength | None = None,
) -> Iterator[StepEvent]:
    """Draws x_s given x_t; yields the step's own drafts, if it makes any, and after every pass.

    x_t int64 [B, N] holds the known tokens where noise_level, float [B, N] (see `Step.keeps`), is below 1. x_s:
    drafts and the known tokens, int64 [B, N]; None: such drafts as the step makes itself. noise: Gumbel [B, N, K].
    Rows advance on their own; one that is done leaves the batch. draft_length: how many to verify at once; None: as
    many as are worth it.
    The outcome is that of any other, but for rounding where two tokens are all but equal.
    """
    shown, keep = x_t.clone() if x_s is None else x_s.clone(), step.keeps(noise_level)
    rows = [_Row(b, *row) for b, row in enumerate(zip(shown.tolist(), keep.tolist(), strict=True))]
    wanted = (~keep).any(0).tolist()
    total, nfe = sum(wanted), 0
    active = [row for row in rows if not row.done]
    if not active:
        return
    batch = torch.tensor([row.index for row in active], device=x_t.device)
    run = GuidedRun(step, packed_model, x_t[batch], noise_level[batch], condition.select(batch), settings.guidance)
    guesses = run.drafts if x_s is None else None
    if guesses is not None:
        guessed = (
            step.reverse(filter_logits(guesses, settings), x_t[batch], noise_level[batch]) + noise[batch]
        ).argmax(-1)
        for row, draft in zip(active, guessed.tolist(), strict=True):
            row.drafts = [old if kept else new for old, new, kept in zip(row.drafts, draft, row.keep, strict=True)]
            shown[row.index] = torch.tensor(row.drafts)
        yield StepEvent(shown.clone(), 0, total, 0)
    if draft_length is None:
        draft_length = Adaptive(packed_model.seconds, run.rows)
    first = run.first
    while active:
        begins, length, skip = _span(active, draft_length, first)
        drafts = torch.tensor([row.drafts for row in active], device=x_t.device)
        logits = filter_logits(run.logits(drafts, begins, length, skip), settings)
        places = [begin + skip - first for begin in begins]
        likelihood = step.reverse(logits, *run.known([begin + skip for begin in begins], length - skip))
        tokens = (likelihood + _noise_at(noise, active, places, length - skip)).argmax(-1).tolist()
        nfe += 1
        drawn = 0
        for row, predictions, place in zip(active, tokens, places, strict=True):
            drawn += row.accept(predictions, place, first)
            shown[row.index] = torch.tensor(row.drafts)
        draft_length.learn(drawn / len(active))
        position = sum(wanted[: min(row.settled if not row.done else len(wanted) for row in rows)])
        yield StepEvent(shown.clone(), position, total, nfe)
        going = [i for i, row in enumerate(active) if not row.done]
        if len(going) < len(active) and going:
            run.select(torch.tensor(going, device=x_t.device), len(active))
        active = [active[i] for i in going]


def _span(active: list[_Row], draft_length: DraftLength, first: int) -> tuple[list[int], int, int]:
    """What the next pass feeds: from which of the decoder's positions on, row by row; how many; how many for their
    keys and values only."""
    last = max(row.end for row in active)
    slowest = min(active, key=lambda row: row.settled)
    needed = max(first + row.settled + 1 - row.steps for row in active)
    unknown = (not kept for kept in slowest.keep[slowest.settled : slowest.end])
    length = min(draft_length.steps(needed, unknown), first + last)
    begins = [min(row.steps, first + last - length) for row in active]
    return begins, length, min(first + row.settled - begin for row, begin in zip(active, begins, strict=True))


def _noise_at(noise: Tensor, rows: list[_Row], places: list[int], length: int) -> Tensor:
    """Each row's noise from its place on, [B', length, K]; places before the first or after the last count as these."""
    positions = torch.tensor(places, device=noise.device)[:, None] + torch.arange(length, device=noise.device)
    index = torch.tensor([row.index for row in rows], device=noise.device)
    return noise[index[:, None], positions.clamp(0, noise.shape[1] - 1)]
