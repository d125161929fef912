"""What a run tells while it goes on, and its clock."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from imagebart.conditioning import ClassConditioner, Prompt, TextConditioner
from imagebart.conditioning.prompts import Prompts, prompt_per_variant
from imagebart.conditioning.tokenizer import whole_characters
from imagebart.errors import InputError
from imagebart.imaging import crop, masks
from imagebart.imaging import files as images
from imagebart.imaging.blending import blend
from imagebart.imaging.crop import Box, Region
from imagebart.imaging.metadata import LONGEST_NAME, Recipe, Task
from imagebart.inpainting import encode_masked
from imagebart.models.imagebart import ImageBART
from imagebart.models.vqgan import psnr
from imagebart.ranking import Describer, Scorer, best_first, bundled_scorer
from imagebart.sampling.mask_suggestion import distances, place
from imagebart.sampling.sampler import ChainEvent
from imagebart.settings import SamplingSettings, format_value
from imagebart.weights import locate
from imagebart.weights.folder import config_of, read_card, without_header
from imagebart.weights.published.registry import default_card

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
    resample_index: int  # from 0
    resamples: int
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

    def __init__(self, resamples: int, first: int) -> None:
        """resamples: of each stage; first: the stage that the run starts with, counted down to 1."""
        self._began = time.perf_counter()
        self._first = first
        self._resamples = resamples * first  # in the whole run
        self._cost = 0.0  # of the last look, seconds
        self._spent = 0.0  # on previews

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    def fraction(self, event: ChainEvent) -> float:
        """How much of the run is done, 0 to 1."""
        done = (self._first - event.stage) * event.resamples + event.resample_index
        return min((done + event.position / max(event.total, 1)) / self._resamples, 1.0)

    def preview_due(self) -> bool:
        """Whether one more preview, as dear as the last look, keeps all of them within PREVIEW_SHARE of the time."""
        share = PREVIEW_SHARE if self._spent else FIRST_SHARE
        return self._spent + self._cost <= share * self.elapsed()

    def looked(self, kind: EventKind, seconds: float) -> None:
        """A look took so long. The start, the ends of resamples and the result are shown whatever they cost."""
        self._cost = 0.0
        self.add_preview_cost(kind, seconds)

    def add_preview_cost(self, kind: EventKind, seconds: float) -> None:
        """The last look took so much longer."""
        self._cost += seconds
        if kind == "preview":
            self._spent += seconds


# A run: from tokens, a prompt and settings to events that show pictures where they belong.


IN_DOMAIN_PSNR = 17.0  # dB of encode and decode, under which a picture is unlike those of the training


@dataclass(frozen=True)
class PasteTarget:
    """Where results go: a region of an upload; or a picture of their own (all None)."""

    upload: Image.Image | None = None
    region: Region | None = None
    before: Image.Image | None = None  # the region's square, where what is drawn is to join what is kept of it

    def place(self, square: Image.Image) -> Image.Image:
        """The whole picture with this square in it."""
        if self.upload is None or self.region is None:
            return square
        if self.before is not None:
            square = blend(square, self.before, self.region.unknown(self.upload.size))
        return self.region.paste(self.upload, square)


@dataclass(frozen=True)
class EditRequest:
    """A run, ready to start: B variants of N tokens."""

    recipes: tuple[Recipe, ...]  # of each variant; they differ in its number and prompt alone
    target: PasteTarget
    settings: SamplingSettings  # the recipes', as this run needs them
    known: Tensor | None = None  # int64 [B, N]
    keep: Tensor | None = None  # bool [N]
    noise_level: Tensor | None = None  # float [N], of known tokens that are not kept: see `imagebart.inpainting`
    color_hints: Tensor | None = None  # bool [1, N, K], the colours of what is kept: see `imagebart.inpainting`
    pixels: Tensor | None = None  # the square as it was, float [1, 3, size, size] in [-1, 1], where `keep` keeps of it
    strength: float = 1.0  # share of noise to start from
    cond: Tensor | None = None  # int64 [B, L]
    notes: tuple[str, ...] = ()  # sentences for the user
    scorer: Scorer | None = None  # puts the result's pictures in order, best first; all have one prompt then

    @property
    def variants(self) -> int:
        """B."""
        return len(self.recipes)

    @property
    def seed(self) -> int:
        """Of the first variant."""
        return self.recipes[0].seed


def stream(model: ImageBART, request: EditRequest) -> Iterator[PipelineEvent]:
    """The events of a run, from the noise to the result. Closing it stops the model and frees its caches."""
    begun = model.sampler.start(
        request.variants,
        request.settings,
        known=request.known,
        keep=request.keep,
        strength=request.strength,
        seed=request.seed,
        noise_level=request.noise_level,
        color_hints=request.color_hints,
    )
    first, scales = len(begun.steps), begun.scales
    clock = Clock(request.settings.resamples, first)
    chain = model.sampler.stream(begun, request.cond, request.settings)
    last = ChainEvent(first, scales, 0, request.settings.resamples, 0, begun.total, begun.x, False)
    yield _event(model, "start", last, request, clock)
    try:
        for last in chain:
            if last.done and not (last.stage == 1 and last.resample_index == last.resamples - 1):
                yield _event(model, "stage", last, request, clock)
            elif not last.done and clock.preview_due():
                yield _event(model, "preview", last, request, clock)
    finally:
        close = getattr(chain, "close", None)
        if close is not None:
            close()
    result = _event(model, "result", last, request, clock)
    del request  # the upload goes as soon as the result is put together
    yield result


@torch.no_grad()
def _event(model: ImageBART, kind: EventKind, event: ChainEvent, request: EditRequest, clock: Clock) -> PipelineEvent:
    """Decodes the tokens of this moment, to be put where they belong by whoever looks."""
    began = time.perf_counter()
    fraction = 1.0 if kind == "result" else clock.fraction(event)
    shown = event.tokens[:1] if kind == "preview" else event.tokens
    squares = model.first_stage.decode(shown)
    order = list(range(len(squares)))
    if kind == "result" and request.scorer is not None:
        order = best_first(request.scorer, squares.clamp(-1, 1), request.recipes[0].prompt or "")
    notes = request.notes
    if kind == "result" and request.keep is not None and request.pixels is not None and bool(request.keep.any()):
        notes = (*out_of_domain(model, request.pixels, squares[:1], request.keep), *notes)
    target, drawn = request.target, images.to_images(squares[order])
    clock.looked(kind, time.perf_counter() - began)

    def place() -> list[Image.Image]:
        began = time.perf_counter()
        placed = [target.place(square) for square in drawn]
        clock.add_preview_cost(kind, time.perf_counter() - began)
        return placed

    elapsed = clock.elapsed()
    return PipelineEvent(
        kind=kind,
        pictures=Pictures(place),
        stage=event.stage,
        stages=event.stages,
        resample_index=event.resample_index,
        resamples=event.resamples,
        position=event.position,
        total=event.total,
        fraction=fraction,
        elapsed=elapsed,
        remaining=elapsed * (1 - fraction) / fraction if fraction > 0 else None,
        seed=request.seed,
        notes=list(notes),
        recipes=tuple(request.recipes[number] for number in order),
    )


def out_of_domain(model: ImageBART, before: Tensor, after: Tensor, keep: Tensor) -> tuple[str, ...]:
    """What to say of a picture that the model does not know: one that its tokens do not bring back where they are kept.

    before, after: float [1, 3, size, size] in [-1, 1]; keep: bool [N].
    """
    side = model.first_stage.config.downsampling
    kept = keep.view(before.shape[2] // side, -1).repeat_interleave(side, 0).repeat_interleave(side, 1)
    if not model.about.knows or psnr(after.clamp(-1, 1)[..., kept], before[..., kept]).item() >= IN_DOMAIN_PSNR:
        return ()
    return (f"This model knows {model.about.knows} only; in another kind of picture, expect odd results.",)


# What a model sees in a picture without drawing: where words belong, what is there, and what of it stays.


PAINT = "paint over what should change"
SAID = 1.0  # guidance at most by a prompt that says all; with 2.5, smears were seen


def suggest_mask(model: ImageBART, scorer: Scorer | None, pixels: Tensor, prompt: str | None) -> Tensor:
    """The tokens of a square that a prompt is about: bool [rows, columns].

    pixels: float [1, 3, size, size] in [-1, 1]. What the prompt asks for is set against what the picture shows, where
    the scorer can say it, else against no words. Raises InputError where no place can be found.
    """
    conditioner = model.conditioner
    if model.denoiser is None or conditioner.kind != "text":
        raise InputError(f"This model cannot find a place by words; {PAINT}.")
    prompt = whole_characters(prompt or "")
    if not prompt.strip():
        raise InputError(f"Without words there is no place to find; say what should be there, or {PAINT}.")
    asked = conditioner.encode([prompt]).tokens
    instead = conditioner.unconditional(1)
    if torch.equal(asked, instead):
        raise InputError(f'The model knows no word of "{prompt:.60}", so that it finds no place for it; {PAINT}.')
    texts = _contrast(scorer, pixels, prompt)
    if texts is not None:
        asked, instead = conditioner.encode(texts).tokens.split(1)
    with torch.no_grad():
        known = model.first_stage.encode(pixels)
    distance = distances(model.denoiser, known, asked.to(model.device), instead.to(model.device)).cpu()
    found = place(distance.view(-1, model.first_stage.config.side))
    if not found.any():
        raise InputError(f'The model finds nothing that "{prompt:.60}" would change in this picture; {PAINT}.')
    return found


def complete_prompt(scorer: Scorer | None, pixels: Tensor, prompt: str) -> str:
    """A prompt with all else that a picture shows and that is to stay; the prompt alone where the scorer cannot say it.

    pixels: float [1, 3, size, size] in [-1, 1].
    """
    texts = _contrast(scorer, pixels, prompt)
    return prompt if texts is None else texts[0]


def cap_guidance(settings: SamplingSettings) -> SamplingSettings:
    """Settings for a prompt with the rest: where it says all, guidance only smears."""
    return replace(settings, guidance=min(settings.guidance, SAID))


def _contrast(scorer: Scorer | None, pixels: Tensor, prompt: str) -> tuple[str, str] | None:
    return scorer.contrast(pixels, prompt) if isinstance(scorer, Describer) else None


def caption(model: ImageBART, scorer: Scorer | None, pixels: Tensor) -> str:
    """What a picture shows, in words that the model knows. Raises InputError where that cannot be said.

    pixels: float [1, 3, size, size] in [-1, 1].
    """
    if not isinstance(scorer, Describer):
        raise InputError("This model cannot say what a picture shows; describe it in your own words.")
    words = scorer.describe(pixels)
    if words is None:
        known = f"knows {model.about.knows} only and" if model.about.knows else ""
        raise InputError(f"This model {known} cannot say for sure what this picture shows.".replace("  ", " "))
    return words


# What people call: generate, edit and vary, from images and words to events and images.


MAX_VARIANTS = 8


class Pipeline:
    """A model with everything around it: uploads, prompts, masks, crops, previews and pasting back."""

    def __init__(self, model: ImageBART, card: str = "", scorer: Scorer | None = None) -> None:
        # Faster on a CPU, with the same results: its convolutions need not rearrange their inputs.
        model.first_stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model
        self.card = card
        self.scorer = scorer

    @classmethod
    def from_pretrained(
        cls, source: str | PathLike[str], device: str = "cpu", dtype: str = "float32", revision: str | None = None
    ) -> Pipeline:
        """Loads a model (see `ImageBART.from_pretrained`), its card, the folder's README.md, and its scorer, if any."""
        folder = locate(source, revision=revision)
        model = ImageBART.from_pretrained(folder, device, dtype)
        model.sampler.prepare()
        card = read_card(folder) or default_card(config_of(model))
        return cls(model, without_header(card), bundled_scorer(folder, model))

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
    def can_rank(self) -> bool:
        """Whether variants can be put in order, best first."""
        return self.scorer is not None

    @property
    def can_describe(self) -> bool:
        """Whether the model can say what a picture shows."""
        return isinstance(self.scorer, Describer)

    def suggest_mask(self, image: images.Source, prompt: str | None) -> Image.Image:
        """Where the words of a prompt belong in a picture: a mask, "L", of the picture's size.

        Raises InputError for a picture or prompt that cannot be used, and where no place is found.
        """
        upload = images.load_image(image)
        box, pixels = self._whole(upload)
        mask = crop.paint_cells(suggest_mask(self.model, self.scorer, pixels, prompt).numpy(), box, upload.size)
        if mask.getbbox() is None:  # cells of a long, narrow picture's square may hold no pixel of it
            words = whole_characters(prompt or "")
            raise InputError(f'What "{words:.60}" would change lies outside of this picture; {PAINT}.')
        return mask

    def describe(self, image: images.Source) -> str:
        """What a picture shows, in words that the model knows.

        Raises InputError for a picture that cannot be used or is not of what the model knows, and where the model
        cannot describe.
        """
        return caption(self.model, self.scorer, self._whole(images.load_image(image))[1])

    def complete_prompt(
        self, image: images.Source, prompt: str | None, settings: SamplingSettings | None = None
    ) -> tuple[str, SamplingSettings]:
        """A prompt with all else that a picture shows, for what `suggest_mask` found: it covers more than what changes.

        Guidance of the model's own strength becomes less with it. Both stay as they are where the model cannot
        describe the picture. Raises InputError for a picture that cannot be used.
        """
        asked, settings = whole_characters(prompt or ""), settings or self.defaults
        told = complete_prompt(self.scorer, self._whole(images.load_image(image))[1], asked)
        less = told != asked and settings.guidance == self.defaults.guidance
        return told, cap_guidance(settings) if less else settings

    def region(self, size: tuple[int, int], mask: Image.Image, context: float = math.inf, feather: int = 0) -> Region:
        """What an edit of a picture of `size` (width, height) with this mask, context and feather redraws.

        Raises InputError where `edit` would: nothing painted, or a mask of another size.
        """
        return Region.of(masks.as_mask(mask, size), self.image_size, self.grid, context, feather)

    def generate(
        self,
        prompt: Prompts,
        *,
        seed: int | None = None,
        settings: SamplingSettings | None = None,
        variants: int = 1,
        best_first: bool = False,
    ) -> Iterator[PipelineEvent]:
        """Pictures from a prompt (or class) alone, or from each of a list. Raises InputError before the first event.

        best_first: the result's pictures are in the order in which the model's scorer finds the prompt in them.
        """
        prompts = prompt_per_variant(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("generate", prompts, seed, settings)
        return self._run(prompts, EditRequest(recipes, PasteTarget(), recipes[0].settings), best_first)

    def edit(
        self,
        image: images.Source,
        mask: Image.Image,
        prompt: Prompts = None,
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
        prompts = prompt_per_variant(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("edit", prompts, seed, settings, feather=feather, context=context)
        upload = images.load_image(image)
        region = self.region(upload.size, mask, context, feather)
        square = crop.extract(upload, region.box, self.image_size)
        pixels = images.to_tensor(square).to(self.model.device)
        left = encode_masked(self.model, pixels, torch.from_numpy(region.painted)[None])
        tokens, target = left.tokens.expand(len(prompts), -1), PasteTarget(upload, region, square)
        settings = recipes[0].settings
        request = EditRequest(
            recipes, target, settings, tokens, region.keep, left.noise_level[0], left.color_hints, pixels
        )
        return self._run(prompts, request, best_first)

    def vary(
        self,
        image: images.Source,
        strength: float,
        prompt: Prompts = None,
        *,
        seed: int | None = None,
        settings: SamplingSettings | None = None,
        variants: int = 1,
        best_first: bool = False,
    ) -> Iterator[PipelineEvent]:
        """Pictures like a picture: a share `strength` (over 0, at most 1) of its tokens becomes noise, and is redrawn.

        best_first: as for `generate`. Raises InputError before the first event.
        """
        prompts = prompt_per_variant(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("vary", prompts, seed, settings, strength=strength)
        upload = images.load_image(image)
        region = self.region(upload.size, masks.preset("everything", upload.size))
        pixels = self._pixels(upload, region.box)
        with torch.no_grad():
            known = self.model.first_stage.encode(pixels)
            notes = out_of_domain(self.model, pixels, self.model.first_stage.decode(known), ~region.keep)
        known, target = known.expand(len(prompts), -1), PasteTarget(upload, region)
        request = EditRequest(recipes, target, recipes[0].settings, known, strength=strength, notes=notes)
        return self._run(prompts, request, best_first)

    def _recipes(
        self, task: Task, prompts: list[Prompt], seed: int | None, settings: SamplingSettings | None, **more: Any
    ) -> tuple[Recipe, ...]:
        """What makes each picture, with a new seed where none is given. Raises InputError for bad values."""
        if settings is not None and not isinstance(settings, SamplingSettings):
            raise InputError(f"The settings are {format_value(settings)}; they must be SamplingSettings.")
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

    def _run(self, prompts: list[Prompt], request: EditRequest, best_first: bool) -> Iterator[PipelineEvent]:
        """Checks the prompts at once, so that bad input raises before the first event; then streams."""
        if best_first and self.scorer is None:
            raise InputError("This model has no scorer that could put variants in order; ask for them as they come.")
        if best_first and any(prompt != prompts[0] for prompt in prompts):
            raise InputError("Pictures of several prompts have no best; ask for one prompt, or for them as they come.")
        conditioner = self.model.conditioner
        read = conditioner.encode(prompts)
        settings = request.settings
        guided = conditioner.length > 0 and settings.guidance != 1
        if guided and torch.equal(read.tokens, conditioner.unconditional(request.variants)):
            settings = replace(settings, guidance=1.0)  # nothing to guide towards
        cond = read.tokens if conditioner.length else None
        request = replace(request, cond=cond, settings=settings, notes=(*request.notes, *read.notes))
        return stream(self.model, replace(request, scorer=self.scorer) if best_first else request)
