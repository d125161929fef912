"""What the page sends to its actions, and the images that come back, for the tests in this folder."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imagebart.imaging.masks import preset
from imagebart.pipeline import Pipeline
from imagebart.ui.controls import starting_values
from imagebart.ui.files import pack_for_view, publish


def noise_image(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """An image in which no two pixels are alike."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def open_image(path: str | Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def sketch_value(image: Image.Image, area: str | Image.Image | None = "upper half") -> dict[str, Any]:
    """What the sketchpad sends: an image with a preset mask, another one, or none."""
    mask = preset(area, image.size) if isinstance(area, str) else area
    return {"version": 3, "image": publish(image), "mask": "" if mask is None else pack_for_view(mask)}


def control_values(pipeline: Pipeline, **values: Any) -> dict[str, Any]:
    """The controls' values: a fixed seed, a prompt that the model knows, and what is given."""
    asked = {"model": pipeline.name, "words": "hat", "choice": None, "variants": 1, "best_first": False}
    drawn = {"scales": pipeline.stages, "feather": 0, "seed": 7, "new_seed": False}
    return {**starting_values(pipeline), **asked, **drawn, **values}
