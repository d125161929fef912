"""Data sets to train on: avatars drawn without end, or a folder of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from imagebart.avatars.dataset import AvatarDataset, face_weight
from imagebart.imaging.files import to_images
from imagebart.imaging.sheet import sheet
from imagebart.pictures.store import MOST_VIEWS, Store, Views, read_index

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class ImageFolder(Dataset[dict[str, Any]]):
    """Images of a folder in Hugging Face's imagefolder layout.

    `metadata.jsonl` beside the images may give a `text` for each `file_name`; without it, images in named
    subfolders have the folder's name as `text` (a class). Items: `image`, uint8 [3, size, size] (the centre
    square), and `text` ("" where there is none).
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder; expected a folder of images, or 'avatars'")
        self.paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not self.paths:
            raise ValueError(f"{folder} holds no images; known kinds are {', '.join(sorted(SUFFIXES))}")
        captions = _captions(folder)
        self.texts = [captions.get(p, "" if p.parent == folder else p.parent.name) for p in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with Image.open(self.paths[index]) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return {"image": pixels, "text": self.texts[index]}


def _captions(folder: Path) -> dict[Path, str]:
    captions = {}
    for file in folder.rglob("metadata.jsonl"):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                captions[file.parent / record["file_name"]] = str(record.get("text", ""))
            except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{file}, line {number}: {line[:60]!r} is not an object with `file_name` and `text`"
                ) from error
    return captions


def dataset_for(data: str, size: int) -> Dataset[dict[str, Any]]:
    """The data set that a configuration names: "avatars", or the path of a folder of images, or of a store of them.

    Raises ValueError for a store of pictures of another size.
    """
    if data == "avatars":
        return AvatarDataset(size=size)
    pictures = read_index(Path(data))
    if pictures is None:
        return ImageFolder(Path(data), size)
    if pictures.resolution != size:
        raise ValueError(f"{data} holds pictures of {pictures.resolution} pixels a side, expected {size}")
    return Views(Store(Path(data)), pictures.numbers(False), MOST_VIEWS)


def pixel_weight(data: str, size: int, face: float) -> Tensor:
    """Weight of each pixel's error, [size, size]: `face` in an avatar's face, 1 elsewhere."""
    return 1 + (face - 1) * face_weight(size) if data == "avatars" else torch.ones(size, size)


def grid(images: Tensor, columns: int) -> Image.Image:
    """Images [B, 3, H, W] in [-1, 1], row by row in one picture with a white line between."""
    pictures = to_images(images)
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    page = sheet(rows, pictures[0].width, margin=1)
    return page.crop((1, 1, page.width - 1, page.height - 1))
