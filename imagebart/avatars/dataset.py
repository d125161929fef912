"""Avatars by number: index to picture and caption. Nothing is stored; an index is always the same avatar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from imagebart.avatars.artwork import render
from imagebart.avatars.attributes import generator
from imagebart.avatars.captions import Caption, describe
from imagebart.avatars.regions import face_weight, region_mask
from imagebart.avatars.split import sample

__all__ = ["AvatarDataset", "caption", "face_weight", "region_mask", "sample"]


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
