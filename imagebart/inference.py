"""A transformer as it draws: a few tokens at a time, after those whose keys and values it has kept.

The same numbers as `Transformer.forward`, with rows at positions of their own, weights in an order for few rows,
and nothing that grows with the position but attention itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.matrices import Matrix, Packing, Precision, brain, int8, multiplies_bfloat16, packings
from imagebart.transformer import KeyValue, Transformer, TransformerConfig

STEP = 16  # keys are attended to in multiples of this, so that sums do not depend on where a window ends
SHORT, LONG = 8, 32  # tokens of the passes that are timed


class Cache:
    """Keys and values of every position, in memory taken once; what lies after a row's last token is never seen."""

    def __init__(self, config: TransformerConfig, batch: int, like: Tensor) -> None:
        room = -(-config.positions // STEP) * STEP
        shape = (config.depth, batch, config.heads, room, config.head_size)
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)

    def put(self, layer: int, k: Tensor, v: Tensor, where: Tensor | int, end: int) -> KeyValue:
        """Takes a layer's new keys and values [B, heads, S, head_size], at positions [B, S], or from one on.

        Returns those of all positions before `end`.
        """
        for kept, new in ((self.keys[layer], k), (self.values[layer], v)):
            if isinstance(where, int):
                kept[:, :, where : where + new.shape[2]] = new
            else:
                kept[torch.arange(len(new), device=new.device)[:, None], :, where] = new.transpose(1, 2)
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def select(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]


@dataclass
class _Layer:
    """A block's maps, as they are applied."""

    norms: list[nn.LayerNorm]  # before self-attention, cross-attention if any, feed-forward
    qkv: Matrix
    out: Matrix
    cross_q: Matrix | None
    cross_out: Matrix | None
    up: Matrix
    down: Matrix


