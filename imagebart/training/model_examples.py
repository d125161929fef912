"""Examples of a model of someone's own pictures, for the page: pictures that were held back, each with a mask."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from PIL import Image, ImageDraw

from imagebart.imaging.files import save_image, to_images
from imagebart.imaging.masks import preset
from imagebart.pictures.store import Store
from imagebart.writing import write_text

COUNT = 4
EXAMPLES = "examples"


def write_examples(store: Store, folder: Path) -> None:
    """Writes NAME.png, NAME.mask.png and, for captions, NAME.txt, each of another caption where there are as many."""
    texts, held, seen = store.pictures.texts, store.pictures.numbers(True), Counter[str]()
    before = {}
    for number in held:
        before[number] = seen[texts[number]]
        seen[texts[number]] += 1
    chosen = sorted(held, key=before.__getitem__)[:COUNT]
    (folder / EXAMPLES).mkdir(parents=True, exist_ok=True)
    for place, (number, image) in enumerate(zip(chosen, to_images(store.images(chosen)), strict=True), 1):
        words = re.sub(r"\W+", "-", texts[number].lower())[:40].strip("-") or "picture"
        name = folder / EXAMPLES / f"{place}-{words}"
        save_image(image, name.with_suffix(".png"))
        save_image(_mask(image.size, place), name.with_suffix(".mask.png"))
        if store.pictures.kind == "text":
            write_text(name.with_suffix(".txt"), texts[number])


def _mask(size: tuple[int, int], place: int) -> Image.Image:
    """An ellipse in the middle, or the lower half: in turn."""
    if place % 2 == 0:
        return preset("lower half", size)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse(tuple(side * part // 5 for part in (1, 4) for side in size), fill=255)
    return mask
