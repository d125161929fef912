"""Tokens of all pictures of a store, made once: shards of safetensors, several views of each picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from imagebart.models.first_stage import FirstStage
from imagebart.pictures.store import Store, Views
from imagebart.writing import write_bytes, write_text

INDEX = "tokens.json"
SHARD = 4096  # pictures a file; views of one picture lie in one file
BATCH = 32


@torch.no_grad()
def encode_all(store: Store, first_stage: FirstStage, views: int, folder: Path, done: Callable[[int], object]) -> None:
    """Writes the tokens of each picture in so many views, whole files that a killed run need not make again.

    done: told how many pictures are encoded.
    """
    count = len(store.pictures.names)
    device = next(first_stage.parameters()).device
    for start in range(0, count, SHARD):
        path, numbers = folder / _shard(start), range(start, min(start + SHARD, count))
        if not path.is_file():
            parts = []
            for view in range(views):
                rows = Views(store, numbers, views)
                items = range(view * len(numbers), (view + 1) * len(numbers))
                for at in range(0, len(numbers), BATCH):
                    images = torch.stack([rows[i]["image"] for i in items[at : at + BATCH]]).to(device)
                    parts.append(first_stage.encode(images.float() / 127.5 - 1).cpu().to(torch.int32))
                    done(len(images))
            tokens = torch.cat(parts).unflatten(0, (views, len(numbers))).transpose(0, 1).contiguous()
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(path, save({"tokens": tokens}))
    write_text(folder / INDEX, json.dumps({"pictures": count, "views": views}))


def _shard(start: int) -> str:
    return f"tokens-{start // SHARD:05d}.safetensors"


def are_encoded(folder: Path) -> bool:
    """Whether all tokens are there."""
    return (folder / INDEX).is_file()


class Tokens(Views):
    """Some pictures of a store, in all their views, with their tokens, int64 [N], beside image and text."""

    def __init__(self, folder: Path, store: Store, numbers: Sequence[int]) -> None:
        if not are_encoded(folder):
            raise ValueError(f"{folder} holds no tokens that are ready to train on ({INDEX} is missing)")
        shards = sorted(folder.glob("tokens-*.safetensors"))
        self.all = torch.cat([load_file(shard)["tokens"] for shard in shards])  # [pictures, views, N]
        super().__init__(store, numbers, self.all.shape[1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        view, place = divmod(index, len(self.numbers))
        return {**super().__getitem__(index), "tokens": self.all[self.numbers[place], view].long()}

    def middles(self, count: int) -> tuple[Tensor, list[str]]:
        """The first pictures as they are, neither moved nor mirrored: tokens [B, N] and what is said of them."""
        return self.all[self.numbers[:count], 0].long(), self.texts[:count]
