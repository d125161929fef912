"""Scenes of things: rendered Fluent emoji, with soft shadows, on plain grounds.

The things are Microsoft's Fluent emoji (3D; MIT, Copyright (c) Microsoft Corporation) as the npm package
`@lobehub/fluent-emoji-3d` has them: 256 pixels a side, with opacity. A thing fills a box on the token grid, so that it
is the same pattern of tokens wherever its box lies; its shadow lies in the box.
"""

import io
import subprocess
import tarfile
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from imagebart.core.errors import InputError
from imagebart.imaging.crop import Box

PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
PACKED = "lobehub-fluent-emoji-3d-1.1.0.tgz"  # as npm calls it
ARTWORK = Path("runs/things/artwork.tgz")  # where the package is kept
SIZE, CELL = 256, 16  # pixels along an image, and along a token's patch
GRID = SIZE // CELL
FILLED = 0.94  # of its box's side, the longest side of a thing


@dataclass(frozen=True)
class Noun:
    """A kind of thing. color: of the artwork, where others may be asked for; own_color: where the name fixes it."""

    name: str
    plural: str
    groups: tuple[str, ...]
    code: str  # of the emoji: its file's name
    synonyms: tuple[str, ...]
    color: str
    own_color: str


def _noun(row: str) -> Noun:
    name, plural, groups, code, synonyms, *colors = row.split("|")
    return Noun(name, plural, tuple(groups.split()), code, tuple(filter(None, synonyms.split(","))), *colors)


NOUNS = tuple(map(_noun, (Path(__file__).parent / "data" / "nouns.txt").read_text(encoding="utf-8").splitlines()))
HUES = {"red": 0, "orange": 28, "yellow": 50, "green": 130, "blue": 215, "purple": 272, "pink": 325}  # degrees
GROUNDS = {
    "white": (248, 248, 248), "grey": (180, 184, 190), "black": (44, 46, 54), "red": (226, 92, 82),
    "orange": (243, 158, 82), "yellow": (247, 217, 105), "green": (130, 200, 134), "blue": (120, 182, 243),
    "purple": (173, 145, 226), "pink": (247, 181, 202), "brown": (166, 122, 93), "beige": (235, 221, 197),
}  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """A thing in a scene: which noun, its color ("": the artwork's), and its box in tokens."""

    noun: int
    color: str
    top: int
    left: int
    side: int

    @property
    def box(self) -> Box:
        return Box(self.left, self.top, self.side)

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Rows and columns of pixels."""
        rows, columns = self.box.cells
        return slice(rows.start * CELL, rows.stop * CELL), slice(columns.start * CELL, columns.stop * CELL)


@dataclass(frozen=True)
class Ground:
    """wall: its color; floor: that below the row of tokens `horizon`, where they differ; shade: levels from top to
    bottom, of a gradient."""

    wall: str
    floor: str
    horizon: int = GRID
    shade: int = 0


@dataclass(frozen=True)
class Scene:
    ground: Ground
    things: tuple[Placed, ...] = ()


def fetch(path: Path = ARTWORK) -> Path:
    """Gets the package with npm, unless it is there. Raises InputError with one sentence where that fails."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["npm", "pack", PACKAGE], cwd=path.parent, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(f"The artwork is fetched with `npm pack {PACKAGE}`, which failed: {error}") from error
        (path.parent / PACKED).rename(path)
    return path


@cache
def _files() -> dict[str, bytes]:
    """The artwork's files, by the emoji's code."""
    wanted = {noun.code for noun in NOUNS}
    with tarfile.open(fetch()) as archive:
        members = {Path(member.name).stem: member for member in archive if member.name.endswith(".webp")}
        return {code: archive.extractfile(members[code]).read() for code in wanted}  # type: ignore[union-attr]


@lru_cache(maxsize=4096)
def sprite(noun: int, color: str, pixels: int) -> np.ndarray:
    """A thing in a box of so many pixels, standing at its bottom: uint8 [pixels, pixels, 4], RGBA."""
    image = Image.open(io.BytesIO(_files()[NOUNS[noun].code])).convert("RGBA")
    if color:
        image = _recolored(image, HUES[color])
    image = image.crop(image.getchannel("A").point(lambda a: 255 * (a > 16)).getbbox())
    scale = FILLED * pixels / max(image.size)
    width, height = (max(1, round(scale * side)) for side in image.size)
    small = image.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    box = Image.new("RGBA", (pixels, pixels))
    margin = round((1 - FILLED) / 2 * pixels)
    box.paste(small, ((pixels - width) // 2, pixels - margin - height))
    return np.asarray(box)


def _recolored(image: Image.Image, degrees: int) -> Image.Image:
    """The hues around the commonest one turned to another."""
    hue, saturation, value = (np.asarray(c).astype(int) for c in image.convert("RGB").convert("HSV").split())
    colored = (saturation > 70) & (value > 40) & (np.asarray(image.getchannel("A")) > 128)
    commonest = int(np.bincount(hue[colored], minlength=256).argmax())
    distance = (hue - commonest + 128) % 256 - 128
    turned = np.where(abs(distance) < 26, (round(degrees * 256 / 360) + distance // 2) % 256, hue)
    planes = [Image.fromarray(plane.astype(np.uint8)) for plane in (turned, saturation, value)]
    rgb = Image.merge("HSV", planes).convert("RGB")
    return Image.merge("RGBA", (*rgb.split(), image.getchannel("A")))


@lru_cache(maxsize=4096)
def layer(noun: int, color: str, pixels: int) -> np.ndarray:
    """A thing above its shadow: float32 [pixels, pixels, 4], colors times opacity and opacity, 0 to 1 of it."""
    image = sprite(noun, color, pixels).astype(np.float32)
    opacity = image[..., 3:] / 255
    columns = np.flatnonzero(opacity[..., 0].max(0) > 0.1)
    bottom = int(np.flatnonzero(opacity[..., 0].max(1) > 0.1)[-1])
    center, half = (columns[0] + columns[-1] + 1) / 2, (columns[-1] + 1 - columns[0]) / 2 * 0.95
    y, x = np.mgrid[:pixels, :pixels] + 0.5
    distance = ((x - center) / half) ** 2 + ((y - bottom) / (0.07 * pixels)) ** 2
    shadow = 0.3 * np.clip(1.35 - distance, 0, 1)[..., None].astype(np.float32)
    return np.concatenate([image[..., :3] * opacity, opacity + (1 - opacity) * shadow], 2)


def render(scene: Scene) -> np.ndarray:
    """A scene as an image: uint8 [SIZE, SIZE, 3]."""
    ground = scene.ground
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[: ground.horizon * CELL] = GROUNDS[ground.wall]
    canvas[ground.horizon * CELL :] = GROUNDS[ground.floor]
    canvas += np.linspace(ground.shade, -ground.shade, SIZE, dtype=np.float32)[:, None, None]
    for thing in scene.things:
        over = layer(thing.noun, thing.color, thing.side * CELL)
        under = canvas[thing.pixels]
        under *= 1 - over[..., 3:]
        under += over[..., :3]
    return (canvas.clip(0, 255) + 0.5).astype(np.uint8)
