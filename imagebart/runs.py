"""A run: from tokens, a prompt and settings to events that show pictures where they belong."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from imagebart.events import Clock, EventKind, Pictures, PipelineEvent
from imagebart.imaging import files as images
from imagebart.imaging.crop import Region
from imagebart.imaging.join import joined
from imagebart.imaging.metadata import Recipe
from imagebart.judge import Judge, best_first
from imagebart.models.imagebart import ImageBART
from imagebart.sampling.chain import ChainEvent
from imagebart.settings import SamplingSettings

FAMILIAR_PSNR = 17.0  # dB of encode and decode, under which a picture is unlike those of the training


@dataclass(frozen=True)
class Canvas:
    """Where results go: a region of an upload; or a picture of their own (all None)."""

    upload: Image.Image | None = None
    region: Region | None = None
    before: Image.Image | None = None  # the region's square, where what is drawn is to join what is kept of it

    def place(self, square: Image.Image) -> Image.Image:
        """The whole picture with this square in it."""
        if self.upload is None or self.region is None:
            return square
        if self.before is not None:
            square = joined(square, self.before, self.region.unknown(self.upload.size))
        return self.region.paste(self.upload, square)


@dataclass(frozen=True)
class Job:
    """A run, ready to start: B variants of N tokens."""

    recipes: tuple[Recipe, ...]  # of each variant; they differ in its number and prompt alone
    canvas: Canvas
    settings: SamplingSettings  # the recipes', as this run needs them
    known: Tensor | None = None  # int64 [B, N]
    keep: Tensor | None = None  # bool [N]
    doubt: Tensor | None = None  # float [N], of known tokens that are not kept: see `imagebart.masked`
    seen: Tensor | None = None  # bool [1, N, K], the colours of what is kept: see `imagebart.masked`
    pixels: Tensor | None = None  # the square as it was, float [1, 3, size, size] in [-1, 1], where `keep` keeps of it
    strength: float = 1.0  # share of noise to start from
    cond: Tensor | None = None  # int64 [B, L]
    notes: tuple[str, ...] = ()  # sentences for the user
    judge: Judge | None = None  # puts the result's pictures in order, best first; all have one prompt then

    @property
    def variants(self) -> int:
        """B."""
        return len(self.recipes)

    @property
    def seed(self) -> int:
        """Of the first variant."""
        return self.recipes[0].seed


def stream(model: ImageBART, job: Job) -> Iterator[PipelineEvent]:
    """The events of a run, from the noise to the result. Closing it stops the model and frees its caches."""
    begun = model.sampler.start(
        job.variants,
        job.settings,
        known=job.known,
        keep=job.keep,
        strength=job.strength,
        seed=job.seed,
        doubt=job.doubt,
        seen=job.seen,
    )
    first, scales = len(begun.steps), begun.scales
    clock = Clock(job.settings.passes, first)
    chain = model.sampler.stream(begun, job.cond, job.settings)
    last = ChainEvent(first, scales, 0, job.settings.passes, 0, begun.total, begun.x, False)
    yield _event(model, "start", last, job, clock)
    try:
        for last in chain:
            if last.done and not (last.stage == 1 and last.pass_index == last.passes - 1):
                yield _event(model, "stage", last, job, clock)
            elif not last.done and clock.preview_due():
                yield _event(model, "preview", last, job, clock)
    finally:
        close = getattr(chain, "close", None)
        if close is not None:
            close()
    result = _event(model, "result", last, job, clock)
    del job  # the upload goes as soon as the result is put together
    yield result


@torch.no_grad()
def _event(model: ImageBART, kind: EventKind, event: ChainEvent, job: Job, clock: Clock) -> PipelineEvent:
    """Decodes the tokens of this moment, to be put where they belong by whoever looks."""
    began = time.perf_counter()
    fraction = 1.0 if kind == "result" else clock.fraction(event)
    shown = event.tokens[:1] if kind == "preview" else event.tokens
    squares = model.first_stage.decode(shown)
    order = list(range(len(squares)))
    if kind == "result" and job.judge is not None:
        order = best_first(job.judge, squares.clamp(-1, 1), job.recipes[0].prompt or "")
    notes = job.notes
    if kind == "result" and job.keep is not None and job.pixels is not None and bool(job.keep.any()):
        notes = (*unfamiliar(model, job.pixels, squares[:1], job.keep), *notes)
    canvas, drawn = job.canvas, images.to_images(squares[order])
    clock.looked(kind, time.perf_counter() - began)

    def place() -> list[Image.Image]:
        began = time.perf_counter()
        placed = [canvas.place(square) for square in drawn]
        clock.looked_on(kind, time.perf_counter() - began)
        return placed

    elapsed = clock.elapsed()
    return PipelineEvent(
        kind=kind,
        pictures=Pictures(place),
        stage=event.stage,
        stages=event.stages,
        pass_index=event.pass_index,
        passes=event.passes,
        position=event.position,
        total=event.total,
        fraction=fraction,
        elapsed=elapsed,
        remaining=elapsed * (1 - fraction) / fraction if fraction > 0 else None,
        seed=job.seed,
        notes=list(notes),
        recipes=tuple(job.recipes[number] for number in order),
    )


def unfamiliar(model: ImageBART, before: Tensor, after: Tensor, keep: Tensor) -> tuple[str, ...]:
    """What to say of a picture that the model does not know: one that its tokens do not bring back where they are kept.

    before, after: float [1, 3, size, size] in [-1, 1]; keep: bool [N].
    """
    side = model.first_stage.config.downsampling
    kept = keep.view(before.shape[2] // side, -1).repeat_interleave(side, 0).repeat_interleave(side, 1)
    error = (after.clamp(-1, 1) - before)[..., kept].square().mean().item() / 4
    if not model.about.knows or -10 * math.log10(max(error, 1e-10)) >= FAMILIAR_PSNR:
        return ()
    return (f"This model knows {model.about.knows} only; in another kind of picture, expect odd results.",)
