"""How noise grows: the share of tokens redrawn at each step (ImageBART, section 3.1)."""

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


# The forward process: tokens become noise (ImageBART, section 3.1; Hoogeboom et al. 2021).
#
# q(x_t | x_{t-1}) = Cat((1 - beta_t) onehot(x_{t-1}) + beta_t / K): each token stays with probability 1 - beta_t,
# or is drawn anew from all K. x_0 is the image's tokens, x_T uniform noise.


def redraw(x: Tensor, probability: float | Tensor, vocab_size: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws each token anew, uniformly from all K, with a probability, which may be of x's shape or broadcast to it.

    Tokens int64, any shape.
    """
    noise = torch.randint(vocab_size, x.shape, generator=generator, device=x.device)
    again = torch.rand(x.shape, generator=generator, device=x.device) < probability
    return torch.where(again, noise, x)


def diffuse(
    x0: Tensor, t: int, schedule: Schedule, vocab_size: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draws x_t from q(x_t | x_0) in one jump."""
    return redraw(x0, 1 - schedule.alphacum(t), vocab_size, generator)


def log_likelihood(c: Tensor, rates: Tensor | float, vocab_size: int) -> Tensor:
    """log q(c | x = k) for every k, where noise stands in x's place with a rate: tokens [...] -> float [..., K].

    Section 3.1, eq. 3. rates: over 0, of c's shape or one for all.
    """
    rates = torch.as_tensor(rates, dtype=torch.float32, device=c.device).expand(c.shape)[..., None]
    off = (rates / vocab_size).log()
    return off.expand(*c.shape, vocab_size).scatter(-1, c[..., None], (1 - rates + rates / vocab_size).log())


# Steps back: where x_{t-1} lies, given x_t and x_0, or what is believed of x_0 (ImageBART, section 3.1, eq. 4).


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


def reverse_step(p0: Tensor, c: Tensor, rate: float | Tensor, next_rate: float) -> Tensor:
    """p(x_s = k | x_t = c) for every k, from p(x_0 | x_t = c): float [..., K], tokens [...] -> float [..., K].

    rate, next_rate: r_t and r_s, the chances that noise stands in the place of x_0; r_t may be each token's own, [...].
    Each x_0 = j leads to x_s by the posterior q(x_s | x_t = c, x_0 = j) (section 3.1, eq. 4); the sum over j takes K
    steps and not K^2, since q is the same for all k that are neither j nor c. Raises ValueError unless
    0 <= r_s < r_t <= 1.
    """
    rate = torch.as_tensor(rate, dtype=p0.dtype, device=p0.device)[..., None]
    if not 0 <= next_rate < rate.min() or rate.max() > 1:
        raise ValueError(f"a step from rate {rate.min():g} to {next_rate:g}, expected 0 <= next rate < rate <= 1")
    size = p0.shape[-1]
    stay = 1 - next_rate  # a
    beta = 1 - (1 - rate) / stay
    same = F.one_hot(c, size).to(p0.dtype)
    likelihood = (1 - beta) * same + beta / size  # L_k = q(c | x_s = k)
    evidence = (1 - beta) * (stay * same + next_rate / size) + beta / size  # Z_j = q(c | x_0 = j)
    share = p0 / evidence
    return likelihood * (stay * share + next_rate / size * share.sum(-1, keepdim=True))
