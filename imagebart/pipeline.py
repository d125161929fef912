"""The pipeline: images, masks and prompts in, a stream of events with images out.

`Pipeline.generate`, `edit` and `vary` each check everything and make one `Run`: B images, each drawn in passes, one
after the other, of which a new image and a variation have the simplest. The chain of a pass is sampled, and its states
are decoded into `PipelineEvent`s. `Pipeline.edit_batch` samples the runs of several images in one chain.
"""

import math
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import zip_longest
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageChops
from torch import Tensor

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.fitting import ELSEWHERE, FittedMask, Layers, Pass, fit_patches
from imagebart.imaging import masks
from imagebart.imaging.blending import blend, fill, is_textured
from imagebart.imaging.crop import Region, extract, paste_back, whole_box
from imagebart.imaging.files import (
    LONGEST_NAME,
    Recipe,
    Source,
    Task,
    load_image,
    on_gray,
    to_images,
    to_layers,
    to_tensor,
)
from imagebart.model import ImageBART, locate
from imagebart.sampling.inpainting import ADVICE, encode_masked, out_of_domain
from imagebart.sampling.steps import ChainEvent, KnownTokens
from imagebart.text.conditioners import Prompt, TextConditioner
from imagebart.text.prompts import Prompts, check_prompt, prompt_per_variant
from imagebart.weights.folder import config_of, read_card
from imagebart.weights.registry import default_card
from imagebart.worlds.ranking import Checker, Describer, Scorer, bundled_scorer
from imagebart.worlds.things import ThingScorer, recolored

EventKind = Literal["start", "preview", "stage", "result"]
PREVIEW_SHARE = 0.1  # of the time, for previews
FIRST_SHARE = 0.5  # of the time until then, for the first preview
CORRECTOR_SHARE = 0.5  # of a stage's time, for a corrector step
MAX_VARIANTS = 8
PASS_SEEDS = 1_000_003  # from the seed of a pass to that of the next
EDIT_MARGIN = 3.0  # dB, see out_of_domain
IDLE = Pass(None)
NOTHING_DRAWN = ChainEvent(  # of a run without passes: what goes is filled
    tokens=torch.zeros(0, 0), stage=1, stages=1, resample_index=0, resamples=1, done=True
)
MISSED = "The result does not seem to show what your words ask for."
OFFERED = (MISSED, ELSEWHERE)  # notes that the page shows with a button where something else is painted
SCATTERED = "Nothing of it would be seen in what you painted exactly; paint one place for it."
SMOOTH = "What goes is filled with the colors around it, without their texture."
ONE_STRENGTH = "This model knows one strength for all of a mask: it used the largest, {:.0%}."


class LazyImages:
    """Images that are made on the first call, as those of a large upload cost time and memory."""

    def __init__(self, make: Callable[[], list[Image.Image]]) -> None:
        self._make: Callable[[], list[Image.Image]] | None = make
        self._made: list[Image.Image] = []

    def __call__(self) -> list[Image.Image]:
        if self._make is not None:
            self._made, self._make = self._make(), None  # frees the upload
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
        return self.images[0]

    @property
    def images(self) -> list[Image.Image]:
        """Of all variants; in a preview, of the first alone. They are pasted on the first use."""
        return self.lazy_images()

    @property
    def recipe(self) -> Recipe:
        return self.recipes[0]

    @property
    def variants(self) -> tuple[int, ...]:
        """The index of each of `images` in the run: 0, 1, … unless they are ranked, best first."""
        return tuple(recipe.variant for recipe in self.recipes)


