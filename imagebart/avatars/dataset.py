"""Avatars by number: index to attributes, picture and caption. Nothing is stored; the same index is always the same."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from imagebart.avatars.artwork import render
from imagebart.avatars.attributes import Attributes, draw, generator


def sample(index: int, seed: int = 0, split: str = "train") -> Attributes:
    """Return the attributes of the avatar with this number."""
    return draw(generator(index, seed, 0))


class AvatarDataset(Dataset):
    """`length` avatars from number `start` on: dict of image (uint8 tensor [3, size, size]) and text (its caption)."""

    def __init__(
        self, size: int = 128, start: int = 0, length: int = 10**9, split: str = "train", seed: int = 0
    ) -> None:
        self.size, self.start, self.length, self.split, self.seed = size, start, length, split, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | str]:
        attributes = sample(self.start + index, self.seed, self.split)
        image = torch.from_numpy(np.ascontiguousarray(render(attributes, self.size).transpose(2, 0, 1)))
        return {"image": image, "text": ""}
