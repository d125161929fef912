"""Small first stages, data and runs that the tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from tiny_models import tiny_first_stage
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.model import ImageBART
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import DenoiserRun, LoopConfig, StageRun, StageShape
from imagebart.training.data import INDEX, PIXELS, ImageStore, StoreIndex
from imagebart.training.loop import Task, train

SMALL = tiny_first_stage(resolution=16, code_dim=4, codebook_size=8)
SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=3)
COLORS = {"dark": 20, "light": 235}

R = TypeVar("R", DenoiserRun, StageRun)


def two_classes(run_class: type[R], folder: Path, **settings: Any) -> R:
    """A run on two classes, each of one color, and on a random first stage."""
    for name, color in COLORS.items():
        (folder / "data" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (16, 16), (color + i,) * 3).save(folder / "data" / name / f"{i}.png")
    ImageBART(FirstStage(SMALL)).save_pretrained(folder / "first")
    loop = LoopConfig(steps=80, batch_size=8, lr=1e-2, warmup=5, ema=0.5, mixed_precision="no")
    places = {"data": str(folder / "data"), "first_stage": str(folder / "first")}
    return run_class(**places, loop=loop, shape=SHAPE, conditioning="class", **settings)


def write_store(folder: Path, texts: tuple[str, ...], kind: str = "none", held_out: int = 0) -> ImageStore:
    """A store of random images of 32 pixels with these texts, the first ones held out."""
    count, side = len(texts), 36
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    (folder / PIXELS).write_bytes(pixels.tobytes())
    held = tuple(i < held_out for i in range(count))
    names = tuple(map(str, range(count)))
    index = StoreIndex(resolution=32, kind=kind, names=names, texts=texts, held_out=held)
    (folder / INDEX).write_text(index.model_dump_json())
    return ImageStore(folder)


class Numbers(Dataset[dict[str, Any]]):
    """y = 3 x - 1, with noise that the loop draws."""

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.tensor([index / 50.0])}


class Line(Task):
    """Fits a line: the smallest task."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.model: nn.Module = nn.Linear(1, 1)
        self.dataset = Numbers()

    def loss(self, model: nn.Module, batch: dict[str, Any], accelerator: Accelerator) -> dict[str, Tensor]:
        noise = 0.01 * torch.randn_like(batch["x"])
        return {"loss": (model(batch["x"]) - (3 * batch["x"] - 1) + noise).square().mean()}

    def sample(self, model: nn.Module) -> Image.Image:
        return Image.new("RGB", (2, 2))


LINE_LOOP = LoopConfig(steps=40, batch_size=7, lr=0.1, warmup=5, ema=0.9, mixed_precision="no", log_every=5)


def train_line(folder: Path, steps: int) -> list[Tensor]:
    """Trains a line, with its state saved at each step; returns the averaged weights."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return list(train(Line(), LINE_LOOP.replace(steps=steps, log_every=1), folder).parameters())
