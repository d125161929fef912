"""What is asked for: the values of the page's controls when a button is pressed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from imagebart.imaging.metadata import Recipe
from imagebart.pipeline import Pipeline
from imagebart.settings import SamplingSettings, refusing
from imagebart.ui.knobs import MOST_CONTEXT, MOST_START, around, within


@refusing
@dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))
class Controls:
    """The controls' values, in the order in which the page hands them over. Raises InputError for other kinds."""

    model: str | None
    words: str | None
    choice: list[str] | None  # of a class model: of several classes there is a picture each
    variants: float
    best_first: bool
    guidance: float
    strength: float
    seed: float | None
    new_seed: bool
    temperature: float
    top_k: float
    top_p: float
    scales: float
    passes: float
    start: float
    feather: float
    context: float

    def prompt(self, pipeline: Pipeline) -> str | list[str] | None:
        """What this kind of model is asked for: words, a class or several, or nothing."""
        if pipeline.conditioning != "class":
            return self.words if pipeline.conditioning == "text" else None
        return (self.choice if self._several(pipeline) else self.choice[0]) if self.choice else None

    def fixed_seed(self) -> int | None:
        """The seed to use; None where a new one is wanted."""
        return None if self.new_seed or self.seed is None else int(self.seed)

    def sampling(self, pipeline: Pipeline) -> SamplingSettings:
        """The sliders' values as a model takes them; their ends "off" become None."""
        scales = int(self.scales) if pipeline.any_scales else pipeline.stages
        return SamplingSettings(
            temperature=self.temperature,
            top_k=int(self.top_k) or None,
            top_p=self.top_p if self.top_p < 1 else None,
            guidance=self.guidance,
            passes=int(self.passes),
            start=int(self.start) if self.start < scales else None,
            scales=scales if pipeline.any_scales else None,
        )

    def variety(self, pipeline: Pipeline) -> dict[str, Any]:
        """How many pictures at once, and whether they come best first, as a pipeline takes them."""
        if self._several(pipeline):
            return {}
        return {"variants": int(self.variants), "best_first": self.best_first and pipeline.can_judge}

    def _several(self, pipeline: Pipeline) -> bool:
        """Whether several classes are asked for, a picture of each."""
        return pipeline.conditioning == "class" and len(self.choice or ()) > 1

    def around(self) -> float:
        """How much around the mask the model sees, over the mask's longer side; inf for all."""
        return around(self.context)


ASKED = ("model", "words", "choice", "variants", "best_first")
RESET = tuple(field.name for field in fields(Controls) if field.name not in ASKED)
"""Those that "Reset" sets: all but what a person wrote, and how many variants they want in which order."""
ORDER = tuple(field.name for field in fields(Controls))
"""Names of the controls in their order."""


def starting_values(pipeline: Pipeline) -> dict[str, Any]:
    """A model's best values for all controls but model, prompt and class."""
    best = pipeline.defaults
    values = {
        "variants": 1,
        "best_first": False,
        "guidance": best.guidance,
        "strength": 0.5,
        "seed": 0,
        "new_seed": True,
        "temperature": best.temperature,
        "top_k": best.top_k or 0,
        "top_p": best.top_p or 1,
        "passes": best.passes,
        "scales": pipeline.stages,
        "start": best.start or MOST_START,
        "feather": 4,
        "context": MOST_CONTEXT,
    }
    return within(values)


def restored_values(recipe: Recipe, pipeline: Pipeline) -> dict[str, Any]:
    """The controls' values that draw a picture of this recipe again, alone."""
    settings = recipe.settings
    values = starting_values(pipeline) | {
        "words": recipe.prompt or "",
        "guidance": settings.guidance,
        "strength": recipe.strength or 0.5,
        "seed": recipe.own_seed,
        "new_seed": False,
        "temperature": settings.temperature,
        "top_k": settings.top_k or 0,
        "top_p": settings.top_p or 1,
        "passes": settings.passes,
        "scales": settings.scales or pipeline.stages,
        "start": settings.start or MOST_START,
        "feather": recipe.feather,
        "context": recipe.context,
    }
    return within(values)
