"""Recipes: how an image was made, in its PNG file, so that the run can be repeated."""

from __future__ import annotations

import math
import zlib
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image, PngImagePlugin
from pydantic import Field, model_validator

from imagebart.errors import InputError, format_value
from imagebart.imaging.files import Source, save_image
from imagebart.settings import SamplingSettings, Settings

KEY = "imagebart"  # of the PNG's text chunk
LONGEST = 300_000  # characters of the chunk's text: up to twelve for a prompt's character
LONGEST_NAME = 200
LONGEST_PROMPT = 20_000
LARGE = 4_000_000  # pixels, from which an image is compressed in a fifth of the time:
QUICK = {"compress_level": 1, "compress_type": zlib.Z_RLE}

Task = Literal["edit", "generate", "vary"]


class Recipe(Settings):
    """What made an image, without the upload and the mask. Raises InputError naming a bad value."""

    model: Annotated[str, Field(max_length=LONGEST_NAME)]
    task: Task
    prompt: Annotated[str | None, Field(max_length=LONGEST_PROMPT)]  # words, or a class's name; None: without
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]  # of the run's first variant
    settings: SamplingSettings = SamplingSettings()
    exact: bool = False  # an edit of painted pixels alone; this and what follows: see `Pipeline.edit`
    movable: bool = False
    remove: bool = False
    feather: Annotated[int, Field(ge=0, le=1000)] = 0  # of an edit, pixels
    context: Annotated[float, Field(ge=0, allow_inf_nan=True)] = math.inf  # of an edit, over the mask's longer side
    strength: Annotated[float | None, Field(gt=0, le=1)] = None  # of a variation
    variant: Annotated[int, Field(ge=0, le=99)] = 0  # which of the run's variants this is, from 0

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if (self.strength is not None) != (self.task == "vary"):
            given = format_value(self.strength)
            raise InputError(f"The strength is {given} in a recipe to {self.task}; only variations have one.")
        return self

    @property
    def own_seed(self) -> int:
        """The seed that makes this variant alone."""
        return (self.seed + self.variant) % 2**32

    def to_json(self) -> str:
        """One line of JSON, in ASCII. An infinite context is left out, as JSON has no number for it."""
        return self.model_dump_json(ensure_ascii=True, exclude={"context"} if math.isinf(self.context) else None)


def write_png(image: Image.Image, path: str | Path, recipe: Recipe) -> None:
    """Writes a PNG, lossless, that says how it was made."""
    text = PngImagePlugin.PngInfo()
    text.add_text(KEY, recipe.to_json())
    quick = QUICK if image.width * image.height > LARGE else {}
    save_image(image, path, format="PNG", pnginfo=text, **quick)


def read_recipe(source: Source) -> Recipe | None:
    """How an image was made; None if it does not say, or is no PNG. No pixel is decoded.

    Raises InputError for a recipe that cannot be used.
    """
    try:
        file = BytesIO(source) if isinstance(source, bytes) else source
        with nullcontext(file) if isinstance(file, Image.Image) else Image.open(file, formats=("PNG",)) as image:
            text = image.info.get(KEY)
    except Exception:  # damaged bytes make decoders raise nearly anything; load_image says what is wrong
        return None
    if not isinstance(text, str):
        return None
    if len(text) > LONGEST:
        raise InputError(f"The image's recipe has {len(text):,} characters; it may have {LONGEST:,}.")
    try:
        return Recipe.from_json(text)
    except InputError as error:
        raise InputError(f"The image's recipe cannot be used: {error}") from error
