"""A scorer of things, with a detector that knows yellow disks and red and green squares by their pixels."""

import numpy as np
import torch
from torch import Tensor

from imagebart.imaging.crop import Box
from imagebart.text.conditioners import TextConditioner
from imagebart.worlds.things import ThingDetector, ThingNames, ThingScorer

GRID, CELL = 8, 8
NAMES = ThingNames(
    nouns=(("lemon", "lemons", "yellow fruit"), ("toy block", "toy blocks", "block")),
    noun_colors=("", "red"),
    colors=("", "red", "green"),
    grounds={"white": (250, 250, 250), "blue": (120, 180, 240)},
    sides=(2, 4, 6),
    counts=("", "a", "two", "three"),
)
RGB = {"": (240, 210, 20), "red": (220, 30, 30), "green": (30, 170, 60)}
LEMON, BLOCK = 0, 1


def drawn(things: list[tuple[int, str, Box]], wall: str = "white", floor: str = "white") -> Tensor:
    """An image [3, 64, 64] in [-1, 1]: disks and squares that nearly fill their boxes."""
    image = np.empty((GRID * CELL, GRID * CELL, 3), np.float32)
    image[:40], image[40:] = NAMES.grounds[wall], NAMES.grounds[floor]
    for noun, color, box in things:
        size = box.side * CELL
        y, x = np.mgrid[:size, :size] + 0.5 - size / 2
        inside = np.hypot(x, y) < 0.45 * size if noun == LEMON else np.maximum(abs(x), abs(y)) < 0.42 * size
        rows, columns = (slice(start * CELL, start * CELL + size) for start in (box.top, box.left))
        image[rows, columns][inside] = RGB[color]
    return torch.from_numpy(image / 127.5 - 1).permute(2, 0, 1)


class PixelDetector(ThingDetector):
    """Sure of a square where nearly all of a thing's pixels, and no others, have its color."""

    def __init__(self) -> None:
        super().__init__(len(NAMES.nouns), len(NAMES.colors), width=8)

    def forward(self, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, x = (torch.arange(64) + 0.5 - 32)[:, None], torch.arange(64) + 0.5 - 32
        disk, square = x**2 + y**2 < (0.45 * 64) ** 2, torch.maximum(x.abs(), y.abs() + 0 * x) < 0.42 * 64
        share, place = {}, torch.zeros(len(squares), 4)
        for color, shape in (("", disk), ("red", square), ("green", square)):
            rgb = torch.tensor(RGB[color]).view(3, 1, 1) / 127.5 - 1
            seen = (squares - rgb).abs().amax(1) < 0.4
            share[color] = (seen == shape).float().mean((1, 2))
            for row in torch.nonzero(share[color] > 0.9).flatten().tolist():
                down, right = ((at.min() + at.max() + 1) / 128 - 0.5 for at in seen[row].nonzero().T)
                place[row] = torch.tensor([-1.0, right, down, (seen[row].sum() / shape.sum()).log() / 2])
        lemon, red, green = share.values()
        nouns = torch.stack([lemon, torch.maximum(red, green), torch.full_like(lemon, 0.9)], 1)
        return 100 * nouns, 100 * torch.stack([lemon, red, green], 1), place


WORDS = TextConditioner.from_captions(["a yellow lemon fruit and the red green toy block blocks lemons on white"])
SCORER = ThingScorer(PixelDetector(), NAMES, WORDS, GRID)
