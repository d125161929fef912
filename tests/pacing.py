"""A model that takes its time, as a large one does, and leaves the processor to the browser meanwhile.

A tiny model alone is done before a browser on a busy machine shows that it began.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event
from typing import Any

from PIL import Image

from imagebart.imaging.masks import preset
from imagebart.models.imagebart import ImageBART
from imagebart.pipeline import Pipeline, PipelineEvent

PACE = 0.1  # seconds from an event to the next


def paced(events: Iterator[PipelineEvent], pace: float) -> Iterator[PipelineEvent]:
    """The events, with a pause after each."""
    try:
        for event in events:
            yield event
            time.sleep(pace)
    finally:
        events.close()  # type: ignore[attr-defined]


class PacedPipeline(Pipeline):
    """A pipeline with a pause after each event."""

    def edit(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        return paced(super().edit(*args, **kwargs), PACE)

    def generate(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        return paced(super().generate(*args, **kwargs), PACE)

    def vary(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        return paced(super().vary(*args, **kwargs), PACE)


class HeldPipeline(Pipeline):
    """A pipeline that answers nothing before it is let go, and whose edits are not over with their result.

    Results come at once; `results.clear()` holds them back until `results.set()`.
    """

    def __init__(self, model: ImageBART) -> None:
        super().__init__(model)
        self.runs, self.let_go, self.results = 0, Event(), Event()
        self.results.set()

    def edit(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        self.runs += 1
        for event in super().edit(*args, **kwargs):
            if event.kind == "result":
                self.results.wait()
            yield event
        self.let_go.wait()

    def suggest_mask(self, image: Image.Image, prompt: str | None) -> Image.Image:
        """A hat is in the upper half, everything else in the middle."""
        self.let_go.wait()
        return preset("upper half" if prompt == "a hat" else "centre", image.size)
