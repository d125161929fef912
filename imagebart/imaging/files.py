"""Image files: opened safely, written whole, with the recipe that made them; images to tensors and back; animations."""

import math
import zlib
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from os.path import getsize, isfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from pydantic import Field, model_validator

from imagebart.core.atomic_io import write_bytes
from imagebart.core.errors import InputError, format_value
from imagebart.core.settings import SamplingSettings, Settings

FORMATS = ("PNG", "JPEG", "WEBP")
FORMAT_NAMES = "PNG, JPEG or WebP"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # of such files, in a folder
MAX_BYTES = 100_000_000  # of a file
MIN_SIDE, MAX_SIDE = 16, 30_000
MAX_PIXELS = 25_000_000

HOLD = 2.0  # seconds more for an animation's last frame
SHORTEST = 0.02  # seconds a frame, as browsers slow down shorter ones

Source = str | Path | bytes | Image.Image


def load_image(source: Source, name: str = "image") -> Image.Image:
    """An image as people see it: 8 bits a channel, upright, "RGB", or "RGBA" where it has transparency.

    source: a file's path, a file's bytes, or an opened image, which is left as it is. Of the metadata only an RGB color
    profile is kept, as the pixels are not converted. 16-bit gray is scaled by 1/257.

    Raises InputError, in which the image is called `name`, for a file that is missing, not one of `FORMATS`, damaged or
    over MAX_BYTES, and for an image that is animated or, before it is decoded, of a size beyond the limits.
    """
    if isinstance(source, Image.Image):
        return _decode(source, name)
    if not isinstance(source, str | Path | bytes):
        raise InputError(f"The {name} is {format_value(source)}; give a {FORMAT_NAMES} file or an opened image.")
    if not isinstance(source, bytes) and not isfile(source):
        raise InputError(f"There is no {name} file {str(source)[-150:]!r}; choose an existing {FORMAT_NAMES} file.")
    size = len(source) if isinstance(source, bytes) else getsize(source)
    if size > MAX_BYTES:
        raise InputError(f"The {name} file has {size:,} bytes; it may have {MAX_BYTES:,}.")
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            return _decode(image, name)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # by the header, far too large
        raise InputError(_too_large(name, "has too many pixels")) from error
    except UnidentifiedImageError as error:
        raise InputError(f"The {name} file is not an image we can read; choose a {FORMAT_NAMES} file.") from error
    except Exception as error:  # damaged bytes make decoders raise nearly anything
        raise InputError(f"The {name} file is damaged or cut short; save or download it again.") from error


def _decode(image: Image.Image, name: str) -> Image.Image:
    size = f"is {image.width:,} × {image.height:,} pixels"
    if min(image.size) < MIN_SIDE:
        raise InputError(f"The {name} {size}; at least {MIN_SIDE} × {MIN_SIDE} are needed.")
    if max(image.size) > MAX_SIDE or image.width * image.height > MAX_PIXELS:
        raise InputError(_too_large(name, size))
    # Phones store a JPEG with a preview beside it as "MPO"; its first frame is the image.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise InputError(f"The {name} is animated; save the frame you want as a still PNG and use that.")
    image.load()
    profile, colored = image.info.get("icc_profile"), image.mode in ("RGB", "RGBA", "P", "PA")
    with suppress(Exception):  # unreadable metadata: the pixels as stored
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    result = image.convert("RGBA" if image.has_transparency_data else "RGB")
    result.info = {"icc_profile": profile} if profile and colored else {}  # of gray or CMYK it would be wrong for RGB
    return result


def _too_large(name: str, what: str) -> str:
    limit = f"{MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE:,} pixels a side"
    return f"The {name} {what}; make it smaller, at most {limit}."


def check_ending(path: Path) -> str:
    """The format of a file by its name's ending; raises InputError where images cannot be written in it."""
    kind = Image.registered_extensions().get(path.suffix.lower(), "")
    if kind not in Image.SAVE:
        raise InputError(f"An image cannot be written to {format_value(path.name)}; end the name in .png.")
    return kind


def save_image(image: Image.Image, path: str | Path, **options: Any) -> None:
    """Writes an image, whole or not at all, in the format of the name's ending, or options["format"].

    options: Pillow's. Raises OSError (see `write_bytes`), InputError for an unknown ending.
    """
    file = BytesIO()
    kind = options.pop("format", None) or check_ending(Path(path))
    image.save(file, format=kind, **options)
    write_bytes(Path(path), file.getbuffer())


def save_animation(frames: Sequence[Image.Image], path: str | Path, seconds: float) -> None:
    """Writes frames ("RGB" or "RGBA", of one size, one or more) as an endless, lossless WebP.

    seconds: of the animation, and HOLD more for its last frame; at least SHORTEST a frame.
    """
    first, *rest = frames
    each = max(seconds / len(frames), SHORTEST)
    durations = [round(1000 * each)] * len(rest) + [round(1000 * (each + HOLD))]
    moving = {"save_all": True, "append_images": rest, "duration": durations, "loop": 0}
    save_image(first, path, format="WEBP", lossless=True, **moving)


def flatten(image: Image.Image) -> Image.Image:
    """An "RGB" or "RGBA" image as "RGB", on white."""
    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def normalize(levels: torch.Tensor) -> torch.Tensor:
    """Pixels of 0 to 255 as float32 in [-1, 1]."""
    return levels.float() / 127.5 - 1


def denormalize(images: torch.Tensor) -> torch.Tensor:
    """The inverse of `normalize`: uint8, rounded, and clipped outside of [-1, 1]."""
    return ((images.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An "RGB" image of W x H as float32 [1, 3, H, W] in [-1, 1]."""
    return normalize(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous())


def to_images(tensor: torch.Tensor) -> list[Image.Image]:
    """Float [B, 3, H, W] in [-1, 1] as B "RGB" images; see `denormalize`."""
    return [Image.fromarray(p) for p in denormalize(tensor).permute(0, 2, 3, 1).cpu().contiguous().numpy()]


def to_layers(tensor: torch.Tensor) -> list[Image.Image]:
    """Layers, float [B, 4, H, W] in [0, 1], color times opacity and opacity, as B "RGBA" images."""
    levels = (tensor.detach().float() * 255).round().clamp(0, 255)
    opacity = levels[:, 3:]
    levels[:, :3] = (levels[:, :3] * 255 / opacity.clamp_min(1)).round().clamp(0, 255)
    return [Image.fromarray(p) for p in levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous().numpy()]


def on_gray(layers: torch.Tensor) -> torch.Tensor:
    """Layers [B, 4 or more, H, W] as for `to_layers` as images [B, 3, H, W] in [-1, 1]."""
    return 2 * (layers[:, :3] + 0.5 * (1 - layers[:, 3:4])).clamp(0, 1) - 1


# Recipes: how an image was made, in its PNG file, so that the run can be repeated.

KEY = "imagebart"  # of the PNG's text chunk
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
    def _check(self) -> "Recipe":
        if (self.strength is not None) != (self.task == "vary"):
            raise InputError(f"The strength is {self.strength} in a recipe to {self.task}; only a variation has one.")
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


def read_recipe(file: str | Path | BytesIO) -> Recipe | None:
    """How an image was made; None if it does not say, or is no PNG. Raises InputError for an unusable recipe."""
    try:
        with Image.open(file, formats=("PNG",)) as image:
            text = image.info.get(KEY)
    except Exception:  # damaged bytes make decoders raise nearly anything; load_image says what is wrong
        return None
    if not isinstance(text, str):
        return None
    try:
        return Recipe.from_json(text)
    except InputError as error:
        raise InputError(f"The image's recipe cannot be used: {error}") from error
