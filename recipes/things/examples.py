"""The page's examples of things: `python -m recipes.things examples --out checkpoints/things/examples`."""

from collections.abc import Iterator

from PIL import Image

from imagebart.imaging.crop import Box
from recipes.evaluation import Case, rectangle
from recipes.things.artwork import CELL, NOUNS, SIZE, Ground, Placed, Scene, render

NUMBERS = {noun.name: number for number, noun in enumerate(NOUNS)}


def _scene(ground: Ground, *things: tuple[str, int, int, int]) -> Scene:
    """Things by their names, each with its top, left and side."""
    return Scene(ground, tuple(Placed(NUMBERS[name], "", *place) for name, *place in things))


EXAMPLES = (
    ("1-a-cat", _scene(Ground("green", "green"), ("cat", 6, 1, 6)), Box(9, 6, 6), "a lion"),
    ("2-fruit", _scene(Ground("white", "white"), ("apple", 8, 0, 4), ("banana", 8, 12, 4)), Box(5, 6, 6),
     "a pineapple"),
    ("3-a-house", _scene(Ground("yellow", "yellow"), ("house", 5, 0, 8)), Box(9, 5, 6), "a tree"),
    ("4-a-frog-without-a-crown", _scene(Ground("pink", "pink"), ("frog", 7, 4, 8)), Box(5, 1, 6), "a crown"),
    ("5-a-car-to-remove", _scene(Ground("beige", "brown", 11), ("teddy bear", 6, 1, 6), ("car", 8, 9, 6)),
     Box(9, 8, 6), ""),
    ("6-a-night-sky", _scene(Ground("black", "black"), ("snowman", 6, 1, 8)), Box(10, 1, 6), "a star"),
    ("7-two-cupcakes", _scene(Ground("purple", "purple"), ("cupcake", 8, 0, 4), ("cupcake", 8, 12, 4)), Box(5, 6, 6),
     "a donut"),
    ("8-a-dolphin", _scene(Ground("blue", "blue"), ("dolphin", 8, 1, 6)), Box(8, 3, 8), "a sailboat"),
)  # fmt: skip


def examples() -> Iterator[tuple[str, Case]]:
    """Scenes, each with a box to draw in and what should be there; "" where the thing there goes."""
    for name, scene, box, words in EXAMPLES:
        left, top, side = box.left * CELL, box.top * CELL, box.side * CELL
        mask = rectangle((left, top, left + side - 1, top + side - 1), (SIZE, SIZE))
        yield name, Case(Image.fromarray(render(scene)), mask, words, remove=not words)
