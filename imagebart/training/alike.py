"""Codes that look alike are learnt alike.

A cell that two things share has one of hundreds of codes, each of them rare. A table of embeddings learns what each
shows on its own, and slowly; the codebook's vectors know it already. So embeddings are trained as a table plus a linear
map of these vectors, and are a table again once they are trained. So can be what logits are read off: then codes that
look like the right one become likelier, too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from imagebart.models.denoiser import Denoiser


class _FromCodes(nn.Module):
    """Adds to rows [V, D] of K codes, and of V - K others, a linear map of the codes' vectors [K, C]."""

    codes: Tensor

    def __init__(self, codes: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("codes", (codes - codes.mean(0)) / codes.std())
        self.map = nn.Parameter(torch.zeros(codes.shape[1], width))

    def forward(self, table: Tensor) -> Tensor:
        return table + F.pad(self.codes @ self.map, (0, 0, 0, len(table) - len(self.codes)))


def learn_alike(denoiser: Denoiser, codes: Tensor) -> None:
    """Has a denoiser's embeddings of tokens trained with a map of their codes' vectors, float [K, C]."""
    for part in (denoiser.encoder.token_embedding, denoiser.decoder.token_embedding):
        _register(part, codes)


def answer_alike(denoiser: Denoiser, codes: Tensor) -> None:
    """The same for the rows, one for each code, that its logits are read off."""
    for part in _heads(denoiser):
        _register(part, codes)


def as_table(denoiser: Denoiser) -> None:
    """Makes both plain tables again, with what the maps have learnt."""
    for part in (denoiser.encoder.token_embedding, denoiser.decoder.token_embedding, *_heads(denoiser)):
        if parametrize.is_parametrized(part):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)


def _heads(denoiser: Denoiser) -> tuple[nn.Linear, nn.Linear]:
    assert denoiser.decoder.head is not None
    return denoiser.decoder.head, denoiser.draft_head


def _register(part: nn.Embedding | nn.Linear, codes: Tensor) -> None:
    parametrize.register_parametrization(part, "weight", _FromCodes(codes, part.weight.shape[1]))
