"""Linear maps for a few rows at a time, where reading the weights is what takes the time.

PyTorch's own kernel for 2 to 16 rows takes two to four times as long as for one, for it reorders the weights in
every call. Others have them in their own order once: oneDNN in float32; FBGEMM in float16 with float32 inputs and sums,
half the bytes; oneDNN in bfloat16, where the processor multiplies that, half the bytes and half the time for many rows.
All come with PyTorch's CPU builds; where one is missing, it is not a choice.

A row's result never depends on the rows beside it: the drafts among them must not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Matrix = Callable[[Tensor], Tensor]  # [rows, in] -> [rows, out], of the type of the weights or the input
Kernel = Callable[[nn.Linear], Matrix]
Precision = Literal["exact", "rounded"]  # what drawing may do to weights
ROWS = 8  # that oneDNN orders the weights for
HALF_ROWS = 6  # that FBGEMM's kernel for float16 takes at once
TILE_ROWS = 32  # up to which tiles (AMX) add in one order, and take little longer than for one


def plain(linear: nn.Linear) -> Matrix:
    """PyTorch's own, for every device and type."""
    return linear.forward


def packed(linear: nn.Linear) -> Matrix:
    """oneDNN, float32 on a CPU. A row's result does not depend on how many rows there are."""
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().float(), ROWS)
    bias, multiply = linear.bias, torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, weight, bias, "none", [], "")


def half(linear: nn.Linear) -> Matrix:
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


def brain(linear: nn.Linear, rows: int = TILE_ROWS) -> Matrix:
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
    `half` where all are float16 numbers; "rounded" allows `half` and `brain`.
    """
    weights = [linear.weight for linear in linears]
    if dtype != torch.float32 or any(weight.device.type != "cpu" for weight in weights):
        return [plain]
    choices: list[Kernel] = [plain]
    mkldnn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    fbgemm = "fbgemm" in torch.backends.quantized.supported_engines
    if mkldnn:
        choices.append(packed)
    if fbgemm and (precision != "exact" or all(torch.equal(w.float(), w.half().float()) for w in weights)):
        choices.append(half)
    if mkldnn and precision != "exact" and multiplies_bfloat16():
        choices.append(brain)
    return choices
