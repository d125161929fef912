"""The page's examples of the model of things: scenes, a mask for each, and what should be there.

python -m recipes.things examples --out checkpoints/things/examples
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from imagebart.atomic_io import write_text
from imagebart.imaging.crop import Box
from imagebart.imaging.files import save_image
from imagebart.imaging.masks import MASK_SUFFIX
from recipes.things.artwork import NOUNS, Ground, Placed, Scene, render
from recipes.things.evaluation import mask_of


@dataclass(frozen=True)
class Example:
    """A name; a ground; things by their names, maybe with a color, each with top, left and side; a mask; a prompt."""

    name: str
    ground: Ground
    things: tuple[tuple[str, int, int, int], ...]
    box: Box
    prompt: str

    @property
    def scene(self) -> Scene:
        return Scene(self.ground, tuple(placed(*thing) for thing in self.things))


def placed(text: str, top: int, left: int, side: int) -> Placed:
    """A thing by its name, "cat" or "red car"."""
    number = {noun.name: i for i, noun in enumerate(NOUNS)}
    color, _, name = ("", "", text) if text in number else text.partition(" ")
    return Placed(number[name], color, top, left, side)


ROOM = Ground("beige", "brown", 11)
EXAMPLES = (
    Example("1-a-cat", Ground("green", "green"), (("cat", 6, 1, 6),), Box(9, 6, 6), "a lion"),
    Example("2-fruit", Ground("white", "white"),
            (("apple", 8, 0, 4), ("banana", 8, 12, 4)), Box(5, 6, 6), "a pineapple"),
    Example("3-a-house", Ground("yellow", "yellow"), (("house", 5, 0, 8),), Box(9, 5, 6), "a tree"),
    Example("4-a-frog-without-a-crown", Ground("pink", "pink"), (("frog", 7, 4, 8),), Box(5, 1, 6), "a crown"),
    Example("5-a-car-to-remove", ROOM, (("teddy bear", 6, 1, 6), ("car", 8, 9, 6)), Box(9, 8, 6), ""),
    Example("6-a-night-sky", Ground("black", "black"), (("snowman", 6, 1, 8),), Box(10, 1, 6), "a star"),
    Example("7-two-cupcakes", Ground("purple", "purple"),
            (("cupcake", 8, 0, 4), ("cupcake", 8, 12, 4)), Box(5, 6, 6), "a donut"),
    Example("8-a-dolphin", Ground("blue", "blue"), (("dolphin", 8, 1, 6),), Box(8, 3, 8), "a sailboat"),
)  # fmt: skip


def write_examples(folder: Path) -> None:
    """Writes NAME.png, NAME.mask.png and NAME.txt of each example; none of the last where nothing should be there."""
    folder.mkdir(parents=True, exist_ok=True)
    for example in EXAMPLES:
        path = folder / example.name
        save_image(Image.fromarray(render(example.scene)), path.with_suffix(".png"), optimize=True)
        mask = Image.fromarray(mask_of(example.box).astype(np.uint8) * 255)
        save_image(mask, path.with_suffix(MASK_SUFFIX), optimize=True)
        if example.prompt:
            write_text(path.with_suffix(".txt"), example.prompt + "\n")
