"""Multinomial diffusion of tokens (Hoogeboom et al. 2021): schedule, forward process, posterior, reverse step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """betas[t - 1] is beta_t, the probability that step t = 1 ... T replaces a token by noise; the last is 1."""

    betas: tuple[float, ...]

    @classmethod
    def geometric(cls, stages: int) -> "Schedule":
        """beta_t = 1 / (T - t + 1): the same number of tokens is lost at every step."""
        return cls(tuple(1 / (stages - t + 1) for t in range(1, stages + 1)))

    @property
    def stages(self) -> int:
        """T"""
        return len(self.betas)

    def alphacum(self, t: int) -> float:
        """Share of tokens of x_0 that survive to x_t: the product of 1 - beta_s for s <= t."""
        return math.prod((1 - beta for beta in self.betas[:t]), start=1.0)


# The forward process. The paper counts one more: its x_1 is our x_0, the image's tokens, so its T is ours plus one.
#
# q(x_t | x_{t-1}) = Cat((1 - beta_t) onehot(x_{t-1}) + beta_t / K): each token stays with probability 1 - beta_t, in
# one jump from x_0 with alphacum(t), or is replaced by a uniform draw from all K. x_0 is the image's tokens, x_T noise.


def add_uniform_noise(
    x: Tensor, probability: float | Tensor, vocab_size: int, generator: torch.Generator | None = None
) -> Tensor:
    """Replaces each token of x, int64, by a uniform draw from all K, with a probability that broadcasts to x."""
    noise = torch.randint(vocab_size, x.shape, generator=generator, device=x.device)
    again = torch.rand(x.shape, generator=generator, device=x.device) < probability
    return torch.where(again, noise, x)


def log_likelihood(x_t: Tensor, noise_t: Tensor | float, vocab_size: int, columns: int | None = None) -> Tensor:
    """log q(x_t | x_0 = k) for every k: tokens [...], noise levels over 0 -> float [..., K].

    columns: of so many codes alone, of which x_t are the numbers.
    """
    noise_t = torch.as_tensor(noise_t, dtype=torch.float32, device=x_t.device).expand(x_t.shape)[..., None]
    off = (noise_t / vocab_size).log()
    return off.expand(*x_t.shape, columns or vocab_size).scatter(
        -1, x_t[..., None], (1 - noise_t + noise_t / vocab_size).log()
    )


# Noise with a random generator for each row, so that a row's result does not depend on the rows beside it.


def row_generators(seeds: Iterable[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed % 2**63) for seed in seeds]


def uniform_tokens(tokens: int, vocab_size: int, generators: list[torch.Generator]) -> Tensor:
    """x_T: uniform noise, int64 [B, N]."""
    return torch.stack([torch.randint(vocab_size, (tokens,), generator=g) for g in generators])


def add_noise_rows(x: Tensor, probability: float, vocab_size: int, generators: list[torch.Generator]) -> Tensor:
    """`add_uniform_noise`, row b from generator b."""
    rows = [add_uniform_noise(row.cpu(), probability, vocab_size, g) for row, g in zip(x, generators, strict=True)]
    return torch.stack(rows).to(x.device)


def gumbel_noise(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """Gumbel noise [B, *shape], row b from generator b."""
    uniform = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
    return -(-uniform.log()).log()


# The reverse process: x_{t-1} given x_t and x_0, or a prediction of x_0.


def posterior(x_t: Tensor, x_0: Tensor, t: int, schedule: Schedule, vocab_size: int) -> Tensor:
    """q(x_{t-1} | x_t, x_0), float [..., K]."""
    return reverse_step(1.0 * F.one_hot(x_0, vocab_size), x_t, 1 - schedule.alphacum(t), 1 - schedule.alphacum(t - 1))


def reverse_step(p_x0: Tensor, x_t: Tensor, noise_t: float | Tensor, noise_s: float) -> Tensor:
    """p(x_s = k | x_t) for every k, from p(x_0 | x_t): float [..., K], tokens [...] -> float [..., K].

    noise_t, noise_s: noise levels, 1 - alphacum: the probabilities that a token of x_t, x_s is noise, of which that of
    x_s is lower; noise_t may be each token's own, [...]. Each x_0 = j leads to x_s by the posterior; the
    sum over j takes K steps and not K^2, since q is the same for all k that are neither j nor x_t.
    """
    noise_t = torch.as_tensor(noise_t, dtype=p_x0.dtype, device=p_x0.device)[..., None]
    size = p_x0.shape[-1]
    stay = 1 - noise_s  # a
    beta = 1 - (1 - noise_t) / stay
    same = F.one_hot(x_t, size).to(p_x0.dtype)
    likelihood = (1 - beta) * same + beta / size  # L_k = q(x_t | x_s = k)
    evidence = (1 - beta) * (stay * same + noise_s / size) + beta / size  # Z_j = q(x_t | x_0 = j)
    share = p_x0 / evidence
    return likelihood * (stay * share + noise_s / size * share.sum(-1, keepdim=True))
