"""Models and pipelines with known behavior: one that knows where hats go, scorers, pipelines that take their time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from threading import Event
from typing import Any

import torch
from PIL import Image
from tiny_models import tiny_model
from torch import Tensor

from imagebart.fitting import FittedMask
from imagebart.imaging.files import load_image
from imagebart.imaging.masks import preset
from imagebart.model import ImageBART
from imagebart.pipeline import Pipeline, PipelineEvent

HAT_TOKENS = torch.zeros(8, 8, dtype=torch.bool)
HAT_TOKENS[:3, 2:6] = True


def hat_model(scales: int = 2) -> ImageBART:
    """A tiny random model that, with "hat" in the prompt, draws another token at HAT_TOKENS."""
    model = tiny_model(scales=scales)
    denoiser, hat = model.denoiser, int(model.conditioner.encode(["hat"]).tokens[0, 0])
    random = denoiser.logits

    def logits(*arguments: Tensor, cond: Tensor) -> Tensor:
        there = (cond == hat).any(1)[:, None, None] & HAT_TOKENS.flatten()[:, None]
        code = torch.arange(model.vocab_size) == 5
        return random(*arguments, cond=cond) + 50.0 * (there & code)

    denoiser.logits = logits  # type: ignore[method-assign]
    return model


class LightnessScorer:
    """Prefers light images, or dark ones where the sign is -1."""

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign

    def score(self, images: Tensor, prompt: str) -> Tensor:
        return self.sign * images.mean((1, 2, 3))


class FixedDescriber(LightnessScorer):
    """Describes every image alike, and adds the same words to every prompt (None: cannot say what else there is)."""

    def __init__(self, description: str, rest: str | None = None) -> None:
        super().__init__()
        self.description, self.rest = description, rest

    def describe(self, image: Tensor) -> str:
        return self.description

    def contrast(self, image: Tensor, prompt: str) -> tuple[str, str] | None:
        return None if self.rest is None else (f"{prompt}, {self.rest}", self.description)


class WatchedPipeline(Pipeline):
    """A pipeline that notes its edits and how many runs go on, and pauses so many seconds after each event."""

    def __init__(self, model: ImageBART, scorer: LightnessScorer | None = None, pause: float = 0.0) -> None:
        super().__init__(model, scorer=scorer)
        self.pause = pause
        self.running = 0
        self.edits: list[tuple[Image.Image, Image.Image]] = []  # images and painted masks
        self.fitted: tuple[FittedMask, Image.Image | None] | None = None  # the last one, of what was painted

    def fit_mask(self, image: Any, mask: Image.Image | None, *args: Any, **kwargs: Any) -> FittedMask:
        fitted = super().fit_mask(image, mask, *args, **kwargs)
        self.fitted = fitted, mask
        return fitted

    def edit(self, image: Any, mask: Any, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        painted = mask
        if isinstance(mask, FittedMask):
            assert self.fitted is not None and self.fitted[0] is mask, "it was fitted for another edit"
            painted = self.fitted[1]
        self.edits.append((load_image(image), painted))
        return self._watched(super().edit(image, mask, *args, **kwargs), kwargs.get("seed"))

    def generate(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        return self._watched(super().generate(*args, **kwargs), kwargs.get("seed"))

    def vary(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        return self._watched(super().vary(*args, **kwargs), kwargs.get("seed"))

    def note(self, what: str, seed: int | None) -> None:
        """What happens in the run with a seed: "begun", "event", "ended"."""
        self.running += {"begun": 1, "event": 0, "ended": -1}[what]

    def _watched(self, events: Iterator[PipelineEvent], seed: int | None) -> Iterator[PipelineEvent]:
        self.note("begun", seed)
        try:
            for event in events:
                self.note("event", seed)
                yield event
                time.sleep(self.pause)
        finally:
            events.close()  # type: ignore[attr-defined]
            self.note("ended", seed)


class HeldPipeline(WatchedPipeline):
    """Edits end, after their result, only when let go; so do answers. `results.clear()` holds back results as well."""

    def __init__(self, model: ImageBART) -> None:
        super().__init__(model)
        self.let_go, self.results, self.at_result = Event(), Event(), Event()
        self.hold()

    def hold(self) -> None:
        """Hold the next edits; those before are forgotten."""
        self.edits.clear()
        self.let_go.clear()
        self.at_result.clear()
        self.results.set()

    def release(self) -> None:
        """Let everything go, and wait until it is gone."""
        self.results.set()
        self.let_go.set()
        deadline = time.monotonic() + 60
        while self.running:
            assert time.monotonic() < deadline, "a run goes on"
            time.sleep(0.02)

    def edit(self, *args: Any, **kwargs: Any) -> Iterator[PipelineEvent]:
        return self._held(super().edit(*args, **kwargs))

    def _held(self, events: Iterator[PipelineEvent]) -> Iterator[PipelineEvent]:
        with closing(events):  # type: ignore[type-var]
            for event in events:
                if event.kind == "result":
                    self.at_result.set()
                    self.results.wait()
                yield event
            self.let_go.wait()

    def suggest_mask(self, image: Any, prompt: str | None) -> Image.Image:
        """A hat is in the upper half, everything else in the middle."""
        self.let_go.wait()
        return preset("upper half" if prompt == "a hat" else "center", load_image(image).size)
