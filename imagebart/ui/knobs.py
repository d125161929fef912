"""The sliders: what they are called, what they are for and how far they go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagebart.settings import MOST_SCALES, described, usual

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
    slider = usual(name)
    return Knob(name, label, f"{described(name)}{more}", slider.least, slider.most, slider.step)


KNOBS = (
    _of_sampling("guidance", "Guidance"),
    Knob("strength", "Strength of Vary", "Small keeps the picture's layout, 1 starts from pure noise.", 0.05, 1, 0.05),
    _of_sampling("temperature", "Temperature"),
    _of_sampling("scales", "Coarse-to-fine steps"),
    _of_sampling("passes", "Passes per step"),
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
