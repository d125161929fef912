from __future__ import annotations

import pytest
import torch
from torch import nn

from imagebart.sampling.packed_linear import Precision, bf16, fp16, fp32, kernels, multiplies_bfloat16, native

# What is lost of a number of about 1: float16 keeps 11 bits of a weight, bfloat16 8 of all.
TOLERANCE = {native: 1e-5, fp32: 1e-5, fp16: 2e-3, bf16: 2e-2}
ALL: Precision = "rounded"


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 40])
def test_packed_matrices_multiply(rows: int) -> None:
    for linear in (nn.Linear(24, 40), nn.Linear(24, 40, bias=False)):
        exact = linear.requires_grad_(False).double()
        x = torch.randn(rows, 24)
        expected = exact(x.double())
        for kernel in kernels([linear.float()], ALL):
            torch.testing.assert_close(kernel(linear)(x).double(), expected, rtol=0, atol=TOLERANCE[kernel])


def test_a_row_does_not_depend_on_those_beside_it() -> None:
    """However large they are, and however many."""
    for width, out in ((64, 48), (256, 1024), (1024, 256)):
        linear = nn.Linear(width, out).requires_grad_(False)
        x = torch.randn(64, width) * torch.logspace(-3, 3, 64)[torch.randperm(64), None]
        for kernel in kernels([linear], ALL)[1:]:
            multiply = kernel(linear)
            whole = multiply(x)
            for rows in (4, 8, 12, 20, 32, 40):
                assert torch.equal(multiply(x[:rows]), whole[:rows]), (kernel, rows)


@pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor does not multiply bfloat16")
def test_a_picture_does_not_depend_on_those_beside_it() -> None:
    for rows in (40, 257, 271):
        multiply = bf16(nn.Linear(256, 1024).requires_grad_(False), rows)
        x = torch.randn(3 * rows, 256)
        whole = multiply(x)
        for one, part in zip(x.split(rows), whole.split(rows), strict=True):
            assert torch.equal(multiply(one), part), rows


def test_weights_are_rounded_only_if_it_is_allowed_or_changes_nothing() -> None:
    linear = nn.Linear(24, 40).requires_grad_(False)
    exact, some = (kernels([linear], precision) for precision in ("exact", "rounded"))
    assert not {fp16, bf16} & set(exact)
    assert fp16 in some and some[: len(exact)] == exact
    assert (bf16 in some) == multiplies_bfloat16()
    rounded = nn.Linear(24, 40).requires_grad_(False)
    rounded.weight.copy_(linear.weight.half())
    assert kernels([rounded], "exact") == [*exact, fp16]
    assert fp16 not in kernels([rounded, linear], "exact")
    assert kernels([linear.double()], ALL, torch.float64) == [native]
    assert kernels([rounded.bfloat16()], ALL, torch.bfloat16) == [native]


def test_packed_is_there() -> None:
    """The two-core demo depends on it: fails where a PyTorch without oneDNN or its operator is installed."""
    assert fp32 in kernels([nn.Linear(2, 2)], "exact")
