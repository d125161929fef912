"""Avatars by number: index to attributes, image and caption. Nothing is stored; an index is always the same avatar.

Some pairs of values are held out for the evaluation: no training image shows them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from imagebart.avatars.attributes import VALUES, Attributes
from recipes import generator
from recipes.avatars import data_file
from recipes.avatars.artwork import render
from recipes.avatars.captions import Caption, describe


def read_values(text: str) -> dict[str, str]:
    """Values by attribute, from text such as "hair_colour=blue, top=afro"."""
    return dict(part.split("=") for part in text.split(", "))


HELD_OUT_PAIRS = tuple(map(read_values, data_file("held_out_pairs.txt").splitlines()))
"""Pairs of values, by attribute, that no training image shows together."""

# Faces without facial hair or glasses are the common ones; printed shirts have a further attribute to learn.
WEIGHTS: dict[tuple[str, str], float] = {
    ("facial_hair", "none"): 10 / 3,
    ("accessory", "none"): 10 / 3,
    ("clothing", "graphic"): 2.0,
    ("eyes", "open"): 2.0,
    ("eyebrows", "normal"): 2.0,
}
"""How much likelier than its attribute's other values a value is; 1 where absent."""


def value_weights(name: str, values: Sequence[str]) -> np.ndarray:
    """How likely values of an attribute are, relative to each other."""
    return np.array([WEIGHTS.get((name, value), 1.0) for value in values])


def _random_avatar(random: np.random.Generator) -> Attributes:
    """An avatar whose attributes are independent of each other, by `WEIGHTS`."""
    chosen = {}
    for name, values in VALUES.items():
        weights = value_weights(name, values)
        position = np.searchsorted(np.cumsum(weights), random.random() * weights.sum(), side="right")
        chosen[name] = values[min(int(position), len(values) - 1)]
    return Attributes(**chosen)


def held_out(attributes: Attributes) -> bool:
    """Whether an avatar has a held-out pair."""
    values = attributes.as_dict()
    return any(pair.items() <= values.items() for pair in HELD_OUT_PAIRS)


def sample(index: int, seed: int = 0, split: str = "train") -> Attributes:
    """The attributes of the avatar of a number: the same for the same index, seed and split.

    split: "train" leaves out held-out pairs, "all" does not.
    """
    if split not in ("train", "all"):
        raise ValueError(f"The split of avatars is 'train' or 'all', not {split!r}.")
    random = generator(index, seed, 0)
    attributes = _random_avatar(random)
    while split == "train" and held_out(attributes):
        attributes = _random_avatar(random)
    return attributes


def caption(index: int, seed: int = 0) -> Caption:
    """The caption of the training avatar of a number."""
    return describe(sample(index, seed), generator(index, seed, 1))


@dataclass(frozen=True)
class AvatarDataset(Dataset[dict[str, Any]]):
    """`length` avatars from number `start` on; split: see `sample`.

    Items: image, uint8 [3, size, size]; text, its caption. An index outside 0 … length - 1 raises IndexError.
    """

    size: int = 128
    start: int = 0
    length: int = 10**9
    split: str = "train"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.length:
            raise IndexError(f"The avatars of this dataset are numbered 0 to {self.length - 1}, not {index}.")
        number = self.start + index
        attributes = sample(number, 0, self.split)
        image = torch.from_numpy(render(attributes, self.size)).permute(2, 0, 1).contiguous()
        return {"image": image, "text": describe(attributes, generator(number, 0, 1)).text}
