"""The reverse chain: stages T ... 1, coarse to fine, with forward-backward repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imagebart.decoding import Condition, decode_stage, gumbel_noise
from imagebart.diffusion import Schedule, redraw
from imagebart.settings import SamplingSettings
from imagebart.stage import Stage


@dataclass(frozen=True)
class ChainEvent:
    """Where the chain is. Positions not yet drawn in this pass hold x_t."""

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
    rows = [
        redraw(row.cpu(), probability, vocab_size, g) for row, g in zip(x, generators, strict=True)
    ]
    return torch.stack(rows).to(x.device)


@torch.no_grad()
def run_chain(
    stages: Sequence[Stage],
    schedule: Schedule,
    start: Tensor,
    keep: Tensor,
    condition: Condition,
    settings: SamplingSettings,
    generators: list[torch.Generator],
) -> Iterator[ChainEvent]:
    """From x at stage `settings.start` (T where None) down to x_0; an event after every forward, the last holds x_0.

    start int64 [B, N] holds the known tokens where keep [B, N] is true. Repeat r of n first takes its own result
    back: each token is redrawn with probability (1 - r/n) beta_t. The iterator can be closed at any moment.
    """
    vocab_size = stages[0].config.vocab_size
    first = len(stages) if settings.start is None else settings.start
    if not 1 <= first <= len(stages):
        raise ValueError(f"the chain starts at stage {first}, expected 1 to {len(stages)}")
    known, x = start, start
    for t in range(first, 0, -1):
        for repeat in range(settings.passes):
            if repeat:
                share = (1 - repeat / settings.passes) * schedule.betas[t - 1]
                x = redraw_rows(x, share, vocab_size, generators)
            c = torch.where(keep, known, x)
            noise = gumbel_noise((start.shape[1], vocab_size), generators).to(start.device)
            drawing = decode_stage(stages[t - 1], c, c, keep, condition, settings, noise)
            for drawn in drawing:
                x, done = drawn.tokens, drawn.position == drawn.total
                yield ChainEvent(
                    t, len(stages), repeat, settings.passes, drawn.position, drawn.total, x, done, drawn.forwards
                )
