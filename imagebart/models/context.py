"""What a network computes once a step, before the first token is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from imagebart.models.transformer import KeyValue

# An encoder: tokens [B, S], and what is added to their embeddings [B, S, width] -> its output [B, S, width].
Encode = Callable[[Tensor, Tensor | None], Tensor]


def check_cond(cond: Tensor | None, batch: int, length: int) -> None:
    """Raises ValueError unless there are `length` conditioning tokens in each row: [B, length], or None for none."""
    expected = (batch, length)
    given = (batch, 0) if cond is None else tuple(cond.shape)
    if given != expected:
        raise ValueError(f"cond has shape {list(given)}, expected {list(expected)}")


@dataclass
class Context:
    """What the decoder needs besides the tokens that it is fed."""

    noisy: Tensor  # x_t, int64 [B, N]
    prefix: Tensor  # decoder tokens before the first image token, int64 [B, P]
    memory: list[KeyValue] | None = None  # cross-attention's keys and values, of every block
    extra: Tensor | None = None  # added to embeddings, [B, P - 1 + N, width]
    drafts: Tensor | None = None  # logits of every token at once, [B, N, K]; None: x_t is the best first draft

    def select(self, rows: Tensor) -> None:
        """Goes on with some of the rows, int64 [B']."""
        self.noisy, self.prefix = self.noisy[rows], self.prefix[rows]
        self.memory = self.memory and [(k[rows], v[rows]) for k, v in self.memory]
        self.extra = None if self.extra is None else self.extra[rows]

    def of_types(self, kept: torch.dtype, given: torch.dtype) -> Context:
        """The same with memory of a type, each part in one piece, and what is added to embeddings of another."""
        memory = self.memory and [(k.to(kept).contiguous(), v.to(kept).contiguous()) for k, v in self.memory]
        return Context(
            self.noisy, self.prefix, memory, None if self.extra is None else self.extra.to(given), self.drafts
        )
