"""Renders of avatars: one rasterised layer a part, stacked.

The parts are those of the Avataaars set by Pablo Stanley ("free for personal and commercial use"), as the package
`python_avatars` has them. They are stacked in a fixed order at fixed places, so each is rasterised once for each color
and size and kept: several times faster than rasterising whole avatars, with the same pixels up to rounding.
"""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import python_avatars
import resvg
import torch
from PIL import Image, ImageColor
from torch import Tensor

from imagebart.worlds.avatars import HAT_TOPS, VALUES, Attributes
from recipes.avatars import data_file

FRAME = (-2.0, 4.0, 268.0)  # the square of the set's 264 x 280 units that is shown: left, top, side

_DATA = json.loads(data_file("artwork.json"))
# The place of each kind of part and the paint that it inherits, as in the set's own composition.
PLACES: dict[str, str] = _DATA["places"]
FILES: dict[str, dict[str, str]] = _DATA["files"]  # the set's file for each value of an attribute
COLORED = re.compile(r'(<g id="(?:Hair|Facial-Hair|Fabric|Skin)-Color"[^>]*?)\s*fill="[^"]*"([^>]*>)')

# Colors chosen to be far from each other, and those of hair from every skin; ink: of prints on shirts on which the
# set's white would not show.
HAIR_COLORS, FABRIC_COLORS, SKINS, BACKGROUNDS, INK = (
    _DATA["colors"][name] for name in ("hair", "fabric", "skin", "background", "ink")
)


def rasterise(svg: str) -> Image.Image:
    """An SVG document as an "RGBA" image of its own size."""
    tree = resvg.usvg.Tree.from_str(svg, resvg.usvg.Options.default())
    png = resvg.render(tree, (1, 0, 0, 0, 1, 0))  # the two rows of the affine matrix
    return Image.open(io.BytesIO(png)).convert("RGBA")


@cache
def _elements(kind: str, name: str) -> str:
    """The elements of a part's SVG file; of the body those of the set's base avatar, without places of other parts."""
    folder = Path(python_avatars.__file__).parent / "avatar_parts"
    file = folder / ("styles/transparent.svg" if kind == "body" else f"{kind}/{name}.svg")
    text = file.read_text(encoding="utf-8")
    if kind == "body":
        definitions = text[text.index("<defs>") : text.index("</defs>") + len("</defs>")]
        body = text[text.index('<g id="Body"') : text.index('<g id="Clothing"')]
        return f'{definitions}<g fill="none" fill-rule="evenodd">{body}</g>'
    return text[text.index("<svg") :].split(">", 1)[1].rsplit("</svg>", 1)[0]


def part_svg(kind: str, name: str, color: str | None, size: int) -> str:
    """A part as an SVG document of `size` x `size` pixels, at its place in the avatar.

    kind: a folder of the set (a key of `PLACES`); name: a file in it; color: `#RRGGBB` of its colored area, or None.
    """
    content = _elements(kind, name)
    if color is not None:
        content = COLORED.sub(rf'\1 fill="{color}"\2', content)
    left, top, side = FRAME
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{size}" height="{size}" viewBox="{left} {top} {side} {side}">'
        f"<g {PLACES[kind]}>{content}</g></svg>"
    )


@lru_cache(maxsize=4096)
def _layer(kind: str, name: str, color: str | None, size: int) -> tuple[int, int, np.ndarray]:
    """A rasterised part: top, left, and pixels uint8 [h, w, 4], colors times opacity."""
    image = rasterise(part_svg(kind, name, color, size))
    if kind == "clothes/graphic" and color is not None:
        print_of_ink = Image.new("RGB", image.size, color)
        print_of_ink.putalpha(image.getchannel("A"))
        image = print_of_ink
    box = image.getbbox() or (0, 0, 0, 0)
    return box[1], box[0], np.asarray(image.crop(box).convert("RGBa"))


def parts(avatar: Attributes) -> Iterator[tuple[str, str, str | None]]:
    """The parts of an avatar from back to front: kind, name and color of each."""
    yield "body", "", SKINS[avatar.skin]
    yield "clothes", FILES["clothing"][avatar.clothing], FABRIC_COLORS[avatar.clothing_color]
    if avatar.clothing == "graphic":
        yield "clothes/graphic", avatar.graphic, INK.get(avatar.clothing_color)
    yield "mouth", FILES["mouth"][avatar.mouth], None
    yield "nose", "default", None
    yield "eyes", FILES["eyes"][avatar.eyes], None
    yield "eyebrows", FILES["eyebrows"][avatar.eyebrows], None
    if avatar.top in HAT_TOPS:
        yield "top/hat", FILES["top"][avatar.top], FABRIC_COLORS[avatar.hat_color]
    else:
        yield "top/hair", FILES["top"][avatar.top], HAIR_COLORS[avatar.hair_color]
    if avatar.facial_hair != "none":
        yield "facial_hair", FILES["facial_hair"][avatar.facial_hair], HAIR_COLORS[avatar.facial_hair_color]
    if avatar.accessory != "none":
        yield "accessories", FILES["accessory"][avatar.accessory], None


def render(attributes: Attributes, size: int = 128) -> np.ndarray:
    """An avatar as an image: uint8 [size, size, 3], RGB."""
    canvas = np.empty((size, size, 3), np.uint16)
    canvas[:] = ImageColor.getrgb(BACKGROUNDS[attributes.background])
    for kind, name, color in parts(attributes):
        top, left, layer = _layer(kind, name, color, size)
        under = canvas[top : top + len(layer), left : left + layer.shape[1]]
        # x / 255 rounded, in whole numbers of 16 bits.
        shaded = under * (255 - layer[..., 3:].astype(np.uint16)) + 128
        under[:] = ((shaded + (shaded >> 8)) >> 8) + layer[..., :3]
    return np.minimum(canvas, 255).astype(np.uint8)


def face_weight(size: int) -> Tensor:
    """Where an error of the image counts more: float [size, size], 0 to 1.

    1 on eyes, eyebrows, glasses, beard and mouth, 0.5 on a shirt's print, 0 elsewhere, falling over 10 units.
    """
    x, y = _units(size)
    weight, boxes = np.zeros((size, size)), {1.0: (62, 76, 204, 188), 0.5: (90, 226, 176, 272)}
    for share, (left, top, right, bottom) in boxes.items():
        outside = np.maximum(np.maximum(left - x, x - right), np.maximum(top - y, y - bottom))
        weight = np.maximum(weight, share * np.clip(1 - outside / 10, 0, 1))
    return torch.from_numpy(weight.astype(np.float32))


def around_anyone(size: int) -> np.ndarray:
    """What no head and shoulders cover, but long hair may: bool [size, size]."""
    x, y = _units(size)
    head = ((x - 132) / 70) ** 2 + ((y - 121) / 91) ** 2 < 1
    shoulders = ((x - 132) / 104) ** 2 + ((y - 280) / 86) ** 2 < 1
    return ~(head | shoulders)


def background_mask(attributes: Attributes, size: int) -> np.ndarray:
    """Where an avatar shows its background, wholly or at an edge: bool [size, size]."""
    first, second = (render(replace(attributes, background=v), size).astype(int) for v in VALUES["background"][:2])
    return np.abs(first - second).max(axis=2) > 0


def _units(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's center in units: x, [1, size], and y, [size, 1]."""
    left, top, side = FRAME
    centers = (np.arange(size) + 0.5) / size * side
    return left + centers[None], top + centers[:, None]
