"""How a denoiser that knew tokens alone begins to see pixels: a part of one colour as a cell that is all of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from imagebart.masked import glance
from imagebart.models.denoiser import Denoiser
from imagebart.models.first_stage import FirstStage
from imagebart.training.first_stage import to_float

PICTURES, STEPS, RATE = 200, 1500, 3e-3  # whose parts it learns from; how long, and how fast
BATCH = 1024  # parts a step
LOUD = 2.0  # parts over embeddings: a thing that has half of a cell is told as loud as one that has all of it


def begin_to_see(denoiser: Denoiser, first_stage: FirstStage, dataset: Dataset[dict[str, Tensor | str]]) -> None:
    """Fits what is told of a part to the embedding of the token that a cell of its colour has, by the share kept.

    The denoiser reads that already. Leaves the dataset as it is, and takes from the global RNG.
    """
    parts = torch.cat([*_parts(denoiser, dataset)])
    colours, codes = parts[:, :3], _tokens_of_colours(first_stage, parts[:, :3])
    embeddings = denoiser.encoder.token_embedding.weight.detach()[codes]
    optimizer = torch.optim.Adam(denoiser.glance.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(parts), (BATCH,))
        kept = torch.rand(BATCH, 1).mul(2).clamp(max=1)  # all of it in half of the cases
        shown = torch.cat([colours[rows] * kept, kept], 1)
        loss = F.mse_loss(denoiser.glance(shown), LOUD * kept * embeddings[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    denoiser.zero_grad()


def _parts(denoiser: Denoiser, dataset: Dataset[dict[str, Tensor | str]]) -> Iterator[Tensor]:
    """Parts of the first pictures, float [M, 4]."""
    config = denoiser.config
    for number, item in enumerate(DataLoader(dataset, batch_size=1)):
        if number == PICTURES:
            return
        pixels = to_float(item["image"])
        nothing = torch.zeros(1, *pixels.shape[2:], dtype=torch.bool)
        yield glance(pixels, nothing, config.tokens, config.glances).view(-1, 4)


@torch.no_grad()
def _tokens_of_colours(first_stage: FirstStage, colours: Tensor) -> Tensor:
    """The token of a cell that is all of one colour, as its picture is: [M, 3] in [-1, 1] -> int64 [M]."""
    side = first_stage.config.downsampling
    rounded, place = torch.unique((colours * 127.5).round(), dim=0, return_inverse=True)
    found = []
    for some in (rounded / 127.5).split(256):
        squares = some[:, :, None, None].expand(-1, -1, 3 * side, 3 * side)
        tokens = first_stage.encode(squares)
        found.append(tokens[:, tokens.shape[1] // 2])
    return torch.cat(found)[place]
