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
from dataclasses import dataclass, fields, replace
from functools import partial
from os import PathLike
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from imagebart.conditioning.conditioners import Conditioning, Prompt, TextConditioner
from imagebart.conditioning.prompts import Prompts, check_prompt, prompt_per_variant
from imagebart.errors import InputError, format_value
from imagebart.imaging import crop, masks
from imagebart.imaging.crop import Box, Region
from imagebart.imaging.files import Source, load_image, to_images, to_tensor
from imagebart.imaging.metadata import LONGEST_NAME, Recipe, Task
from imagebart.inpainting import encode_masked, out_of_domain, paste_blended
from imagebart.model import ImageBART
from imagebart.ranking import Describer, Finder, Planner, Scorer, bundled_scorer, complete_prompt, contrast, rank
from imagebart.sampling.mask_suggestion import ADVICE, suggest_mask
from imagebart.sampling.speculative import ChainEvent, ChainProgress
from imagebart.sampling.steps import ChainState, KnownTokens
from imagebart.settings import SamplingSettings
from imagebart.things import Part
from imagebart.weights import locate
from imagebart.weights.folder import config_of, read_card, without_header
from imagebart.weights.published.registry import default_card

EventKind = Literal["start", "preview", "stage", "result"]
PREVIEW_SHARE = 0.1  # of the time, for previews
FIRST_SHARE = 0.5  # of the time until then, for the first preview
CORRECTOR_SHARE = 0.5  # of a stage's time, for a corrector step
MAX_VARIANTS = 8
PART_SEEDS = 1_000_003  # from the seed of a part to that of the next
EDIT_MARGIN = 3.0  # dB, see out_of_domain
COMPLETE_PROMPT_GUIDANCE = 1.0  # at most, with a prompt that describes all of an image; 2.5 gave smears


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


