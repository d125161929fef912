"""Multinomial diffusion of tokens (ImageBART, section 3.1; Hoogeboom et al. 2021).

q(x_t | x_{t-1}) = Cat((1 - beta_t) onehot(x_{t-1}) + beta_t / K): each token stays with probability 1 - beta_t,
or is drawn anew from all K. x_0 is the image's tokens, x_T uniform noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """betas[t - 1] is beta_t, the share of tokens redrawn at step t = 1 .. T; the last is 1."""

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.betas or any(not 0 < beta <= 1 for beta in self.betas) or self.betas[-1] != 1:
            raise ValueError(f"betas are {self.betas}, expected numbers in (0, 1] of which the last is 1")

    @classmethod
    def geometric(cls, stages: int) -> Schedule:
        """beta_t = 1 / (T - t + 1): the same number of tokens is lost at every step."""
        if stages < 1:
            raise ValueError(f"{stages} stages, expected 1 or more")
        return cls(tuple(1 / (stages - t + 1) for t in range(1, stages + 1)))

    @classmethod
    def from_alphacum(cls, alphacum: tuple[float, ...]) -> Schedule:
        """From the shares of tokens that survive to t = 0 .. T: 1, ..., 0."""
        if len(alphacum) < 2 or alphacum[0] != 1 or alphacum[-1] != 0:
            raise ValueError(f"cumulative alphas are {alphacum}, expected 1, ..., 0")
        if any(b >= a for a, b in zip(alphacum, alphacum[1:], strict=False)):
            raise ValueError(f"cumulative alphas are {alphacum}, expected ever smaller numbers")
        return cls(tuple(1 - b / a for a, b in zip(alphacum, alphacum[1:], strict=False)))

    @property
    def stages(self) -> int:
        """T"""
        return len(self.betas)

    def alphacum(self, t: int) -> float:
        """Share of tokens of x_0 that survive to x_t: the product of 1 - beta_s for s <= t."""
        if not 0 <= t <= self.stages:
            raise ValueError(f"t is {t}, expected 0 to {self.stages}")
        survive = 1.0
        for beta in self.betas[:t]:
            survive *= 1 - beta
        return survive


def redraw(
    x: Tensor, probability: float | Tensor, vocab_size: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draws each token anew, uniformly from all K, with a probability, which may be of x's shape or broadcast to it.

    Tokens int64, any shape.
    """
    noise = torch.randint(vocab_size, x.shape, generator=generator, device=x.device)
    again = torch.rand(x.shape, generator=generator, device=x.device) < probability
    return torch.where(again, noise, x)


def diffuse(
    x0: Tensor,
    t: int,
    schedule: Schedule,
    vocab_size: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws x_t from q(x_t | x_0) in one jump."""
    return redraw(x0, 1 - schedule.alphacum(t), vocab_size, generator)


def posterior(xt: Tensor, x0: Tensor, t: int, schedule: Schedule, vocab_size: int) -> Tensor:
    """q(x_{t-1} | x_t, x_0), float [..., K]: proportional to q(x_t | x_{t-1}) q(x_{t-1} | x_0).

    Section 3.1, eq. 4. Raises ValueError unless 1 <= t <= T.
    """
    if not 1 <= t <= schedule.stages:
        raise ValueError(f"t is {t}, expected 1 to {schedule.stages}")
    beta, survive = schedule.betas[t - 1], schedule.alphacum(t - 1)
    likelihood = (1 - beta) * F.one_hot(xt, vocab_size) + beta / vocab_size
    prior = survive * F.one_hot(x0, vocab_size) + (1 - survive) / vocab_size
    product = likelihood * prior
    return product / product.sum(-1, keepdim=True)
