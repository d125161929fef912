"""Linear maps for a few rows at a time, where reading the weights is what takes the time.

PyTorch's own kernel for 2 to 16 rows takes two to four times as long as for one, for it reorders the weights in
every call. Two others have them in their own order once: oneDNN in float32, and FBGEMM in float16 with float32 inputs
and sums, half the bytes. Both come with PyTorch's CPU builds; where one is missing, it is not among the choices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Matrix = Callable[[Tensor], Tensor]  # [rows, in] -> [rows, out]
Packing = Callable[[nn.Linear], Matrix]
ROWS = 8  # that oneDNN orders the weights for


def plain(linear: nn.Linear) -> Matrix:
    """PyTorch's own, for every device and type."""
    weight, bias = linear.weight, linear.bias
    return lambda x: F.linear(x, weight, bias)


def packed(linear: nn.Linear) -> Matrix:
    """oneDNN, float32 on a CPU. A row's result does not depend on how many rows there are."""
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
    bias, multiply = linear.bias, torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, weight, bias, "none", [], "")


def half(linear: nn.Linear) -> Matrix:
    """FBGEMM, weights rounded to float16, everything else float32 on a CPU."""
    weight = torch.ops.quantized.linear_prepack_fp16(linear.weight.detach(), linear.bias)
    multiply = torch.ops.quantized.linear_dynamic_fp16

    def apply(x: Tensor) -> Tensor:
        rows = len(x)
        rest = rows % 6  # the kernel takes six rows at once; for one or two left over it adds in another order
        if rest not in (1, 2):
            return multiply(x, weight)
        return multiply(F.pad(x, (0, 0, 0, 3 - rest)), weight)[:rows]

    return apply


def packings(linears: list[nn.Linear], rounding: bool) -> list[Packing]:
    """Those that can be used for these maps, the fastest last; `half` if it changes none, or with rounding."""
    weights = [linear.weight for linear in linears]
    if any(weight.device.type != "cpu" or weight.dtype != torch.float32 for weight in weights):
        return [plain]
    choices: list[Packing] = [plain]
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        choices.append(packed)
    fits = rounding or all(torch.equal(weight, weight.half().float()) for weight in weights)
    if fits and "fbgemm" in torch.backends.quantized.supported_engines:
        choices.append(half)
    return choices
