"""What people call: generate, edit and vary, from images and words to events and images."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from dataclasses import replace
from os import PathLike
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from imagebart.conditioning import ClassConditioner, Prompt, TextConditioner
from imagebart.conditioning.prompts import Asked, one_each
from imagebart.conditioning.tokenizer import whole_characters
from imagebart.errors import InputError
from imagebart.events import PipelineEvent
from imagebart.imaging import crop, masks
from imagebart.imaging import files as images
from imagebart.imaging.crop import Box, Region
from imagebart.imaging.metadata import LONGEST_NAME, Recipe, Task
from imagebart.judge import Describer, Judge, load_judge
from imagebart.looking import PAINT, place_of, with_all_said, with_the_rest, words_for
from imagebart.masked import known
from imagebart.models.imagebart import ImageBART
from imagebart.runs import Canvas, Job, stream, unfamiliar
from imagebart.settings import SamplingSettings, shown
from imagebart.weights import locate
from imagebart.weights.card import default_card, read_card, without_head
from imagebart.weights.folder import config_of

MAX_VARIANTS = 8


class Pipeline:
    """A model with everything around it: uploads, prompts, masks, crops, previews and pasting back."""

    def __init__(self, model: ImageBART, card: str = "", judge: Judge | None = None) -> None:
        # Faster on a CPU, with the same results: its convolutions need not rearrange their inputs.
        model.first_stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model
        self.card = card
        self.judge = judge

    @classmethod
    def from_pretrained(
        cls, source: str | PathLike[str], device: str = "cpu", dtype: str = "float32", revision: str | None = None
    ) -> Pipeline:
        """Loads a model (see `ImageBART.from_pretrained`), its card, the folder's README.md, and its judge, if any."""
        folder = locate(source, revision=revision)
        model = ImageBART.from_pretrained(folder, device, dtype)
        model.sampler.prepare()
        card = read_card(folder) or default_card(config_of(model))
        return cls(model, without_head(card), load_judge(folder, model))

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
    def suggestions(self) -> dict[str, tuple[str, ...]]:
        """Words to add to a prompt, by what they describe in plain words ("hair"); {} where the model has none."""
        return dict(self.model.about.suggestions)

    def unknown_words(self, prompt: str) -> list[str]:
        """The prompt's words that the model does not know and will leave out, as written, each once."""
        conditioner = self.model.conditioner
        return conditioner.unknown_words(prompt) if isinstance(conditioner, TextConditioner) else []

    def corrections(self, prompt: str) -> dict[str, str]:
        """The prompt's words that will be taken for others, as written, and what for: {"sunglases": "sunglasses"}."""
        conditioner = self.model.conditioner
        if not isinstance(conditioner, TextConditioner):
            return {}
        return {one.typed: one.meant for one in conditioner.corrections(prompt)}

    @property
    def image_size(self) -> int:
        """Pixels a side that the model works on."""
        return self.model.first_stage.config.resolution

    @property
    def grid(self) -> int:
        """Tokens a side."""
        return self.model.first_stage.config.side

    @property
    def stages(self) -> int:
        """T, as the model is best drawn with."""
        return self.model.scales_of(None)

    @property
    def any_scales(self) -> bool:
        """Whether T can be chosen."""
        return self.model.denoiser is not None

    @property
    def can_judge(self) -> bool:
        """Whether variants can be put in order, best first."""
        return self.judge is not None

    @property
    def can_describe(self) -> bool:
        """Whether the model can say what a picture shows."""
        return isinstance(self.judge, Describer)

    def suggest_mask(self, image: images.Source, prompt: str | None) -> Image.Image:
        """Where the words of a prompt belong in a picture: a mask, "L", of the picture's size.

        Raises InputError for a picture or prompt that cannot be used, and where no place is found.
        """
        upload = images.load_image(image)
        box, pixels = self._whole(upload)
        mask = crop.paint_cells(place_of(self.model, self.judge, pixels, prompt).numpy(), box, upload.size)
        if mask.getbbox() is None:  # cells of a long, narrow picture's square may hold no pixel of it
            words = whole_characters(prompt or "")
            raise InputError(f'What "{words:.60}" would change lies outside of this picture; {PAINT}.')
        return mask

    def describe(self, image: images.Source) -> str:
        """What a picture shows, in words that the model knows.

        Raises InputError for a picture that cannot be used or is not of what the model knows, and where the model
        cannot describe.
        """
        return words_for(self.model, self.judge, self._whole(images.load_image(image))[1])

    def with_the_rest(
        self, image: images.Source, prompt: str | None, settings: SamplingSettings | None = None
    ) -> tuple[str, SamplingSettings]:
        """A prompt with all else that a picture shows, for what `suggest_mask` found: it covers more than what changes.

        Guidance of the model's own strength becomes less with it. Both stay as they are where the model cannot
        describe the picture. Raises InputError for a picture that cannot be used.
        """
        asked, settings = whole_characters(prompt or ""), settings or self.defaults
        told = with_the_rest(self.judge, self._whole(images.load_image(image))[1], asked)
        less = told != asked and settings.guidance == self.defaults.guidance
        return told, with_all_said(settings) if less else settings

    def region(self, size: tuple[int, int], mask: Image.Image, context: float = math.inf, feather: int = 0) -> Region:
        """What an edit of a picture of `size` (width, height) with this mask, context and feather redraws.

        Raises InputError where `edit` would: nothing painted, or a mask of another size.
        """
        return Region.of(masks.as_mask(mask, size), self.image_size, self.grid, context, feather)

    def generate(
        self,
        prompt: Asked,
        *,
        seed: int | None = None,
        settings: SamplingSettings | None = None,
        variants: int = 1,
        best_first: bool = False,
    ) -> Iterator[PipelineEvent]:
        """Pictures from a prompt (or class) alone, or from each of a list. Raises InputError before the first event.

        best_first: the result's pictures are in the order in which the model's judge finds the prompt in them.
        """
        prompts = one_each(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("generate", prompts, seed, settings)
        return self._run(prompts, Job(recipes, Canvas(), recipes[0].settings), best_first)

    def edit(
        self,
        image: images.Source,
        mask: Image.Image,
        prompt: Asked = None,
        *,
        seed: int | None = None,
        settings: SamplingSettings | None = None,
        feather: int = 0,
        context: float = math.inf,
        variants: int = 1,
        best_first: bool = False,
    ) -> Iterator[PipelineEvent]:
        """Redraws what a mask of the picture's size paints, as a prompt says or each of a list; all else is kept.

        mask: white, or where the picture has transparency all that is opaque, is painted (see `masks.as_mask`).

        feather: pixels over which the change fades in at the mask's edge, inwards. context: how much around the
        mask the model sees, over the mask's longer side (inf: all it can). best_first: as for `generate`. Raises
        InputError before the first event for a picture, mask, prompt or setting that cannot be used.
        """
        prompts = one_each(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("edit", prompts, seed, settings, feather=feather, context=context)
        upload = images.load_image(image)
        region = self.region(upload.size, mask, context, feather)
        square = crop.extract(upload, region.box, self.image_size)
        pixels = images.to_tensor(square).to(self.model.device)
        left = known(self.model, pixels, torch.from_numpy(region.painted)[None])
        tokens, canvas = left.tokens.expand(len(prompts), -1), Canvas(upload, region, square)
        job = Job(recipes, canvas, recipes[0].settings, tokens, region.keep, left.doubt[0], left.seen, pixels)
        return self._run(prompts, job, best_first)

    def vary(
        self,
        image: images.Source,
        strength: float,
        prompt: Asked = None,
        *,
        seed: int | None = None,
        settings: SamplingSettings | None = None,
        variants: int = 1,
        best_first: bool = False,
    ) -> Iterator[PipelineEvent]:
        """Pictures like a picture: a share `strength` (over 0, at most 1) of its tokens becomes noise, and is redrawn.

        best_first: as for `generate`. Raises InputError before the first event.
        """
        prompts = one_each(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("vary", prompts, seed, settings, strength=strength)
        upload = images.load_image(image)
        region = self.region(upload.size, masks.preset("everything", upload.size))
        pixels = self._pixels(upload, region.box)
        with torch.no_grad():
            known = self.model.first_stage.encode(pixels)
            notes = unfamiliar(self.model, pixels, self.model.first_stage.decode(known), ~region.keep)
        known, canvas = known.expand(len(prompts), -1), Canvas(upload, region)
        job = Job(recipes, canvas, recipes[0].settings, known, strength=strength, notes=notes)
        return self._run(prompts, job, best_first)

    def _recipes(
        self, task: Task, prompts: list[Prompt], seed: int | None, settings: SamplingSettings | None, **more: Any
    ) -> tuple[Recipe, ...]:
        """What makes each picture, with a new seed where none is given. Raises InputError for bad values."""
        if settings is not None and not isinstance(settings, SamplingSettings):
            raise InputError(f"The settings are {shown(settings)}; they must be SamplingSettings.")
        if task == "vary" and more["strength"] is None:
            raise InputError("The strength is None; it must be a number over 0 and at most 1.")
        settings = self.defaults if settings is None else settings
        if settings.scales not in (None, self.stages) and not self.any_scales:
            raise InputError(f"The number of scales is {settings.scales}; this model was trained for {self.stages}.")
        scales = self.model.scales_of(settings.scales)
        settings.check_scales(scales)
        if settings.start is not None and settings.start > scales:
            raise InputError(f"The first stage is {settings.start}; there are {scales}.")
        seed = secrets.randbelow(2**32) if seed is None else seed
        words = [None if prompt is None else whole_characters(str(prompt)) for prompt in prompts]
        name = self.name[:LONGEST_NAME]
        return tuple(Recipe(name, task, said, seed, settings, variant=i, **more) for i, said in enumerate(words))

    def _whole(self, upload: Image.Image) -> tuple[Box, Tensor]:
        """The square that holds all of a picture, and its pixels."""
        box = crop.crop_box(masks.preset("everything", upload.size), self.image_size, math.inf)
        return box, self._pixels(upload, box)

    def _pixels(self, upload: Image.Image, box: Box) -> Tensor:
        """A square as the model sees it: float [1, 3, size, size] in [-1, 1]."""
        square = crop.extract(upload, box, self.image_size)
        return images.to_tensor(square).to(self.model.device)

    def _run(self, prompts: list[Prompt], job: Job, best_first: bool) -> Iterator[PipelineEvent]:
        """Checks the prompts at once, so that bad input raises before the first event; then streams."""
        if best_first and self.judge is None:
            raise InputError("This model has no judge that could put variants in order; ask for them as they come.")
        if best_first and any(prompt != prompts[0] for prompt in prompts):
            raise InputError("Pictures of several prompts have no best; ask for one prompt, or for them as they come.")
        conditioner = self.model.conditioner
        read = conditioner.encode(prompts)
        settings = job.settings
        guided = conditioner.length > 0 and settings.guidance != 1
        if guided and torch.equal(read.tokens, conditioner.null(job.variants)):
            settings = replace(settings, guidance=1.0)  # nothing to guide towards
        cond = read.tokens if conditioner.length else None
        job = replace(job, cond=cond, settings=settings, notes=(*job.notes, *read.notes))
        return stream(self.model, replace(job, judge=self.judge) if best_first else job)
