"""What is kept of a run: every stage and some of the previews, so that they can be looked at and edited again.

Pictures lie in files, of large ones only the part that the run redraws; the browser holds their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from imagebart.imaging.metadata import write_png
from imagebart.pipeline import PipelineEvent
from imagebart.ui import wording
from imagebart.ui.files import as_preview, publish, publish_preview, written
from imagebart.ui.picture import LARGEST_PREVIEW, reduced
from imagebart.ui.sketchpad.shelf import describe_own

# Previews kept of a run: beyond these every second one is dropped, as often as needed.
MOST_PREVIEWS = 32
# Pixels of a picture or part up to which previews are kept: writing larger ones would hold up the model.
LARGEST_KEPT = 1_000_000

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Step:
    """A moment of a run, of one or more variants: a small picture to look at, and the part that the run redraws."""

    caption: str
    stage: str | None  # the name of the stage that ends here; None on the way
    variants: tuple[int, ...]  # whose files these are, by their numbers in the run
    shown: tuple[str, ...]
    parts: tuple[str, ...]

    def ordered(self, variants: tuple[int, ...]) -> dict[str, Any]:
        """The step as the browser keeps it, with its files in this order; None for variants that it does not show."""
        shown, parts = (dict(zip(self.variants, paths, strict=True)) for paths in (self.shown, self.parts))
        order = variants[: max(variants.index(number) for number in self.variants) + 1]
        return {
            "caption": self.caption,
            "shown": [shown.get(number) for number in order],
            "parts": [parts.get(number) for number in order],
        }


class Recorder:
    """Records a run while it goes on."""

    def __init__(self, edits: bool, box: Box | None, words: str | None = None) -> None:
        """edits: whether there is a picture that the run changes; box: its part that the run may change.

        words: a person's own; None: all that the recipes say.
        """
        self._edits, self._box, self._words = edits, box, words
        self._steps: list[Step] = []

    def add(self, event: PipelineEvent) -> str:
        """Record an event. Returns a small picture of the first variant, for the page."""
        small = [reduced(image, LARGEST_PREVIEW) for image in event.images]
        if event.kind == "preview" and self._area(event.images[0]) > LARGEST_KEPT:
            return publish_preview(small[0])
        step = self._step(event, small)
        # A slow browser asks for a preview long after it was made, when its step may have been dropped.
        shown = as_preview(step.shown[0])
        self._steps.append(step)
        self._thin()
        return shown

    def finish(self, event: PipelineEvent) -> dict[str, Any]:
        """Record the last event and write the results, each with its recipe; the run as the browser keeps it."""
        self.add(event)
        recipe, asked = event.recipe, dict.fromkeys(one.prompt for one in event.recipes if one.prompt)
        results = []
        for own, image, small in zip(event.recipes, event.images, self._steps[-1].shown, strict=True):
            path = written(f"{own.task}-{own.seed}-{own.variant + 1}.png", partial(write_png, image, recipe=own))
            results.append(describe_own(path, image) | {"small": small, "number": own.variant + 1})
        return {
            "task": recipe.task,
            "prompt": self._words or ", ".join(asked) or None,
            "name": f"{recipe.task}-{recipe.seed}",
            "box": self._box,
            "results": results,
            "steps": [step.ordered(event.variants) for step in self._steps],
        }

    def _step(self, event: PipelineEvent, small: list[Image.Image]) -> Step:
        shown = [publish(image) for image in small]
        parts = shown
        if max(event.images[0].size) > LARGEST_PREVIEW or self._edits:
            parts = [publish(self._part(image)) for image in event.images]
        captions = wording.step_caption(event), wording.stage_caption(event)
        return Step(*captions, event.variants, tuple(shown), tuple(parts))

    def _part(self, image: Image.Image) -> Image.Image:
        box = self._box or (0, 0, *image.size)
        return image if box == (0, 0, *image.size) else image.crop(box)

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
