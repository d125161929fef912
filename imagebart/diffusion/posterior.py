"""Steps back: where x_{t-1} lies, given x_t and x_0, or what is believed of x_0 (ImageBART, section 3.1, eq. 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from imagebart.diffusion.schedules import Schedule


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
