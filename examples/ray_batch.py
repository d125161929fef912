"""A folder of images edited by workers, one machine's or a cluster's, with Ray Data (`pip install "ray[data]"`).

    python examples/ray_batch.py in out --mask mask.png --prompt "a red hat"

Each worker holds a pipeline and edits eight images in one chain; images that have a result in `out` are left alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import ray
from PIL import Image

from imagebart import Edit, Pipeline
from imagebart.imaging.files import write_png


class Editor:
    """A worker: edits batches of files."""

    def __init__(self, model: str, mask: Path, prompt: str | None, out: Path) -> None:
        self.pipe, self.mask = Pipeline.from_pretrained(model), Image.open(mask).convert("L")
        self.prompt, self.out = prompt, out

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        edits = [Edit(path, self.mask, self.prompt, seed=0) for path in batch["item"]]
        for path, event in zip(batch["item"], self.pipe.edit_batch(edits), strict=True):
            write_png(event.image, self.out / Path(path).name, event.recipe)
        return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder of PNG files")
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--mask", type=Path, required=True, help="white is regenerated")
    parser.add_argument("--prompt")
    parser.add_argument("--model", default="avatars")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    images = [str(path.resolve()) for path in sorted(given.images.glob("*.png")) if not (out / path.name).is_file()]
    if not images:
        parser.error(f"every PNG file of {given.images} has a result in {given.out}")
    edited = ray.data.from_items(images).map_batches(
        Editor,
        fn_constructor_args=(given.model, given.mask.resolve(), given.prompt, out),
        batch_size=8,
        compute=ray.data.ActorPoolStrategy(size=given.workers),
    )
    print(edited.count(), "images")


if __name__ == "__main__":
    main()
