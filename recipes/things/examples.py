"""The page's examples: `python -m recipes.things examples --out checkpoints/things/examples`.

The photographs are two of scikit-image's, in the public domain (CC0): coffee by Rachel Michetti, a rocket by SpaceX.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from recipes import evaluation as shared
from recipes import generator
from recipes.things.artwork import GROUNDS
from recipes.things.layers import NOUNS, colored, laid

SIDE, HORIZON = 384, 270  # pixels along an image of drawn things, and where its floor begins
NUMBERS = {noun.name: number for number, noun in enumerate(NOUNS)}


def arranged(grounds: str, things: dict[str, tuple[int, int, int]]) -> Image.Image:
    """Things on a ground: its color, or those of wall and floor. things: left, top and side of each, in pixels."""
    wall, *floor = (GROUNDS[name] for name in grounds.split())
    canvas = np.full((SIDE, SIDE, 3), wall, np.float32) / 255
    if floor:
        canvas[HORIZON:] = np.array(floor[0], np.float32) / 255
    for name, (left, top, side) in things.items():
        layer = cv2.resize(colored(NUMBERS[name], ""), (side, side), interpolation=cv2.INTER_AREA)
        place = canvas[top : top + side, left : left + side]
        place[:] = laid(layer, place)
    return Image.fromarray((canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def examples() -> Iterator[tuple[str, shared.Case]]:
    """Images, each with an outline in a box and what should be there; "" where the thing there goes."""
    coffee, rocket = (Image.open(Path(__file__).parent / "data" / f"{name}.webp") for name in ("coffee", "rocket"))
    fruit, on_table = {"apple": (24, 190, 110), "banana": (250, 190, 110)}, {"teddy bear": (30, 150, 150)}
    cases: tuple[tuple[str, Image.Image, tuple[int, int, int, int], str], ...] = (
        ("1-a-coffee", coffee.convert("RGB"), (435, 225, 160, 160), "a croissant"),
        ("2-a-cat", arranged("green", {"cat": (30, 120, 160)}), (215, 135, 145, 150), "a blue dog"),
        ("3-a-rocket-at-night", rocket.convert("RGB"), (345, 15, 160, 150), "a ufo"),
        ("4-fruit", arranged("white", fruit), (138, 188, 112, 112), "a pear"),
        ("5-a-frog-without-a-crown", arranged("pink", {"frog": (92, 150, 200)}), (135, 75, 115, 100), "a crown"),
        ("6-a-car-to-remove", arranged("beige brown", on_table | {"car": (210, 170, 150)}), (205, 200, 155, 125), ""),
        ("7-a-house", arranged("blue green", {"house": (20, 90, 210)}), (235, 155, 135, 145), "a pink tree"),
        ("8-a-cupcake", arranged("purple", {"cupcake": (20, 180, 110)}), (135, 165, 235, 125), "two red cupcakes"),
    )
    for number, (name, image, (left, top, width, height), words) in enumerate(cases):
        across, down, random = width / 2, height / 2, generator(number, 0, 61)
        mask = shared.freehand(left + across, top + down, across, down, image.size, random)
        yield name, shared.Case(image, mask, words, remove=not words)
