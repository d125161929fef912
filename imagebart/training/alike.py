"""Codes that look alike are learnt alike.

A cell that two things share has one of hundreds of codes, each of them rare. A table of embeddings learns what each
shows on its own, and slowly; the codebook's vectors know it already. So embeddings are trained as a table plus a linear
map of these vectors, and are a table again once they are trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from imagebart.models.denoiser import Denoiser


class _FromCodes(nn.Module):
    """Adds to embeddings [V, D] of K codes, and of V - K others, a linear map of the codes' vectors [K, C]."""

    codes: Tensor

    def __init__(self, codes: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("codes", (codes - codes.mean(0)) / codes.std())
        self.map = nn.Parameter(torch.zeros(codes.shape[1], width))

    def forward(self, table: Tensor) -> Tensor:
        return table + F.pad(self.codes @ self.map, (0, 0, 0, len(table) - len(self.codes)))


def learn_alike(denoiser: Denoiser, codes: Tensor) -> None:
    """Has a denoiser's embeddings of tokens trained with a map of their codes' vectors, float [K, C]."""
    for part in (denoiser.encoder, denoiser.decoder):
        embedding = part.token_embedding
        parametrize.register_parametrization(embedding, "weight", _FromCodes(codes, embedding.embedding_dim))


def as_table(denoiser: Denoiser) -> None:
    """Makes a denoiser's embeddings plain tables again, with what the map has learnt."""
    for part in (denoiser.encoder, denoiser.decoder):
        parametrize.remove_parametrizations(part.token_embedding, "weight", leave_parametrized=True)
