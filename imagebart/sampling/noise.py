"""Noise with a random generator for each row, so that a row's result does not depend on the rows beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imagebart.diffusion import add_uniform_noise


def row_generators(seed: int | Sequence[int], batch: int) -> list[torch.Generator]:
    """Row b samples as a run of its own with seed + b would; of several seeds, with the b-th."""
    seeds = range(seed, seed + batch) if isinstance(seed, int) else seed
    return [torch.Generator().manual_seed(one % 2**63) for _, one in zip(range(batch), seeds, strict=True)]


def uniform_tokens(tokens: int, vocab_size: int, generators: list[torch.Generator]) -> Tensor:
    """x_T: uniform noise, int64 [B, N]."""
    return torch.stack([torch.randint(vocab_size, (tokens,), generator=g) for g in generators])


def add_noise_rows(x: Tensor, probability: float, vocab_size: int, generators: list[torch.Generator]) -> Tensor:
    """`add_uniform_noise`, row b from generator b."""
    rows = [add_uniform_noise(row.cpu(), probability, vocab_size, g) for row, g in zip(x, generators, strict=True)]
    return torch.stack(rows).to(x.device)


def gumbel_noise(shape: tuple[int, ...], generators: list[torch.Generator]) -> Tensor:
    """Gumbel noise [B, *shape], row b from generator b."""
    rows = [torch.empty(shape).exponential_(generator=generator) for generator in generators]
    return -torch.stack(rows).log()
