"""The pipeline: images, masks and prompts in, a stream of events with images out.

`Pipeline.generate`, `edit` and `vary` each check everything and make one `EditRequest`: what is known of the tokens,
and where the result is pasted. Then the chain is sampled, and its states are decoded into `PipelineEvent`s.
`Pipeline.edit_batch` samples the requests of several images in one chain.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import reduce
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageChops
from torch import Tensor

from imagebart.errors import InputError, format_value
from imagebart.fitting import EditOptions, FittedMask, Frames, Pass, fit_patches
from imagebart.imaging import crop, masks
from imagebart.imaging.crop import Box, Region
from imagebart.imaging.files import Source, load_image, to_images, to_tensor
from imagebart.imaging.metadata import LONGEST_NAME, Recipe, Task
from imagebart.inpainting import encode_masked, out_of_domain, paste_blended
from imagebart.model import ImageBART, locate
from imagebart.published.registry import default_card
from imagebart.ranking import Checker, Describer, Scorer, bundled_scorer
from imagebart.sampling.mask_suggestion import ADVICE
from imagebart.sampling.speculative import ChainEvent
from imagebart.sampling.steps import ChainState, KnownTokens
from imagebart.settings import SamplingSettings
from imagebart.text.conditioners import Prompt, TextConditioner
from imagebart.text.prompts import Prompts, check_prompt, prompt_per_variant
from imagebart.weights import config_of, read_card, without_header
from imagebart.worlds.things import ThingScorer

EventKind = Literal["start", "preview", "stage", "result"]
PREVIEW_SHARE = 0.1  # of the time, for previews
FIRST_SHARE = 0.5  # of the time until then, for the first preview
CORRECTOR_SHARE = 0.5  # of a stage's time, for a corrector step
MAX_VARIANTS = 8
PASS_SEEDS = 1_000_003  # from the seed of a pass to that of the next
EDIT_MARGIN = 3.0  # dB, see out_of_domain
AS_PAINTED = EditOptions()
IDLE = Pass(None)
MISSED = "The result does not seem to show what your words ask for."


class LazyImages:
    """Images that are made on the first call, as those of a large upload cost time and memory."""

    def __init__(self, make: Callable[[], list[Image.Image]]) -> None:
        self._make: Callable[[], list[Image.Image]] | None = make
        self._made: list[Image.Image] = []

    def __call__(self) -> list[Image.Image]:
        if self._make is not None:
            self._made = self._make()
            self._make = None  # frees the upload
        return self._made


@dataclass(frozen=True, kw_only=True)
class PipelineEvent(ChainEvent):
    """A state of a run. `image` has the upload's size and, outside of the mask, its exact pixels."""

    kind: EventKind  # x_T; within a step; the end of a step; the last event
    lazy_images: LazyImages
    fraction: float  # of the whole run, 0 to 1
    elapsed: float  # seconds
    remaining: float | None  # seconds; None at the start
    seed: int
    notes: list[str]  # sentences for the user
    recipes: tuple[Recipe, ...]  # what makes each of `images`
    mask: Image.Image | None = None  # "L": what may change; None: all of it
    elsewhere: Image.Image | None = None  # the place that the words are about, where something else was painted
    missed: bool = False  # whether the scorer does not find in the result what the words ask for
    drawing: str = ""  # what of the first image is being drawn, in words, where it is drawn in several passes

    @property
    def image(self) -> Image.Image:
        """The first of `images`."""
        return self.images[0]

    @property
    def images(self) -> list[Image.Image]:
        """Of all variants; in a preview, of the first alone. They are pasted on the first use."""
        return self.lazy_images()

    @property
    def recipe(self) -> Recipe:
        """What makes `image`."""
        return self.recipes[0]

    @property
    def variants(self) -> tuple[int, ...]:
        """The index of each of `images` in the run: 0, 1, … unless they are ranked, best first."""
        return tuple(recipe.variant for recipe in self.recipes)


