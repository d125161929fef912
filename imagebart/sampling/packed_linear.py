"""Linear maps for a few rows at a time, where reading the weights is what takes the time.

PyTorch's own kernel for 2 to 16 rows takes two to four times as long as for one, for it reorders the weights in
every call. Others have them in their own order once: oneDNN in float32; FBGEMM in float16 with float32 inputs and sums,
half the bytes; oneDNN in bfloat16, where the processor multiplies that, half the bytes and half the time for many rows.
All come with PyTorch's CPU builds; where one is missing, it is not a choice.

A row's result never depends on the rows beside it: the drafts among them must not matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.mmap_policy import too_large
from imagebart.models.transformer import KeyValue, Transformer, TransformerConfig

Matrix = Callable[[Tensor], Tensor]  # [rows, in] -> [rows, out], of the type of the weights or the input
Kernel = Callable[[nn.Linear], Matrix]
Precision = Literal["exact", "rounded"]  # what drawing may do to weights
ROWS = 8  # that oneDNN orders the weights for
HALF_ROWS = 6  # that FBGEMM's kernel for float16 takes at once
TILE_ROWS = 32  # up to which tiles (AMX) add in one order, and take little longer than for one


def native(linear: nn.Linear) -> Matrix:
    """PyTorch's own, for every device and type."""
    return linear.forward


def fp32(linear: nn.Linear) -> Matrix:
    """oneDNN, float32 on a CPU. A row's result does not depend on how many rows there are."""
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().float(), ROWS)
    bias, multiply = linear.bias, torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, weight, bias, "none", [], "")


def fp16(linear: nn.Linear) -> Matrix:
    """FBGEMM, weights rounded to float16, everything else float32 on a CPU."""
    weight = torch.ops.quantized.linear_prepack_fp16(linear.weight.detach().float(), linear.bias)
    multiply = torch.ops.quantized.linear_dynamic_fp16

    def apply(x: Tensor) -> Tensor:
        rows = len(x)
        rest = rows % HALF_ROWS  # for one or two left over the kernel adds in another order
        if rest not in (1, 2):
            return multiply(x, weight)
        return multiply(F.pad(x, (0, 0, 0, 3 - rest)), weight)[:rows]

    return apply


def bf16(linear: nn.Linear, rows: int = TILE_ROWS) -> Matrix:
    """oneDNN, weights, inputs and outputs rounded to bfloat16, sums float32; gives bfloat16.

    rows: of more than TILE_ROWS, that are multiplied at once where tiles are.
    """
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().bfloat16(), ROWS)
    bias = None if linear.bias is None else linear.bias.detach().bfloat16()
    multiply = torch.ops.mkldnn._linear_pointwise

    def apply(x: Tensor) -> Tensor:
        return multiply(x.bfloat16(), weight, bias, "none", [], "")

    return in_blocks(apply, rows) if torch.cpu._is_amx_tile_supported() else apply


def in_blocks(multiply: Matrix, size: int) -> Matrix:
    """The same, of few rows or always of so many: by their number, oneDNN chooses for tiles in which order it adds."""

    def apply(x: Tensor) -> Tensor:
        if len(x) <= TILE_ROWS:
            return multiply(x)
        blocks = F.pad(x, (0, 0, 0, -len(x) % size)).split(size)
        return torch.cat([multiply(block) for block in blocks])[: len(x)]

    return apply


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; emulated, it takes dozens of times as long."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def kernels(linears: list[nn.Linear], precision: Precision, dtype: torch.dtype = torch.float32) -> list[Kernel]:
    """Those that can be used for these maps, the fastest last.

    dtype: of what they multiply; their weights may be kept shorter. precision: "exact" allows what changes no weight,
    `fp16` where all are float16 numbers; "rounded" allows `fp16` and `bf16`.
    """
    weights = [linear.weight for linear in linears]
    if dtype != torch.float32 or any(weight.device.type != "cpu" for weight in weights):
        return [native]
    choices: list[Kernel] = [native]
    mkldnn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    fbgemm = "fbgemm" in torch.backends.quantized.supported_engines
    if mkldnn:
        choices.append(fp32)
    if fbgemm and (precision != "exact" or all(torch.equal(w.float(), w.half().float()) for w in weights)):
        choices.append(fp16)
    if mkldnn and precision != "exact" and multiplies_bfloat16():
        choices.append(bf16)
    return choices


