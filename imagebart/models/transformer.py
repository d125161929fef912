"""One transformer for every part of ImageBART: causal or bidirectional, with or without cross-attention.

Pre-norm blocks (self-attention, cross-attention where there is a memory, feed-forward), learned absolute
positions, exact GELU; the encoder, decoder and decoder-only network of the published models all have this form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.config import Depth, Heads, Length, Vocabulary, Width


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a transformer."""

    width: Width
    depth: Depth
    heads: Heads
    vocab_in: Vocabulary  # different input tokens
    positions: Length  # longest sequence
    head_size: Width = 64
    vocab_out: Vocabulary | None = None  # logits; None: the normalised hidden states are the output
    causal: bool = True
    unmasked: Length = 0  # leading positions of a causal transformer that see each other in both directions
    cross: bool = False  # cross-attention to an encoder's output of the same width
    attention_bias: bool = False  # biases of q, k, v
    head_bias: bool = True  # bias of the logits


KeyValue = tuple[Tensor, Tensor]  # keys and values, each [B, heads, length, head_size]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention: [B, heads, S, head_size], keys and values [B, heads, M, head_size] -> q's shape.

    mask: bool [S, M], True where a query sees a key; causal: each sees those up to its own place.
    """
    if q.device.type == "cpu" and q.requires_grad and torch.is_autocast_enabled("cpu"):
        return _attention_by_matrices(q, k, v, mask, causal)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def _attention_by_matrices(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """The same with all S x M weights at once: forwards and back, twice as fast in bf16 at a few hundred positions."""
    rows, columns = q.shape[-2], k.shape[-2]
    if causal:
        mask = torch.ones(rows, columns, dtype=torch.bool).tril()
    unseen = torch.zeros(rows, columns, dtype=q.dtype)
    if mask is not None:
        unseen.masked_fill_(~mask, -torch.inf)
    queries, keys, values = (t.flatten(0, 1) for t in (q * q.shape[-1] ** -0.5, k, v))
    weights = torch.baddbmm(unseen.expand(len(queries), -1, -1), queries, keys.transpose(1, 2)).softmax(-1)
    return torch.bmm(weights.to(values.dtype), values).view_as(q)


class Linear(nn.Linear):
    """A linear map whose weights may be kept as shorter numbers than those that they multiply."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(torch.promote_types(self.weight.dtype, x.dtype)), self.bias)


class SelfAttention(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_size
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width)
        self.qkv = Linear(config.width, 3 * inner, bias=config.attention_bias)
        self.out = Linear(inner, config.width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, S, width] -> q, k, v, each [B, heads, S, head_size]."""
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        out = attention(q, k, v, mask, causal)
        return self.out(out.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_size
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width)
        self.q = Linear(config.width, inner, bias=config.attention_bias)
        self.kv = Linear(config.width, 2 * inner, bias=config.attention_bias)
        self.out = Linear(inner, config.width)

    def cross_kv(self, context: Tensor) -> KeyValue:
        """Encoder output [B, M, width] -> keys and values, computed once a stage."""
        batch, length, _ = context.shape
        k, v = self.kv(context).view(batch, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return k, v

    def forward(self, x: Tensor, cross_kv: KeyValue) -> Tensor:
        batch, length, _ = x.shape
        q = self.q(self.norm(x)).view(batch, length, self.heads, -1).transpose(1, 2)
        out = attention(q, *cross_kv)
        return self.out(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = Linear(width, 4 * width)
        self.down = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.norm(x))))


class Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.cross = CrossAttention(config) if config.cross else None
        self.feed_forward = FeedForward(config.width)

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool, cross_kv: KeyValue | None) -> Tensor:
        q, k, v = self.attention.project(x)
        x = x + self.attention.attend(q, k, v, mask, causal)
        if self.cross is not None:
            assert cross_kv is not None, "a cross-attending transformer needs cross_kv"
            x = x + self.cross(x, cross_kv)
        return x + self.feed_forward(x)


def waves(positions: int, width: int) -> Tensor:
    """Sines and cosines of positions, of wavelengths from 2 pi to 10,000 times that: float [positions, width]."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width]


