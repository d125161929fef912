"""The reader of things: a small network that says which thing a square of an image shows, and of which color.

    python -m recipes.things.reader runs/things/reader

It is trained on scenes only, never on what a model drew, which it measures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.atomic_io import write_bytes
from imagebart.imaging.files import normalize
from imagebart.training.config import LoopConfig
from imagebart.training.data import grid
from imagebart.training.loop import Batch, Task, train
from imagebart.weights.folder import checked_header
from recipes import generator
from recipes.things.artwork import CELL, GRID, HUES, NOUNS, Placed, render
from recipes.things.scenes import SIDES, sample

SIDE = 64  # pixels a side of the network's input
NOTHING = len(NOUNS)  # the label of a square without a whole thing
COLORS = ("", *HUES)  # "": the artwork's, of nouns that have one color
LOOP = LoopConfig(1500, 64, "muon", 2e-3, warmup=50, ema=0.99, log_every=20, save_every=100, sample_every=500)
P_NOTHING = 0.2  # share of squares without a whole thing
SEED = 8101  # of its scenes; no other part of the recipe draws from it


class ThingReader(nn.Module):
    """Squares float [B, 3, SIDE, SIDE] in [-1, 1] -> logits of nouns and nothing [B, NOTHING + 1], of colors [B, 8]."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        before = 12
        for channels in (width, 2 * width, 4 * width):
            for stride in (1, 2):
                layers += [nn.Conv2d(before, channels, 3, stride, 1), nn.GroupNorm(8, channels), nn.ReLU()]
                before = channels
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width * (SIDE // 16) ** 2, 256), nn.ReLU())
        self.nouns, self.colors = nn.Linear(256, NOTHING + 1), nn.Linear(256, len(COLORS))

    def forward(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(squares)
        return self.nouns(features), self.colors(features)


def crop(image: np.ndarray, top: float, left: float, side: float) -> np.ndarray:
    """A square of an image, in pixels that may lie beyond its borders: uint8 [SIDE, SIDE, 3]."""
    box = (left, top, left + side, top + side)
    found = Image.fromarray(image).transform((SIDE, SIDE), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
    return np.array(found)


@dataclass(frozen=True)
class Squares(Dataset[dict[str, Any]]):
    """Squares of scenes: image, uint8 [3, SIDE, SIDE]; noun and color, int64."""

    seed: int = SEED

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> dict[str, Any]:
        random, scene = generator(index, self.seed, 4), sample(index, self.seed, 6, (35, 35, 20, 10))
        image = render(scene)
        if not scene.things or random.random() < P_NOTHING:
            side = int(random.choice(SIDES))
            top, left = (int(random.integers(GRID - side + 1)) for _ in range(2))
            thing = Placed(NOTHING, "", top, left, side)
            free = all(_overlap(thing, other) < 0.3 for other in scene.things)
            if not free:  # then a corner of a thing's box
                other = scene.things[int(random.integers(len(scene.things)))]
                half = max(2, other.side // 2)
                shift = [int(random.integers(other.side - half + 1)) for _ in range(2)]
                thing = Placed(NOTHING, "", other.top + shift[0], other.left + shift[1], half)
        else:
            thing = scene.things[int(random.integers(len(scene.things)))]
        pixels = thing.side * CELL * random.uniform(0.92, 1.12)
        spare = thing.side * CELL - pixels
        y, x = (start * CELL + spare * random.uniform(0, 1) for start in (thing.top, thing.left))
        square = crop(image, y, x, pixels)
        color = COLORS.index(thing.color or NOUNS[thing.noun].color) if thing.noun != NOTHING else 0
        return {"image": torch.from_numpy(square).permute(2, 0, 1).contiguous(), "noun": thing.noun, "color": color}


def _overlap(one: Placed, other: Placed) -> float:
    """The share of a square that another covers."""
    spans = ((one.top, other.top), (one.left, other.left))
    rows, columns = (max(0, min(a + one.side, b + other.side) - max(a, b)) for a, b in spans)
    return rows * columns / one.side**2


class ReaderTask(Task):
    """Cross-entropy of noun and color, on squares that are blurred, shifted in color and noisy, each half of them."""

    def __init__(self) -> None:
        self.model: nn.Module = ThingReader()
        self.dataset: Dataset[Any] = Squares()

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        nouns, colors = model(augmented(normalize(batch["image"])))
        thing = batch["noun"] != NOTHING
        loss = F.cross_entropy(nouns, batch["noun"]) + 0.5 * F.cross_entropy(colors[thing], batch["color"][thing])
        right = (nouns.argmax(1) == batch["noun"]).float().mean()
        return {"loss": loss, "right": right, "colors": (colors.argmax(1) == batch["color"])[thing].float().mean()}

    def sample(self, model: nn.Module) -> Image.Image:
        return grid(augmented(normalize(torch.stack([self.dataset[i]["image"] for i in range(24)]))), columns=8)


def augmented(squares: Tensor) -> Tensor:
    """Squares as a model may draw them: enlarged from fewer pixels, shifted and stretched in color, noisy."""
    half = torch.rand(4, len(squares), 1, 1, 1) < 0.5
    size = int(torch.randint(SIDE // 3, SIDE, ()))
    small = F.interpolate(squares, (size, size), mode="area")
    blurred = F.interpolate(small, squares.shape[2:], mode="bilinear", align_corners=False)
    squares = torch.where(half[0], blurred, squares)
    shift = (torch.rand(len(squares), 3, 1, 1) - 0.5) * 0.12
    squares = torch.where(half[1], squares + shift, squares)
    squares = torch.where(half[2], squares * (0.9 + 0.2 * torch.rand(len(squares), 1, 1, 1)), squares)
    return torch.where(half[3], squares + 0.05 * torch.randn_like(squares), squares)


@torch.no_grad()
def read(reader: ThingReader, images: Sequence[np.ndarray], boxes: Sequence[Placed]) -> tuple[Tensor, Tensor]:
    """The noun and the color, int64 [B] each, that images uint8 [SIZE, SIZE, 3] show in boxes, one each."""
    squares = [crop(image, b.top * CELL, b.left * CELL, b.side * CELL) for image, b in zip(images, boxes, strict=True)]
    nouns, colors = reader(normalize(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)))
    return nouns.argmax(1), colors.argmax(1)


def train_reader(folder: Path, loop: LoopConfig = LOOP) -> ThingReader:
    """Trains (or resumes) a reader in a run's folder and writes it there as `reader.safetensors`."""
    torch.manual_seed(loop.seed)
    trained = train(ReaderTask(), loop, folder)
    assert isinstance(trained, ThingReader)
    write_bytes(folder / "reader.safetensors", save({k: v.half() for k, v in trained.state_dict().items()}))
    return trained


def load_reader(path: Path) -> ThingReader:
    reader = ThingReader()
    reader.load_state_dict(load_file(checked_header(path)))
    return reader.eval()


if __name__ == "__main__":
    train_reader(Path(sys.argv[1]))
