"""Speculative sampling of one step: many tokens a pass of the decoder, and the result of sampling one by one.

A token is argmax(filtered logits + Gumbel noise), and the noise of every position is fixed before the first is sampled.
So sampling one by one has a single result, and whatever finds it is exact (predictive sampling, Wiggers and Hoogeboom,
ICML 2020). Each pass of the decoder gets draft tokens: at first those that the step's encoder predicts for all
positions at once, or x_t where it predicts none; later the predictions of the last pass. The predictions are right up
to and including the first that differs from its draft. Tokens that the mask keeps are drafts that are always right;
nothing is computed after the last unknown token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imagebart.core.settings import SamplingSettings
from imagebart.models.transformer import Transformer
from imagebart.sampling.packed_linear import PASS_ROWS
from imagebart.sampling.steps import ChainState, Step, StepRun, filter_logits

MIN_LENGTH = 4  # positions of a pass: with fewer, kernels add in another order
MIN_DRAFTS = 8  # of a row in a pass: of 16 rows, fewer make more passes, and more are computed in vain
MULTIPLE = 2  # lengths are multiples of this


@dataclass(frozen=True, kw_only=True)
class ChainEvent:
    """The state of the chain after a pass of the decoder. Positions that are not sampled yet hold drafts of x_s."""

    tokens: Tensor  # int64 [B, N], the receiver's to keep
    stage: int  # t, from T down to 1
    stages: int  # T
    resample_index: int  # from 0
    resamples: int
    position: int = 0  # tokens sampled in this resample, in every row
    total: int = 0  # tokens to sample in this resample
    done: bool = False  # all are sampled
    nfe: int = 0  # passes of the decoder in this resample
    corrector_step: int = 0  # from 1, once all stages are done


def draft_length(needed: int, unknown: list[bool], rows: int) -> int:
    """How many positions of the decoder a pass computes: as many drafts as make PASS_ROWS rows in all, or MIN_DRAFTS.

    needed: the positions up to the first unknown token; unknown: from that token on, True for each token to sample and
    False for each known one; rows: of the decoder's batch. It changes the result only by rounding, where two tokens are
    almost equally likely.
    """
    places = [place for place, wanted in enumerate(unknown, 1) if wanted]
    drafts = min(max(MIN_DRAFTS, PASS_ROWS // rows), len(places))
    return max(-(-(needed - 1 + places[drafts - 1]) // MULTIPLE) * MULTIPLE, MIN_LENGTH)


class _Row:
    """One row's drafts. Tokens before `settled` are final; the one at it is unknown, unless all are final."""

    def __init__(self, index: int, drafts: list[int], keep: list[bool]) -> None:
        self.index, self.drafts, self.keep = index, drafts, keep
        self.end = max((i + 1 for i, kept in enumerate(keep) if not kept), default=0)
        self.taken = 0  # the decoder's positions that got final tokens
        self.settled = 0
        self._skip_known()

    @property
    def done(self) -> bool:
        return self.settled >= self.end

    def accept(self, predictions: list[int], position: int, first: int) -> None:
        """Takes a pass's predictions from a position on; those before self.settled are not used."""
        right = True  # the drafts that the pass got so far
        for place in range(self.settled, min(position + len(predictions), self.end)):
            if right:
                self.settled = place + 1
            if not self.keep[place]:
                token = predictions[place - position]
                right = right and self.drafts[place] == token
                self.drafts[place] = token  # after a wrong draft, only a better draft
        self.taken = first + self.settled
        self._skip_known()

    def _skip_known(self) -> None:
        while self.settled < self.end and self.keep[self.settled]:
            self.settled += 1


@torch.no_grad()
def sample_step(
    step: Step,
    decoder: Transformer,
    state: ChainState,
    settings: SamplingSettings,
    noise: Tensor,
    event: ChainEvent,
    drafts: Tensor | None = None,
) -> Iterator[ChainEvent]:
    """Samples x_s given x_t; yields the step's own drafts, if it makes any, and an event after every pass.

    decoder: the step's, which may be packed. state: its x is x_t, with the known tokens where they are kept. noise:
    Gumbel [B, N, K]. event: holds the stage and resample of the events. drafts: of x_s, with the known tokens, int64
    [B, N]; None: the step's own.
    Rows advance on their own; one that is done leaves the batch.
    """
    x_t, keep = state.x, step.keeps(state.noise_level)
    x_s = x_t.clone() if drafts is None else drafts.clone()
    rows = [_Row(b, *row) for b, row in enumerate(zip(x_s.tolist(), keep.tolist(), strict=True))]
    wanted = (~keep).any(0).tolist()
    event = replace(event, position=0, total=sum(wanted), done=False, nfe=0)
    active = [row for row in rows if not row.done]
    if not active:
        return
    batch = torch.tensor([row.index for row in active], device=x_t.device)
    run = StepRun(step, decoder, state.select(batch), settings.guidance)
    if drafts is None and run.drafts is not None:
        unknown = ~keep
        logits = filter_logits(run.drafts[unknown[batch]], settings)
        logits = step.reverse(logits, x_t[unknown], state.noise_level[unknown])
        x_s[unknown] = (logits + noise[unknown]).argmax(-1)
        for row in active:
            row.drafts = x_s[row.index].tolist()
        yield replace(event, tokens=x_s.clone())
    while active:
        begins, length, skip = _span(active, run)
        fed = torch.tensor([row.drafts for row in active], device=x_t.device)
        predicted = [begin + skip for begin in begins]
        logits = filter_logits(run.logits(fed, begins, length, skip), settings)
        logits = step.reverse(logits, *run.known(predicted, length - skip))
        places = [begin - run.first for begin in predicted]
        tokens = (logits + _noise_at(noise, active, places, length - skip)).argmax(-1).tolist()
        for row, predictions, place in zip(active, tokens, places, strict=True):
            row.accept(predictions, place, run.first)
            x_s[row.index] = torch.tensor(row.drafts)
        position = sum(wanted[: min(row.settled if not row.done else len(wanted) for row in rows)])
        event = replace(event, position=position, done=position == event.total, nfe=event.nfe + 1)
        yield replace(event, tokens=x_s.clone())
        going = [i for i, row in enumerate(active) if not row.done]
        if len(going) < len(active) and going:
            run.select(torch.tensor(going, device=x_t.device))
        active = [active[i] for i in going]


def _span(active: list[_Row], run: StepRun) -> tuple[list[int], int, int]:
    """What the next pass computes: each row's first position of the decoder; how many; how many only for the cache."""
    first, last = run.first, max(row.end for row in active)
    slowest = min(active, key=lambda row: row.settled)
    needed = max(first + row.settled + 1 - row.taken for row in active)
    unknown = [not kept for kept in slowest.keep[slowest.settled : slowest.end]]
    length = min(draft_length(needed, unknown, run.rows), first + last)
    begins = [min(row.taken, first + last - length) for row in active]
    return begins, length, min(first + row.settled - begin for row, begin in zip(active, begins, strict=True))


def _noise_at(noise: Tensor, rows: list[_Row], places: list[int], length: int) -> Tensor:
    """Each row's noise from its place on, [B', length, K]; places outside are clamped."""
    positions = torch.tensor(places, device=noise.device)[:, None] + torch.arange(length, device=noise.device)
    index = torch.tensor([row.index for row in rows], device=noise.device)
    return noise[index[:, None], positions.clamp(0, noise.shape[1] - 1)]
