"""Grids of the shipped model: assets/prompts.png and assets/edits.png. Seeds are fixed; nothing is chosen."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from imagebart.avatars.regions import region_mask
from imagebart.pipeline import Pipeline

HERE = Path(__file__).resolve().parent.parent
CELL, LINE = 132, 12  # pixels: a picture with its margin, a line of caption

PROMPTS = (
    "a man with a beard",
    "red hair and round glasses",
    "sunglasses",
    "bald with a moustache",
    "a woman with long wavy hair",
    "a blue hoodie",
    "black afro, pink background",
    "a red hat",
    "a turban and a grey beard",
    "an eyepatch, angry eyebrows",
    "blonde bob, green shirt",
    "dreadlocks, yellow background",
    "crying, sad mouth",
    "tongue out",
    "a hijab",
    "pink hair, purple background",
    "white sunglasses, orange background",
    "brown curly hair, no glasses",
    "a grey bun and glasses",
    "blue overalls",
    "short black hair, red background",
    "a green beanie",
    "dark skin, white background",
    "a blazer",
)
# (example, regions, prompt)
EDITS = (
    (1, ("eyes",), "sunglasses"),
    (1, ("hair",), "red curly hair"),
    (2, ("chin", "mouth"), "no beard"),
    (2, ("eyes",), "round glasses"),
    (3, ("hair",), "a blue hat"),
    (3, ("chin", "mouth"), "a brown beard"),
    (4, ("eyes",), "no glasses"),
    (4, ("hair",), "black afro"),
    (5, ("clothes",), "a red hoodie"),
    (6, ("background",), "purple background"),
    (7, ("mouth",), "tongue out"),
    (8, ("clothes",), "a blazer"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(HERE / "checkpoints" / "avatars"))
    parser.add_argument("--out", type=Path, default=HERE / "assets")
    options = parser.parse_args()
    pipe = Pipeline.from_pretrained(options.model)
    prompts = [([_last(pipe.generate(p, seed=i))], p) for i, p in enumerate(PROMPTS)]
    sheet(prompts, columns=8).save(options.out / "prompts.png", optimize=True)
    sheet([edit(pipe, *e) for e in EDITS], columns=3).save(options.out / "edits.png", optimize=True)


def edit(pipe: Pipeline, number: int, regions: tuple[str, ...], prompt: str) -> tuple[list[Image.Image], str]:
    """An example, the same with its mask shown, and the edit."""
    path = next((HERE / "assets" / "examples").glob(f"{number}-*.png"))
    with Image.open(path) as file:
        upload = file.convert("RGB")
    painted = np.any([region_mask(region, upload.width) for region in regions], axis=0)
    mask = Image.fromarray((painted * 255).astype(np.uint8))
    tinted = Image.composite(Image.blend(upload, Image.new("RGB", upload.size, "magenta"), 0.5), upload, mask)
    return [upload, tinted, _last(pipe.edit(upload, mask, prompt, seed=number))], prompt


def sheet(rows: list[tuple[list[Image.Image], str]], columns: int) -> Image.Image:
    """Groups of pictures, each over its caption."""
    wide = max(len(group) for group, _ in rows) * CELL
    lines = -(-len(rows) // columns)
    page = Image.new("RGB", (columns * wide, lines * (CELL + LINE)), "white")
    draw = ImageDraw.Draw(page)
    for i, (group, caption) in enumerate(rows):
        x, y = (i % columns) * wide, (i // columns) * (CELL + LINE)
        for j, picture in enumerate(group):
            page.paste(picture.resize((128, 128), Image.Resampling.LANCZOS), (x + j * CELL + 2, y + 2))
        draw.text((x + 4, y + CELL - 1), caption[: wide // 6], fill="black")
    return page


def _last(events: object) -> Image.Image:
    *_, result = events  # type: ignore[misc]
    return result.image


if __name__ == "__main__":
    main()
