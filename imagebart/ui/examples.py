"""Sizes of pictures on their way to the browser, and masks on their way back.

The browser paints on a copy of bounded size, pixel for pixel where the picture is no larger, so that no button moves
megabytes; the mask is scaled back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from imagebart.imaging.files import BAND, flatten, load_image
from imagebart.imaging.masks import cover, load_mask, spans
from imagebart.imaging.metadata import LONGEST_PROMPT

# Longest side of what is painted on; the same in sketchpad/state.js.
LARGEST_VIEW = 1024
# Longest side of a preview: each is compressed and sent while the model waits.
LARGEST_PREVIEW = 512

# Masks are shown in this colour, this opaque: the picture stays visible below. The same in sketchpad/drawing.js.
BRUSH_RGB = (255, 61, 113)
BRUSH_OPACITY = 0.6


def view_size(size: tuple[int, int]) -> tuple[int, int]:
    """Size of what is painted on, for a picture of `size` (width, height): its own, or a bounded share of it."""
    scale = min(max(size), LARGEST_VIEW) / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reduced(image: Image.Image, longest: int = LARGEST_VIEW) -> Image.Image:
    """The image itself, or a copy whose longest side is `longest` where it is larger."""
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    factor = int(1 / (2 * scale)) or 1
    # Some rows at a time: Pillow would make a copy of all that is transparent first.
    small = Image.new(image.mode, (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, small.height, BAND):
        rows = (0, top * factor, image.width, min((top + BAND) * factor, image.height))
        small.paste(image.crop(rows).reduce(factor), (0, top))
    return small.resize(size, Image.Resampling.BILINEAR, box=(0, 0, image.width / factor, image.height / factor))


def tinted(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture with its mask ("L", of its size) laid over it as on the sketchpad; RGB."""
    colour = Image.new("RGB", picture.size, BRUSH_RGB)
    return Image.composite(colour, flatten(picture), mask.point([round(v * BRUSH_OPACITY) for v in range(256)]))


def scale_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale a mask to `size` (width, height) without losing the thinnest stroke."""
    if mask.size == size:
        return mask
    if size[0] > mask.width or size[1] > mask.height:
        return mask.resize(size, Image.Resampling.NEAREST)
    rows, columns = spans(0, mask.height, size[1]), spans(0, mask.width, size[0])
    return Image.fromarray(cover(np.asarray(mask), rows, columns))


# Examples: pictures to start from, each with a mask over what to change and words for what should be there.
#
# A folder holds `NAME.png`, and beside it, where there are any, `NAME.mask.png` (white: redraw) and `NAME.txt` (the
# prompt).


EXAMPLES = "examples"  # the folder of them, in a model's
MASK = ".mask.png"


@dataclass(frozen=True)
class Example:
    """A picture to start from. The caption is read out by screen readers."""

    path: Path
    caption: str
    mask_path: Path | None = None
    prompt: str = ""

    def open(self) -> Image.Image:
        """The picture, RGB."""
        return flatten(load_image(self.path, "example"))

    def mask(self) -> Image.Image | None:
        """What to redraw, "L" of the picture's size."""
        return None if self.mask_path is None else load_mask(self.mask_path, self.open().size)

    def thumbnail(self) -> Image.Image:
        """The picture with its mask laid over it, RGB."""
        mask = self.mask()
        return self.open() if mask is None else tinted(self.open(), mask)


def find_examples(folder: Path) -> list[Example]:
    """All examples of `folder` by name, none if it does not exist. `01-red-curls.png` is captioned "Red curls"."""
    return [_example(path) for path in sorted(folder.glob("*.png")) if not path.name.endswith(MASK)]


def _example(path: Path) -> Example:
    mask, words = path.with_name(path.stem + MASK), path.with_suffix(".txt")
    prompt = words.read_bytes()[:LONGEST_PROMPT].decode("utf-8", "replace").strip() if words.is_file() else ""
    caption = _caption(path.stem) + (f": {prompt}" if prompt else "")
    return Example(path, caption, mask if mask.is_file() else None, prompt)


def _caption(stem: str) -> str:
    words = re.sub(r"^\d+\W*", "", stem.replace("-", " ").replace("_", " ")).strip()
    return (words or stem).capitalize()
