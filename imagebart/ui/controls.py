"""The sliders: what they are called, what they are for and how far they go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import gradio as gr
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass

from imagebart.imaging.metadata import Recipe
from imagebart.pipeline import Pipeline
from imagebart.settings import MOST_SCALES, SamplingSettings, help_text, refusing, slider_range

MOST_PICTURES = 4  # at once
# The right end of the context's slider means all of the picture.
MOST_CONTEXT = 3.0
# The right end of the start's slider means the coarsest step, of however many.
MOST_START = MOST_SCALES


@dataclass(frozen=True)
class Knob:
    """A slider: its name among the controls, its label, a line of help and its range."""

    name: str
    label: str
    info: str
    least: float
    most: float
    step: float


def _of_sampling(name: str, label: str, more: str = "") -> Knob:
    """The slider of a sampling setting; more: what its ends mean here."""
    slider = slider_range(name)
    return Knob(name, label, f"{help_text(name)}{more}", slider.least, slider.most, slider.step)


KNOBS = (
    _of_sampling("guidance", "Guidance"),
    Knob("strength", "Strength of Vary", "Small keeps the picture's layout, 1 starts from pure noise.", 0.05, 1, 0.05),
    _of_sampling("temperature", "Temperature"),
    _of_sampling("scales", "Coarse-to-fine steps"),
    _of_sampling("resamples", "Passes per step"),
    _of_sampling("top_k", "Top-k", " 0 means all."),
    _of_sampling("top_p", "Top-p"),
    _of_sampling("start", "Start step"),
    Knob("feather", "Feather", "Width, in pixels, of the soft seam inside the mask.", 0, 32, 1),
    Knob(
        "context",
        "Crop context",
        f"How much around the paint the model sees, in lengths of the paint; {MOST_CONTEXT:g} means all it can.",
        0.25,
        MOST_CONTEXT,
        0.25,
    ),
)


def around(context: float) -> float:
    """How much around the mask the model sees, over the mask's longer side, from the slider's value; inf for all."""
    return math.inf if context >= MOST_CONTEXT else context


def within(values: Mapping[str, Any]) -> dict[str, Any]:
    """The controls' values, those of sliders moved into their ranges: Gradio refuses others."""
    ranges = {knob.name: (knob.least, knob.most) for knob in KNOBS}
    return {
        name: min(max(value, ranges[name][0]), ranges[name][1]) if name in ranges else value
        for name, value in values.items()
    }


# The settings, folded away, each with a line of help.


# What a slider is called by people who do not know the field; its word there stands in the hint.
PLAIN = {
    "guidance": "How closely to follow your words",
    "strength": "How much Vary changes",
    "temperature": "How daring",
    "scales": "Steps from coarse to fine",
    "resamples": "Times each step is gone over",
    "top_k": "Choices for each spot",
    "top_p": "Leave out what is unlikely",
    "start": "How much an edit forgets",
    "feather": "Soft edge of the mask",
    "context": "How much around it is looked at",
}

# Folded away once it is there. In a part that begins folded, Gradio gives fields their first values again some frames
# after they came, and what somebody wrote meanwhile is lost (its `render_previously_invisible_children`).
FOLD = """() => {
  document.documentElement.dataset.folded = "";
  return { __type__: "update", open: false };
}"""


@dataclass(frozen=True)
class Settings:
    """The controls by name, and the buttons."""

    controls: dict[str, gr.components.Component]
    reuse: gr.Button
    reset: gr.Button
    fold: gr.Accordion


def add_settings(values: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Add the settings to the page being built, at these values; `options` of some of the sliders by name."""
    controls: dict[str, gr.components.Component] = {}
    with gr.Accordion("Settings", elem_id="settings") as fold:
        with gr.Row():
            controls["seed"] = gr.Number(
                value=values["seed"],
                precision=0,
                label="Seed",
                info="The same seed, picture, mask and words give the same result.",
                elem_id="seed",
            )
            with gr.Column(min_width=160):
                controls["new_seed"] = gr.Checkbox(
                    values["new_seed"], label="New seed each time", info="Off: the seed stays.", elem_id="new-seed"
                )
                reuse = gr.Button("Keep the last seed", size="sm", elem_id="reuse-seed")
        for knob in KNOBS:
            controls[knob.name] = _slider(knob, values[knob.name], options.get(knob.name, {}))
        reset = gr.Button("Reset the settings", size="sm", elem_id="reset")
    return Settings(controls, reuse, reset, fold)


def _slider(knob: Knob, value: float, options: Mapping[str, Any]) -> gr.Slider:
    ends = {"minimum": knob.least, "maximum": knob.most}
    return gr.Slider(
        value=value,
        step=knob.step,
        label=PLAIN[knob.name],
        info=f"{knob.info} ({knob.label})",
        elem_id=knob.name.replace("_", "-"),
        **{**ends, **options},
    )


# What is asked for: the values of the page's controls when a button is pressed.


@refusing
@checked_dataclass(frozen=True, config=ConfigDict(strict=True, allow_inf_nan=False))
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
    resamples: float
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
            resamples=int(self.resamples),
            start=int(self.start) if self.start < scales else None,
            scales=scales if pipeline.any_scales else None,
        )

    def variety(self, pipeline: Pipeline) -> dict[str, Any]:
        """How many pictures at once, and whether they come best first, as a pipeline takes them."""
        if self._several(pipeline):
            return {}
        return {"variants": int(self.variants), "best_first": self.best_first and pipeline.can_rank}

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
        "resamples": best.resamples,
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
        "resamples": settings.resamples,
        "scales": settings.scales or pipeline.stages,
        "start": settings.start or MOST_START,
        "feather": recipe.feather,
        "context": recipe.context,
    }
    return within(values)
