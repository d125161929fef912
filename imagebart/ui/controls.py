"""The page's controls by name: sliders; values for a run; values from a model's defaults, a recipe or a link."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from imagebart.core.settings import DEFAULT_STRENGTH, MOST_SCALES, SamplingSettings, Settings
from imagebart.imaging.files import Recipe
from imagebart.pipeline import Pipeline

MAX_IMAGES = 4  # at once
MAX_CONTEXT = 3.0  # the right end of the context's slider, which means all of the image
DEFAULT_SCALES = 4  # at least, of a model that takes any number: coarse to fine is seen, and still quick


class Slider(NamedTuple):
    name: str
    label: str
    info: str
    minimum: float
    maximum: float
    step: float


def _setting(name: str, label: str, minimum: float, maximum: float, step: float, note: str = "") -> Slider:
    return Slider(name, label, f"{SamplingSettings.model_fields[name].description}{note}", minimum, maximum, step)


CONTEXT_INFO = f"How much around the mask the model sees, in lengths of the mask; {MAX_CONTEXT:g} means all it can."
SLIDERS = (
    Slider("strength", "How different", "Small keeps the layout, 1 starts from pure noise.", 0.05, 1, 0.05),
    Slider("scales", "Steps", "From coarse to fine. More take longer.", 1, MOST_SCALES, 1),
    _setting("temperature", "Temperature", 0.1, 2, 0.05),
    _setting("guidance", "Guidance", 1, 8, 0.25),
    _setting("resamples", "Passes per step", 1, 4, 1),
    _setting("corrector_steps", "Corrector steps", 0, 4, 1),
    _setting("top_k", "Candidates per token (top-k)", 0, 512, 1, " 0 means all."),
    _setting("top_p", "Likely candidates only (top-p)", 0.05, 1, 0.01),
    Slider("feather", "Mask feather", "Width, in pixels, of the soft edge inside the mask.", 0, 32, 1),
    Slider("context", "Crop context", CONTEXT_INFO, 0.25, MAX_CONTEXT, 0.25),
)
BASIC = 2  # of them are what many people set; the others are advanced


class Controls(Settings):
    """The controls' values when a button is pressed. Raises InputError for values of other kinds."""

    model: str | None
    words: str | None
    choice: list[str] | None = Field(max_length=MAX_IMAGES)  # of several classes there is an image each
    variants: int = Field(ge=1, le=MAX_IMAGES)
    best_first: bool
    guidance: float
    strength: float
    seed: int | None
    new_seed: bool
    temperature: float
    top_k: int
    top_p: float
    scales: int
    resamples: int
    corrector_steps: int
    exact: bool  # only what is painted changes
    feather: int
    context: float

    def prompt(self, pipeline: Pipeline) -> str | list[str] | None:
        """What this kind of model takes: words, a class or several, or nothing."""
        if pipeline.conditioning != "class":
            return self.words if pipeline.conditioning == "text" else None
        return (self.choice if self._several_classes(pipeline) else self.choice[0]) if self.choice else None

    def for_run(self, pipeline: Pipeline) -> dict[str, Any]:
        """Seed, settings, how many images and whether the best comes first, as a pipeline takes them."""
        given = {"seed": None if self.new_seed else self.seed, "settings": self.sampling(pipeline)}
        if self._several_classes(pipeline):
            return given
        return {**given, "variants": self.variants, "best_first": self.best_first and pipeline.scorer is not None}

    def of_fit(self) -> "Controls":
        """Without those that what will change does not depend on."""
        return self.replace(seed=None, new_seed=True, variants=1, best_first=False, strength=1.0)

    def sampling(self, pipeline: Pipeline) -> SamplingSettings:
        """The sliders' values as settings: their ends stand for None, and for what the model does not take."""
        values = self.model_dump(include={*SAMPLED})
        values |= {"top_k": self.top_k or None, "top_p": self.top_p if self.top_p < 1 else None}
        if not pipeline.any_scales:
            values |= {"scales": None, "corrector_steps": 0}
        return pipeline.defaults.replace(**values)

    @property
    def crop_context(self) -> float:
        """How much around the mask the model sees, over the mask's longer side; inf for all."""
        return math.inf if self.context >= MAX_CONTEXT else self.context

    def _several_classes(self, pipeline: Pipeline) -> bool:
        return pipeline.conditioning == "class" and len(self.choice or ()) > 1


NAMES = tuple(Controls.model_fields)
SAMPLED = SamplingSettings.model_fields.keys() & NAMES
RESET = tuple(name for name in NAMES if name not in ("model", "words", "choice", "variants", "best_first"))
"""The controls that "Reset" sets: not the prompt, nor how many images in which order."""


def no_request(pipeline: Pipeline) -> dict[str, Any]:
    """The values of the controls that "Reset" leaves alone, when the page opens."""
    choice = pipeline.classes[:1]
    return {"model": pipeline.name, "words": "", "choice": choice, "variants": 1, "best_first": False}


def starting_values(pipeline: Pipeline) -> dict[str, Any]:
    """A model's defaults for the controls that "Reset" sets; DEFAULT_SCALES or more where it can."""
    values = _sampling_values(pipeline.defaults, pipeline)
    values |= {"strength": DEFAULT_STRENGTH, "seed": 0, "new_seed": True}
    values |= {"exact": False, "feather": 4, "context": MAX_CONTEXT}
    if pipeline.any_scales:
        values["scales"] = max(values["scales"], DEFAULT_SCALES)
    return _clamped(values)


def recipe_values(recipe: Recipe, pipeline: Pipeline) -> dict[str, Any]:
    """The values of the controls in RESET, of the prompt and class, that make an image of this recipe again, alone."""
    values = starting_values(pipeline) | _sampling_values(recipe.settings, pipeline)
    values |= {"words": recipe.prompt or "", "seed": recipe.own_seed, "new_seed": False, "exact": recipe.exact}
    values |= {"strength": recipe.strength or DEFAULT_STRENGTH, "feather": recipe.feather, "context": recipe.context}
    if pipeline.conditioning == "class":
        values["choice"] = [recipe.prompt] if recipe.prompt in pipeline.classes else pipeline.classes[:1]
    return _clamped(values)


def link_values(sent: Mapping[str, Any], pipeline: Pipeline) -> dict[str, Any]:
    """The controls' values in a link, without those that no page would write."""
    values = {name: sent[name] for name in NAMES if name in sent}
    try:
        Controls(**no_request(pipeline) | starting_values(pipeline) | values)
    except ValidationError as error:
        wrong = {problem["loc"][0] for problem in error.errors()}
        values = {name: value for name, value in values.items() if name not in wrong}
    if not values.get("choice") or not set(values["choice"]) <= set(pipeline.classes):
        values.pop("choice", None)
    return _clamped(values)


def _sampling_values(settings: SamplingSettings, pipeline: Pipeline) -> dict[str, Any]:
    ends = {"top_k": settings.top_k or 0, "top_p": settings.top_p or 1, "scales": settings.scales or pipeline.stages}
    return settings.model_dump(include={*SAMPLED}) | ends


def _clamped(values: Mapping[str, Any]) -> dict[str, Any]:
    clamped = {s.name: min(max(values[s.name], s.minimum), s.maximum) for s in SLIDERS if s.name in values}
    return {**values, **clamped}