class Transformer(nn.Module):
    """Token embeddings, blocks, a final norm and, where `vocab_out` is given, logits."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_in, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.positions, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.head = Linear(config.width, config.vocab_out, bias=config.head_bias) if config.vocab_out else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """GPT-2's: normal with deviation 0.02, what goes into the residual stream scaled down.

        Positions begin as waves of the same size (Vaswani et al. 2017, section 3.5): one map then finds the word before
        or the token above from every position, which has to be learnt for each where positions begin at random.
        """
        if self.position_embedding.is_meta:
            return  # its weights are about to be read
        with torch.no_grad():
            self.position_embedding.copy_(waves(*self.position_embedding.shape) * (0.02 * 2**0.5))
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                deep = name.endswith((".out", ".down"))
                nn.init.normal_(module.weight, std=0.02 / (2 * self.config.depth) ** 0.5 if deep else 0.02)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)

    def cross_kv(self, context: Tensor) -> list[KeyValue]:
        """Cross-attention keys and values of every block for an encoder output [B, M, width]."""
        layers = [block.cross for block in self.blocks if isinstance(block, Block)]
        return [cross.cross_kv(context) for cross in layers if cross is not None]

    def forward(
        self, tokens: Tensor, added_embeds: Tensor | None = None, cross_kv: list[KeyValue] | None = None
    ) -> Tensor:
        """Tokens int64 [B, S] -> hidden states [B, S, width] after the final norm.

        `added_embeds` [B, S, width] is added to the embeddings. Raises ValueError where the sequence is too long.
        """
        length = tokens.shape[1]
        if length > self.config.positions:
            raise ValueError(f"sequence of {length} tokens, expected at most {self.config.positions}")
        x = self.token_embedding(tokens) + self.position_embedding[:length]
        if added_embeds is not None:
            x = x + added_embeds
        mask, causal = self._mask(length, x.device)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, causal, cross_kv[layer] if cross_kv is not None else None)
        return self.norm(x)

    def _mask(self, length: int, device: torch.device) -> tuple[Tensor | None, bool]:
        """What positions see: a bool mask [S, S] or None, and whether causal masking will do."""
        if not self.config.causal or length <= max(self.config.unmasked, 1):
            return None, False
        if self.config.unmasked <= 1:
            return None, True
        columns = torch.arange(length, device=device)
        rows = columns[:, None]
        return (columns <= rows) | ((columns < self.config.unmasked) & (rows < self.config.unmasked)), False


# What a network computes once a step, before the first token is drawn.


# An encoder: tokens [B, S], and what is added to their embeddings [B, S, width] -> its output [B, S, width].
Encode = Callable[[Tensor, Tensor | None], Tensor]


def check_cond(cond: Tensor | None, batch: int, length: int) -> None:
    """Raises ValueError unless there are `length` conditioning tokens in each row: [B, length], or None for none."""
    expected = (batch, length)
    given = (batch, 0) if cond is None else tuple(cond.shape)
    if given != expected:
        raise ValueError(f"cond has shape {list(given)}, expected {list(expected)}")


@dataclass
class DecoderInput:
    """What the decoder needs besides the tokens that it is fed."""

    x_t: Tensor  # int64 [B, N]
    prefix: Tensor  # decoder tokens before the first image token, int64 [B, P]
    cross_kv: list[KeyValue] | None = None  # cross-attention's keys and values, of every block
    added_embeds: Tensor | None = None  # added to embeddings, [B, P - 1 + N, width]
    drafts: Tensor | None = None  # logits of every token at once, [B, N, K]; None: x_t is the best first draft

    def select(self, rows: Tensor) -> None:
        """Goes on with some of the rows, int64 [B']."""
        self.x_t, self.prefix = self.x_t[rows], self.prefix[rows]
        self.cross_kv = self.cross_kv and [(k[rows], v[rows]) for k, v in self.cross_kv]
        self.added_embeds = None if self.added_embeds is None else self.added_embeds[rows]

    def of_types(self, kept: torch.dtype, given: torch.dtype) -> DecoderInput:
        """The same with cross_kv of a type, each part in one piece, and what is added to embeddings of another."""
        cross_kv = self.cross_kv and [(k.to(kept).contiguous(), v.to(kept).contiguous()) for k, v in self.cross_kv]
        added_embeds = None if self.added_embeds is None else self.added_embeds.to(given)
        return DecoderInput(self.x_t, self.prefix, cross_kv, added_embeds, self.drafts)
