"""One transformer for every part of ImageBART: causal or bidirectional, with or without cross-attention.

Pre-norm blocks, learned absolute positions, exact GELU: the form of the published models' encoders and decoders.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.core.settings import Depth, Heads, Length, Settings, Vocabulary, Width


class TransformerConfig(Settings):
    width: Width
    depth: Depth
    heads: Heads
    vocab_in: Vocabulary  # different input tokens
    positions: Length  # longest sequence
    head_size: Width = 64
    vocab_out: Vocabulary | None = None  # logits; None: the normalized hidden states are the output
    causal: bool = True
    unmasked: Length = 0  # leading positions of a causal transformer that see each other in both directions
    cross: bool = False  # cross-attention to an encoder's output of the same width
    attention_bias: bool = False  # biases of q, k, v
    head_bias: bool = True  # bias of the logits


KeyValue = tuple[Tensor, Tensor]  # keys and values, each [B, heads, length, head_size]
KEYS_MULTIPLE = 16  # cached keys are attended to in multiples of this: sums do not depend on where drafts end


def keys_end(positions: int) -> int:
    """How many cached keys queries up to a position attend to."""
    return -(-positions // KEYS_MULTIPLE) * KEYS_MULTIPLE


class Linear(nn.Linear):
    """A linear map whose weights may be stored in a shorter type than its input's."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(torch.promote_types(self.weight.dtype, x.dtype)), self.bias)


class Attention(nn.Module):
    """Self-attention, or cross-attention to keys and values that are computed once (`project_kv`)."""

    def __init__(self, config: TransformerConfig, cross: bool = False) -> None:
        super().__init__()
        inner = config.heads * config.head_size
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width)
        if cross:
            self.q = Linear(config.width, inner, bias=config.attention_bias)
            self.kv = Linear(config.width, 2 * inner, bias=config.attention_bias)
        else:
            self.qkv = Linear(config.width, 3 * inner, bias=config.attention_bias)
        self.out = Linear(inner, config.width)

    def split_heads(self, x: Tensor, parts: int) -> Tensor:
        """[B, S, parts heads head_size] -> [parts, B, heads, S, head_size]"""
        batch, length, _ = x.shape
        return x.view(batch, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4)

    def project_kv(self, encoded: Tensor) -> KeyValue:
        """Encoder output [B, M, width] -> keys and values for cross-attention."""
        k, v = self.split_heads(self.kv(encoded), 2).unbind(0)
        return k, v

    def forward(
        self,
        x: Tensor,
        cross_kv: KeyValue | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        kept: Tensor | None = None,
        where: Tensor | int = 0,
    ) -> Tensor:
        """[B, S, width] -> [B, S, width].

        mask: added to scores, [B or 1, 1, S, M]; causal: each query sees the keys up to its own position. kept: all
        keys and values, [2, B, heads, M, head_size]; x's are stored in it at positions [B, S], or from one on.
        """
        if cross_kv is not None:
            (q,) = self.split_heads(self.q(self.norm(x)), 1)
            k, v = cross_kv
        else:
            q, k, v = qkv = self.split_heads(self.qkv(self.norm(x)), 3)
            if kept is not None:
                store(kept, qkv[1:], where)
                k, v = kept
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(out.transpose(1, 2).flatten(2))


def store(kept: Tensor, new: Tensor, where: Tensor | int) -> None:
    """Puts new keys and values [2, B, heads, S, head_size] at positions [B, S] among all, or from one on."""
    if isinstance(where, int):
        kept[:, :, :, where : where + new.shape[3]] = new
    else:
        rows = torch.arange(new.shape[1], device=new.device)[:, None]
        kept[:, rows, :, where] = new.permute(1, 3, 0, 2, 4)


class Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.cross = Attention(config, cross=True) if config.cross else None
        up, down = Linear(config.width, 4 * config.width), Linear(4 * config.width, config.width)
        norm = nn.LayerNorm(config.width)
        self.feed_forward = nn.Sequential(OrderedDict(norm=norm, up=up, gelu=nn.GELU(), down=down))

    def forward(self, x: Tensor, cross_kv: KeyValue | None, *attention: Any) -> Tensor:
        """[B, S, width] -> [B, S, width]; attention: how x attends to itself, see `Attention`."""
        x = x + self.attention(x, None, *attention)
        if self.cross is not None:
            x = x + self.cross(x, cross_kv)
        return x + self.feed_forward(x)


