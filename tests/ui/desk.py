"""What tests of the page's actions share: sketches, and frames by the names of what they change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imagebart.imaging.masks import preset
from imagebart.pipeline import Pipeline
from imagebart.testing import tiny_pipeline
from imagebart.ui.controls import ORDER, starting_values
from imagebart.ui.examples import scale_mask, view_size
from imagebart.ui.files import publish
from imagebart.ui.model_list import Choice
from imagebart.ui.runs import SHOWN, Running
from imagebart.ui.sketchpad.stored_images import pack

UNCHANGED = {"__type__": "update"}


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A picture in which no two pixels are alike."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def sketch(image: Image.Image, area: str | Image.Image | None = "upper half", version: int = 3) -> dict[str, Any]:
    """What the sketchpad sends: a picture on which an area is painted, or nothing."""
    mask = preset(area, image.size) if isinstance(area, str) else area
    packed = "" if mask is None else pack(scale_mask(mask, view_size(image.size)))
    return {"version": version, "picture": publish(image), "size": list(image.size), "mask": packed}


def controls(pipeline: Pipeline, **values: Any) -> list[Any]:
    """The controls' values in their order: a seed that stays, and what is given."""
    plain = {"model": pipeline.name, "words": "hat", "choice": None, "feather": 0, "seed": 7, "new_seed": False}
    return [{**starting_values(pipeline), **plain, **values}[name] for name in ORDER]


def opened(path: str | Path) -> Image.Image:
    """A file's picture."""
    with Image.open(path) as image:
        return image.copy()


def told(updates: Sequence[Any], names: Sequence[str] = SHOWN) -> dict[str, Any]:
    """What a moment changes, by name; a thing left as it is, is left out."""
    return {name: value for name, value in zip(names, updates, strict=True) if value != UNCHANGED}


def run(updates: Iterator[list[Any]]) -> list[dict[str, Any]]:
    """All moments of a run."""
    return [told(update) for update in updates]


def edited(image: Image.Image, **values: Any) -> dict[str, Any]:
    """The last moment of an edit by a tiny model."""
    pipeline = tiny_pipeline()
    return run(Running(Choice(pipeline)).edit(sketch(image), *controls(pipeline, **values)))[-1]
