"""Pictures of a data set as they are trained on: decoded once, squares of one size in one file, with what is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from imagebart.config import from_dict
from imagebart.writing import write_text

PIXELS, INDEX = "pixels.bin", "pictures.json"
MOST_VIEWS = 8  # of each picture
MARGIN = 9 / 8  # side of what is kept over that of what is trained on: room for crops


@dataclass(frozen=True)
class Pictures:
    """What is known of the pictures of a store, in their order."""

    resolution: int  # pixels a side that are trained on
    kind: str  # of what is said: "text", "class" or "none"
    names: tuple[str, ...]
    texts: tuple[str, ...]
    held: tuple[bool, ...]  # held back: never trained on
    credits: tuple[dict[str, str], ...]

    @property
    def side(self) -> int:
        """Pixels a side that are kept."""
        return kept_side(self.resolution)

    def numbers(self, held: bool) -> list[int]:
        """The pictures that are held back, or the others."""
        return [i for i, one in enumerate(self.held) if one == held]


def kept_side(resolution: int) -> int:
    return int(resolution * MARGIN)


def write_index(folder: Path, pictures: Pictures) -> None:
    """Written last: a folder with an index is a whole store."""
    write_text(folder / INDEX, json.dumps(asdict(pictures)))


def read_index(folder: Path) -> Pictures | None:
    """What is known of a store's pictures; None where it is not finished."""
    path = folder / INDEX
    return from_dict(Pictures, json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


class Store:
    """The pictures of a folder that `look` has written."""

    def __init__(self, folder: Path) -> None:
        pictures = read_index(folder)
        if pictures is None:
            raise ValueError(f"{folder} holds no pictures that are ready to train on ({INDEX} is missing)")
        self.pictures = pictures
        side, count = pictures.side, len(pictures.names)
        self.pixels = np.memmap(folder / PIXELS, np.uint8, "r", shape=(count, side, side, 3))

    def view(self, number: int, view: int) -> Tensor:
        """A picture's crop, uint8 [3, resolution, resolution]: view 0 is the middle, 1 that mirrored, then others.

        Every second view is mirrored; crops are the same whenever they are asked for.
        """
        size, room = self.pictures.resolution, self.pictures.side - self.pictures.resolution
        top = left = room // 2
        if view > 1:
            top, left = np.random.default_rng((number, view)).integers(0, room + 1, 2)
        square = np.asarray(self.pixels[number, top : top + size, left : left + size])
        if view % 2:
            square = square[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(square)).permute(2, 0, 1)

    def images(self, numbers: Sequence[int]) -> Tensor:
        """The middles of pictures, float [B, 3, resolution, resolution] in [-1, 1]."""
        return torch.stack([self.view(number, 0) for number in numbers]).float() / 127.5 - 1


class Views(Dataset[dict[str, Any]]):
    """Some pictures of a store, in so many views each: image, uint8 [3, resolution, resolution], and text."""

    def __init__(self, store: Store, numbers: Sequence[int], views: int) -> None:
        self.store, self.numbers, self.views = store, list(numbers), views

    @property
    def texts(self) -> list[str]:
        """What is said of the pictures."""
        return [self.store.pictures.texts[number] for number in self.numbers]

    def __len__(self) -> int:
        return len(self.numbers) * self.views

    def __getitem__(self, index: int) -> dict[str, Any]:
        view, place = divmod(index, len(self.numbers))
        number = self.numbers[place]
        return {"image": self.store.view(number, view), "text": self.store.pictures.texts[number]}