class Clock:
    """The time since the start, the progress, and when the next preview is due."""

    def __init__(self, settings: SamplingSettings, stages: int) -> None:
        """stages: of all passes."""
        self._began = time.perf_counter()
        self._stages = stages
        self._steps = settings.resamples * stages
        self._total = self._steps + settings.corrector_steps * CORRECTOR_SHARE
        self._cost = 0.0  # of the last event, seconds
        self._spent = 0.0  # on previews

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    def fraction(self, event: ChainEvent) -> float:
        """How much of the run is done, 0 to 1."""
        share = event.position / max(event.total, 1)
        if event.corrector_step:
            done = self._steps + CORRECTOR_SHARE * (event.corrector_step - 1 + share)
        else:
            done = (self._stages - event.stage) * event.resamples + event.resample_index + share
        return min(done / self._total, 1.0)

    def preview_due(self) -> bool:
        """Whether one more preview, as long as the last event, keeps all of them within PREVIEW_SHARE of the time."""
        share = PREVIEW_SHARE if self._spent else FIRST_SHARE
        return self._spent + self._cost <= share * self.elapsed()

    def record(self, kind: EventKind, seconds: float, pasted: bool = False) -> None:
        """Notes how long an event took; pasted: how much longer, as it is pasted later."""
        self._cost = self._cost + seconds if pasted else seconds
        self._spent += seconds if kind == "preview" else 0.0