def sinusoids(positions: int, width: int) -> Tensor:
    """Sinusoidal positions, float [positions, width] (Vaswani et al. 2017, section 3.5)."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(positions)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width]


@dataclass
class Cache:
    """A decoder's input besides the tokens of x_s, computed once a step, and what it keeps between passes."""

    prefix: Tensor  # decoder tokens before the first image token, int64 [B, P]
    cross_kv: list[KeyValue] | None = None  # cross-attention's keys and values, of every block
    added_embeds: Tensor | None = None  # added to embeddings, [B, P - 1 + N, width]
    kept: Tensor | None = None  # self-attention's keys and values, [depth, 2, B, heads, positions, head_size]

    def allocate(self, decoder: "Transformer") -> None:
        """Allocates the keys and values of every position, once; `decode` masks those after a row's last."""
        config, like = decoder.config, decoder.position_embedding
        shape = (config.depth, 2, len(self.prefix), config.heads, keys_end(config.positions), config.head_size)
        self.kept = like.new_zeros(shape)
        self.cross_kv = self.cross_kv and [(k.contiguous(), v.contiguous()) for k, v in self.cross_kv]

    def select(self, rows: Tensor) -> None:
        """Keeps some of the rows, int64 [B']."""
        self.prefix = self.prefix[rows]
        self.cross_kv = self.cross_kv and [(k[rows], v[rows]) for k, v in self.cross_kv]
        self.added_embeds = None if self.added_embeds is None else self.added_embeds[rows]
        self.kept = None if self.kept is None else self.kept[:, :, rows]


class Transformer(nn.Module):
    """Token embeddings, blocks, a final norm and, where `vocab_out` is given, logits."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_in, config.width)
        self.position_embedding = nn.Parameter(torch.empty(config.positions, config.width))
        blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.blocks: Iterable[Block] = blocks  # type: ignore[assignment]
        self.norm = nn.LayerNorm(config.width)
        head = Linear(config.width, config.vocab_out, bias=config.head_bias) if config.vocab_out else nn.Identity()
        self.head: nn.Module = head
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """GPT-2's: normal with deviation 0.02, what is added to the residual stream scaled down.

        Positions begin as sinusoids of the same size: one map then finds the word before or the token above from every
        position, which has to be learned for each where positions begin at random.
        """
        if self.position_embedding.is_meta:
            return  # its weights are about to be read
        with torch.no_grad():
            self.position_embedding.copy_(sinusoids(*self.position_embedding.shape) * (0.02 * 2**0.5))
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                deep = name.endswith((".out", ".down"))
                nn.init.normal_(module.weight, std=0.02 / (2 * self.config.depth) ** 0.5 if deep else 0.02)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)

    def cross_kv(self, encoded: Tensor) -> list[KeyValue]:
        """Cross-attention keys and values of every block for an encoder output [B, M, width]."""
        return [block.cross.project_kv(encoded) for block in self.blocks if block.cross is not None]

    def forward(
        self, tokens: Tensor, added_embeds: Tensor | None = None, cross_kv: list[KeyValue] | None = None
    ) -> Tensor:
        """Tokens int64 [B, S] and added_embeds [B, S, width] -> hidden states [B, S, width] after the final norm."""
        length, unmasked = tokens.shape[1], self.config.unmasked
        positions = torch.arange(length, device=tokens.device)[None]
        x = self._embed(tokens, positions, added_embeds)
        causal, mask = self.config.causal and length > max(unmasked, 1), None
        if causal and unmasked > 1:
            causal, mask = False, self._mask(positions, length)
        for layer, block in enumerate(self.blocks):
            x = block(x, cross_kv[layer] if cross_kv else None, mask, causal)
        return self.norm(x)

    def hidden(self, x_s: Tensor, cache: Cache) -> Tensor:
        """Hidden states [B, N, width] from which the tokens x_s, int64 [B, N], are predicted: teacher forcing."""
        tokens = torch.cat([cache.prefix, x_s[:, :-1]], 1)
        return self(tokens, cache.added_embeds, cache.cross_kv)[:, cache.prefix.shape[1] - 1 :]

    def decode(self, x_s: Tensor, cache: Cache, begins: list[int], length: int) -> Tensor:
        """Hidden states at `length` positions of [prefix, x_s], row b's from begins[b] on: [B, length, width].

        All positions before a row's first must have been decoded with the tokens that stand there now, the `unmasked`
        ones in one call; where a position is decoded again, the cache is overwritten.
        """
        rows = torch.arange(len(x_s), device=x_s.device)[:, None]
        positions = torch.tensor(begins, device=x_s.device)[:, None] + torch.arange(length, device=x_s.device)
        tokens = torch.cat([cache.prefix, x_s[:, :-1]], 1)[rows, positions]
        added_embeds = None if cache.added_embeds is None else cache.added_embeds[rows, positions]
        x = self._embed(tokens, positions, added_embeds)
        end = keys_end(max(begins) + length)
        where = begins[0] if len(set(begins)) == 1 else positions
        mask = self._mask(positions, end)
        assert cache.kept is not None, "Cache.allocate comes first"
        for layer, block in enumerate(self.blocks):
            cross_kv = cache.cross_kv[layer] if cache.cross_kv else None
            x = block(x, cross_kv, mask, False, cache.kept[layer, :, :, :, :end], where)
        return self.norm(x)

    def _embed(self, tokens: Tensor, positions: Tensor, added_embeds: Tensor | None) -> Tensor:
        x = self.token_embedding(tokens) + self.position_embedding[positions]
        return x if added_embeds is None else x + added_embeds

    def _mask(self, positions: Tensor, end: int) -> Tensor:
        """0 where queries at positions [B, S] see a key before `end`, else -inf: [B, 1, S, end]."""
        keys, unmasked = torch.arange(end, device=positions.device), self.config.unmasked
        seen = keys <= positions[..., None]
        if unmasked > 1:
            seen |= (keys < unmasked) & (positions < unmasked)[..., None]
        return self.position_embedding.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)[:, None]


# The text encoder of our own models: a prompt as a few query tokens that precede the image tokens, so that the decoder
# reads a few vectors in place of 77 words. It can be trained with captions alone, a hundred times faster than with
# images (`recipes.avatars.training`).


class TextEncoderConfig(Settings):
    transformer: TransformerConfig  # bidirectional, over [words..., query tokens...]; its vocabulary is these
    query_tokens: Length  # vectors of the output
    conv_width: Length  # words that the convolution sees


class CausalConv(nn.Module):
    """A convolution over each word and those before it: embeddings [B, P, width] -> [B, P, width], zero at first.

    Attention alone got two colors in three right: it is slow to learn which one stands before which noun.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, width, length)
        nn.init.zeros_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(F.pad(x.transpose(1, 2), (self.convolution.kernel_size[0] - 1, 0))).transpose(1, 2)


