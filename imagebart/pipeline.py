"""What people call: generate, edit and vary, from images and words to events and images."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from imagebart import crop, images, masks
from imagebart.chain import ChainEvent
from imagebart.conditioning import ClassConditioner, TextConditioner
from imagebart.crop import Box
from imagebart.errors import InputError
from imagebart.events import Clock, EventKind, PipelineEvent
from imagebart.model import ImageBART
from imagebart.settings import SamplingSettings

MAX_VARIANTS = 8
FAMILIAR_PSNR = 17.0  # dB of encode and decode, under which a picture is unlike those of the training


@dataclass(frozen=True)
class _Canvas:
    """Where results go: a square of an upload, through an alpha; or a picture of their own (all None)."""

    upload: Image.Image | None = None
    alpha: Image.Image | None = None
    box: Box | None = None

    def place(self, square: Image.Image) -> Image.Image:
        if self.upload is None or self.alpha is None or self.box is None:
            return square
        return crop.paste_back(self.upload, square, self.alpha, self.box)


@dataclass(frozen=True)
class _Job:
    """A run, ready to start."""

    canvas: _Canvas
    prompt: str | int | None
    seed: int
    settings: SamplingSettings
    variants: int
    start: Tensor | None
    known: Tensor | None
    keep: Tensor | None
    notes: list[str]


class Pipeline:
    """A model with everything around it: uploads, prompts, masks, crops, previews and pasting back."""

    def __init__(self, model: ImageBART, card: str = "") -> None:
        self.model = model
        self.card = card

    @classmethod
    def from_pretrained(cls, source: str | PathLike[str], device: str = "cpu", dtype: str = "float32") -> Pipeline:
        """Loads a model (see `ImageBART.from_pretrained`) and its card, the folder's README.md."""
        model = ImageBART.from_pretrained(source, device, dtype)
        card = Path(source) / "README.md"
        return cls(model, _without_front_matter(card.read_text(encoding="utf-8")) if card.is_file() else "")

    @property
    def name(self) -> str:
        return self.model.about.name

    @property
    def knows(self) -> str:
        """What the training pictures show, in plain words; "" where unsaid."""
        return self.model.about.knows

    @property
    def defaults(self) -> SamplingSettings:
        """The settings this model is best used with."""
        return self.model.about.sampling

    @property
    def conditioning(self) -> Literal["text", "class", "none"]:
        return self.model.conditioner.kind

    @property
    def classes(self) -> list[str]:
        """Names of a class model's classes."""
        conditioner = self.model.conditioner
        return list(conditioner.names) if isinstance(conditioner, ClassConditioner) else []

    @property
    def vocabulary(self) -> list[str]:
        """Words that a text model knows."""
        conditioner = self.model.conditioner
        return conditioner.known_words() if isinstance(conditioner, TextConditioner) else []

    @property
    def image_size(self) -> int:
        """Pixels a side that the model works on."""
        return self.model.first_stage.config.resolution

    @property
    def grid(self) -> int:
        """Tokens a side."""
        return self.image_size // self.model.first_stage.config.downsampling

    @property
    def stages(self) -> int:
        """T"""
        return self.model.schedule.stages

    def generate(
        self,
        prompt: str | int | None,
        *,
        seed: int | None = None,
        settings: SamplingSettings | None = None,
        variants: int = 1,
    ) -> Iterator[PipelineEvent]:
        """Pictures from a prompt (or class) alone. Raises InputError before the first event."""
        seed, settings = self._check(seed, settings, variants)
        return self._run(_Job(_Canvas(), prompt, seed, settings, variants, None, None, None, []))

    def edit(
        self,
        image: images.Source,
        mask: Image.Image,
        prompt: str | int | None = None,
        *,
        seed: int | None = None,
        settings: SamplingSettings | None = None,
        feather: int = 0,
        context: float = math.inf,
        variants: int = 1,
    ) -> Iterator[PipelineEvent]:
        """Redraws what an "L" mask of the picture's size paints; everything else keeps its very pixels.

        feather: pixels over which the change fades in at the mask's edge, inwards. context: how much around the
        mask the model sees, over the mask's longer side (inf: all it can). Raises InputError before the first
        event for a picture, mask, prompt or setting that cannot be used.
        """
        seed, settings = self._check(seed, settings, variants)
        upload = images.load_image(image)
        masks.check_mask(mask, upload.size)
        box = crop.crop_box(mask, self.image_size, context)
        known, notes = self._known(upload, box, variants)
        keep = crop.keep_tokens(mask, box, (self.grid, self.grid))
        canvas = _Canvas(upload, masks.alpha(mask, feather), box)
        return self._run(_Job(canvas, prompt, seed, settings, variants, None, known, keep, notes))

    def vary(
        self,
        image: images.Source,
        strength: float,
        prompt: str | int | None = None,
        *,
        seed: int | None = None,
        settings: SamplingSettings | None = None,
        variants: int = 1,
    ) -> Iterator[PipelineEvent]:
        """Pictures like a picture: a share `strength` (over 0, at most 1) of its tokens becomes noise, and is redrawn.

        Raises InputError before the first event.
        """
        seed, settings = self._check(seed, settings, variants)
        if not 0 < strength <= 1:
            raise InputError(f"The strength is {strength:g}; it must be over 0 and at most 1.")
        upload = images.load_image(image)
        everything = masks.preset("everything", upload.size)
        box = crop.crop_box(everything, self.image_size, math.inf)
        known, notes = self._known(upload, box, variants)
        start, stage = self.model.partly_diffused(known, strength, seed)
        settings = replace(settings, start=stage)
        canvas = _Canvas(upload, everything, box)
        return self._run(_Job(canvas, prompt, seed, settings, variants, start, None, None, notes))

    def _check(
        self, seed: int | None, settings: SamplingSettings | None, variants: int
    ) -> tuple[int, SamplingSettings]:
        if not 1 <= variants <= MAX_VARIANTS:
            raise InputError(f"{variants} variants were asked for; there can be 1 to {MAX_VARIANTS}.")
        if seed is not None and not 0 <= seed < 2**32:
            raise InputError(f"The seed is {seed}; it must be a whole number from 0 to {2**32 - 1}.")
        settings = settings or self.defaults
        if settings.start is not None and settings.start > self.stages:
            raise InputError(f"The first stage is {settings.start}; this model has {self.stages}.")
        return secrets.randbelow(2**32) if seed is None else seed, settings

    @torch.no_grad()
    def _known(self, upload: Image.Image, box: Box, variants: int) -> tuple[Tensor, list[str]]:
        """The square's tokens for every variant [B, N], and what to say of a picture the model does not know."""
        square = crop.extract(images.flatten(upload), box, self.image_size)
        pixels = images.to_tensor(square).to(self.model.device)
        tokens = self.model.first_stage.encode(pixels)
        error = (self.model.first_stage.decode(tokens).clamp(-1, 1) - pixels).square().mean().item() / 4
        notes = []
        if self.knows and -10 * math.log10(max(error, 1e-10)) < FAMILIAR_PSNR:
            notes.append(f"This model knows {self.knows} only; in another kind of picture, expect odd results.")
        return tokens.expand(variants, -1), notes

    def _run(self, job: _Job) -> Iterator[PipelineEvent]:
        """Checks the prompt at once, so that bad input raises before the first event; then streams."""
        prompt = self.model.conditioner.encode([job.prompt] * job.variants)
        cond = prompt.tokens if self.model.conditioner.length else None
        settings = job.settings
        guided = cond is not None and settings.guidance != 1
        if guided and torch.equal(prompt.tokens, self.model.conditioner.null(job.variants)):
            settings = replace(settings, guidance=1.0)  # nothing to guide towards
        job = replace(job, notes=[*job.notes, *prompt.notes], settings=settings)
        return self._stream(job, cond)

    @torch.no_grad()
    def _stream(self, job: _Job, cond: Tensor | None) -> Iterator[PipelineEvent]:
        clock = Clock(job.settings.passes * (job.settings.start or self.stages))
        chain = self.model.stream(job.variants, cond, job.start, job.known, job.keep, job.settings, job.seed)
        first = self._first(job)
        yield self._event("start", first, job, clock)
        last = first
        try:
            for last in chain:
                if last.done and not (last.stage == 1 and last.pass_index == last.passes - 1):
                    yield self._event("stage", last, job, clock)
                elif not last.done and clock.preview_due():
                    yield self._event("preview", last, job, clock)
        finally:
            close = getattr(chain, "close", None)  # a run that is cancelled frees its caches at once
            if close is not None:
                close()
        yield self._event("result", last, job, clock)

    def _first(self, job: _Job) -> ChainEvent:
        """The chain before its first token: x_T, or whatever it starts from."""
        start, keep, _ = self.model.starting_point(
            job.variants, job.start, job.known, job.keep, job.settings, job.seed
        )
        stage = job.settings.start or self.stages
        total = int((~keep).any(0).sum())
        return ChainEvent(stage, self.stages, 0, job.settings.passes, 0, total, start, False)

    def _event(
        self,
        kind: EventKind,
        event: ChainEvent,
        job: _Job,
        clock: Clock,
    ) -> PipelineEvent:
        began = time.perf_counter()
        fraction = 1.0 if kind == "result" else clock.fraction(event, job.settings.start or self.stages)
        shown = event.tokens[:1] if kind == "preview" else event.tokens
        squares = images.to_images(self.model.first_stage.decode(shown))
        placed = [job.canvas.place(square) for square in squares]
        clock.previewed(began)
        elapsed = clock.elapsed()
        return PipelineEvent(
            kind=kind,
            image=placed[0],
            images=placed,
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
            notes=list(job.notes),
        )


def _without_front_matter(text: str) -> str:
    """A card's text after its YAML header."""
    if text.startswith("---\n") and "\n---\n" in text[4:]:
        return text[4:].split("\n---\n", 1)[1].lstrip()
    return text
