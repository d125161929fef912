"""What a run tells while it goes on, and its clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from imagebart.imaging.metadata import Recipe
from imagebart.sampling.chain import ChainEvent

EventKind = Literal["start", "preview", "stage", "result"]
PREVIEW_SHARE = 0.1  # of the time may go into previews
FIRST_SHARE = 0.5  # of the time until then may go into the first: the sooner something is seen to happen, the better


class Pictures:
    """Pictures that are made when they are first asked for: of a large one, a look costs time and memory."""

    def __init__(self, make: Callable[[], list[Image.Image]]) -> None:
        self._make: Callable[[], list[Image.Image]] | None = make
        self._made: list[Image.Image] = []

    def __call__(self) -> list[Image.Image]:
        if self._make is not None:
            self._made = self._make()
            self._make = None  # and all that it took, the upload among it, can go
        return self._made


@dataclass(frozen=True)
class PipelineEvent:
    """One look at a run. `image` has the upload's size and, outside the mask, its very pixels."""

    kind: EventKind  # x_T; on the way; a pass is finished; the last event
    pictures: Pictures  # of `images`
    stage: int  # t, from T down to 1
    stages: int  # T
    pass_index: int  # from 0
    passes: int
    position: int  # tokens drawn in this pass
    total: int  # tokens to draw in a pass
    fraction: float  # of the whole run, 0 to 1
    elapsed: float  # seconds
    remaining: float | None  # seconds, None before anything is known
    seed: int
    notes: list[str]  # sentences for the user
    recipes: tuple[Recipe, ...]  # what makes each of `images`

    @property
    def image(self) -> Image.Image:
        """The first of `images`."""
        return self.images[0]

    @property
    def images(self) -> list[Image.Image]:
        """Of all variants; in a preview, of the first alone. They are put together when they are first asked for."""
        return self.pictures()

    @property
    def recipe(self) -> Recipe:
        """What makes `image`."""
        return self.recipes[0]

    @property
    def variants(self) -> tuple[int, ...]:
        """The number of each of `images` in the run: 0, 1, … unless they are ordered, best first."""
        return tuple(recipe.variant for recipe in self.recipes)


class Clock:
    """Time since the start, progress, and when the next preview may cost something."""

    def __init__(self, passes: int, first: int) -> None:
        """passes: of each stage; first: the stage that the run starts with, counted down to 1."""
        self._began = time.perf_counter()
        self._first = first
        self._passes = passes * first  # in the whole run
        self._cost = 0.0  # of the last look, seconds
        self._spent = 0.0  # on previews

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    def fraction(self, event: ChainEvent) -> float:
        """How much of the run is done, 0 to 1."""
        done = (self._first - event.stage) * event.passes + event.pass_index
        return min((done + event.position / max(event.total, 1)) / self._passes, 1.0)

    def preview_due(self) -> bool:
        """Whether one more preview, as dear as the last look, keeps all of them within PREVIEW_SHARE of the time."""
        share = PREVIEW_SHARE if self._spent else FIRST_SHARE
        return self._spent + self._cost <= share * self.elapsed()

    def looked(self, kind: EventKind, seconds: float) -> None:
        """A look took so long. The start, the ends of passes and the result are shown whatever they cost."""
        self._cost = 0.0
        self.looked_on(kind, seconds)

    def looked_on(self, kind: EventKind, seconds: float) -> None:
        """The last look took so much longer."""
        self._cost += seconds
        if kind == "preview":
            self._spent += seconds
