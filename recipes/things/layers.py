"""Things as layers: rendered Fluent emoji with opacity and soft shadow in one frame, and pictures that they stand on.

A thing always fills the same box, which is all that the model sees; where it goes in a picture, how large, mirrored or
not, and in which color is decided beside the patches.
"""

import io
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from imagebart.worlds.things import COLORS, recolored
from recipes import generator
from recipes.things.artwork import Noun, fetch
from recipes.training import pixels_first

SIDE, PATCH = 240, 24  # pixels along the box, and along a token's patch
GRID = SIDE // PATCH
FILLED = 0.94  # of the box's side, the longest side of a thing
TABLE = Path(__file__).parent / "data" / "nouns.txt"
NOUNS: tuple[Noun, ...] = tuple(map(Noun.of, TABLE.read_text(encoding="utf-8").splitlines()))
PHOTOGRAPHS = Path("../shared/data/still-life")


@cache
def _files() -> dict[str, bytes]:
    """The artwork's files, by the emoji's code."""
    wanted = {noun.code for noun in NOUNS}
    with tarfile.open(fetch()) as archive:
        members = {Path(member.name).stem: member for member in archive if member.name.endswith(".webp")}
        return {code: archive.extractfile(members[code]).read() for code in wanted}  # type: ignore[union-attr]


def _step(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def paintable(rgb: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """How much of each pixel takes a color that is asked for: the commonest hue, or what is gray where little has one.

    rgb: float32 [H, W, 3] in [0, 1]; opacity and result: float32 [H, W] in [0, 1].
    """
    hue, saturation, value = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV))
    solid = opacity > 0.5
    vivid = solid & (saturation > 0.27) & (value > 0.16)
    if vivid.sum() < 0.3 * solid.sum():
        return (1 - _step(saturation, 0.22, 0.38)) * _step(value, 0.2, 0.4)
    counts = np.bincount(hue[vivid].astype(int) % 360, minlength=360).astype(float)
    spread = np.convolve(np.tile(counts, 3), np.hanning(25), "same")[360:720]
    distance = np.abs((hue - spread.argmax() + 180) % 360 - 180)
    return (1 - _step(distance, 30, 42)) * _step(saturation, 0.1, 0.3)


