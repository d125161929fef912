"""Linear layers with packed weights, for a few rows at a time, where reading the weights takes the time.

PyTorch's own kernel takes two to four times as long for 2 to 16 rows as for one, because it reorders the weights in
every call. Other kernels reorder them once: oneDNN in float32; FBGEMM with float16 weights and float32 inputs and sums
(half the bytes); oneDNN in bfloat16 where the processor has instructions for it (half the bytes, and half the time for
many rows). All come with PyTorch's CPU builds; one that is missing is not used.

A row's result never depends on the rows beside it, since some of them are drafts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.models.imagebart import Precision, too_large
from imagebart.models.transformer import KVCache, Transformer

M = TypeVar("M", bound=nn.Module)
Matrix = Callable[[Tensor], Tensor]  # [rows, in] -> [rows, out], of the type of the weights or the input
Kernel = Callable[[nn.Linear], Matrix]
ROWS = 8  # for which oneDNN orders the weights
HALF_ROWS = 6  # of a block of FBGEMM's kernel for float16
TILE_ROWS = 32  # up to which AMX tiles add in one order, and take little longer than for one row


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
    """The same in blocks of equal size, because with tiles oneDNN adds in an order that depends on the rows."""

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
    """The kernels that can be used for these layers, the fastest last.

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


# A transformer with packed linear maps: the same module tree, in which nn.Linear is swapped.


class PackedLinear(nn.Module):
    """A linear map by a kernel."""

    def __init__(self, linear: nn.Linear, kernel: Kernel) -> None:
        super().__init__()
        self.multiply = kernel(linear)

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(x.flatten(0, -2)).view(*x.shape[:-1], -1)


def swap_linear(module: M, kernel: Kernel) -> M:
    """A copy of a module that computes with a kernel and shares all other parts.

    The maps to cross-attention's keys and values, computed once a step, stay as they are.
    """
    if kernel is native or not any(isinstance(part, nn.Linear) for part in module.modules()):
        return module  # also parametrized embeddings, in training, which cannot be copied
    copied = copy(module)
    copied._modules = {}
    for name, child in module._modules.items():
        if isinstance(child, nn.Linear):
            copied._modules[name] = child if name == "kv" else PackedLinear(child, kernel)
        else:
            copied._modules[name] = None if child is None else swap_linear(child, kernel)
    return copied


# What samples a step: its networks with packed weights, and the number of threads that they are fastest on.

PASS_ROWS = 32  # tokens of all variants in a pass of the decoder: fewer take little less time, more drafts fail
WORTH = 0.9  # more threads have to take less than this share of one's time: they wait for each other on a busy machine


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Computes on a number of threads of the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class PackedModel:
    """A step's networks with packed weights."""

    decoder: Transformer
    kernel: Kernel
    threads: int = 1  # that passes of the decoder are computed on
    encoder: Transformer | None = None  # where what is computed once a step may be rounded, too

    @property
    def kv_like(self) -> Tensor:
        """An empty tensor of the type and on the device of cached keys and values."""
        like = self.decoder.position_embedding[:0]
        return like.bfloat16() if self.kernel is bf16 else like

    @property
    def rounds(self) -> bool:
        """Whether what is computed once a step may be rounded to bfloat16, too."""
        return self.kernel is bf16 and multiplies_bfloat16()

    def new_cache(self, batch: int) -> KVCache:
        return KVCache(self.decoder.config, batch, self.kv_like)

    def seconds(self, threads: int, repeats: int = 3) -> float:
        """What a pass over the last PASS_ROWS tokens takes on some threads: the shortest of a few."""
        config, cache, head = self.decoder.config, self.new_cache(1), self.decoder.head
        assert head is not None, "a transformer without logits cannot sample"
        rows, taken = min(PASS_ROWS, config.positions), []
        kv = self.kv_like.new_zeros(1, config.heads, config.positions, config.head_size)
        cross_kv = [(kv, kv)] * config.depth if config.cross else None
        tokens = torch.zeros(1, rows, dtype=torch.long, device=kv.device)
        with use_threads(threads):
            for _ in range(repeats + 1):
                began = time.perf_counter()
                hidden = self.decoder(tokens, None, cross_kv, cache, [config.positions - rows])
                head(hidden).float().softmax(-1).sort()  # as sampling does
                taken.append(time.perf_counter() - began)
        return min(taken[1:])


@torch.no_grad()
def pack(precision: Precision, decoder: Transformer, encoder: Transformer | None = None) -> PackedModel:
    """Packs the weights, and times passes of the decoder on one thread and on all.

    The order of weights decides how sums are rounded, so that it is never chosen by time: the same seed has to give the
    same image at every start. Threads share out columns, which changes no sum. precision: how far weights may be
    rounded. Raises ValueError for a decoder that is not causal.
    """
    if not decoder.config.causal:
        raise ValueError("a transformer that sees in both directions cannot draw")
    maps = [m for m in decoder.modules() if isinstance(m, nn.Linear)]
    *_, kernel = kernels(maps, precision, decoder.position_embedding.dtype)
    packed, most = PackedModel(swap_linear(decoder, kernel), kernel), torch.get_num_threads()
    on_cpu = packed.kv_like.device.type == "cpu"
    if on_cpu and most > 1 and packed.seconds(most) < WORTH * packed.seconds(1):
        packed = replace(packed, threads=most)
    if encoder is None or not packed.rounds:
        return packed
    return replace(packed, encoder=swap_linear(encoder, partial(bf16, rows=encoder.config.positions)))  # whole images


class PackedModels:
    """The packed models of a model's steps, made when they are first needed and again when the weights have changed.

    They are never copied or saved with the model. Where memory is short, all others are dropped: a stage's weights
    are packed again in less time than it takes to sample.
    """

    def __init__(self) -> None:
        self.made: dict[Transformer, tuple[object, PackedModel, list[Transformer]]] = {}

    def __deepcopy__(self, memo: object) -> PackedModels:
        return PackedModels()

    def __reduce__(self) -> tuple[type[PackedModels], tuple[()]]:
        return PackedModels, ()

    def get(self, precision: Precision, decoder: Transformer, encoder: Transformer | None = None) -> PackedModel:
        """As `pack`."""
        parts = [decoder] if encoder is None else [decoder, encoder]
        state = precision, *((p.data_ptr(), p._version) for part in parts for p in part.parameters())
        if self.made.get(decoder, (None,))[0] != state:
            self.made.pop(decoder, None)  # the old weights' memory is freed before the new ones come
            if not self.has_room(precision, decoder, encoder):
                self.made.clear()
            packed = pack(precision, decoder, encoder)
            self.made[decoder] = state, packed, [decoder] if packed.encoder is None else parts
        return self.made[decoder][1]

    def has_room(self, precision: Precision, decoder: Transformer, encoder: Transformer | None = None) -> bool:
        """Whether these networks' packed weights fit into memory beside those that are there."""
        if decoder.position_embedding.device.type != "cpu":
            return True  # they stay as they are
        rounded = precision == "rounded"
        networks = [network for *_, parts in self.made.values() for network in parts]
        networks += [decoder] if encoder is None or not rounded else [decoder, encoder]
        return not too_large(networks, torch.bfloat16 if rounded else torch.float32)
