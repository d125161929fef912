"""Small first stages, data and runs that the tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from tiny_models import tiny_first_stage

from imagebart.models.vqgan import FirstStage
from imagebart.training.config import DenoiserRun, LoopConfig, StageRun, StageShape
from imagebart.training.data import PIXELS, ImageStore, StoreIndex, stored_side, write_index
from imagebart.weights.folder import Part, save_part

SMALL = tiny_first_stage(resolution=16, code_dim=4, codebook_size=8)
SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=3)
COLORS = {"dark": 20, "light": 235}

R = TypeVar("R", DenoiserRun, StageRun)


def two_classes(run_class: type[R], folder: Path, **settings: Any) -> R:
    """A run on two classes, each of one color, and on a random first stage."""
    for name, color in COLORS.items():
        (folder / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (16, 16), (color + i,) * 3).save(folder / "data" / name / f"{i}.png")
    save_part(Part(FirstStage(SMALL)), folder / "first")
    loop = LoopConfig(
        steps=80, batch_size=8, lr=1e-2, warmup=5, ema=0.5, mixed_precision="no", save_every=80, sample_every=80
    )
    places = {"data": str(folder / "data"), "first_stage": str(folder / "first")}
    return run_class(**places, loop=loop, shape=SHAPE, conditioning="class", **settings)


def write_store(folder: Path, texts: tuple[str, ...], kind: str = "none", held_out: int = 0) -> ImageStore:
    """A store of random images of 32 pixels with these texts, the first ones held out."""
    count, side = len(texts), stored_side(32)
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    (folder / PIXELS).write_bytes(pixels.tobytes())
    held = tuple(i < held_out for i in range(count))
    write_index(folder, StoreIndex(32, kind, tuple(map(str, range(count))), texts, held, ({},) * count))
    return ImageStore(folder)
