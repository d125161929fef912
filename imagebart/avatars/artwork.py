"""Drawing avatars: one rasterised layer a part, stacked.

The parts are those of the Avataaars set by Pablo Stanley ("free for personal and commercial use"), as carried
by the package `python_avatars`. Avataaars stacks its parts in a fixed order at fixed places, so each part is
rasterised once for each colour and size, kept, and an avatar is a few array operations: several times faster
than rasterising the whole drawing, and equal to it but for rounding.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imagebart.avatars.attributes import HAT_TOPS, Attributes

# The square of the drawing's 264 x 280 units that is shown: left, top, side.
FRAME = (-2.0, 4.0, 268.0)

# Where each kind of part sits in the drawing and the paint that it inherits, as in the set's own composition.
PLACES = {
    "body": "",
    "clothes": 'transform="translate(0 170)"',
    "clothes/graphic": 'transform="translate(77 228)" fill="#FFFFFF"',
    "mouth": 'transform="translate(78 134)" fill="#000000"',
    "nose": 'transform="translate(104 122)" fill="#000000" fill-opacity="0.16"',
    "eyes": 'transform="translate(76 90)" fill="#000000"',
    "eyebrows": 'transform="translate(76 82)" fill="#000000" fill-opacity="0.6"',
    "top/hair": "",
    "top/hat": "",
    "facial_hair": 'transform="translate(49 72)"',
    "accessories": 'transform="translate(62 85)"',
}
COLOURED = re.compile(r'(<g id="(?:Hair|Facial-Hair|Fabric|Skin)-Color"[^>]*?)\s*fill="[^"]*"([^>]*>)')

# The set's file for each value.
TOPS = {
    "bald": "no_hair", "buzz": "caesar", "short": "short_flat", "quiff": "short_waved",
    "spiky": "short_dreads_2", "wavy": "big_hair",
    "curly": "curly", "afro": "fro", "bun": "bun", "bob": "bob", "straight": "straight_1",
    "dreadlocks": "dreads", "flowers": "frida",
    "hat": "hat", "beanie": "winter_hat_3", "earflaps": "winter_hat_1", "turban": "turban", "hijab": "hijab",
}  # fmt: skip
FACIAL_HAIR = {
    "goatee": "beard_light", "beard": "beard_medium", "long beard": "beard_magestic",
    "moustache": "moustache_magnum", "curled moustache": "moustache_fancy",
}  # fmt: skip
ACCESSORIES = {
    "glasses": "prescription_02", "round glasses": "round", "sunglasses": "sunglasses",
    "white sunglasses": "kurt", "eyepatch": "eyepatch",
}  # fmt: skip
EYES = {
    "open": "default", "closed": "closed", "wink": "wink", "hearts": "heart", "wide": "surprised",
    "rolling": "eye_roll", "dizzy": "x_dizzy", "crying": "cry",
}  # fmt: skip
EYEBROWS = {
    "normal": "default_natural", "angry": "angry_natural", "sad": "sad_concerned_natural",
    "raised": "raised_excited_natural", "one raised": "up_down_natural", "unibrow": "unibrow_natural",
}  # fmt: skip
MOUTHS = {
    "smile": "smile", "slight smile": "twinkle", "serious": "serious", "sad": "sad", "tongue": "tongue",
    "grimace": "grimace", "scream": "scream_open", "vomit": "vomit",
}  # fmt: skip
CLOTHING = {
    "hoodie": "hoodie", "t-shirt": "shirt_crew_neck", "v-neck": "shirt_v_neck", "graphic": "graphic_shirt",
    "sweater": "collar_sweater", "blazer": "blazer_shirt", "overalls": "overall",
}  # fmt: skip

# Colours of our own choosing: each far from its neighbours, and hair from every skin.
HAIR_COLOURS = {
    "black": "#1B1412", "brown": "#5A3318", "blonde": "#F2D27C", "red": "#D2451E", "grey": "#A3A3AB",
    "pink": "#F26FA6", "blue": "#3F74D8",
}  # fmt: skip
FABRIC_COLOURS = {
    "black": "#262E33", "white": "#ECECEC", "grey": "#8A8D91", "blue": "#3B82E0", "green": "#3FA35B",
    "red": "#D7302F", "yellow": "#F7CF3D", "pink": "#FF6FB0",
}  # fmt: skip
SKINS = {"fair": "#FFDDBB", "tan": "#E0A46E", "brown": "#B37545", "dark": "#7A5240", "yellow": "#FFDD33"}
BACKGROUNDS = {
    "white": "#FFFFFF", "blue": "#8CCBF7", "green": "#9AD8A5", "yellow": "#FBE892", "orange": "#F9AE68",
    "red": "#E8665C", "pink": "#FBC0D5", "purple": "#B79CED",
}  # fmt: skip
INK = {"white": "#262E33", "yellow": "#262E33"}
"""The colour of a print on shirts on which the set's white would not show."""


@dataclass(frozen=True)
class Layer:
    """A rasterised part: `pixels` uint8 [h, w, 4], colours times opacity; its top left corner."""

    top: int
    left: int
    pixels: np.ndarray


