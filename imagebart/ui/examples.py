"""Examples: pictures to start from, each with a mask over what to change and words for what should be there.

A folder holds `NAME.png`, and beside it, where there are any, `NAME.mask.png` (white: redraw) and `NAME.txt` (the
prompt).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from imagebart.imaging.files import flatten, load_image
from imagebart.imaging.masks import load_mask
from imagebart.imaging.metadata import LONGEST_PROMPT
from imagebart.ui.picture import tinted

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
