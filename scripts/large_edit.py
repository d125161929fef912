"""Times edits of 40 megapixels with the shipped model: seconds, those of the processor, and memory at its peak."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from PIL import Image

from imagebart import Pipeline
from imagebart.bench.machine import cpu_name, peak_memory
from imagebart.imaging import masks
from imagebart.imaging.metadata import write_png

ROOT = Path(__file__).resolve().parents[1]
SIZE = (8000, 5000)
EDITS = (("upper half", 0), ("border", 1000), ("border", 1000))  # mask and feather; the first loads what words need


def upload(path: Path) -> None:
    """An avatar, enlarged, ever more transparent towards its top."""
    with Image.open(ROOT / "assets" / "examples" / "6-pink-beanie.png") as image:
        large = image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
    large.putalpha(Image.linear_gradient("L").resize(SIZE))
    large.save(path, compress_level=1)


def since(began: tuple[float, float]) -> str:
    seconds, used = time.perf_counter() - began[0], time.process_time() - began[1]
    return f"{seconds:.2f} s ({used:.2f} s of processors)"


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        source, out = Path(place, "in.png"), Path(place, "out.png")
        upload(source)
        pipe = Pipeline.from_pretrained(ROOT / "checkpoints" / "avatars")
        print(f"{cpu_name()}; {SIZE[0]} × {SIZE[1]} pixels, RGBA")
        for name, feather in EDITS:
            began = now()
            for event in pipe.edit(source, masks.preset(name, SIZE), "a red hat", seed=0, feather=feather):
                last = event
            image = last.image
            edited, began = since(began), now()
            write_png(image, out, last.recipe)
            print(f"{name}, feather {feather}: {edited}, written in {since(began)}, {peak_memory():.2f} GB so far")
            del event, last, image


if __name__ == "__main__":
    main()