class TextEncoder(nn.Module):
    """Words int64 [B, length] -> query tokens [B, query_tokens, width]."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config.transformer)
        self.phrase = CausalConv(config.transformer.width, config.conv_width)

    def forward(self, words: Tensor) -> Tensor:
        count, vocabulary = self.config.query_tokens, self.config.transformer.vocab_in
        queries = torch.arange(vocabulary - count, vocabulary, device=words.device).expand(len(words), -1)
        phrases = self.phrase(self.transformer.token_embedding(words))
        tokens = torch.cat([words, queries], 1)
        return self.transformer(tokens, added_embeds=F.pad(phrases, (0, 0, 0, count)))[:, -count:]


@torch.no_grad()
def with_vocabulary(encoder: TextEncoder, before: Sequence[int], after: Sequence[int]) -> TextEncoder:
    """A copy that reads the CLIP tokens `after` in place of `before`, with the embeddings of those in both.

    The i-th of them is its word i + 1, as in `TextConditioner`; word 0 is the absence of one.
    """
    config = encoder.config
    words = len(after) + 1
    grown = TextEncoder(config.replace(transformer=config.transformer.replace(vocab_in=words + config.query_tokens)))
    old, weight = encoder.transformer.token_embedding.weight, grown.transformer.token_embedding.weight.clone()
    places = {token: index for index, token in enumerate(before, 1)}
    known = [(index, places[token]) for index, token in enumerate(after, 1) if token in places]
    to, source = (torch.tensor(column) for column in zip((0, 0), *known, strict=True))
    weight[to] = old[source]
    weight[words:] = old[len(before) + 1 :]
    grown.load_state_dict({**encoder.state_dict(), "transformer.token_embedding.weight": weight})
    return grown
