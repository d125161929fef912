"""Small folders of images as people have them: shapes in colours, with captions, in classes, or with neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

COLORS, SHAPES = ("red", "green", "blue"), ("circle", "square")


def draw_folder(folder: Path, kind: Literal["text", "class", "none"], count: int = 24, size: int = 40) -> Path:
    """So many images, no two of them alike, the first colour and shape as often as the others."""
    random, rows = np.random.default_rng(0), []
    for i in range(count):
        colour, shape = COLORS[i % 3], SHAPES[i // 3 % 2]
        image = Image.new("RGB", (size, size + i % 3 * 8), tuple(int(v) for v in random.integers(200, 256, 3)))
        left, top, side = (int(v) for v in random.integers(8, size // 2, 3))
        box, pen = (left, top, left + side, top + side), ImageDraw.Draw(image)
        (pen.ellipse if shape == "circle" else pen.rectangle)(box, fill=colour)
        path = folder / (colour if kind == "class" else "") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        rows.append({"file_name": path.name, "text": f"a {colour} {shape}", "author": f"painter {i}"})
    if kind == "text":
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder
