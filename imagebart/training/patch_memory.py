"""What the decoder remembers of patches (`models.vqgan.PatchMemory`), found by least squares.

A patch is modeled as the sum of a mean, its token's own part and one part of each pair with a neighbor, all in the
directions of largest variance. The parts are found in turn, each as the mean of what the others leave, which is the
method of Gauss and Seidel; the pairs kept are those that explain most. Values are stored by residual vector
quantization (Zeghidour et al., SoundStream, 2021, section III-C): a byte chooses one of 256 vectors of each book.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

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


@dataclass(frozen=True)
class _Side:
    """The pairs of one side: keys [M], ascending; the number of each patch's [N]; how often each occurs [M]."""

    keys: Tensor
    index: Tensor
    counts: Tensor

    def only(self, kept: Tensor) -> _Side:
        """With the pairs of these numbers, ascending; the others share one row after the last."""
        numbers = torch.full((len(self.keys) + 1,), len(kept))
        numbers[kept] = torch.arange(len(kept))
        return _Side(self.keys[kept], numbers[self.index], self.counts[kept])


@torch.no_grad()
def fit_patch_memory(first_stage: FirstStage, images: Iterable[Tensor]) -> None:
    """Fills the memory of a first stage, whose tokens are final, from images uint8 [3, H, W], all of one size."""
    memory, f = first_stage.memory, first_stage.config.downsampling
    assert memory is not None, "pair_rows is 0"
    batches = _batches(images)
    first = list(islice(batches, -(-FOR_DIRECTIONS // CHUNK)))
    mean, directions = principal_directions(torch.cat([_cut(s, f) for s in first]), first_stage.config.pair_dim)
    tokens, numbers = list[Tensor](), list[Tensor]()  # [B, h, w]; of their patches, along the directions, [B h w, dim]
    for shown in chain(first, batches):
        tokens.append(first_stage.encode(shown).view(len(shown), shown.shape[2] // f, -1))
        numbers.append((_cut(shown, f) - mean) @ directions)
    points, index = torch.cat(numbers), torch.cat(tokens).flatten()
    deviation = points.std(0)  # so that the convolutions get numbers of one size
    own = means(points, index, len(memory.own), prior=0.0)
    left = points - own[index]
    keys = memory.keys(torch.cat(tokens))
    sides = [_Side(*torch.unique(key.flatten(), return_counts=True, return_inverse=True)) for key in keys]
    for number, (side, value) in enumerate(zip(sides, fit(left.clone(), sides), strict=True)):
        explained = side.counts * value[:-1].square().sum(1)
        explained[side.counts == 1] = 0
        kept = explained.topk(min(memory.pairs.shape[1], len(explained))).indices
        sides[number] = side.only(kept.sort().values)
    values = [value[:-1] for value in fit(left, sides)]
    books = residual_books(torch.cat(values), torch.cat([side.counts for side in sides]), len(memory.books))
    memory.mean.copy_(mean)
    memory.patterns.copy_(deviation[:, None] * directions.T)
    memory.own.copy_(own / deviation)
    memory.books.copy_(books / deviation)
    memory.pairs.fill_(torch.iinfo(torch.int32).max)  # rows that are not in use stay last
    for number, (side, value) in enumerate(zip(sides, values, strict=True)):
        memory.pairs[number, : len(side.keys)] = side.keys
        memory.values[number, : len(side.keys)] = quantized(value, books)


def _batches(images: Iterable[Tensor]) -> Iterator[Tensor]:
    waiting = iter(images)
    while batch := list(islice(waiting, CHUNK)):
        yield normalize(torch.stack(batch))


def _cut(images: Tensor, f: int) -> Tensor:
    return rearrange(images, "b c (h y) (w x) -> (b h w) (c y x)", y=f, x=f)


def residual_books(values: Tensor, counts: Tensor, number: int) -> Tensor:
    """Books of 256 vectors each, [number, 256, D]: each is for what those before it leave of values [M, D]."""
    left = values[counts.float().multinomial(QUANTIZED, replacement=True)]
    books = []
    for _ in range(number):
        books.append(k_means(left, 256, BOOK_ROUNDS))
        left = left - books[-1][nearest(left, books[-1])[0]]
    return torch.stack(books)


def quantized(values: Tensor, books: Tensor) -> Tensor:
    """Values [M, D] as a vector of each book, uint8 [M, number]: the nearest to what the ones before leave."""
    chosen = []
    for book in books:
        index, _ = nearest(values, book)
        values = values - book[index]
        chosen.append(index.to(torch.uint8))
    return torch.stack(chosen, 1)


def means(points: Tensor, index: Tensor, count: int, prior: float) -> Tensor:
    """Of points [M, D] the mean of each group [count, D], beside `prior` points at zero; empty groups have zero."""
    members = torch.bincount(index, minlength=count).to(points.dtype)
    sums = torch.zeros(count, points.shape[1], dtype=points.dtype).index_add_(0, index, points)
    return sums / (members + prior).clamp_min(1)[:, None]


def fit(left: Tensor, sides: Sequence[_Side]) -> list[Tensor]:
    """Values [M + 1, D] of each side's pairs, whose sums are nearest to points [N, D]; the last is zero, of no pair.

    The points are what is left of them afterwards.
    """
    values = [torch.zeros(len(side.keys) + 1, left.shape[1]) for side in sides]
    for _ in range(ROUNDS):
        for number, side in enumerate(sides):
            own = values[number]
            new = means(left.add_(own[side.index]), side.index, len(own), PRIOR)
            new[-1] = 0
            left -= new[side.index]
            values[number] = new
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
        members = torch.bincount(labels, minlength=count)
        codes = torch.zeros_like(codes).index_add_(0, labels, points) / members.clamp_min(1)[:, None]
        few = members < FEW * len(points) / count
        if few.any() and number < rounds - SETTLING:
            codes[few] = points[(distances + 1e-9).multinomial(int(few.sum()))]
    return codes
