"""The page's examples of avatars: `python -m recipes.avatars examples --out checkpoints/avatars/examples`."""

from collections.abc import Iterator
from dataclasses import replace

from PIL import Image

from imagebart.worlds.avatars import PLAIN
from recipes.avatars import data_file
from recipes.avatars.artwork import background_mask, region_mask, render
from recipes.avatars.dataset import read_values
from recipes.evaluation import Case

SIZE = 256
BORDER = 8  # pixels at the left and right that are kept, so that the background keeps its color


def examples() -> Iterator[tuple[str, Case]]:
    """Avatars, what differs from `PLAIN` in a line of the data, and below it the region to mask and the words."""
    lines = data_file("edits_examples.txt").splitlines()
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        name, values = first.split(": ")
        region, words = second.strip().split(": ")
        avatar = replace(PLAIN, **read_values(values))
        background = background_mask(avatar, SIZE)
        mask = background if region == "background" else region_mask(region, SIZE)
        if region == "hair":  # with the background around it
            mask = mask | background
            mask[:, :BORDER] = mask[:, -BORDER:] = False
        if region == "chin":  # a beard's sides, but not the eyes between them
            mask[: SIZE // 2, SIZE // 3 : 2 * SIZE // 3] = False
        yield name, Case(Image.fromarray(render(avatar, SIZE)), Image.fromarray(mask), words)