@dataclass(frozen=True)
class PipelineEvent(ChainProgress):
    """A state of a run. `image` has the upload's size and, outside of the mask, its exact pixels."""

    kind: EventKind  # x_T; within a step; the end of a step; the last event
    lazy_images: LazyImages
    fraction: float  # of the whole run, 0 to 1
    elapsed: float  # seconds
    remaining: float | None  # seconds; None at the start
    seed: int
    notes: list[str]  # sentences for the user
    recipes: tuple[Recipe, ...]  # what makes each of `images`
    drawing: str = ""  # the part of the first image that is being drawn, in words, where it is drawn in parts

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
    """What one call samples: B variants of N tokens, and where their images go."""

    recipes: tuple[Recipe, ...]  # of each variant; they differ in its number and prompt alone
    paste: Callable[[Image.Image], Image.Image] = lambda square: square  # puts a generated square in its place
    known: KnownTokens | None = None
    pixels: Tensor | None = None  # of an edit's region before, float [1, 3, size, size] in [-1, 1]
    notes: tuple[str, ...] = ()  # sentences for the user
    best_first: bool = False
    plans: tuple[list[Part], ...] = ()  # of each variant, where images are drawn in parts


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

    def suggest_mask(self, image: Source, prompt: str | None) -> Image.Image:
        """The part of an image that a prompt would change: a mask, "L", of the image's size.

        Where the model's scorer finds things: where those are that the prompt names, or free space for them.
        Raises InputError for an image or prompt that cannot be used, and where nothing is found.
        """
        upload, words = load_image(image), _words(prompt)
        box, pixels = self._whole(upload)
        tokens = self.scorer.find(pixels[0], words) if isinstance(self.scorer, Finder) else None
        if tokens is None:
            tokens = suggest_mask(self.model, pixels, words, contrast(self.scorer, pixels, words))
        mask = crop.paint_cells(tokens.numpy(), box, upload.size)
        if mask.getbbox() is None:  # only patches past a long, narrow image's edge
            raise InputError(f'What "{words:.60}" would change lies outside of this image; {ADVICE}.')
        return mask

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

    def complete_prompt(
        self, image: Source, prompt: str | None, settings: SamplingSettings | None = None
    ) -> tuple[str, SamplingSettings]:
        """A prompt with all else that an image shows, for masks of `suggest_mask`, which cover more than what changes.

        Also settings with less guidance, if it is the model's default. Both are as given where the model cannot
        describe the image. Raises InputError for an image that cannot be used.
        """
        words, settings = _words(prompt), settings or self.defaults
        completed = complete_prompt(self.scorer, self._whole(load_image(image))[1], words)
        if completed != words and settings.guidance == self.defaults.guidance:
            settings = replace(settings, guidance=min(settings.guidance, COMPLETE_PROMPT_GUIDANCE))
        return completed, settings

    def region(self, size: tuple[int, int], mask: Image.Image, context: float = math.inf, feather: int = 0) -> Region:
        """The region of an edit of an image of `size` (width, height): see `edit`, also for its errors."""
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
        """Images from a prompt (or class) alone, or from each of a list. Raises InputError before the first event.

        Where the model's scorer plans images, they are drawn in its parts, one after the other. best_first: the
        result's images are ranked by the model's scorer.
        """
        prompts = prompt_per_variant(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("generate", prompts, seed, settings)
        return self._run(prompts, EditRequest(recipes, best_first=best_first, plans=self._plans(recipes)))

    def _plans(self, recipes: Sequence[Recipe]) -> tuple[list[Part], ...]:
        """The parts of each image, equally many: after its last one, none of an image's tokens are drawn."""
        if not isinstance(self.scorer, Planner):
            return ()
        everything = torch.ones(self.grid**2, dtype=torch.bool)
        found = [self.scorer.plan(one.prompt or "", one.seed + one.variant) for one in recipes]
        plans = [plan or [Part(one.prompt or "", everything)] for plan, one in zip(found, recipes, strict=True)]
        longest = max(map(len, plans))
        return tuple(plan + [Part("", ~everything)] * (longest - len(plan)) for plan in plans)

    def edit(
        self,
        image: Source,
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
        """Regenerates what a mask of the image's size paints, by a prompt or each of a list; all else is kept.

        mask: see `masks.as_mask`; a grey value is a strength, see `masks`. feather: pixels over which the change fades
        in at the mask's edge, inwards. context: how much around the mask the model sees, over the mask's longer side
        (inf: all it can). best_first: as for `generate`. Raises InputError before the first event for bad input.
        """
        prompts = prompt_per_variant(prompt, variants, MAX_VARIANTS)
        recipes = self._recipes("edit", prompts, seed, settings, feather=feather, context=context)
        return self._run(prompts, replace(self._edit_request(image, mask, recipes), best_first=best_first))

    def edit_batch(
        self,
        edits: Sequence[Edit],
        *,
        settings: SamplingSettings | None = None,
        feather: int = 0,
        context: float = math.inf,
    ) -> Iterator[PipelineEvent]:
        """The results of `edit` for several images, in their order, all sampled in one chain.

        Each is what `edit` gives with its mask, prompt and seed; but sums of a batch are rounded differently, so that
        now and then a token differs where two are almost equally likely. Raises InputError before the first.
        """
        requests, conditionings = [], []
        self._recipes("edit", [None], 0, settings, feather=feather, context=context)  # also without edits
        for edit in edits:
            (prompt,) = prompt_per_variant(edit.prompt, 1, 1)
            recipes = self._recipes("edit", [prompt], edit.seed, settings, feather=feather, context=context)
            requests.append(self._edit_request(edit.image, edit.mask, recipes))
            conditionings.append(self.model.conditioner.encode([prompt]))
        return self._batch(requests, conditionings)

    def _batch(self, requests: list[EditRequest], conditionings: list[Conditioning]) -> Iterator[PipelineEvent]:
        chains: dict[float | None, list[int]] = {}  # by the noise level that they start from
        for index, request in enumerate(requests):
            chains.setdefault(request.known.max_strength if request.known else None, []).append(index)
        sampled: dict[int, tuple[ChainEvent, Clock]] = {}
        for indices in chains.values():
            known = KnownTokens.concatenate([one for one in (requests[index].known for index in indices) if one])
            tokens = torch.cat([conditionings[index].tokens for index in indices])
            cond, settings = self.model.condition(tokens, requests[0].recipes[0].settings)
            seeds = [requests[index].recipes[0].seed for index in indices]
            state = self.model.sampler.prepare(len(indices), settings, cond, known=known, seed=seeds)
            clock, last = Clock(settings, [1.0] * len(state.steps)), self._first_event(state, settings)
            for event in self.model.sampler.stream(state, settings):
                last = event
            for row, index in enumerate(indices):
                sampled[index] = replace(last, tokens=last.tokens[row : row + 1]), clock
        for index, (request, conditioning) in enumerate(zip(requests, conditionings, strict=True)):
            request = replace(request, notes=(*request.notes, *conditioning.notes))
            yield self._event("result", sampled[index][0], request, sampled[index][1])

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
        region = self.region(upload.size, masks.preset("everything", upload.size))
        pixels = to_tensor(crop.extract(upload, region.box, self.image_size)).to(self.model.device)
        with torch.no_grad():
            tokens = self.model.first_stage.encode(pixels)
            decoded = self.model.first_stage.decode(tokens)
        notes = out_of_domain(self.model, pixels, decoded, torch.from_numpy(region.regenerated).flatten())
        known = KnownTokens(tokens)
        request = EditRequest(recipes, partial(region.paste, upload), known, notes=notes, best_first=best_first)
        return self._run(prompts, request)

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
        return tuple(Recipe(name, task, text, seed, settings, variant=i, **more) for i, text in enumerate(texts))

    def _edit_request(self, image: Source, mask: Image.Image, recipes: tuple[Recipe, ...]) -> EditRequest:
        upload = load_image(image)
        region = self.region(upload.size, mask, recipes[0].context, recipes[0].feather)
        square = crop.extract(upload, region.box, self.image_size)
        pixels = to_tensor(square).to(self.model.device)
        strength = torch.from_numpy(region.token_strength).view(1, -1) / 255
        known = encode_masked(self.model, pixels, torch.from_numpy(region.painted)[None], strength)
        notes: tuple[str, ...] = ()
        if not self.any_scales and len(strength[strength > 0].unique()) > 1:
            notes = (f"This model knows one strength for all of a mask: it used the largest, {strength.max():.0%}.",)
        return EditRequest(recipes, partial(paste_blended, upload, region, square), known, pixels, notes)

    def _whole(self, upload: Image.Image) -> tuple[Box, Tensor]:
        """The square that holds all of an image, and its pixels as the model sees them, [1, 3, size, size]."""
        box = crop.crop_box(masks.preset("everything", upload.size), self.image_size, math.inf)
        return box, to_tensor(crop.extract(upload, box, self.image_size)).to(self.model.device)

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
        conditioning = self.model.conditioner.encode(prompts)
        cond, settings = self.model.condition(conditioning.tokens, request.recipes[0].settings)
        request = replace(request, notes=(*request.notes, *conditioning.notes))
        return self._stream(request, settings, cond)

    def _stream(self, request: EditRequest, settings: SamplingSettings, cond: Tensor | None) -> Iterator[PipelineEvent]:
        """The events of a run. Closing it stops the model and frees its caches."""
        with closing(self._chains(request, settings, cond)) as chains:
            last = next(chains)
            clock = Clock(settings, self._costs(request, last.stage))
            yield self._event("start", last, request, clock)
            for last in chains:
                # The end of the last step is the result, unless the corrector follows, whose end is.
                final = last.stage == 1 and last.resample_index == last.resamples - 1 and not settings.corrector_steps
                if last.done and not final and not last.corrector_step:
                    yield self._event("stage", last, request, clock)
                elif (not last.done or last.corrector_step) and clock.preview_due():
                    yield self._event("preview", last, request, clock)
        result = self._event("result", last, request, clock)
        del request  # the upload is freed as soon as the result is pasted
        yield result

    def _chains(
        self, request: EditRequest, settings: SamplingSettings, cond: Tensor | None
    ) -> Generator[ChainEvent, None, None]:
        """x_T, then an event after every pass. Parts are drawn by a chain each, whose steps count as those of one."""
        sampler, first, count = self.model.sampler, request.recipes[0], len(request.recipes)
        parts = list(zip(*request.plans, strict=True)) or [()]
        known, own = request.known, settings
        for number, part in enumerate(parts):
            if part:
                conditioning = self.model.conditioner.encode([one.prompt for one in part])
                cond, own = self.model.condition(conditioning.tokens, settings)
            seed = first.seed + number * PART_SEEDS
            state = sampler.prepare(count, own, cond, known=known, strength=first.strength or 1.0, seed=seed)
            after = (len(parts) - 1 - number) * state.scales  # steps of the parts that follow
            last = self._first_event(state, own)
            last = replace(last, stage=last.stage + after, stages=len(parts) * state.scales)
            if number == 0:
                yield last
            with closing(sampler.stream(state, own)) as chain:  # type: ignore[type-var]
                for event in chain:
                    last = replace(event, stage=event.stage + after, stages=len(parts) * state.scales)
                    if not (after and event.corrector_step):
                        yield last
            if after:
                known = KnownTokens(last.tokens, ~torch.stack([one.tokens for one in parts[number + 1]]))

    def _costs(self, request: EditRequest, steps: int) -> list[float]:
        """The time of each step of a run: equal, except that a part takes less where it has fewer tokens."""
        if not request.plans:
            return [1.0] * steps
        sizes = [float(part.tokens.float().mean()) for part in request.plans[0]]
        return [1 + size for size in sizes for _ in range(steps // len(sizes))]

    def _first_event(self, state: ChainState, settings: SamplingSettings) -> ChainEvent:
        """The state before the first pass."""
        return ChainEvent(len(state.steps), state.scales, 0, settings.resamples, state.x, total=state.total)

    @torch.no_grad()
    def _event(self, kind: EventKind, event: ChainEvent, request: EditRequest, clock: Clock) -> PipelineEvent:
        """Decodes an event's tokens, to be pasted on the first use of its images."""
        began = time.perf_counter()
        fraction = 1.0 if kind == "result" else clock.fraction(event)
        squares = self.model.first_stage.decode(event.tokens[:1] if kind == "preview" else event.tokens)
        order, notes = list(range(len(squares))), request.notes
        if kind == "result" and request.best_first and self.scorer is not None:
            order = rank(self.scorer, squares.clamp(-1, 1), request.recipes[0].prompt or "")
        keep = request.known.keep if request.known else None
        if kind == "result" and request.pixels is not None and keep is not None:
            notes = (*out_of_domain(self.model, request.pixels, squares[:1], keep[0], EDIT_MARGIN), *notes)
        place, generated = request.paste, to_images(squares[order])
        clock.record(kind, time.perf_counter() - began)

        def paste() -> list[Image.Image]:
            began = time.perf_counter()
            pasted = [place(square) for square in generated]
            clock.add_preview_cost(kind, time.perf_counter() - began)
            return pasted

        elapsed = clock.elapsed()
        return PipelineEvent(
            **{one.name: getattr(event, one.name) for one in fields(ChainProgress)},
            kind=kind,
            lazy_images=LazyImages(paste),
            fraction=fraction,
            elapsed=elapsed,
            remaining=elapsed * (1 - fraction) / fraction if fraction > 0 else None,
            seed=request.recipes[0].seed,
            notes=list(notes),
            recipes=tuple(request.recipes[number] for number in order),
            drawing=self._drawing(event, request),
        )

    def _drawing(self, event: ChainEvent, request: EditRequest) -> str:
        if not request.plans:
            return ""
        plan = request.plans[0]
        return plan[(event.stages - event.stage) * len(plan) // event.stages].prompt


def _words(prompt: str | None) -> str:
    """A prompt in words, "" without one; raises InputError for another type."""
    words = check_prompt(prompt)
    if isinstance(words, int):
        raise InputError(f"The prompt is {words}; it must be a text.")
    return words or ""
