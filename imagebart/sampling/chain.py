"""The reverse chain: steps T ... 1, coarse to fine, with forward-backward repeats (ImageBART, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imagebart.diffusion import redraw
from imagebart.sampling.engine import Engine
from imagebart.sampling.logits import gumbel_noise
from imagebart.sampling.speculative import draw_step
from imagebart.sampling.step_run import Condition
from imagebart.sampling.steps import Step
from imagebart.settings import SamplingSettings


@dataclass(frozen=True)
class ChainEvent:
    """Where the chain is. Positions not yet drawn in this pass hold drafts: x_t, and then what is guessed of x_s."""

    stage: int  # t, from T down to 1
    stages: int  # T
    pass_index: int  # from 0
    passes: int
    position: int  # tokens drawn in this pass
    total: int  # tokens to draw in this pass
    tokens: Tensor  # int64 [B, N]
    done: bool  # the pass is finished
    forwards: int = 0  # of the decoder in this pass, so far


def row_generators(seed: int, batch: int) -> list[torch.Generator]:
    """Row b draws as a run of its own with seed + b would."""
    return [torch.Generator().manual_seed((seed + row) % 2**63) for row in range(batch)]


def uniform_tokens(tokens: int, vocab_size: int, generators: list[torch.Generator]) -> Tensor:
    """x_T: uniform noise, int64 [B, N]."""
    return torch.stack([torch.randint(vocab_size, (tokens,), generator=g) for g in generators])


def redraw_rows(x: Tensor, probability: float, vocab_size: int, generators: list[torch.Generator]) -> Tensor:
    """Draws each token anew with a probability, row b with generator b."""
    rows = [redraw(row.cpu(), probability, vocab_size, g) for row, g in zip(x, generators, strict=True)]
    return torch.stack(rows).to(x.device)


@torch.no_grad()
def run_chain(
    steps: Sequence[Step],
    engine: Callable[[Step], Engine],
    start: Tensor,
    doubt: Tensor,
    condition: Condition,
    settings: SamplingSettings,
    generators: list[torch.Generator],
) -> Iterator[ChainEvent]:
    """From x_T down to x_0; an event after every pass of a network, the last holds x_0.

    steps: t = 1 first; engine: what draws one. start int64 [B, N] is x at the last of them, with the known tokens where
    doubt, float [B, N] (see `Step.keeps`), is below 1. Repeat r of n first takes its own result back: each token is
    redrawn with probability (1 - r/n) beta_t. The iterator can be closed at any moment.
    """
    known, x = start, start
    for t in range(len(steps), 0, -1):
        step, own = steps[t - 1], settings.at(t)
        for repeat in range(settings.passes):
            if repeat:
                x = redraw_rows(x, (1 - repeat / settings.passes) * step.beta, step.vocab_size, generators)
            c = torch.where(step.sees(doubt), known, x)
            noise = gumbel_noise((start.shape[1], step.vocab_size), generators).to(start.device)
            for drawn in draw_step(step, engine(step), c, None, doubt, condition, own, noise):
                x, done = drawn.tokens, drawn.position == drawn.total
                yield ChainEvent(
                    t, len(steps), repeat, settings.passes, drawn.position, drawn.total, x, done, drawn.forwards
                )
