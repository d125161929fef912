"""What is kept of a run: every stage and some of the previews, so that they can be looked at and edited again.

Pictures lie in files, of large ones only the part that the run redraws; a session's memory holds their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image

from imagebart.animation import save_animation
from imagebart.errors import InputError
from imagebart.metadata import Recipe, write_png
from imagebart.pipeline import PipelineEvent
from imagebart.ui import wording
from imagebart.ui.files import as_preview, publish, publish_preview, written
from imagebart.ui.picture import LARGEST_PREVIEW, pixel_bytes, reduced

# Previews kept of a run: beyond these every second one is dropped, as often as needed.
MOST_PREVIEWS = 32
# Pixels of a picture or part up to which previews are kept: writing larger ones would hold up the model.
LARGEST_KEPT = 1_000_000
ANIMATION_SECONDS = 4.0
GONE = "This picture is no longer kept: pictures are forgotten after an hour. The ones on the page can be saved."

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Step:
    """A moment of a run, of one or more variants: a small picture to look at, and the part that the run redraws."""

    caption: str
    stage: str | None  # the name of the stage that ends here; None on the way
    shown: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """A finished run. The last step is the result."""

    recipe: Recipe
    base: Image.Image | None  # what was edited; None: nothing
    box: Box | None  # the part of `base` that the run redraws
    steps: tuple[Step, ...]
    results: tuple[str, ...]  # files of the variants, whole
    variant: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes that its pixels take in memory."""
        return 0 if self.base is None else pixel_bytes(self.base)

    def of_variant(self) -> list[Step]:
        """The steps that are kept of the chosen variant: previews show the first alone."""
        return [step for step in self.steps if len(step.shown) > self.variant]

    def shown(self, step: int) -> str:
        """The small picture of a step of the chosen variant, by its number from 0."""
        return self.of_variant()[step].shown[self.variant]

    def picture(self, step: int) -> Image.Image:
        """A step of the chosen variant as a whole picture, of full size. Raises InputError if it is gone."""
        steps = self.of_variant()
        if step >= len(steps) - 1:
            return _open(self.results[self.variant])
        part = _open(steps[step].parts[self.variant])
        if self.base is None or self.box is None:
            return part
        whole = self.base.copy()
        whole.paste(part, self.box[:2])
        return whole

    def animation(self, suffix: str) -> str:
        """The run of the chosen variant as a moving picture, ".webp" or ".gif". Raises InputError if it is gone."""
        frames = [_open(step.shown[self.variant]).convert("RGB") for step in self.of_variant()]
        name = f"{self.recipe.task}-{self.recipe.seed}{suffix}"
        return written(name, lambda path: save_animation(frames, path, ANIMATION_SECONDS))


class Recorder:
    """Records a run while it goes on."""

    def __init__(self, base: Image.Image | None, box: Box | None) -> None:
        """base: what is edited; box: its part that the run may change."""
        self._base, self._box = base, box
        self._steps: list[Step] = []
        self._latest: list[Image.Image] = []

    def add(self, event: PipelineEvent) -> str:
        """Record an event. Returns a small picture of all variants, for the page."""
        self._latest[: len(event.images)] = [reduced(image, LARGEST_PREVIEW) for image in event.images]
        if event.kind != "preview" or self._area(event.images[0]) <= LARGEST_KEPT:
            step = self._step(event)
            # A slow browser asks for a preview long after it was made, when its step may have been dropped.
            last_shown = as_preview(step.shown[0]) if len(self._latest) == 1 else None
            self._steps.append(step)
            self._thin()
            if last_shown is not None:
                return last_shown
        return publish_preview(sheet(self._latest))

    def finish(self, event: PipelineEvent) -> Record:
        """Record the last event and write the results, each with its recipe."""
        self.add(event)
        recipe = event.recipe
        results = []
        for variant, image in enumerate(event.images):
            write = partial(write_png, image, recipe=replace(recipe, variant=variant))
            results.append(written(f"{recipe.task}-{recipe.seed}-{variant + 1}.png", write))
        return Record(recipe, self._base, self._box, tuple(self._steps), tuple(results))

    def _step(self, event: PipelineEvent) -> Step:
        shown = [publish(small) for small in self._latest[: len(event.images)]]
        parts = shown
        if max(event.images[0].size) > LARGEST_PREVIEW or self._base is not None:
            parts = [publish(image if self._box is None else image.crop(self._box)) for image in event.images]
        return Step(wording.step_caption(event), wording.stage_caption(event), tuple(shown), tuple(parts))

    def _area(self, image: Image.Image) -> int:
        left, top, right, bottom = self._box or (0, 0, *image.size)
        return (right - left) * (bottom - top)

    def _thin(self) -> None:
        previews = [step for step in self._steps if step.stage is None]
        if len(previews) > MOST_PREVIEWS:
            dropped = previews[::2]
            self._steps = [step for step in self._steps if step not in dropped]
            for path in {path for step in dropped for path in (*step.shown, *step.parts)}:
                Path(path).unlink(missing_ok=True)


def sheet(images: Sequence[Image.Image]) -> Image.Image:
    """One picture as it is; up to four of one size in two columns, RGB, on white."""
    if len(images) == 1:
        return images[0]
    gap = max(2, images[0].width // 32)
    width, height = images[0].size
    rows = -(-len(images) // 2)
    result = Image.new("RGB", (2 * width + gap, rows * height + (rows - 1) * gap), "white")
    for index, image in enumerate(images):
        place = ((index % 2) * (width + gap), (index // 2) * (height + gap))
        result.paste(image, place, image if image.mode == "RGBA" else None)
    return reduced(result, LARGEST_PREVIEW)


def _open(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise InputError(GONE) from error