class Clock:
    """The time since the start, the progress, and when the next preview is due."""

    def __init__(self, settings: SamplingSettings, costs: Sequence[float]) -> None:
        """costs: the time of a pass of each step, from the first to the last, in any unit."""
        self._began = time.perf_counter()
        self._costs = costs
        self._steps = settings.resamples * sum(costs)
        self._corrector = CORRECTOR_SHARE * costs[-1]
        self._total = self._steps + settings.corrector_steps * self._corrector
        self._cost = 0.0  # of the last event, seconds
        self._spent = 0.0  # on previews

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    def fraction(self, event: ChainEvent) -> float:
        """How much of the run is done, 0 to 1."""
        own = event.position / max(event.total, 1)
        if event.corrector_step:
            done = self._steps + self._corrector * (event.corrector_step - 1 + own)
        else:
            step = len(self._costs) - event.stage
            done = sum(self._costs[:step]) * event.resamples + self._costs[step] * (event.resample_index + own)
        return min(done / self._total, 1.0)

    def preview_due(self) -> bool:
        """Whether one more preview, as long as the last event, keeps all of them within PREVIEW_SHARE of the time."""
        share = PREVIEW_SHARE if self._spent else FIRST_SHARE
        return self._spent + self._cost <= share * self.elapsed()

    def record(self, kind: EventKind, seconds: float) -> None:
        """Notes how long an event took."""
        self._cost = 0.0
        self.add_preview_cost(kind, seconds)

    def add_preview_cost(self, kind: EventKind, seconds: float) -> None:
        """Adds to the time of the last event."""
        self._cost += seconds
        if kind == "preview":
            self._spent += seconds


@dataclass(frozen=True)
class EditRequest:
    """What one call draws: B images, each in as many passes."""

    recipes: tuple[Recipe, ...]  # of each variant; they differ in its number and prompt alone
    settings: SamplingSettings  # that are sampled by; the recipes have those that were asked for
    images: tuple[Image.Image | None, ...]  # each variant before; None: a new one
    passes: tuple[tuple[Pass, ...], ...]  # of each variant
    mask: Image.Image | None = None
    elsewhere: Image.Image | None = None
    notes: tuple[str, ...] = ()  # sentences for the user
    best_first: bool = False

    @property
    def framed(self) -> bool:
        """Whether things are drawn in frames."""
        return any(one.frame for own in self.passes for one in own)

    @property
    def steps(self) -> list[tuple[Pass, ...]]:
        """The passes in turn, each of all variants; one that has fewer waits."""
        longest = max(map(len, self.passes))
        return list(zip(*(own + (IDLE,) * (longest - len(own)) for own in self.passes), strict=True))


@dataclass(frozen=True)
class Canvas:
    """The images that a pass draws on, and the square of each that the model sees."""

    images: list[Image.Image | None]
    passes: tuple[Pass, ...]
    squares: list[Image.Image | None]
    known: KnownTokens | None

    def paste(self, generated: Sequence[Image.Image]) -> list[Image.Image]:
        """The first of the images with generated squares in their regions."""
        pasted = []
        for image, one, before, square in zip(self.images, self.passes, self.squares, generated, strict=False):
            if image is None or before is None or one.region is None:
                pasted.append(square if image is None else image)
            else:
                pasted.append(paste_blended(image, one.region, before, square))
        return pasted


class Verdict:
    """How well each image shows what was asked for, over all passes so far."""

    def __init__(self, count: int) -> None:
        self.scores = torch.zeros(count)
        self.missed = [False] * count

    def add(self, scorer: Scorer | None, canvas: Canvas, squares: Tensor, request: EditRequest) -> None:
        """Takes what a pass has drawn: squares, float [B, 3, S, S]."""
        words, squares = request.recipes[0].prompt or "", squares.clamp(-1, 1)
        if scorer is None:
            return
        if not request.framed:
            if request.best_first:
                self.scores = scorer.score(squares, words)
            # One of things looks at one thing at a time.
            if words and isinstance(scorer, Checker) and not isinstance(scorer, ThingScorer):
                self.missed = [not shown for shown in scorer.shows(squares, words)]
            return
        for row, (one, square) in enumerate(zip(canvas.passes, squares, strict=True)):
            if not one.frame:  # the ground
                continue
            if request.best_first:
                self.scores[row] += scorer.score(square[None], str(one.prompt))[0]
            if isinstance(scorer, Checker) and not all(scorer.shows(one.framed(square[None]), str(one.prompt))):
                self.missed[row] = True


