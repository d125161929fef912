"""Muon (Jordan et al. 2024): momentum whose matrix is made orthogonal before each step.

PyTorch's own multiplies in bf16 only, which a CPU without instructions for it emulates dozens of times slower. This one
multiplies as autocast has it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

# Quintic Newton-Schulz iteration; its coefficients are Jordan's: they bring singular values close to 1 fast.
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5


def orthogonal(matrix: Tensor) -> Tensor:
    """[m, n] -> about U V^T of its singular value decomposition U S V^T: all singular values between 0.7 and 1.2."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / wide.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x if wide is matrix else x.T


class Muon(torch.optim.Optimizer):
    """For matrices, and convolutions as matrices with a row for each output channel.

    With the same rate and decay its steps are as large as AdamW's (Liu et al. 2025, eq. 4).
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        shapes = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim < 2]
        if shapes:
            raise ValueError(f"Muon takes matrices and convolutions, not a parameter of shape {list(shapes[0])}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "velocity" not in state:
                    state["velocity"] = torch.zeros_like(p)
                velocity = state["velocity"]
                velocity.mul_(group["momentum"]).add_(p.grad)
                ahead = p.grad.add(velocity, alpha=group["momentum"])  # Nesterov's look ahead
                matrix = ahead.flatten(1)
                update = orthogonal(matrix).view(ahead.shape)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-0.2 * max(matrix.shape) ** 0.5 * group["lr"])
