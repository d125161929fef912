"""How a picture was made, kept in its PNG file, so that the run can be repeated."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NoReturn

from PIL import Image, PngImagePlugin

from imagebart.config import from_dict
from imagebart.errors import InputError
from imagebart.images import Source, save_image
from imagebart.settings import SamplingSettings

KEY = "imagebart"  # of the PNG's text chunk
LONGEST = 300_000  # characters of the chunk's text: a prompt's take up to twelve each
LONGEST_NAME = 200
LONGEST_PROMPT = 20_000

Task = Literal["edit", "generate", "vary"]


@dataclass(frozen=True)
class Recipe:
    """What made a picture, less the upload and the mask. Raises InputError naming a value out of range."""

    model: str  # its name
    task: Task
    prompt: str | None  # words, or a class's name; None: without
    seed: int  # of the run's first variant
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    feather: int = 0  # of an edit, pixels
    context: float = math.inf  # of an edit, over the mask's longer side
    strength: float | None = None  # of a variation
    variant: int = 0  # which of the run's variants this is, from 0

    def __post_init__(self) -> None:
        if len(self.model) > LONGEST_NAME:
            raise InputError(f"The model's name has {len(self.model)} characters; it may have {LONGEST_NAME}.")
        if self.prompt is not None and len(self.prompt) > LONGEST_PROMPT:
            raise InputError(f"The prompt has {len(self.prompt):,} characters; it may have {LONGEST_PROMPT:,}.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"The seed is {self.seed}; it must be a whole number from 0 to {2**32 - 1}.")
        if not 0 <= self.feather <= 1000:
            raise InputError(f"The feather is {self.feather} pixels; it must be from 0 to 1000.")
        if not self.context >= 0:
            raise InputError(f"The context is {self.context}; it must be 0 or more.")
        if (self.strength is not None) != (self.task == "vary"):
            raise InputError(f"The strength is {self.strength} in a recipe to {self.task}; only variations have one.")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise InputError(f"The strength is {self.strength:g}; it must be over 0 and at most 1.")
        if not 0 <= self.variant < 100:
            raise InputError(f"The variant is number {self.variant}; it must be from 0 to 99.")

    @property
    def own_seed(self) -> int:
        """The seed with which this variant is drawn alone, as the first of its run."""
        return (self.seed + self.variant) % 2**32

    def to_json(self) -> str:
        """One line of JSON, in ASCII. An endless context is left out: JSON has no number for it."""
        values = asdict(self)
        if math.isinf(self.context):
            del values["context"]
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `to_json` gave; raises InputError for any other text."""
        if len(text) > LONGEST:
            raise InputError(f"The picture's recipe has {len(text):,} characters; it may have {LONGEST:,}.")
        try:
            return from_dict(cls, json.loads(text, parse_constant=_no_number))
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise InputError(f"The picture's recipe cannot be used: {str(error)[:200]}") from error


def write_png(image: Image.Image, path: str | Path, recipe: Recipe) -> None:
    """Writes a PNG, lossless, that says how it was made."""
    text = PngImagePlugin.PngInfo()
    text.add_text(KEY, recipe.to_json())
    save_image(image, path, format="PNG", pnginfo=text)


def read_recipe(source: Source) -> Recipe | None:
    """How a picture was made; None if it does not say, or is no PNG. No pixel is decoded.

    Raises InputError for a recipe that was damaged, or made up.
    """
    text = source.info.get(KEY) if isinstance(source, Image.Image) else _text(source)
    return Recipe.from_json(text) if isinstance(text, str) else None


def _text(source: str | Path | bytes) -> Any:
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=("PNG",)) as image:
            return image.info.get(KEY)
    except Exception:  # hostile bytes make decoders raise nearly anything; load_image says what is wrong
        return None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