@dataclass(frozen=True)
class Edit:
    """One of the edits of a batch: see `Pipeline.edit`."""

    image: Source
    mask: Image.Image
    prompt: Prompt = None
    seed: int | None = None


class Pipeline:
    """A model with uploads, prompts, masks, crops, previews and pasting."""

    def __init__(self, model: ImageBART, card: str = "", scorer: Scorer | None = None) -> None:
        # Faster on a CPU, with the same results.
        model.first_stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model
        self.card = card
        self.scorer = scorer
        patches = model.about.frame
        self._frames = Frames(model, scorer, patches) if patches and isinstance(scorer, ThingScorer) else None

    @classmethod
    def from_pretrained(
        cls, source: str | PathLike[str], device: str = "cpu", dtype: str = "float32", revision: str | None = None
    ) -> Pipeline:
        """Loads a model (see `ImageBART.from_pretrained`), its card, the folder's README.md, and its scorer, if any."""
        folder = locate(source, revision=revision)
        model = ImageBART.from_pretrained(folder, device, dtype)
        model.sampler.warm_up()
        card = read_card(folder) or default_card(config_of(model))
        return cls(model, without_header(card), bundled_scorer(folder, model))

    @property
    def name(self) -> str:
        return self.model.about.name

    @property
    def knows(self) -> str:
        """What the training images show; "" where unknown."""
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
        """Names of a class model's classes; [] for others."""
        return list(self.model.classes)

    @property
    def vocabulary(self) -> list[str]:
        """Words that a text model knows, or its scorer; [] for others."""
        conditioner = self.model.conditioner
        if not isinstance(conditioner, TextConditioner):
            return []
        return sorted((*conditioner.words, *conditioner.understood))

    @property
    def suggestions(self) -> dict[str, tuple[str, ...]]:
        """Words to add to a prompt, by what they describe ("hair")."""
        return dict(self.model.about.suggestions)

    @property
    def surprises(self) -> int:
        """How many suggestions a random prompt has at most."""
        return self.model.about.surprises

    def unknown_words(self, prompt: str) -> list[str]:
        """The prompt's words that the model will leave out, as written, each once."""
        conditioner = self.model.conditioner
        return conditioner.unknown_words(prompt) if isinstance(conditioner, TextConditioner) else []

    def corrections(self, prompt: str) -> dict[str, str]:
        """The prompt's words that will be read as others: {"sunglases": "sunglasses"}."""
        conditioner = self.model.conditioner
        found = conditioner.corrections(prompt) if isinstance(conditioner, TextConditioner) else []
        return {one.typed: one.meant for one in found}

    @property
    def image_size(self) -> int:
        """Pixels a side of the model's images."""
        return self.model.first_stage.config.resolution

    @property
    def grid(self) -> int:
        """Tokens a side."""
        return self.model.first_stage.config.side

    @property
    def stages(self) -> int:
        """T, by default."""
        return self.model.scales_of(None)

    @property
    def any_scales(self) -> bool:
        """Whether T can be chosen."""
        return self.model.denoiser is not None

    @property
    def can_rank(self) -> bool:
        """Whether variants can be ranked, best first."""
        return self.scorer is not None

    def fit_mask(
        self,
        image: Source,
        mask: Image.Image | None,
        prompt: Prompt = None,
        *,
        settings: SamplingSettings | None = None,
        options: EditOptions = AS_PAINTED,
    ) -> FittedMask:
        """What an edit of a mask changes, and how: see `imagebart.fitting`.

        mask: see `masks.as_mask`; None, or nothing painted: the place that the words are about, as the model's scorer
        finds it. Raises InputError for bad input, and where there is neither a mask nor such a place.
        """
        return self._fit(load_image(image), mask, prompt, settings or self.defaults, options)

    def _fit(
        self,
        upload: Image.Image,
        mask: Image.Image | None,
        prompt: Prompt,
        settings: SamplingSettings,
        options: EditOptions,
    ) -> FittedMask:
        prompt = None if options.remove else prompt
        if mask is not None:
            mask = masks.as_mask(mask, upload.size, empty=bool(prompt) and not options.exact)
            mask = mask if mask.getbbox() else None
        words = prompt if isinstance(prompt, str) and self.conditioning == "text" else ""
        if mask is not None and options.exact:
            region = Region.of(mask, self.image_size, self.grid, options.context, options.feather)
            fitted = FittedMask.of([Pass(prompt, region)], settings)
        else:
            frames = self._frames
            thing = None if frames is None else frames.fit(upload, mask, words, settings, options)
            fitted = thing or fit_patches(self.model, self.scorer, upload, mask, words, settings, options)
            if not words and thing is None:  # a class
                fitted = replace(fitted, passes=(Pass(prompt, fitted.passes[0].region),))
        if fitted.mask.getbbox() is None:  # patches past a long, narrow image's edge, or smaller than a pixel
            if mask is None:
                raise InputError(f'What "{words:.60}" would change lies outside of this image; {ADVICE}.')
            return self._fit(upload, mask, prompt, settings, replace(options, exact=True))
        return fitted

    def suggest_mask(self, image: Source, prompt: str | None) -> Image.Image:
        """The part of an image that a prompt would change: a mask, "L", of the image's size.

        Where the model's scorer finds things: where those are that the prompt names, or free space for them.
        Raises InputError for an image or prompt that cannot be used, and where nothing is found.
        """
        return self.fit_mask(image, None, _words(prompt)).mask

    def describe(self, image: Source) -> str:
        """What an image shows, in words that the model knows.

        Raises InputError for an image that cannot be used or described, and where the model has no describing scorer.
        """
        _, pixels = self._whole(load_image(image))
        if not isinstance(self.scorer, Describer):
            raise InputError("This model cannot say what an image shows; describe it in your own words.")
        words = self.scorer.describe(pixels)
        if words is None:
            known = f" knows {self.knows} only and" if self.knows else ""
            raise InputError(f"This model{known} cannot say for sure what this image shows.")
        return words

    def domain_notes(self, image: Source) -> tuple[str, ...]:
        """A sentence where the model does not know such images; none where it does, or does not say what it knows."""
        pixels = self._whole(load_image(image))[1]
        first_stage = self.model.first_stage
        with torch.no_grad():
            reconstructed = first_stage.decode(first_stage.encode(pixels))
        return out_of_domain(self.model, pixels, reconstructed, torch.ones(self.grid**2, dtype=torch.bool))

    def generate(
        self,
        prompt: Prompts,
        *,
        seed: int | None = None,
        settings: SamplingSettings | None = None,
        variants: int = 1,
        best_first: bool = False,
    ) -> Iterator[PipelineEvent]:
        """Images from a prompt (or class) alone, or from each of a list. Raises InputError before the first event.

        A model with a frame draws the ground, then each thing in a square of its own. best_first: the result's images
        are ranked by the model's scorer.
        """
        prompts = prompt_per_variant(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("generate", prompts, seed, settings)
        frames = self._frames
        passes = []
        for one, words in zip(recipes, prompts, strict=True):
            plan = frames.plan(words, one.own_seed) if frames is not None and isinstance(words, str) else None
            passes.append(plan or (Pass(words),))
        images = (None,) * len(recipes)
        return self._run(
            prompts, EditRequest(recipes, recipes[0].settings, images, tuple(passes), best_first=best_first)
        )

    def edit(
        self,
        image: Source,
        mask: Image.Image | None,
        prompt: Prompts = None,
        *,
        seed: int | None = None,
        settings: SamplingSettings | None = None,
        exact: bool = False,
        movable: bool = False,
        remove: bool = False,
        feather: int = 0,
        context: float = math.inf,
        variants: int = 1,
        best_first: bool = False,
    ) -> Iterator[PipelineEvent]:
        """Regenerates what is painted, by a prompt or each of a list; all else is kept, see `PipelineEvent.mask`.

        mask: of the image's size, see `masks.as_mask`; a grey value is a strength, see `masks`; None: the place that
        the words are about. It is fitted to the model and the words, see `fit_mask`, unless it is `exact`: then no
        pixel changes that is not painted. movable: nobody painted it, so that words about another place move it.
        remove: what is painted goes, without words. feather: pixels over which the change fades in at the mask's edge,
        inwards. context: how much around the mask the model sees, over the mask's longer side (inf: all it can).
        best_first: as for `generate`. Raises InputError before the first event for bad input.
        """
        prompts = prompt_per_variant(None if remove else prompt, variants, MAX_VARIANTS)
        options = EditOptions(exact, movable, remove, feather, context)
        recipes = self._recipes("edit", prompts, seed, settings, **vars(options))
        return self._run(prompts, replace(self._edit_request(image, mask, prompts, recipes), best_first=best_first))

    def edit_batch(
        self,
        edits: Sequence[Edit],
        *,
        settings: SamplingSettings | None = None,
        exact: bool = False,
        movable: bool = False,
        remove: bool = False,
        feather: int = 0,
        context: float = math.inf,
    ) -> Iterator[PipelineEvent]:
        """The results of `edit` for several images, in their order, all sampled in one chain.

        Each is what `edit` gives with its mask, prompt and seed; but sums of a batch are rounded differently, so that
        now and then a token differs where two are almost equally likely. Raises InputError before the first.
        """
        options = vars(EditOptions(exact, movable, remove, feather, context))
        self._recipes("edit", [None], 0, settings, **options)  # also without edits
        requests = []
        for edit in edits:
            prompts = prompt_per_variant(None if remove else edit.prompt, 1, 1)
            recipes = self._recipes("edit", prompts, edit.seed, settings, **options)
            request = self._edit_request(edit.image, edit.mask, prompts, recipes)
            requests.append(replace(request, notes=(*request.notes, *self._prompt_notes(prompts))))
        return self._batch(requests)

    def _batch(self, requests: list[EditRequest]) -> Iterator[PipelineEvent]:
        canvases: dict[int, Canvas] = {}
        last: dict[int, tuple[ChainEvent, Clock]] = {}
        verdicts = [Verdict(1) for _ in requests]
        for number in range(max((len(one.steps) for one in requests), default=0)):
            chains: dict[tuple[float | None, float], list[int]] = {}  # by what one chain has in common
            for index, request in enumerate(requests):
                if number >= len(request.steps):
                    continue
                if index in canvases:  # what the pass before has drawn
                    generated = self._decode(last[index][0].tokens)
                    verdicts[index].add(self.scorer, canvases[index], generated, request)
                    request = replace(request, images=tuple(canvases[index].paste(to_images(generated))))
                canvases[index] = self._canvas(list(request.images), request.steps[number], request)
                known = canvases[index].known
                strength = known.max_strength if known else None
                chains.setdefault((strength, request.settings.guidance), []).append(index)
            for indices in chains.values():
                known = KnownTokens.concatenate([known for i in indices if (known := canvases[i].known)])
                prompts = [requests[i].steps[number][0].prompt for i in indices]
                tokens = self.model.conditioner.encode(prompts).tokens
                cond, settings = self.model.condition(tokens, requests[indices[0]].settings)
                seeds = [requests[i].recipes[0].seed + number * PASS_SEEDS for i in indices]
                state = self.model.sampler.prepare(len(indices), settings, cond, known=known, seed=seeds)
                clock = Clock(settings, [1.0] * len(state.steps))
                *_, event = self._first_event(state, settings), *self.model.sampler.stream(state, settings)
                for row, index in enumerate(indices):
                    last[index] = replace(event, tokens=event.tokens[row : row + 1]), clock
        for index, request in enumerate(requests):
            yield self._event("result", last[index][0], canvases[index], request, last[index][1], verdicts[index])

    def vary(
        self,
        image: Source,
        strength: float,
        prompt: Prompts = None,
        *,
        seed: int | None = None,
        settings: SamplingSettings | None = None,
        variants: int = 1,
        best_first: bool = False,
    ) -> Iterator[PipelineEvent]:
        """Variations of an image: a share `strength` (over 0, at most 1) of its tokens is regenerated.

        best_first: as for `generate`. Raises InputError before the first event.
        """
        prompts = prompt_per_variant(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("vary", prompts, seed, settings, strength=strength)
        upload = load_image(image)
        region = Region.of(masks.preset("everything", upload.size), self.image_size, self.grid)
        passes = tuple((Pass(words, region),) for words in prompts)
        request = EditRequest(recipes, recipes[0].settings, (upload,) * len(prompts), passes, best_first=best_first)
        return self._run(prompts, replace(request, notes=self.domain_notes(upload)))

    def _recipes(
        self, task: Task, prompts: list[Prompt], seed: int | None, settings: SamplingSettings | None, **more: Any
    ) -> tuple[Recipe, ...]:
        """The recipe of each image, with a new seed where none is given. Raises InputError for bad values."""
        if settings is not None and not isinstance(settings, SamplingSettings):
            raise InputError(f"The settings are {format_value(settings)}; they must be SamplingSettings.")
        if task == "vary" and more["strength"] is None:
            raise InputError("The strength is None; it must be a number over 0 and at most 1.")
        settings = self.defaults if settings is None else settings
        self.model.sampler.steps(settings)  # raises for scales or a start that the model does not have
        seed = secrets.randbelow(2**32) if seed is None else seed
        texts = [None if prompt is None else str(prompt) for prompt in prompts]
        name = self.name[:LONGEST_NAME]
        return tuple(
            Recipe.parse(model=name, task=task, prompt=text, seed=seed, settings=settings, variant=i, **more)
            for i, text in enumerate(texts)
        )

    def _edit_request(
        self, image: Source, mask: Image.Image | None, prompts: list[Prompt], recipes: tuple[Recipe, ...]
    ) -> EditRequest:
        upload, recipe = load_image(image), recipes[0]
        options = EditOptions(recipe.exact, recipe.movable, recipe.remove, recipe.feather, recipe.context)
        fits = {prompt: self._fit(upload, mask, prompt, recipe.settings, options) for prompt in dict.fromkeys(prompts)}
        own = [fits[prompt] for prompt in prompts]
        frames = self._frames
        passes = [one.passes for one in own]
        if frames is not None:  # of a group of things, each variant has its own
            passes = [frames.choose(one, recipe.own_seed) for one, recipe in zip(passes, recipes, strict=True)]
        shown = reduce(ImageChops.lighter, (one.mask for one in fits.values()))
        notes = tuple(dict.fromkeys(note for one in own for note in one.notes))
        strengths = {
            value for step in own[0].passes if step.region for value in np.unique(step.region.strength) if value
        }
        if not self.any_scales and len(strengths) > 1:
            notes += (
                f"This model knows one strength for all of a mask: it used the largest, {max(strengths) / 255:.0%}.",
            )
        images = (upload,) * len(prompts)
        return EditRequest(recipes, own[0].settings, images, tuple(passes), shown, own[0].elsewhere, notes)

    def _whole(self, upload: Image.Image) -> tuple[Box, Tensor]:
        """The square that holds all of an image, and its pixels as the model sees them, [1, 3, size, size]."""
        box = self._whole_box(upload)
        return box, to_tensor(crop.extract(upload, box, self.image_size)).to(self.model.device)

    def _whole_box(self, upload: Image.Image) -> Box:
        return crop.crop_box(masks.preset("everything", upload.size), self.image_size, math.inf)

    def _run(self, prompts: list[Prompt], request: EditRequest) -> Iterator[PipelineEvent]:
        """Encodes the prompts, which raises InputError for bad ones, and returns the stream of events."""
        if not isinstance(request.best_first, bool):
            raise InputError(
                f"The value of best_first is {format_value(request.best_first)}; it must be true or false."
            )
        if request.best_first and self.scorer is None:
            raise InputError("This model has no scorer that could rank variants; ask for them as they come.")
        if request.best_first and any(prompt != prompts[0] for prompt in prompts):
            raise InputError("Images of several prompts have no best; ask for one prompt, or for them as they come.")
        return self._stream(replace(request, notes=(*request.notes, *self._prompt_notes(prompts))))

    def _prompt_notes(self, prompts: list[Prompt]) -> tuple[str, ...]:
        """What of prompts is not drawn as it is said. Raises InputError for bad ones."""
        notes = list(self.model.conditioner.encode(prompts).notes)
        if isinstance(self.scorer, ThingScorer):
            notes += [note for words in prompts if isinstance(words, str) for note in self.scorer.notes(words)]
        return tuple(dict.fromkeys(notes))

    def _stream(self, request: EditRequest) -> Iterator[PipelineEvent]:
        """The events of a run. Closing it stops the model and frees its caches."""
        verdict = Verdict(len(request.recipes))
        with closing(self._chains(request, verdict)) as chains:
            last, canvas = next(chains)
            clock = Clock(request.settings, self._costs(request, last.stage))
            yield self._event("start", last, canvas, request, clock, verdict)
            for last, canvas in chains:
                # The end of the last step is the result, unless the corrector follows, whose end is.
                corrects = request.settings.corrector_steps
                final = last.stage == 1 and last.resample_index == last.resamples - 1 and not corrects
                if last.done and not final and not last.corrector_step:
                    yield self._event("stage", last, canvas, request, clock, verdict)
                elif (not last.done or last.corrector_step) and clock.preview_due():
                    yield self._event("preview", last, canvas, request, clock, verdict)
        result = self._event("result", last, canvas, request, clock, verdict)
        del request, canvas  # the upload is freed as soon as the result is pasted
        yield result

    def _chains(self, request: EditRequest, verdict: Verdict) -> Generator[tuple[ChainEvent, Canvas], None, None]:
        """x_T, then an event after every step of the decoder, each with what it is drawn on.

        The steps of all passes count as those of one chain.
        """
        sampler, recipe, count = self.model.sampler, request.recipes[0], len(request.recipes)
        images, steps = list(request.images), request.steps
        for number, passes in enumerate(steps):
            canvas = self._canvas(images, passes, request)
            tokens = self.model.conditioner.encode([one.prompt for one in passes]).tokens
            cond, settings = self.model.condition(tokens, request.settings)
            seed = recipe.seed + number * PASS_SEEDS
            strength = recipe.strength or 1.0
            state = sampler.prepare(count, settings, cond, known=canvas.known, strength=strength, seed=seed)
            after = (len(steps) - 1 - number) * state.scales  # steps of the passes that follow
            last = self._first_event(state, settings)
            last = replace(last, stage=last.stage + after, stages=len(steps) * state.scales)
            if number == 0:
                yield last, canvas
            with closing(sampler.stream(state, settings)) as chain:  # type: ignore[type-var]
                for event in chain:
                    last = replace(event, stage=event.stage + after, stages=len(steps) * state.scales)
                    if not (after and event.corrector_step):
                        yield last, canvas
            if after:
                generated = self._decode(last.tokens)
                verdict.add(self.scorer, canvas, generated, request)
                images = list(canvas.paste(to_images(generated)))

    def _canvas(self, images: list[Image.Image | None], passes: tuple[Pass, ...], request: EditRequest) -> Canvas:
        """What a pass draws on. What several variants have in common is encoded once."""
        vary = request.recipes[0].strength is not None
        encoded: dict[tuple[int, int], tuple[Image.Image, KnownTokens]] = {}
        keys = [(id(image), id(one.region)) for image, one in zip(images, passes, strict=True)]
        for key, image, one in zip(keys, images, passes, strict=True):
            if image is not None and key not in encoded:
                region = one.region or self._waiting(image)
                square = crop.extract(image, region.box, self.image_size)
                encoded[key] = square, self._known(square, region, vary)
        if not encoded:
            return Canvas(images, passes, [None] * len(images), None)
        rows = [encoded[key][1] for key in (keys if len(encoded) > 1 else keys[:1])]
        return Canvas(images, passes, [encoded[key][0] for key in keys], KnownTokens.concatenate(rows))

    def _waiting(self, image: Image.Image) -> Region:
        """The region of a variant that has fewer passes than others: nothing of it is drawn."""
        box, nothing = self._whole_box(image), np.zeros((self.grid, self.grid), np.uint8)
        return Region.of_patches(nothing, box, image.size, self.image_size)

    @torch.no_grad()
    def _known(self, square: Image.Image, region: Region, vary: bool) -> KnownTokens:
        pixels = to_tensor(square).to(self.model.device)
        if vary:
            return KnownTokens(self.model.first_stage.encode(pixels))
        strength = torch.from_numpy(region.token_strength).view(1, -1) / 255
        return encode_masked(self.model, pixels, torch.from_numpy(region.painted)[None], strength)

    def _costs(self, request: EditRequest, steps: int) -> list[float]:
        """The time of each step of a run: equal, except that a pass takes less where it has fewer tokens."""
        sizes = [1.0 if one.region is None else float(one.region.regenerated.mean()) for one, *_ in request.steps]
        return [1 + size for size in sizes for _ in range(steps // len(sizes))]

    def _first_event(self, state: ChainState, settings: SamplingSettings) -> ChainEvent:
        """The state before the first pass."""
        return ChainEvent(
            tokens=state.x,
            stage=len(state.steps),
            stages=state.scales,
            resample_index=0,
            resamples=settings.resamples,
            total=state.total,
        )

    @torch.no_grad()
    def _decode(self, tokens: Tensor) -> Tensor:
        return self.model.first_stage.decode(tokens)

    def _event(
        self, kind: EventKind, event: ChainEvent, canvas: Canvas, request: EditRequest, clock: Clock, verdict: Verdict
    ) -> PipelineEvent:
        """Decodes an event's tokens, to be pasted on the first use of its images."""
        began = time.perf_counter()
        fraction = 1.0 if kind == "result" else clock.fraction(event)
        squares = self._decode(event.tokens[:1] if kind == "preview" else event.tokens)
        order, notes = list(range(len(squares))), list(request.notes)
        if kind == "result":
            verdict.add(self.scorer, canvas, squares, request)
            if request.best_first:
                order = verdict.scores.argsort(descending=True, stable=True).tolist()
            if verdict.missed[order[0]]:
                notes.append(MISSED)
            before, region = canvas.squares[0], canvas.passes[0].region
            if before is not None and region is not None and request.mask is not None:
                pixels, keep = to_tensor(before).to(squares.device), torch.from_numpy(~region.regenerated).flatten()
                notes = [*out_of_domain(self.model, pixels, squares[:1], keep, EDIT_MARGIN), *notes]
        generated = to_images(squares)
        clock.record(kind, time.perf_counter() - began)

        def paste() -> list[Image.Image]:
            began = time.perf_counter()
            pasted = canvas.paste(generated)
            clock.add_preview_cost(kind, time.perf_counter() - began)
            return [pasted[number] for number in order]

        elapsed = clock.elapsed()
        return PipelineEvent(
            **vars(event),
            kind=kind,
            lazy_images=LazyImages(paste),
            fraction=fraction,
            elapsed=elapsed,
            remaining=elapsed * (1 - fraction) / fraction if fraction > 0 else None,
            seed=request.recipes[0].seed,
            notes=notes,
            recipes=tuple(request.recipes[number] for number in order),
            mask=request.mask,
            elsewhere=request.elsewhere,
            missed=verdict.missed[order[0]],
            drawing=str(canvas.passes[0].prompt or "") if len(request.steps) > 1 else "",
        )


def _words(prompt: str | None) -> str:
    """A prompt in words, "" without one; raises InputError for another type."""
    words = check_prompt(prompt)
    if isinstance(words, int):
        raise InputError(f"The prompt is {words}; it must be a text.")
    return words or ""
