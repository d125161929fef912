"""Embeddings of tokens that are trained together with a map of the codebook's vectors.

A patch that two things share has one of hundreds of codes, each of them rare. A table of embeddings learns what each
shows on its own, and slowly; the codebook's vectors know it already. So embeddings are trained as a table plus a linear
map of these vectors, and are merged into a table once they are trained. So are the rows that give logits: codes with a
vector like the right one's become likelier, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from imagebart.models.denoiser import Denoiser
from imagebart.models.stages import Stage


class _CodebookMap(nn.Module):
    """Adds to rows [V, D] of K codes, and of V - K others, a linear map of the codes' vectors [K, C]."""

    codes: Tensor

    def __init__(self, codes: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("codes", (codes - codes.mean(0)) / codes.std())
        self.map = nn.Parameter(torch.zeros(codes.shape[1], width))

    def forward(self, table: Tensor) -> Tensor:
        return table + F.pad(self.codes @ self.map, (0, 0, 0, len(table) - len(self.codes)))


def token_tables(network: Denoiser | Stage) -> Iterator[nn.Embedding | nn.Linear]:
    """All that has a row for each code: embeddings of tokens, and what gives their logits."""
    for part in (network.decoder, getattr(network, "encoder", None)):
        if part is not None:
            yield part.token_embedding
            yield from () if part.head is None else (part.head,)
    if isinstance(network, Denoiser):
        yield network.draft_head


def add_codebook_embedding(tables: Iterable[nn.Embedding | nn.Linear], codes: Tensor) -> None:
    """Has tables trained as their own rows plus a linear map of codes' vectors [K, C], which begins at zero."""
    for table in tables:
        added = _CodebookMap(codes, table.weight.shape[1])
        parametrize.register_parametrization(table, "weight", added)


def merge_codebook_embedding(model: nn.Module) -> None:
    """Merges the maps into the tables, in the whole of a model."""
    for part in list(model.modules()):
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
