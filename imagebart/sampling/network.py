"""A transformer as it draws: a few tokens at a time, after those whose keys and values it has kept.

The same numbers as `Transformer.forward`, with rows at positions of their own, weights in one of the orders of
`imagebart.sampling.kernels`, and nothing that grows with the position but attention itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.models.transformer import KeyValue, Transformer, TransformerConfig
from imagebart.sampling.kernels import Kernel, Matrix

STEP = 16  # keys are attended to in multiples of this, so that sums do not depend on where drafts end


class Cache:
    """Keys and values of every position, in memory taken once; what lies after a row's last token is never seen."""

    def __init__(self, config: TransformerConfig, batch: int, like: Tensor) -> None:
        """like: a tensor of the type and on the device of keys and values."""
        room = _whole_steps(config.positions, config)
        self.kept = like.new_zeros(config.depth, 2, batch, config.heads, room, config.head_size)

    def put(self, layer: int, new: Tensor, where: Tensor | int, end: int) -> KeyValue:
        """Takes a layer's new keys and values [2, B, heads, S, head_size], at positions [B, S], or from one on.

        Returns those of all positions before `end`.
        """
        kept = self.kept[layer]
        if isinstance(where, int):
            kept[:, :, :, where : where + new.shape[3]] = new
        else:
            rows = torch.arange(new.shape[1], device=new.device)[:, None]
            kept[:, rows, :, where] = new.permute(1, 3, 0, 2, 4)
        k, v = kept[:, :, :, :end].unbind(0)
        return k, v

    def select(self, rows: Tensor) -> None:
        self.kept = self.kept[:, :, rows]


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


class Network:
    """A transformer with its weights in an order of their own.

    Keys, values and what lies between two maps have the type that the maps give: bfloat16, if they round to it. What is
    handed from layer to layer is never rounded.
    """

    def __init__(self, transformer: Transformer, kernel: Kernel) -> None:
        self.transformer, self.config = transformer, transformer.config
        self.layers = [_layer(block, kernel) for block in transformer.blocks]
        self.head = kernel(transformer.head) if transformer.head is not None else None
        self.kept = self.layers[0].qkv(transformer.position_embedding[:1])[:0]  # empty, of the type of keys and values

    def new_cache(self, batch: int) -> Cache:
        return Cache(self.config, batch, self.kept)

    def forward(
        self,
        tokens: Tensor,
        begins: list[int],
        cache: Cache,
        memory: list[KeyValue] | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Tokens int64 [B, S], row b's from position begins[b] on -> hidden states [B, S, width] after the final norm.

        What stands before a row's tokens must have been in earlier calls, the `unmasked` ones all in the first; a
        network that sees in both directions is given all at once. `extra` [B, S, width] is added to the embeddings;
        `memory` has the type of `kept`. Raises ValueError where the sequence gets too long.
        """
        batch, length = tokens.shape
        last = max(begins) + length
        if last > self.config.positions:
            raise ValueError(f"sequence of {last} tokens, expected at most {self.config.positions}")
        end = _whole_steps(last, self.config)
        positions = torch.tensor(begins, device=tokens.device)[:, None] + torch.arange(length, device=tokens.device)
        x = self.transformer.token_embedding(tokens) + self.transformer.position_embedding[positions]
        if extra is not None:
            x = x + extra
        x = x.flatten(0, 1)
        mask = self._mask(positions, end) if self.config.causal else None
        where = begins[0] if len(set(begins)) == 1 else positions
        for index, layer in enumerate(self.layers):
            heads = (batch, length, 3, self.config.heads, self.config.head_size)
            qkv = layer.qkv(layer.norms[0](x)).view(heads).permute(2, 0, 3, 1, 4)
            x = x + layer.out(_joined(attend(qkv[0], *cache.put(index, qkv[1:], where, end), mask)))
            if layer.cross_q is not None and layer.cross_out is not None:
                assert memory is not None, "a cross-attending transformer needs its memory"
                q = layer.cross_q(layer.norms[1](x)).view(batch, length, self.config.heads, -1).transpose(1, 2)
                x = x + layer.cross_out(_joined(attend(q, *memory[index])))
            x = x + layer.down(F.gelu(layer.up(layer.norms[-1](x))))
        return self.transformer.norm(x).view(batch, length, -1)

    def _mask(self, positions: Tensor, end: int) -> Tensor:
        """What each of the positions [B, S] sees of those before `end`: 0 or -inf, [B, 1, S, end]."""
        keys = torch.arange(end, device=positions.device)
        seen = keys <= positions[..., None]
        if self.config.unmasked > 1:
            seen |= (keys < self.config.unmasked) & (positions < self.config.unmasked)[..., None]
        return self.kept.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)[:, None]


def _whole_steps(positions: int, config: TransformerConfig) -> int:
    """Where the keys end that are attended to."""
    return -(-positions // STEP) * STEP if config.causal else positions


def _layer(block: Any, kernel: Kernel) -> _Layer:
    attention, cross, feed_forward = block.attention, block.cross, block.feed_forward
    return _Layer(
        [part.norm for part in (attention, cross, feed_forward) if part is not None],
        kernel(attention.qkv),
        kernel(attention.out),
        None if cross is None else kernel(cross.q),
        None if cross is None else kernel(cross.out),
        kernel(feed_forward.up),
        kernel(feed_forward.down),
    )


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of queries [B, heads, S, head_size] to keys and values [B, heads, M, head_size].

    In bfloat16 on a CPU, two multiplications: where keys and values lie in one piece they are read in two thirds of the
    time of PyTorch's own, whose sums depend on the number of queries on processors with AMX.
    """
    if q.dtype != torch.bfloat16 or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(2, 3))
    return torch.matmul((scores if mask is None else scores + mask).softmax(-1), v)


def _joined(heads: Tensor) -> Tensor:
    """[B, heads, S, head_size] -> [B S, heads head_size]"""
    return heads.transpose(1, 2).flatten(2).flatten(0, 1)