# A transformer as it draws: a few tokens at a time, after those whose keys and values it has kept.
#
# The same numbers as `Transformer.forward`, with rows at positions of their own, weights in one of the orders of
# `imagebart.sampling.packed_linear`, and nothing that grows with the position but attention itself.


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
        cross_kv: list[KeyValue] | None = None,
        added_embeds: Tensor | None = None,
    ) -> Tensor:
        """Tokens int64 [B, S], row b's from position begins[b] on -> hidden states [B, S, width] after the final norm.

        What stands before a row's tokens must have been in earlier calls, the `unmasked` ones all in the first; a
        network that sees in both directions is given all at once. `added_embeds` [B, S, width] is added to the
        embeddings; `cross_kv` has the type of `kept`. Raises ValueError where the sequence gets too long.
        """
        batch, length = tokens.shape
        last = max(begins) + length
        if last > self.config.positions:
            raise ValueError(f"sequence of {last} tokens, expected at most {self.config.positions}")
        end = _whole_steps(last, self.config)
        positions = torch.tensor(begins, device=tokens.device)[:, None] + torch.arange(length, device=tokens.device)
        x = self.transformer.token_embedding(tokens) + self.transformer.position_embedding[positions]
        if added_embeds is not None:
            x = x + added_embeds
        x = x.flatten(0, 1)
        mask = self._mask(positions, end) if self.config.causal else None
        where = begins[0] if len(set(begins)) == 1 else positions
        for index, layer in enumerate(self.layers):
            heads = (batch, length, 3, self.config.heads, self.config.head_size)
            qkv = layer.qkv(layer.norms[0](x)).view(heads).permute(2, 0, 3, 1, 4)
            x = x + layer.out(_joined(attend(qkv[0], *cache.put(index, qkv[1:], where, end), mask)))
            if layer.cross_q is not None and layer.cross_out is not None:
                assert cross_kv is not None, "a cross-attending transformer needs cross_kv"
                q = layer.cross_q(layer.norms[1](x)).view(batch, length, self.config.heads, -1).transpose(1, 2)
                x = x + layer.cross_out(_joined(attend(q, *cross_kv[index])))
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


# What a pass of a decoder costs on this machine, by its rows and by the number of threads.


SHORT, LONG = 8, 32  # tokens of the passes that are timed


@dataclass(frozen=True)
class Cost:
    """Seconds of a pass: fixed (reading the weights) and for each row (a token of one variant), in blocks of rows."""

    fixed: float
    row: float
    block: int = 1

    def seconds(self, rows: int) -> float:
        return self.fixed + self.row * _whole(rows, self.block)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Computes on a number of threads of the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def calibrate(network: Network, block: int) -> dict[int, Cost]:
    """What passes of a decoder cost on one thread and on all; block: rows that its kernel takes at once."""
    return {count: _cost(network, count, block) for count in sorted({1, torch.get_num_threads()})}


def _cost(network: Network, count: int, block: int) -> Cost:
    """Of passes on some threads."""
    short, long = _seconds(network, SHORT, count), _seconds(network, LONG, count)
    fewer, more = _whole(SHORT, block), _whole(LONG, block)
    row = max(long - short, 0.0) / (more - fewer)
    return Cost(max(short - fewer * row, 0.1 * short), row, block)