def _package(name: str) -> Any:
    """A package that only drawing avatars needs."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"Drawing avatars needs the package {name}: pip install 'imagebart[train]'.") from error


def rasterise(svg: str) -> np.ndarray:
    """Return an SVG document's picture at its own size: uint8 [H, W, 4], red, green, blue and opacity."""
    resvg = _package("resvg")
    tree = resvg.usvg.Tree.from_str(svg, resvg.usvg.Options.default())
    png = resvg.render(tree, (1, 0, 0, 0, 1, 0))  # the two rows of the affine matrix
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


@cache
def _source(kind: str, name: str) -> str:
    """Return the inside of a part's SVG file."""
    folder = Path(_package("python_avatars").__file__).parent / "avatar_parts"
    text = (folder / kind / f"{name}.svg").read_text(encoding="utf-8")
    return text[text.index("<svg") :].split(">", 1)[1].rsplit("</svg>", 1)[0]


@cache
def _body() -> str:
    """Return the definitions and the body of the set's base drawing, without the places of other parts."""
    text = _source("styles", "transparent")
    definitions = text[text.index("<defs>") : text.index("</defs>") + len("</defs>")]
    body = text[text.index('<g id="Body"') : text.index('<g id="Clothing"')]
    return f'{definitions}<g fill="none" fill-rule="evenodd">{body}</g>'


def part_svg(kind: str, name: str, colour: str | None, size: int) -> str:
    """Return one part as an SVG document of `size` x `size` pixels, at its place in the avatar.

    kind: a folder of the set (a key of `PLACES`); name: a file in it; colour: `#RRGGBB` to paint its coloured
    area with, or None to leave it as it is.
    """
    content = _body() if kind == "body" else _source(kind, name)
    if colour is not None:
        content = COLOURED.sub(rf'\1 fill="{colour}"\2', content)
    left, top, side = FRAME
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{size}" height="{size}" viewBox="{left} {top} {side} {side}">'
        f"<g {PLACES[kind]}>{content}</g></svg>"
    )


@lru_cache(maxsize=4096)
def _layer(kind: str, name: str, colour: str | None, size: int) -> Layer:
    picture = rasterise(part_svg(kind, name, colour, size))
    opacity = picture[..., 3:].astype(np.uint16)
    rows = np.flatnonzero(opacity.any(axis=(1, 2)))
    columns = np.flatnonzero(opacity.any(axis=(0, 2)))
    if not rows.size:
        return Layer(0, 0, np.zeros((0, 0, 4), np.uint8))
    colours = picture[..., :3].astype(np.uint16)
    if kind == "clothes/graphic" and colour is not None:
        colours[:] = _rgb(colour)
    colours = (colours * opacity + 127) // 255
    pixels = np.concatenate([colours, opacity], axis=2).astype(np.uint8)
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return Layer(int(rows[0]), int(columns[0]), np.ascontiguousarray(pixels[box]))


def parts(attributes: Attributes) -> list[tuple[str, str, str | None]]:
    """Return the parts of an avatar from back to front: kind, name and colour of each."""
    fabric = FABRIC_COLOURS[attributes.clothing_colour]
    stack: list[tuple[str, str, str | None]] = [
        ("body", "", SKINS[attributes.skin]),
        ("clothes", CLOTHING[attributes.clothing], fabric),
    ]
    if attributes.clothing == "graphic":
        stack.append(("clothes/graphic", attributes.graphic, INK.get(attributes.clothing_colour)))
    stack += [
        ("mouth", MOUTHS[attributes.mouth], None),
        ("nose", "default", None),
        ("eyes", EYES[attributes.eyes], None),
        ("eyebrows", EYEBROWS[attributes.eyebrows], None),
    ]
    if attributes.top in HAT_TOPS:
        stack.append(("top/hat", TOPS[attributes.top], FABRIC_COLOURS[attributes.hat_colour]))
    else:
        stack.append(("top/hair", TOPS[attributes.top], HAIR_COLOURS[attributes.hair_colour]))
    if attributes.facial_hair != "none":
        colour = HAIR_COLOURS[attributes.facial_hair_colour]
        stack.append(("facial_hair", FACIAL_HAIR[attributes.facial_hair], colour))
    if attributes.accessory != "none":
        stack.append(("accessories", ACCESSORIES[attributes.accessory], None))
    return stack


def render(attributes: Attributes, size: int = 128) -> np.ndarray:
    """Draw an avatar: uint8 [size, size, 3], red, green and blue, on its background's colour."""
    if size < 1:
        raise ValueError(f"The size of a picture is at least 1 pixel, not {size}.")
    canvas = np.empty((size, size, 3), np.uint16)
    canvas[:] = _rgb(BACKGROUNDS[attributes.background])
    for kind, name, colour in parts(attributes):
        layer = _layer(kind, name, colour, size)
        height, width = layer.pixels.shape[:2]
        under = canvas[layer.top : layer.top + height, layer.left : layer.left + width]
        # x / 255 rounded, in whole numbers of 16 bits.
        shaded = under * (255 - layer.pixels[..., 3:].astype(np.uint16)) + 128
        under[:] = ((shaded + (shaded >> 8)) >> 8) + layer.pixels[..., :3]
    return np.minimum(canvas, 255).astype(np.uint8)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
