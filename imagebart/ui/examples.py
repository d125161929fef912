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
from imagebart.imaging.masks import load_mask
from imagebart.imaging.metadata import LONGEST_PROMPT
from imagebart.ui.files import publish_permanently
from imagebart.ui.sketchpad.component import pack_mask, scale_mask
from imagebart.ui.sketchpad.stored_images import describe, downscaled, view_size
from imagebart.weights.folder import MASK_SUFFIX, open_file

log = logging.getLogger(__name__)

THUMBNAIL_SIDE = 128  # pixels
# Masks are shown in this color, this opaque: the image stays visible below. The same in view.js.
MASK_COLOR = (255, 61, 113)
MASK_OPACITY = 0.6


@dataclass(frozen=True)
class Example:
    """An image to start from. The caption is read out by screen readers."""

    path: Path
    caption: str
    mask_path: Path | None = None
    prompt: str = ""

    def open(self) -> Image.Image:
        """The image, RGB."""
        return flatten(load_image(self.path, "example"))

    def mask(self) -> Image.Image | None:
        """What to regenerate, "L" of the image's size."""
        return None if self.mask_path is None else load_mask(self.mask_path, self.open().size)

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
        name = f"{self.path.stem}-{hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]}.png"
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

    Those with links that leave the model's folder are left out, and named in the log.
    """
    examples = []
    for path in sorted(folder.glob("*.png")):
        if path.name.endswith(MASK_SUFFIX):
            continue
        mask, text = path.with_name(path.stem + MASK_SUFFIX), path.with_suffix(".txt")
        prompt = ""
        try:
            for one in filter(Path.is_file, (path, mask, text)):
                with open_file(one, folder.parent) as file:
                    prompt = file.read(LONGEST_PROMPT).decode("utf-8", "replace").strip() if one == text else ""
        except WeightsError as error:
            log.warning("an example is left out: %s", error)
            continue
        words = re.sub(r"^\d+\W*", "", path.stem.replace("-", " ").replace("_", " ")).strip()
        caption = (words or path.stem).capitalize() + (f": {prompt}" if prompt else "")
        examples.append(Example(path, caption, mask if mask.is_file() else None, prompt))
    return examples
