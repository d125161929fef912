"""Avatars by number: index to attributes, image and caption. Nothing is stored; an index is always the same avatar.

Some pairs of values are kept for the evaluation: no training image shows them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from imagebart.avatars.attributes import VALUES, Attributes
from recipes.avatars.artwork import render
from recipes.avatars.captions import Caption, describe

Pair = tuple[tuple[str, str], tuple[str, str]]


def _pairs() -> Iterator[Pair]:
    text = (Path(__file__).parent / "data" / "held_out_pairs.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        first, second = (part.split("=") for part in line.split(", "))
        yield (first[0], first[1]), (second[0], second[1])


HELD_OUT_PAIRS = tuple(_pairs())
"""Pairs of (attribute, value) that no training picture shows together."""


# Faces without facial hair or glasses are the common ones; printed shirts carry a further attribute to learn.
WEIGHTS: dict[tuple[str, str], float] = {
    ("facial_hair", "none"): 10 / 3,
    ("accessory", "none"): 10 / 3,
    ("clothing", "graphic"): 2.0,
    ("eyes", "open"): 2.0,
    ("eyebrows", "normal"): 2.0,
}
"""How much likelier than its attribute's other values a value is; 1 where absent."""


def generator(index: int, seed: int, purpose: int) -> np.random.Generator:
    """Return one item's random numbers: the same for the same index, seed and purpose, on every machine."""
    if index < 0:
        raise ValueError(f"The index of an avatar is 0 or more, not {index}.")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index, purpose))))


def draw(random: np.random.Generator) -> Attributes:
    """Draw every attribute by itself, by `WEIGHTS`."""
    chosen = {}
    for name, values in VALUES.items():
        weights = np.array([WEIGHTS.get((name, value), 1.0) for value in values])
        position = np.searchsorted(np.cumsum(weights), random.random() * weights.sum(), side="right")
        chosen[name] = values[min(int(position), len(values) - 1)]
    return Attributes(**chosen)


def held_out(attributes: Attributes) -> bool:
    """Whether an avatar has a held-out pair."""
    values = attributes.as_dict()
    return any(all(values[name] == value for name, value in pair) for pair in HELD_OUT_PAIRS)


def sample(index: int, seed: int = 0, split: str = "train") -> Attributes:
    """Return the attributes of the avatar with this number: the same for the same index, seed and split.

    split: "train" draws again, for as long as it takes, where a held-out pair turns up; "all" does not.
    """
    if split not in ("train", "all"):
        raise ValueError(f"The split of avatars is 'train' or 'all', not {split!r}.")
    random = generator(index, seed, 0)
    attributes = draw(random)
    while split == "train" and held_out(attributes):
        attributes = draw(random)
    return attributes


def caption(index: int, seed: int = 0, split: str = "train", count: int | None = None) -> Caption:
    """Return what is said of the avatar with this number, naming `count` attributes (None: drawn)."""
    return describe(sample(index, seed, split), generator(index, seed, 1), count)


@dataclass(frozen=True)
class AvatarDataset(Dataset[dict[str, Any]]):
    """`length` avatars from number `start` on.

    An item is a dict: image, uint8 tensor [3, size, size]; text, its caption. Another `seed` is another endless
    series; split: see `sample`. An index outside 0 … length - 1 raises IndexError.
    """

    size: int = 128
    start: int = 0
    length: int = 10**9
    split: str = "train"
    seed: int = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.length:
            raise IndexError(f"The avatars of this dataset are numbered 0 to {self.length - 1}, not {index}.")
        number = self.start + index
        attributes = sample(number, self.seed, self.split)
        image = torch.from_numpy(render(attributes, self.size)).permute(2, 0, 1).contiguous()
        return {"image": image, "text": describe(attributes, generator(number, self.seed, 1)).text}
