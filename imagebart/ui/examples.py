"""Example pictures: the PNG files of a folder, in the order of their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image


@dataclass(frozen=True)
class Example:
    """A picture to start from. The caption is read out by screen readers."""

    path: Path
    caption: str

    def open(self) -> Image.Image:
        """The picture, RGB."""
        with Image.open(self.path) as image:
            return image.convert("RGB")


def find_examples(folder: Path) -> list[Example]:
    """All examples of `folder`, none if it does not exist. `01-red-curls.png` is captioned "Red curls"."""
    return [Example(path, _caption(path.stem)) for path in sorted(folder.glob("*.png"))]


def _caption(stem: str) -> str:
    words = re.sub(r"^\d+\W*", "", stem.replace("-", " ").replace("_", " ")).strip()
    return (words or stem).capitalize()