@dataclass
class Run:
    """What one call draws: B variants, each in passes; `images` are as the passes before have left them."""

    recipes: tuple[Recipe, ...]  # of each variant; they differ in its number and prompt alone
    settings: SamplingSettings  # that are sampled by; the recipes have those that were asked for
    images: Sequence[Image.Image | None]  # of each variant; None: a new one
    passes: Sequence[tuple[Pass, ...]]  # of each variant
    notes: tuple[str, ...] = ()  # sentences for the user
    mask: Image.Image | None = None
    elsewhere: Image.Image | None = None
    best_first: bool = False
    # Of the pass that is drawn: its part of each variant, and the squares of the images that the model sees.
    current: tuple[Pass, ...] = ()
    squares: Sequence[Image.Image | None] = ()  # None: a new image, or a layer
    # Over all passes so far: how well each variant shows what was asked for, and those in which something is missed.
    scores: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    missed: set[int] = field(default_factory=set)

    @property
    def turns(self) -> list[tuple[Pass, ...]]:
        """The passes in turn, each of all variants; one that has fewer waits."""
        return list(zip_longest(*self.passes, fillvalue=IDLE))

    def paste(self, generated: Sequence[Image.Image], seamless: bool = True) -> list[Image.Image]:
        """The images of the first variants or all, with the squares that the current pass has generated for them.

        seamless: as `blend` makes them, which takes as long as to decode them; at the end of a pass.
        """
        pasted = []
        for image, part, before, square in zip(self.images, self.current, self.squares, generated, strict=False):
            if image is None:
                pasted.append(square)
            elif part.region is None:
                pasted.append(image)
            else:
                joined = square  # a layer is laid on the image as it is
                if seamless and before is not None:
                    joined = blend(square, before, part.region.unknown(image.size))
                pasted.append(paste_back(image, joined, part.region.alpha, part.region.box))
        return pasted


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
        about, shape = model.about, model.first_stage.config
        self.model, self.card, self.scorer = model, card, scorer
        self.name, self.knows = about.name, about.knows  # knows: what the training images show, "" where unknown
        self.suggestions = about.suggestions  # words to add to a prompt, by what they describe ("hair")
        self.surprises = about.surprises  # suggestions in a random prompt, at most
        self.conditioning, self.classes = model.conditioner.kind, list(model.classes)  # [] where it has none
        self.image_size, self.grid = shape.resolution, shape.side  # pixels a side of the model's images, tokens a side
        self.stages, self.any_scales = model.scales_of(None), model.denoiser is not None  # T, and whether others go too
        self._words = model.conditioner if isinstance(model.conditioner, TextConditioner) else None
        self.draws_layers = shape.draws_layers  # they are laid on images, of any kind, which are never reconstructed
        self._layers = Layers(shape, scorer) if self.draws_layers and isinstance(scorer, ThingScorer) else None

    @classmethod
    def from_pretrained(
        cls, source: str | PathLike[str], device: str = "cpu", dtype: str = "float32", revision: str | None = None
    ) -> "Pipeline":
        """Loads a model (see `ImageBART.from_pretrained`), its card, the folder's README.md, and its scorer, if any."""
        folder = locate(source, revision=revision)
        model = ImageBART.from_pretrained(folder, device, dtype)
        model.sampler.warm_up()
        card = read_card(folder) or default_card(config_of(model))
        return cls(model, card, bundled_scorer(folder, model))

    @property
    def defaults(self) -> SamplingSettings:
        """The settings this model is best used with."""
        return self.model.about.sampling

    @property
    def vocabulary(self) -> list[str]:
        """Words that a text model knows, or its scorer; [] for others."""
        return sorted((*self._words.words, *self._words.understood)) if self._words else []

    def unknown_words(self, prompt: str) -> list[str]:
        """The prompt's words that the model will leave out, as written, each once."""
        return self._words.unknown_words(prompt) if self._words else []

    def corrections(self, prompt: str) -> dict[str, str]:
        """The prompt's words that will be read as others: {"sunglases": "sunglasses"}."""
        return dict(self._words.corrections(prompt)) if self._words else {}

    def fit_mask(
        self,
        image: Source,
        mask: Image.Image | None,
        prompt: Prompt = None,
        *,
        settings: SamplingSettings | None = None,
        **options: Any,
    ) -> FittedMask:
        """What an edit of a mask changes, and how: see `imagebart.fitting`.

        mask: see `masks.as_mask`; None, or nothing painted: the place that the words are about, as the model's scorer
        finds it. options: see `edit`. Raises InputError for bad input, and where there is neither a mask nor such a
        place.
        """
        upload, (recipe,) = load_image(image), self._recipes("edit", [prompt], 0, settings, **options)
        return self._fit(upload, mask, prompt, recipe)

    def _fit(self, upload: Image.Image, mask: Image.Image | None, prompt: Prompt, recipe: Recipe) -> FittedMask:
        prompt = None if recipe.remove else prompt
        if mask is not None:
            mask = masks.as_mask(mask, upload.size, empty=bool(prompt) and not recipe.exact)
            mask = mask if mask.getbbox() else None
        words = prompt if isinstance(prompt, str) and self.conditioning == "text" else ""
        if self._layers is not None:
            fitted = self._layers.fit(upload, mask, words, recipe)
            fitted = fitted.within(mask) if mask is not None and recipe.exact else fitted
            if fitted.mask.getbbox() is None:
                raise InputError(SCATTERED)
            return fitted
        if mask is not None and recipe.exact:
            region = Region.of(mask, self.image_size, self.grid, recipe.context, recipe.feather)
            fitted = FittedMask.of([Pass(prompt, region)], recipe.settings)
        else:
            fitted = fit_patches(self.model.sampler, self.scorer, upload, mask, words, recipe)
            if not words:  # a class
                fitted = replace(fitted, passes=(Pass(prompt, fitted.passes[0].region),))
        if fitted.mask.getbbox() is None:  # patches past a long, narrow image's edge, or smaller than a pixel
            if mask is None:
                raise InputError(f'What "{words:.60}" would change lies outside of this image; {ADVICE}.')
            return self._fit(upload, mask, prompt, recipe.replace(exact=True))
        return fitted

    def suggest_mask(self, image: Source, prompt: str | None) -> Image.Image:
        """The part of an image that a prompt would change: a mask, "L", of the image's size.

        Where the model's scorer finds things: where those are that the prompt names, or free space for them.
        Raises InputError for an image or prompt that cannot be used, and where nothing is found.
        """
        return self.fit_mask(image, None, check_prompt(prompt)).mask

    def describe(self, image: Source) -> str:
        """What an image shows, in words that the model knows. Raises InputError where that cannot be said."""
        pixels = self._whole(load_image(image))
        if not isinstance(self.scorer, Describer):
            raise InputError("This model cannot say what an image shows; describe it in your own words.")
        words = self.scorer.describe(pixels)
        if words is None:
            known = f" knows {self.knows} only and" if self.knows else ""
            raise InputError(f"This model{known} cannot say for sure what this image shows.")
        return words

    @torch.no_grad()
    def domain_notes(self, image: Source) -> tuple[str, ...]:
        """A sentence where the model does not know such images; none where it does, or does not say what it knows."""
        if self.draws_layers:
            return ()
        pixels, first_stage = self._whole(load_image(image)), self.model.first_stage
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

        A model that draws layers lays each thing on a ground of one color or two. best_first: the result's images
        are ranked by the model's scorer.
        """
        prompts = prompt_per_variant(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("generate", prompts, seed, settings)
        passes: list[tuple[Pass, ...]] = [(Pass(words),) for words in prompts]
        images: list[Image.Image | None] = [None] * len(prompts)
        if self._layers is not None:
            plans = [self._layers.plan(recipe.prompt or "", recipe.own_seed) for recipe in recipes]
            images, passes = [ground for ground, _ in plans], [things for _, things in plans]
        run = Run(recipes, recipes[0].settings, images, passes)
        return self._started(run, prompts, best_first)

    def edit(
        self,
        image: Source,
        mask: Image.Image | FittedMask | None,
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

        mask: of the image's size, see `masks.as_mask`; a gray value is a strength, see `masks`; None: the place that
        the words are about; or what `fit_mask` returned for the same. It is fitted to the model and the words, see
        `fit_mask`, unless it is `exact`: then no pixel changes that is not painted. movable: nobody painted it, so that
        words about another place move it. remove: what is painted goes, without words. feather: pixels over which the
        change fades in at the mask's edge, inwards. context: how much around the mask the model sees, over the mask's
        longer side (inf: all it can).
        best_first: as for `generate`. Raises InputError before the first event for bad input.
        """
        prompts = prompt_per_variant(None if remove else prompt, variants, MAX_VARIANTS)
        options = {"exact": exact, "movable": movable, "remove": remove, "feather": feather, "context": context}
        recipes = self._recipes("edit", prompts, seed, settings, **options)
        return self._started(self._edit(image, mask, prompts, recipes), prompts, best_first)

    def edit_batch(
        self, edits: Sequence[Edit], *, settings: SamplingSettings | None = None, **options: Any
    ) -> Iterator[PipelineEvent]:
        """The results of `edit` for several images, in their order, all sampled in one chain; options: see `edit`.

        Each is what `edit` gives with its mask, prompt and seed; but sums of a batch are rounded differently, so that
        now and then a token differs where two are almost equally likely. Raises InputError before the first.
        """
        (checked,) = self._recipes("edit", [None], 0, settings, **options)  # also without edits
        runs = []
        for edit in edits:
            prompts = prompt_per_variant(None if checked.remove else edit.prompt, 1, 1)
            recipes = self._recipes("edit", prompts, edit.seed, settings, **options)
            runs.append(self._edit(edit.image, edit.mask, prompts, recipes))
            runs[-1].notes += self._prompt_notes(prompts)
        return self._batch(runs)

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
        if self.draws_layers:
            raise InputError("This model draws things on images; a whole image has no variations here.")
        prompts = prompt_per_variant(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("vary", prompts, seed, settings, strength=strength)
        upload = load_image(image)
        region = Region.of(masks.preset("everything", upload.size), self.image_size, self.grid)
        passes = [(Pass(words, region),) for words in prompts]
        run = Run(recipes, recipes[0].settings, [upload] * len(prompts), passes, self.domain_notes(upload))
        return self._started(run, prompts, best_first)

    def _recipes(
        self, task: Task, prompts: list[Prompt], seed: int | None, settings: SamplingSettings | None, **more: Any
    ) -> tuple[Recipe, ...]:
        """The recipe of each image, with a new seed where none is given. Raises InputError for bad values."""
        more |= {"task": task, "model": self.name[:LONGEST_NAME], "settings": settings or self.defaults}
        more["seed"] = secrets.randbelow(2**32) if seed is None else seed
        texts = [None if prompt is None else str(prompt) for prompt in prompts]
        recipes = tuple(Recipe.parse(prompt=text, variant=i, **more) for i, text in enumerate(texts))
        self.model.sampler.steps(recipes[0].settings)  # raises for scales that the model does not have
        return recipes

    def _edit(
        self, image: Source, mask: Image.Image | FittedMask | None, prompts: list[Prompt], recipes: tuple[Recipe, ...]
    ) -> Run:
        upload = load_image(image)
        fits = {
            prompt: mask if isinstance(mask, FittedMask) else self._fit(upload, mask, prompt, recipes[0])
            for prompt in dict.fromkeys(prompts)
        }
        grounds = {prompt: fill(upload, fit.filled) if fit.filled else upload for prompt, fit in fits.items()}
        fitted = [fits[prompt] for prompt in prompts]
        passes = [fit.passes for fit in fitted]
        if self._layers is not None:  # of a group of things, each variant has its own
            passes = [self._layers.choose(turn, recipe.own_seed) for turn, recipe in zip(passes, recipes, strict=True)]
        notes = dict.fromkeys(note for fit in fitted for note in fit.notes)
        if any(fit.filled and is_textured(upload, fit.filled) for fit in fits.values()):
            notes[SMOOTH] = None
        regions = [part.region for part in fitted[0].passes if part.region is not None]
        strengths = {value for region in regions for value in np.unique(region.strength) if value}
        if not self.any_scales and len(strengths) > 1:
            notes[ONE_STRENGTH.format(max(strengths) / 255)] = None
        shown = reduce(ImageChops.lighter, (fit.mask for fit in fits.values()))
        images, settings, elsewhere = [grounds[p] for p in prompts], fitted[0].settings, fitted[0].elsewhere
        return Run(recipes, settings, images, passes, tuple(notes), shown, elsewhere)

    def _whole(self, upload: Image.Image) -> Tensor:
        """All of an image as the model sees it, float [1, 3, size, size]."""
        return to_tensor(extract(upload, whole_box(upload.size), self.image_size)).to(self.model.device)

    def _started(self, run: Run, prompts: list[Prompt], best_first: bool) -> Iterator[PipelineEvent]:
        """The stream of a run's events. Raises InputError for what cannot be ranked, and bad prompts."""
        if best_first and self.scorer is None:
            raise InputError("This model has no scorer that could rank variants; ask for them as they come.")
        if best_first and any(prompt != prompts[0] for prompt in prompts):
            raise InputError("Images of several prompts have no best; ask for one prompt, or for them as they come.")
        run.best_first = best_first
        run.notes += self._prompt_notes(prompts)
        return self._stream(run)

    def _prompt_notes(self, prompts: list[Prompt]) -> tuple[str, ...]:
        """What of prompts is not drawn as it is said. Raises InputError for bad ones."""
        notes = list(self.model.conditioner.encode(prompts).notes)
        if isinstance(self.scorer, ThingScorer):
            notes += [note for words in prompts if isinstance(words, str) for note in self.scorer.notes(words)]
        return tuple(dict.fromkeys(notes))

    def _stream(self, run: Run) -> Iterator[PipelineEvent]:
        """The events of a run. Closing it stops the model and frees its caches."""
        with closing(self._chains(run)) as chains:
            last, corrects = next(chains), run.settings.corrector_steps
            clock = Clock(run.settings, last.stages)
            yield self._event("start", last, run, clock)
            for last in chains:
                # The end of the last step is the result, unless the corrector follows, whose end is.
                final = last.stage == 1 and last.resample_index == last.resamples - 1 and not corrects
                if last.done and not final and not last.corrector_step:
                    yield self._event("stage", last, run, clock)
                elif (not last.done or last.corrector_step) and clock.preview_due():
                    yield self._event("preview", last, run, clock)
        result = self._event("result", last, run, clock)
        del run  # the upload is freed as soon as the result is pasted
        yield result

    def _chains(self, run: Run) -> Generator[ChainEvent, None, None]:
        """x_T, then an event after every step of the decoder; the steps of all passes count as those of one chain."""
        turns = len(run.turns)
        if not turns:
            yield NOTHING_DRAWN
        for number in range(turns):
            after = turns - 1 - number  # passes that follow
            with closing(self._sample([run], self._begin(run, number), number)) as chain:
                for index, event in enumerate(chain):
                    last = replace(event, stage=event.stage + after * event.stages, stages=turns * event.stages)
                    if (index > 0 or number == 0) and not (after and event.corrector_step):
                        yield last
            if after:
                self._finish(run, last.tokens)

    def _batch(self, runs: list[Run]) -> Iterator[PipelineEvent]:
        last = dict.fromkeys(range(len(runs)), NOTHING_DRAWN)
        if not runs:
            return
        clock = Clock(runs[0].settings, 1)
        for number in range(max(len(run.turns) for run in runs)):
            chains: dict[tuple[float | None, float], list[tuple[int, KnownTokens]]] = {}  # by what one has in common
            for index, run in enumerate(runs):
                if number < len(run.turns):
                    if number:
                        self._finish(run, last[index].tokens)
                    known = self._begin(run, number)
                    assert known is not None, "an edit has an image"
                    chains.setdefault((known.max_strength, run.settings.guidance), []).append((index, known))
            for chain in chains.values():
                together = KnownTokens.concatenate([known for _, known in chain])
                *_, event = self._sample([runs[index] for index, _ in chain], together, number)
                for row, (index, _) in enumerate(chain):
                    last[index] = replace(event, tokens=event.tokens[row : row + 1])
        for index, run in enumerate(runs):
            yield self._event("result", last[index], run, clock)

    @torch.no_grad()
    def _begin(self, run: Run, number: int) -> KnownTokens | None:
        """Begins a pass: what is known of its tokens. What several variants have in common is encoded once."""
        run.current = run.turns[number]
        squares: dict[tuple[int, int], Image.Image | None] = {}
        known: dict[tuple[int, int], KnownTokens] = {}
        keys = [(id(image), id(part.region)) for image, part in zip(run.images, run.current, strict=True)]
        for key, image, part in zip(keys, run.images, run.current, strict=True):
            if self.draws_layers and image is not None:  # whatever it shows; nothing where a variant has fewer passes
                keep = torch.full((1, self.grid**2), part.region is None)
                known[key] = KnownTokens(torch.zeros_like(keep, dtype=torch.long), keep)
            elif image is not None and part.region is not None and key not in known:
                region = part.region
                square = squares[key] = extract(image, region.box, self.image_size)
                pixels, strength = to_tensor(square).to(self.model.device), torch.from_numpy(region.token_strength)
                if run.recipes[0].task == "vary":
                    known[key] = KnownTokens(self.model.first_stage.encode(pixels))
                else:
                    painted = torch.from_numpy(region.painted)[None]
                    known[key] = encode_masked(self.model, pixels, painted, strength.view(1, -1) / 255)
        run.squares = [squares.get(key) for key in keys]
        return KnownTokens.concatenate([known[key] for key in (keys if len(known) > 1 else known)]) if known else None

    def _sample(self, runs: Sequence[Run], known: KnownTokens | None, number: int) -> Generator[ChainEvent, None, None]:
        """The chain of one pass of several runs: its start, then an event after every pass of the decoder."""
        sampler, recipe = self.model.sampler, runs[0].recipes[0]
        tokens = self.model.conditioner.encode([part.prompt for run in runs for part in run.current]).tokens
        cond, settings = self.model.condition(tokens, runs[0].settings)
        seeds = [run.recipes[0].seed + number * PASS_SEEDS + row for run in runs for row in range(len(run.recipes))]
        state = sampler.prepare(len(seeds), settings, cond, known=known, strength=recipe.strength or 1.0, seed=seeds)
        stage, resamples, total = len(state.steps), settings.resamples, state.total
        yield ChainEvent(
            tokens=state.x, stage=stage, stages=state.scales, resample_index=0, resamples=resamples, total=total
        )
        with closing(sampler.stream(state, settings)) as chain:  # type: ignore[type-var]
            yield from chain

    @torch.no_grad()
    def _finish(self, run: Run, tokens: Tensor) -> None:
        """Ends a pass that others follow: its images are what the next one begins from."""
        squares, generated = self._decode(run, tokens)
        self._judge(run, squares)
        run.images = run.paste(generated)

    def _decode(self, run: Run, tokens: Tensor) -> tuple[Tensor, list[Image.Image]]:
        """What tokens of the current pass show, float [B, 3, S, S] in [-1, 1]; and what is pasted: squares, or layers,
        which are shown on gray."""
        if not run.current:
            return torch.zeros(0, 3, 1, 1), []
        decoded = self.model.first_stage.decode(tokens)
        if not self.draws_layers:
            return decoded, to_images(decoded)
        layers = recolored(decoded.clamp(0, 1), [part.color for part in run.current[: len(decoded)]])
        rows = zip(layers, run.current, strict=False)
        layers = torch.stack([layer.flip(-1) if part.mirrored else layer for layer, part in rows])
        return on_gray(layers), to_layers(layers)

    def _judge(self, run: Run, squares: Tensor) -> None:
        """Scores what a pass has drawn: squares, float [B, 3, S, S]."""
        scorer, words, squares = self.scorer, run.recipes[0].prompt or "", squares.clamp(-1, 1)
        if scorer is None:
            return
        if self._layers is None:
            if run.best_first:
                run.scores.update(enumerate(scorer.score(squares, words).tolist()))
            if words and isinstance(scorer, Checker):
                run.missed = {row for row, shown in enumerate(scorer.shows(squares, words)) if not shown}
            return
        for row, part in enumerate(run.current):  # a thing each
            if part is not IDLE:
                square, thing = squares[row : row + 1], str(part.prompt)
                if run.best_first:
                    run.scores[row] += float(scorer.score(square, thing)[0])
                if isinstance(scorer, Checker) and not all(scorer.shows(square, thing)):
                    run.missed.add(row)

    @torch.no_grad()
    def _event(self, kind: EventKind, event: ChainEvent, run: Run, clock: Clock) -> PipelineEvent:
        """Decodes an event's tokens, to be pasted on the first use of its images."""
        began = time.perf_counter()
        fraction = 1.0 if kind == "result" else clock.fraction(event)
        squares, generated = self._decode(run, event.tokens[:1] if kind == "preview" else event.tokens)
        order, notes = list(range(1 if kind == "preview" else len(run.recipes))), list(run.notes)
        if kind == "result":
            self._judge(run, squares)
            if run.best_first:
                order.sort(key=lambda number: -run.scores[number])
            if order[0] in run.missed:
                notes.append(MISSED)
            original, region = (run.squares[0], run.current[0].region) if run.current else (None, None)
            if original is not None and region is not None and run.mask is not None:
                pixels, keep = to_tensor(original).to(squares.device), torch.from_numpy(~region.regenerated).flatten()
                notes = [*out_of_domain(self.model, pixels, squares[:1], keep, EDIT_MARGIN), *notes]
        this_pass, filled = copy(run), [image for image in run.images if image is not None]
        seamless = kind == "result" or kind == "stage" and event.stage == 1
        clock.record(kind, time.perf_counter() - began)

        def images() -> list[Image.Image]:
            began = time.perf_counter()
            pasted = this_pass.paste(generated, seamless) if run.turns else filled
            clock.record(kind, time.perf_counter() - began, pasted=True)
            return [pasted[number] for number in order]

        elapsed = clock.elapsed()
        return PipelineEvent(
            **vars(event),
            kind=kind,
            lazy_images=LazyImages(images),
            fraction=fraction,
            elapsed=elapsed,
            remaining=elapsed * (1 - fraction) / fraction if fraction > 0 else None,
            seed=run.recipes[0].seed,
            notes=notes,
            recipes=tuple(run.recipes[number] for number in order),
            mask=run.mask,
            elsewhere=run.elsewhere,
            missed=order[0] in run.missed,
            drawing=str(run.current[0].prompt or "") if len(run.turns) > 1 else "",
        )