class Decoder:
    """A causal transformer with its weights in one of the orders of `imagebart.matrices`."""

    def __init__(self, transformer: Transformer, packing: Packing) -> None:
        self.transformer, self.config = transformer, transformer.config
        self.layers = [_layer(block, packing) for block in transformer.blocks]
        self.head = packing(transformer.head) if transformer.head is not None else None

    def new_cache(self, batch: int) -> Cache:
        return Cache(self.config, batch, self.transformer.position_embedding)

    def forward(
        self,
        tokens: Tensor,
        begins: list[int],
        cache: Cache,
        memory: list[KeyValue] | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Tokens int64 [B, S], row b's from position begins[b] on -> hidden states [B, S, width] after the final norm.

        What stands before a row's tokens must have been in earlier calls, the `unmasked` ones all in the first.
        `extra` [B, S, width] is added to the embeddings. Raises ValueError where the sequence gets too long.
        """
        batch, length = tokens.shape
        last = max(begins) + length
        if last > self.config.positions:
            raise ValueError(f"sequence of {last} tokens, expected at most {self.config.positions}")
        end = min(-(-last // STEP) * STEP, cache.keys.shape[3])
        positions = torch.tensor(begins, device=tokens.device)[:, None] + torch.arange(length, device=tokens.device)
        x = self.transformer.token_embedding(tokens) + self.transformer.position_embedding[positions]
        if extra is not None:
            x = x + extra
        x = x.flatten(0, 1)
        mask = self._mask(positions, end, x)
        where = begins[0] if len(set(begins)) == 1 else positions
        for index, layer in enumerate(self.layers):
            heads = (batch, length, 3, self.config.heads, self.config.head_size)
            q, k, v = layer.qkv(layer.norms[0](x)).view(heads).permute(2, 0, 3, 1, 4).unbind(0)
            k, v = cache.put(index, k, v, where, end)
            x = x + layer.out(_joined(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))
            if layer.cross_q is not None and layer.cross_out is not None:
                assert memory is not None, "a cross-attending transformer needs its memory"
                q = layer.cross_q(layer.norms[1](x)).view(batch, length, self.config.heads, -1).transpose(1, 2)
                x = x + layer.cross_out(_joined(F.scaled_dot_product_attention(q, *memory[index])))
            x = x + layer.down(F.gelu(layer.up(layer.norms[-1](x))))
        return self.transformer.norm(x).view(batch, length, -1)

    def _mask(self, positions: Tensor, end: int, like: Tensor) -> Tensor:
        """What each of the positions [B, S] sees of those before `end`: 0 or -inf, [B, 1, S, end]."""
        keys = torch.arange(end, device=positions.device)
        seen = keys <= positions[..., None]
        if self.config.unmasked > 1:
            seen |= (keys < self.config.unmasked) & (positions < self.config.unmasked)[..., None]
        return like.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)[:, None]


def _layer(block: Any, packing: Packing) -> _Layer:
    attention, cross, feed_forward = block.attention, block.cross, block.feed_forward
    return _Layer(
        [part.norm for part in (attention, cross, feed_forward) if part is not None],
        packing(attention.qkv),
        packing(attention.out),
        None if cross is None else packing(cross.q),
        None if cross is None else packing(cross.out),
        packing(feed_forward.up),
        packing(feed_forward.down),
    )


def _joined(heads: Tensor) -> Tensor:
    """[B, heads, S, head_size] -> [B S, heads head_size]"""
    return heads.transpose(1, 2).flatten(2).flatten(0, 1)


@dataclass(frozen=True)
class Cost:
    """Seconds of a pass: fixed (reading the weights) and for each row (a token of one variant)."""

    fixed: float
    row: float


@dataclass(frozen=True)
class Prepared:
    """A decoder ready to draw, and what a pass of it costs here."""

    decoder: Decoder
    cost: Cost
    threads: int
    packing: Packing


    @property
    def rounds(self) -> bool:
        """Whether what is computed once a stage may be rounded to bfloat16, too."""
        return self.packing in (brain, int8) and multiplies_bfloat16()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Computes on a number of threads of the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Preparation:
    """A transformer's `Prepared`, made when it is first needed and again when the weights have changed.

    It is never copied or saved with the transformer.
    """

    def __init__(self) -> None:
        self.made: tuple[object, Prepared] | None = None

    def __deepcopy__(self, memo: object) -> Preparation:
        return Preparation()

    def __reduce__(self) -> tuple[type[Preparation], tuple[()]]:
        return Preparation, ()

    def get(self, transformer: Transformer, precision: Precision) -> Prepared:
        """precision: see `prepare`."""
        state = precision, *((p.data_ptr(), p._version) for p in transformer.parameters())
        if self.made is None or self.made[0] != state:
            self.made = None  # the old order's memory goes before the new one's comes
            self.made = state, prepare(transformer, precision)
        return self.made[1]


@torch.no_grad()
def prepare(transformer: Transformer, precision: Precision) -> Prepared:
    """Orders the weights, and times a pass on one thread and on all to take the faster.

    The order decides how sums are rounded, so that it is never chosen by time: the same seed has to draw the same
    picture at every start. Threads share out columns, which changes no sum; more than one must save a fifth, for they
    wait for each other where a processor is busy. precision: how far the order may round weights. Raises ValueError for
    a transformer that is not causal.
    """
    if not transformer.config.causal:
        raise ValueError("a transformer that sees in both directions cannot draw")
    *_, packing = packings([m for m in transformer.modules() if isinstance(m, nn.Linear)], precision)
    decoder = Decoder(transformer, packing)
    count, seconds = 1, _seconds(decoder, SHORT, 1)
    if torch.get_num_threads() > 1:
        taken = _seconds(decoder, SHORT, torch.get_num_threads())
        if taken < 0.8 * seconds:
            count, seconds = torch.get_num_threads(), taken
    row = max(_seconds(decoder, LONG, count) - seconds, 0.0) / (LONG - SHORT)
    return Prepared(decoder, Cost(max(seconds - SHORT * row, 0.1 * seconds), row), count, packing)


def _seconds(decoder: Decoder, tokens: int, count: int, repeats: int = 3) -> float:
    """The shortest of some passes over a number of tokens, at the last positions, on some threads."""
    config, weights = decoder.config, decoder.transformer.position_embedding
    tokens = min(tokens, config.positions)
    cache = decoder.new_cache(1)
    some = weights.new_zeros(1, config.heads, config.positions, config.head_size)
    memory = [(some, some)] * config.depth if config.cross else None
    fed = torch.zeros(1, tokens, dtype=torch.long, device=weights.device)
    taken = []
    with threads(count):
        for _ in range(repeats + 1):
            began = time.perf_counter()
            hidden = decoder.forward(fed, [config.positions - tokens], cache, memory)
            if decoder.head is not None:
                decoder.head(hidden.flatten(0, 1)).sum().item()
            taken.append(time.perf_counter() - began)
    return min(taken[1:])
