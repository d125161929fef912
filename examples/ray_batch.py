"""A folder of images edited by workers, one machine's or a cluster's, with Ray Data (`pip install "ray[data]"`).

    python examples/ray_batch.py in out mask.png --prompt "a red hat"

Each worker holds a pipeline and edits eight images in one chain; images that have a result in `out` are left alone.
"""

from pathlib import Path
from typing import Any

import ray
import typer
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


def main(
    images: Path, out: Path, mask: Path, prompt: str | None = None, model: str = "avatars", workers: int = 2
) -> None:
    """Edit a folder of PNG files; the mask's white is regenerated."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    left = [str(path.resolve()) for path in sorted(images.glob("*.png")) if not (out / path.name).is_file()]
    if not left:
        raise typer.BadParameter(f"every PNG file of {images} has a result in {out}")
    given, workers_of = (model, mask.resolve(), prompt, out), ray.data.ActorPoolStrategy(size=workers)
    edited = ray.data.from_items(left).map_batches(Editor, fn_constructor_args=given, batch_size=8, compute=workers_of)
    print(edited.count(), "images")


if __name__ == "__main__":
    typer.run(main)