def _whole(rows: int, block: int) -> int:
    return -(-rows // block) * block


def _seconds(network: Network, tokens: int, count: int, repeats: int = 3) -> float:
    """The shortest of some passes over a number of tokens, on some threads."""
    once, taken = trial(network, tokens), []
    with threads(count):
        for _ in range(repeats + 1):
            began = time.perf_counter()
            once().float().softmax(-1).sort()  # as drawing tokens does
            taken.append(time.perf_counter() - began)
    return min(taken[1:])


def trial(network: Network, tokens: int) -> Callable[[], Tensor]:
    """A pass of a decoder over a number of tokens (all, if it has fewer) at the last positions: logits [tokens, K]."""
    config, cache, head = network.config, network.new_cache(1), network.head
    assert head is not None, "a transformer without logits cannot draw"
    tokens = min(tokens, config.positions)
    some = network.kept.new_zeros(1, config.heads, config.positions, config.head_size)
    cross_kv = [(some, some)] * config.depth if config.cross else None
    fed = torch.zeros(1, tokens, dtype=torch.long, device=some.device)
    return lambda: head(network.forward(fed, [config.positions - tokens], cache, cross_kv).flatten(0, 1))


# What draws a step: its networks with their weights in the order that suits the machine, and what a pass costs.


WORTH = 0.9  # more threads have to take less than this share of one's time: they wait for each other on a busy machine


@dataclass(frozen=True)
class PackedModel:
    """A step's networks, and what a pass of the decoder costs here, by the number of threads."""

    decoder: Network
    costs: Mapping[int, Cost]
    kernel: Kernel
    encoder: Network | None = None  # where what is computed once a step may be rounded, too

    def threads(self, rows: int) -> int:
        """On how many threads a pass of so many rows is computed."""
        fewest, most = min(self.costs), max(self.costs)
        faster = self.costs[most].seconds(rows) < WORTH * self.costs[fewest].seconds(rows)
        return most if faster else fewest

    def seconds(self, rows: int) -> float:
        """What a pass of so many rows takes."""
        return self.costs[self.threads(rows)].seconds(rows)

    @property
    def rounds(self) -> bool:
        """Whether what is computed once a step may be rounded to bfloat16, too."""
        return rounds(self.kernel)


def rounds(kernel: Kernel) -> bool:
    """Whether weights in this order allow the rest to be rounded to bfloat16, where that is fast."""
    return kernel is bf16 and multiplies_bfloat16()


class PackedModels:
    """The engines of a model's networks, made when they are first needed and again when the weights have changed.

    They are never copied or saved with the model. Where there is no room for another, all others go: a stage's weights
    are ordered again in less time than it takes to draw.
    """

    def __init__(self) -> None:
        self.made: dict[Transformer, tuple[object, PackedModel]] = {}

    def __deepcopy__(self, memo: object) -> PackedModels:
        return PackedModels()

    def __reduce__(self) -> tuple[type[PackedModels], tuple[()]]:
        return PackedModels, ()

    def get(self, precision: Precision, decoder: Transformer, encoder: Transformer | None = None) -> PackedModel:
        """As `pack`."""
        parts = [decoder] if encoder is None else [decoder, encoder]
        state = precision, *((p.data_ptr(), p._version) for part in parts for p in part.parameters())
        if self.made.get(decoder, (None,))[0] != state:
            self.made.pop(decoder, None)  # the old order's memory goes before the new one's comes
            if not self.has_room(precision, decoder, encoder):
                self.made.clear()
            self.made[decoder] = state, pack(precision, decoder, encoder)
        return self.made[decoder][1]

    def has_room(self, precision: Precision, decoder: Transformer, encoder: Transformer | None = None) -> bool:
        """Whether these networks' ordered weights fit into memory beside those that are there."""
        if decoder.position_embedding.device.type != "cpu":
            return True  # they stay as they are
        rounded = precision == "rounded"
        there = [packed_model for _, packed_model in self.made.values()]
        networks = [network.transformer for e in there for network in (e.decoder, e.encoder) if network is not None]
        networks += [decoder] if encoder is None or not rounded else [decoder, encoder]
        return not too_large(networks, torch.bfloat16 if rounded else torch.float32)


@torch.no_grad()
def pack(precision: Precision, decoder: Transformer, encoder: Transformer | None = None) -> PackedModel:
    """Orders the weights, and times passes of the decoder on one thread and on all.

    The order decides how sums are rounded, so that it is never chosen by time: the same seed has to draw the same
    picture at every start. Threads share out columns, which changes no sum. precision: how far the order may round
    weights. Raises ValueError for a decoder that is not causal.
    """
    if not decoder.config.causal:
        raise ValueError("a transformer that sees in both directions cannot draw")
    maps = [m for m in decoder.modules() if isinstance(m, nn.Linear)]
    *_, kernel = kernels(maps, precision, decoder.position_embedding.dtype)
    network = Network(decoder, kernel)
    costs = calibrate(network, HALF_ROWS if kernel is fp16 else 1)
    rounded = None
    if encoder is not None and rounds(kernel):
        rounded = Network(encoder, partial(bf16, rows=encoder.config.positions))  # a picture at once
    return PackedModel(network, costs, kernel, rounded)