@cache
def drawing(noun: int) -> np.ndarray:
    """A thing above its shadow: float32 [SIDE, SIDE, 5]: colors times opacity, opacity, paint (see `paintable`)."""
    image = np.asarray(Image.open(io.BytesIO(_files()[NOUNS[noun].code])).convert("RGBA"), np.float32) / 255
    rows, columns = (np.flatnonzero((image[..., 3] > 0.07).any(axis)) for axis in (1, 0))
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    opacity = image[..., 3:]
    paint = cv2.GaussianBlur(
        np.dstack([paintable(image[..., :3].copy(), opacity[..., 0]) * opacity[..., 0], opacity]), (0, 0), 1.5
    )
    paint = np.where(paint[..., 1] > 0.02, paint[..., 0] / np.maximum(paint[..., 1], 0.02), 0)
    layered = np.dstack([image[..., :3] * opacity, opacity, paint])
    scale = FILLED * SIDE / max(layered.shape[:2])
    height, width = (max(1, round(scale * side)) for side in layered.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = np.dstack([cv2.resize(layered[..., i], (width, height), interpolation=how) for i in range(5)]).clip(0, 1)
    small[..., :3] = np.minimum(small[..., :3], small[..., 3:4])
    box = np.zeros((SIDE, SIDE, 5), np.float32)
    margin = round((1 - FILLED) / 2 * SIDE)
    top, left = SIDE - margin - height, (SIDE - width) // 2
    box[top : top + height, left : left + width] = small
    solid = box[..., 3] > 0.1
    columns, bottom = np.flatnonzero(solid.any(0)), int(np.flatnonzero(solid.any(1))[-1])
    center, half = (columns[0] + columns[-1] + 1) / 2, (columns[-1] + 1 - columns[0]) / 2 * 0.95
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    distance = ((x - center) / half) ** 2 + ((y - bottom) / (0.07 * SIDE)) ** 2
    shadow = 0.3 * _step(-distance, -1.35, -0.35) * _step(SIDE - y, 0, 14)  # it ends within the box
    box[..., 3] += (1 - box[..., 3]) * shadow
    return box


@cache
def _photographs(part: str) -> tuple[bytes, ...]:
    """All photographs of a part, "train" or "test", encoded."""
    return tuple(path.read_bytes() for path in sorted((PHOTOGRAPHS / part).glob("*.webp")))


def plain(random: np.random.Generator) -> np.ndarray:
    """A color: gray for a fifth."""
    color = random.uniform(0, 1, 3)
    return color.mean() + (color - color.mean()) * (0.1 if random.random() < 0.2 else 1)


def photograph(random: np.random.Generator, part: str) -> Image.Image:
    files = _photographs(part)
    return Image.open(io.BytesIO(files[int(random.integers(len(files)))])).convert("RGB")


def ground(random: np.random.Generator, part: str) -> np.ndarray:
    """What a thing stands on: plain, a gradient, floor and wall, a photograph or noise. float32 [SIDE, SIDE, 3]."""
    kind = random.random()
    if kind < 0.4:
        image = np.asarray(photograph(random, part))
        crop = int(random.uniform(0.45, 1) * min(image.shape[:2]))
        top, left = (int(random.integers(side - crop + 1)) for side in image.shape[:2])
        square = cv2.resize(image[top : top + crop, left : left + crop], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        canvas = square.astype(np.float32) / 255
    else:
        canvas = np.empty((SIDE, SIDE, 3), np.float32)
        canvas[:] = plain(random)
        if kind < 0.55:
            along = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None, None]
            along = along if random.random() < 0.5 else along.transpose(1, 0, 2)
            canvas = canvas * (1 - along) + along * plain(random)
        elif kind < 0.75:
            canvas[int(random.uniform(0.4, 0.98) * SIDE) :] = plain(random)
    if random.random() < 0.3:
        coarse = int(random.choice([SIDE, SIDE // 2, SIDE // 6]))
        noise = random.normal(0, random.uniform(0.01, 0.12), (coarse, coarse, 3)).astype(np.float32)
        canvas = canvas + cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(canvas.clip(0, 1), np.float32)


def laid(layer: np.ndarray, on: np.ndarray) -> np.ndarray:
    """A layer [H, W, 4 or more] over a picture [H, W, 3]."""
    return layer[..., :3] + on * (1 - layer[..., 3:4])


def colored(noun: int, color: str) -> np.ndarray:
    """A thing in a color ("": the artwork's), float32 [SIDE, SIDE, 4]."""
    layer = torch.from_numpy(drawing(noun)).permute(2, 0, 1)
    return recolored(layer[None], [color])[0].permute(1, 2, 0).numpy()


def picture(number: int, seed: int = 0, part: str = "train", hidden: bool = True) -> dict[str, Any]:
    """The picture of a number: image uint8 [3, SIDE, SIDE]; noun; color; seen, bool [GRID, GRID]: patches of the thing
    that nothing lies over."""
    random = generator(number, seed, 21)
    noun = int(random.integers(len(NOUNS)))
    color = str(random.choice(list(COLORS))) if random.random() < 0.6 else ""
    canvas = ground(random, part)
    layer, cover = colored(noun, color), np.zeros((SIDE, SIDE), np.float32)

    def moved(other: np.ndarray, far: float, scale: float) -> np.ndarray:
        x, y = random.uniform(-far, far, 2) * SIDE + (1 - scale) / 2 * SIDE
        return cv2.warpAffine(other, np.array([[scale, 0, x], [0, scale, y]]), (SIDE, SIDE))

    if hidden and random.random() < 0.3:  # another behind
        other = colored(int(random.integers(len(NOUNS))), str(random.choice(list(COLORS))))
        canvas = laid(moved(other, 0.6, random.uniform(0.5, 1.3)), canvas)
    if hidden and random.random() < 0.5:
        layer = moved(layer, 0.012, random.uniform(0.98, 1.02))
    canvas = laid(layer, canvas)
    if hidden and random.random() < 0.3:  # another, or a slab, before it
        if random.random() < 0.5:
            other = moved(colored(int(random.integers(len(NOUNS))), ""), 0.7, random.uniform(0.5, 1.3))
        else:
            other = np.zeros((SIDE, SIDE, 4), np.float32)
            start, length = random.uniform(-0.4, 0.9), random.uniform(0.2, 0.6)
            first, last = (int(np.clip(at, 0, 1) * SIDE) for at in (start, start + length))
            other[first:last] = (*plain(random), 1)
            other = other if random.random() < 0.5 else other.transpose(1, 0, 2)
        canvas, cover = laid(other, canvas), other[..., 3]
    seen = cover.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3)) < 0.25
    image = pixels_first((canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    return {"image": image, "noun": noun, "color": color, "seen": torch.from_numpy(seen)}
