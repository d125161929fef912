"""The forward process: tokens become noise (ImageBART, section 3.1; Hoogeboom et al. 2021).

q(x_t | x_{t-1}) = Cat((1 - beta_t) onehot(x_{t-1}) + beta_t / K): each token stays with probability 1 - beta_t,
or is drawn anew from all K. x_0 is the image's tokens, x_T uniform noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imagebart.diffusion.schedules import Schedule


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
