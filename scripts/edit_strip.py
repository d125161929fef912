"""Draws assets/edit-strip.png, the README's first image: a real edit with T = 4, state by state.

python scripts/edit_strip.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from imagebart import Pipeline
from imagebart.imaging.files import save_image

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "checkpoints" / "avatars" / "examples" / "2-short-hair-and-a-beard.png"
PROMPT, SEED, SCALES = "long blonde hair", 3, 4
SIDE, GAP, CAPTION = 256, 8, 28  # pixels


def main() -> None:
    pipe = Pipeline.from_pretrained(ROOT / "checkpoints" / "avatars")
    image = Image.open(EXAMPLE).convert("RGB")
    mask = Image.open(EXAMPLE.with_suffix(".mask.png")).convert("L")
    painted = Image.composite(Image.blend(image, Image.new("RGB", image.size, "#6d28d9"), 0.6), image, mask)
    settings = replace(pipe.defaults, scales=SCALES)
    cells = [("image", image), ("mask", painted)]
    for event in pipe.edit(image, mask, PROMPT, seed=SEED, settings=settings):
        if event.kind == "start":
            cells.append(("noise", event.image))
        elif event.kind == "stage" and event.stage in (SCALES, SCALES // 2):
            cells.append((f"scale {SCALES - event.stage + 1} of {SCALES}", event.image))
        elif event.kind == "result":
            cells.append((f"“{PROMPT}”", event.image))
    strip = Image.new("RGB", (len(cells) * (SIDE + GAP) - GAP, SIDE + CAPTION), "white")
    pen = ImageDraw.Draw(strip)
    for i, (caption, cell) in enumerate(cells):
        left = i * (SIDE + GAP)
        strip.paste(cell.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, 0))
        pen.text((left + SIDE // 2, SIDE + CAPTION // 2), caption, fill="#0f172a", anchor="mm", font_size=16)
    save_image(strip, ROOT / "assets" / "edit-strip.png", optimize=True)


if __name__ == "__main__":
    main()
