"""Muon against a singular value decomposition."""

import pytest
import torch
from torch import nn

from imagebart.config import from_dict
from imagebart.models.transformer import Transformer, TransformerConfig
from imagebart.training.config import LoopConfig
from imagebart.training.loop import Muon, optimizers_for, orthogonal


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (12, 12)])
def test_orthogonal_keeps_directions_and_evens_out_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, -1.3, u.shape[1], dtype=torch.float64)
    found = orthogonal(u @ values.diag() @ vh)
    inner = u.T @ found @ vh.T
    assert ((inner.diag() > 0.6) & (inner.diag() < 1.25)).all()
    assert (inner - inner.diag().diag()).abs().max() < 1e-9


def test_a_step_has_the_size_of_an_adamw_step() -> None:
    """Root mean square of 0.2 times the rate, against the gradient; decay on top."""
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(32, 128))
    before, gradient = p.detach().clone(), torch.randn(32, 128)
    p.grad = gradient
    Muon([p], lr=0.01).step()
    moved = p.detach() - before
    assert moved.square().mean().sqrt().item() == pytest.approx(0.002, rel=0.2)
    assert (moved * gradient).sum() < 0
    p.grad = torch.zeros_like(p)
    now = p.detach().clone()
    Muon([p], lr=0.01, weight_decay=0.5).step()
    assert torch.allclose(p.detach(), now * (1 - 0.005))


def test_a_convolution_is_a_matrix_with_a_row_for_each_output_channel() -> None:
    torch.manual_seed(0)
    kernel, matrix = nn.Parameter(torch.randn(6, 4, 3, 3)), nn.Parameter(torch.empty(6, 36))
    matrix.data = kernel.detach().flatten(1).clone()
    kernel.grad = torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last)
    matrix.grad = kernel.grad.flatten(1)
    Muon([kernel, matrix], lr=0.1, weight_decay=0.1).step()
    assert torch.allclose(kernel.flatten(1), matrix)


def test_muon_takes_matrices_only() -> None:
    with pytest.raises(ValueError, match=r"not a parameter of shape \[3\]"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1)


def test_each_parameter_has_one_optimizer() -> None:
    model = Transformer(TransformerConfig(16, 2, 2, vocab_in=5, positions=4, head_size=8, vocab_out=5))
    wrapped = nn.ModuleDict({"decoder": model})
    adamw, muon = optimizers_for(wrapped, LoopConfig(steps=1, optimizer="muon"))
    inside = {id(p) for group in muon.param_groups for p in group["params"]}
    outside = {id(p) for group in adamw.param_groups for p in group["params"]}
    matrices = {id(p) for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2}
    assert inside == matrices
    assert outside == {id(p) for p in model.parameters()} - matrices
    with pytest.raises(ValueError, match="'sgd'"):
        from_dict(LoopConfig, {"steps": 1, "optimizer": "sgd"})


def test_the_second_step_looks_ahead_along_the_momentum() -> None:
    first, second = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    p = nn.Parameter(torch.zeros(6, 4))
    muon = Muon([p], lr=0.1, momentum=0.5)
    before = p.detach().clone()
    for gradient in (first, second):
        before.copy_(p.detach())
        p.grad = gradient.clone()
        muon.step()
    ahead = second + 0.5 * (0.5 * first + second)  # Nesterov's
    step = -0.2 * 6**0.5 * 0.1 * orthogonal(ahead)
    assert torch.allclose(p.detach() - before, step, atol=1e-6)
