"""The picture being edited, and the copy of it that the canvas shows.

The browser's canvas hands back a re-render of what it shows, so the upload itself is kept here and only the
mask is taken from the canvas. The canvas gets a copy of comfortable size: small pictures are enlarged so
that they can be painted on, large ones reduced so that no button moves megabytes; the mask is scaled back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from PIL import Image

from imagebart.images import flatten, load_image
from imagebart.masks import cover, merge_layers, spans

# Longest side of the canvas, in its own pixels.
SMALLEST_VIEW = 512
LARGEST_VIEW = 1024
# Longest side of a preview: each is compressed and sent while the model waits.
LARGEST_PREVIEW = 512

# Masks are painted in this colour, this opaque: the picture stays visible below.
BRUSH_RGB = (255, 61, 113)
BRUSH_OPACITY = 0.6


class EditorValue(TypedDict):
    """What `gr.ImageEditor(type="pil")` sends and takes."""

    background: Image.Image | None
    layers: list[Image.Image]
    composite: Image.Image | None


@dataclass(frozen=True)
class Picture:
    """An upload, untouched, its copy for the canvas, and the file from which it can be had again."""

    image: Image.Image
    view: Image.Image
    path: str | None = None

    @classmethod
    def of(cls, image: Image.Image, path: str | None = None) -> Picture:
        """Prepare an image (any size, RGB or RGBA, upright) for the canvas."""
        return cls(image, flatten(image).resize(view_size(image.size), Image.Resampling.LANCZOS), path)

    @classmethod
    def load(cls, path: str) -> Picture:
        """Open a file. Raises InputError as `load_image` does."""
        return cls.of(load_image(path), path)

    @property
    def nbytes(self) -> int:
        """Bytes that its pixels take in memory."""
        return pixel_bytes(self.image) + pixel_bytes(self.view)


def pixel_bytes(image: Image.Image) -> int:
    """Bytes that an image's pixels take in memory, one for each band."""
    return image.width * image.height * len(image.getbands())


def view_size(size: tuple[int, int]) -> tuple[int, int]:
    """Size of the canvas copy of an image of `size` (width, height): the same shape, a comfortable size."""
    longest = max(size)
    scale = min(max(longest, SMALLEST_VIEW), LARGEST_VIEW) / longest
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def reduced(image: Image.Image, longest: int = LARGEST_VIEW) -> Image.Image:
    """The image itself, or a copy whose longest side is `longest` where it is larger."""
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def to_editor(picture: Picture, mask: Image.Image | None = None) -> EditorValue:
    """The canvas with the picture, and `mask` ("L", any size, 255 = redraw) as if it had been painted."""
    layers = []
    if mask is not None:
        alpha = _scale_mask(mask, picture.view.size)
        alpha = alpha.point([math.ceil(value * BRUSH_OPACITY) for value in range(256)])
        layer = Image.new("RGBA", picture.view.size, BRUSH_RGB)
        layer.putalpha(alpha)
        layers.append(layer)
    return {"background": picture.view, "layers": layers, "composite": None}


def from_editor(value: EditorValue | None, kept: Picture | None) -> tuple[Picture | None, Image.Image | None]:
    """The picture and the mask that the canvas holds, the mask in the picture's own pixels; see `on_canvas`."""
    kept, painted = on_canvas(value, kept)
    return kept, None if kept is None or painted is None else _scale_mask(painted, kept.image.size)


def on_canvas(value: EditorValue | None, kept: Picture | None) -> tuple[Picture | None, Image.Image | None]:
    """The picture and the mask that the canvas holds, the mask in the canvas's pixels.

    `kept` is the upload that the canvas was filled from. Should the canvas show something of another size
    (the session's memory expired, or it came there by other means), its own background becomes the picture.
    The mask is "L", 255 where painted solidly; None where nothing is painted at all.
    """
    if value is None or value["background"] is None:
        return kept, None
    background = value["background"]
    if kept is None or background.size != kept.view.size:
        kept = Picture.of(background.convert("RGB"))
    painted = merge_layers(value["layers"], background.size)
    if painted.getbbox() is None:
        return kept, None
    return kept, painted.point([min(255, math.ceil(alpha / BRUSH_OPACITY)) for alpha in range(256)])


def tinted(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture with its mask ("L", of its size) laid over it as on the canvas; RGB."""
    colour = Image.new("RGB", picture.size, BRUSH_RGB)
    return Image.composite(colour, flatten(picture), mask.point([round(v * BRUSH_OPACITY) for v in range(256)]))


def _scale_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale a mask to `size` (width, height) without losing the thinnest stroke."""
    if size[0] > mask.width or size[1] > mask.height:
        return mask.resize(size, Image.Resampling.NEAREST)
    rows, columns = spans(0, mask.height, size[1]), spans(0, mask.width, size[0])
    return Image.fromarray(cover(np.asarray(mask), rows, columns))
