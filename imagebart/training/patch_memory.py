"""What the decoder remembers of patches (`models.vqgan.PatchMemory`), found by least squares.

A patch is modeled as the sum of a mean, its token's own part and one part of each pair with a neighbor, all in the
directions of largest variance. The parts are found in turn, each as the mean of what the others leave, which is the
method of Gauss and Seidel; the pairs kept are those that explain most. Values are stored by residual vector
quantization (Zeghidour et al., SoundStream, 2021, section III-C): a byte chooses one of 256 vectors of each book.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from imagebart.imaging.files import normalize
from imagebart.models.vqgan import FirstStage

FOR_DIRECTIONS = 400  # images that the directions are found from
PRIOR = 1.0  # patches' worth of zeros in each mean, for pairs that are rare
ROUNDS = 3
CHUNK = 64  # images at once
QUANTIZED = 100_000  # values, drawn by how often they occur, that books are found from
BOOK_ROUNDS = 12  # of k-means
FEW = 0.05  # of the mean number of points: a code with fewer is put elsewhere
SETTLING = 5  # last rounds of k-means, in which no code is put elsewhere


class _Side(NamedTuple):
    """The pairs of one side: keys [M], ascending; each patch's row among them [N], M for none; their counts [M]."""

    keys: Tensor
    rows: Tensor
    counts: Tensor


@torch.no_grad()
def fit_patch_memory(first_stage: FirstStage, images: Iterable[Tensor]) -> None:
    """Fills the memory of a first stage, whose tokens are final, from images uint8 [3, H, W], all of one size."""
    memory, f = first_stage.memory, first_stage.config.downsampling
    assert memory is not None, "pair_rows is 0"

    def patches(images: Tensor) -> Tensor:
        return rearrange(images, "b c (h y) (w x) -> (b h w) (c y x)", y=f, x=f)

    waiting = iter(images)
    batches = (normalize(torch.stack(batch)) for batch in iter(lambda: list(islice(waiting, CHUNK)), []))
    first = list(islice(batches, -(-FOR_DIRECTIONS // CHUNK)))
    mean, directions = principal_directions(torch.cat([patches(s) for s in first]), first_stage.config.pair_dim)
    parts, numbers = list[Tensor](), list[Tensor]()  # tokens [B, h, w]; their patches along the directions [B h w, dim]
    for shown in chain(first, batches):
        parts.append(first_stage.encode(shown).view(len(shown), shown.shape[2] // f, -1))
        numbers.append((patches(shown) - mean) @ directions)
    points, tokens = torch.cat(numbers), torch.cat(parts)
    deviation = points.std(0)  # so that the convolutions get numbers of one size
    own = means(points, tokens.flatten(), len(memory.own))
    left = points - own[tokens.flatten()]
    every = [_Side(*torch.unique(k.flatten(), return_inverse=True, return_counts=True)) for k in memory.keys(tokens)]
    sides = []
    for side, value in zip(every, fit(left.clone(), every), strict=True):
        explained = side.counts * value[:-1].square().sum(1) * (side.counts > 1)
        kept = explained.topk(min(memory.pairs.shape[1], len(explained))).indices.sort().values
        row = torch.full(side.keys.shape, len(kept))
        row[kept] = torch.arange(len(kept))
        sides.append(_Side(side.keys[kept], row[side.rows], side.counts[kept]))
    values = torch.cat([value[:-1] for value in fit(left, sides)])
    books, chosen = residual_quantization(values, torch.cat([side.counts for side in sides]), len(memory.books))
    memory.mean.copy_(mean)
    memory.patterns.copy_(deviation[:, None] * directions.T)
    memory.own.copy_(own / deviation)
    memory.books.copy_(books / deviation)
    memory.pairs.fill_(torch.iinfo(torch.int32).max)  # rows that are not in use stay last
    for number, (side, part) in enumerate(zip(sides, chosen.split([len(s.keys) for s in sides]), strict=True)):
        memory.pairs[number, : len(part)] = side.keys
        memory.values[number, : len(part)] = part


def residual_quantization(values: Tensor, counts: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Books [number, 256, D], each for what those before it leave of values [M, D]; the vectors chosen [M, number]."""
    drawn = counts.float().multinomial(QUANTIZED, replacement=True)
    books, chosen = [], []
    for _ in range(number):
        books.append(k_means(values[drawn], 256, BOOK_ROUNDS))
        chosen.append(nearest(values, books[-1])[0])
        values = values - books[-1][chosen[-1]]
    return torch.stack(books), torch.stack(chosen, 1).to(torch.uint8)


def means(points: Tensor, index: Tensor, count: int, prior: float = 0.0) -> Tensor:
    """Of points [M, D] the mean of each group [count, D], beside `prior` points at zero; empty groups have zero."""
    members = torch.bincount(index, minlength=count).to(points.dtype)
    sums = torch.zeros(count, points.shape[1], dtype=points.dtype).index_add_(0, index, points)
    return sums / (members + prior).clamp_min(1)[:, None]


def fit(left: Tensor, sides: Sequence[_Side]) -> list[Tensor]:
    """Values [M + 1, D] of each side's pairs, the last zero; takes them from points `left` [N, D], nearest to these."""
    values = [torch.zeros(len(side.keys) + 1, left.shape[1]) for side in sides]
    for _ in range(ROUNDS):
        for side, value in zip(sides, values, strict=True):
            left += value[side.rows]
            value.copy_(means(left, side.rows, len(value), PRIOR))
            value[-1] = 0
            left -= value[side.rows]
    return values


def principal_directions(points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean of points [M, D], and the orthonormal directions of largest variance, [D, count]."""
    mean = points.mean(0)
    centered = points - mean
    _, vectors = torch.linalg.eigh(centered.T @ centered / len(points))
    return mean, vectors[:, -count:].flip(1)


def nearest(points: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Of points [M, d] the nearest codes [K, d] and the squared distances."""
    found = [(codes.square().sum(1) - 2 * part @ codes.T).min(1) for part in points.split(8192)]
    distances = torch.cat([values for values, _ in found]) + points.square().sum(1)
    return torch.cat([indices for _, indices in found]), distances.clamp_min(0)


def k_means(points: Tensor, count: int, rounds: int) -> Tensor:
    """Codes [count, d]; those that few points are nearest to are put where points are far from theirs."""
    codes = points[torch.randperm(len(points))[:count]].clone()
    for number in range(rounds):
        labels, distances = nearest(points, codes)
        codes = means(points, labels, count)
        few = torch.bincount(labels, minlength=count) < FEW * len(points) / count
        if few.any() and number < rounds - SETTLING:
            codes[few] = points[(distances + 1e-9).multinomial(int(few.sum()))]
    return codes
