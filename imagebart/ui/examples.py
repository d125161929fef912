"""Examples: images to start from, each with a mask over what to change and a prompt for what should be there.

A folder holds `NAME.png`, and beside it, where there are any, `NAME.mask.png` (white: regenerate) and `NAME.txt` (the
prompt).
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from imagebart.errors import WeightsError
from imagebart.imaging.files import flatten, load_image
from imagebart.imaging.masks import MASK_SUFFIX, load_mask
from imagebart.imaging.metadata import LONGEST_PROMPT
from imagebart.ui.files import publish_permanently
from imagebart.ui.sketchpad.component import pack_mask, scale_mask
from imagebart.ui.sketchpad.stored_images import describe, downscaled, view_size

log = logging.getLogger(__name__)

THUMBNAIL_SIDE = 128  # pixels
MAX_FILE_BYTES = 4_000_000  # examples are kept in memory
# Masks are shown in this color, this opaque: the image stays visible below. The same in view.js.
MASK_COLOR = (255, 61, 113)
MASK_OPACITY = 0.6


@dataclass(frozen=True)
class Example:
    """An image to start from: its file's name without the ending, and what was in its files when they were checked.

    The caption is read out by screen readers.
    """

    name: str
    caption: str
    image_file: bytes
    mask_file: bytes | None = None
    prompt: str = ""

    def open(self) -> Image.Image:
        """The image, RGB."""
        return flatten(load_image(self.image_file, "example"))

    def mask(self) -> Image.Image | None:
        """What to regenerate, "L" of the image's size."""
        return None if self.mask_file is None else load_mask(self.mask_file, self.open().size)

    def thumbnail(self) -> Image.Image:
        """The image with its mask laid over it as on the sketchpad, RGB."""
        image, mask = self.open(), self.mask()
        if mask is None:
            return image
        opacity = mask.point([round(value * MASK_OPACITY) for value in range(256)])
        return Image.composite(Image.new("RGB", image.size, MASK_COLOR), image, opacity)

    def publish(self) -> dict[str, Any]:
        """The example as the sketchpad takes it. Its files have the same names each time.

        Raises InputError for files that cannot be read.
        """
        name = f"{self.name}-{hashlib.sha256(self.image_file).hexdigest()[:12]}.png"
        image, mask = self.open(), self.mask()
        path = publish_permanently(name, image)
        view = publish_permanently(f"view-{name}", downscaled(image))
        return {
            "image": describe(path, image, view),
            "caption": self.caption,
            "prompt": self.prompt,
            "mask": "" if mask is None else pack_mask(scale_mask(mask, view_size(mask.size))),
            "small": publish_permanently(f"small-{name}", downscaled(self.thumbnail(), THUMBNAIL_SIDE)),
        }


def find_examples(folder: Path) -> list[Example]:
    """All examples of a model's folder of them by name. `01-red-curls.png` is captioned "Red curls".

    Those with links that leave the model's folder, and very large files, are left out, and named in the log.
    """
    examples = []
    for path in sorted(folder.glob("*.png")):
        if path.name.endswith(MASK_SUFFIX):
            continue
        mask, text = path.with_name(path.stem + MASK_SUFFIX), path.with_suffix(".txt")
        try:
            image_file = _read(path)
            mask_file = _read(mask) if mask.is_file() else None
            prompt = _read(text)[:LONGEST_PROMPT] if text.is_file() else b""
        except (OSError, WeightsError) as error:
            log.warning("an example is left out: %s", error)
            continue
        said = prompt.decode("utf-8", "replace").strip()
        words = re.sub(r"^\d+\W*", "", path.stem.replace("-", " ").replace("_", " ")).strip()
        caption = (words or path.stem).capitalize() + (f": {said}" if said else "")
        examples.append(Example(path.stem, caption, image_file, mask_file, said))
    return examples


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise WeightsError(f"{path} has over {MAX_FILE_BYTES:,} bytes; make it smaller")
    return content
