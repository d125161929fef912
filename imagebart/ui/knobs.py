"""The sliders: what they are called, what they are for and how far they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagebart.settings import MOST_SCALES

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


KNOBS = (
    Knob("guidance", "Guidance", "Higher follows your words more strictly.", 1, 8, 0.25),
    Knob("strength", "Strength of Vary", "Small keeps the picture's layout, 1 starts from pure noise.", 0.05, 1, 0.05),
    Knob("temperature", "Temperature", "Lower is plainer, higher more surprising.", 0.1, 2, 0.05),
    Knob("scales", "Coarse-to-fine steps", "One is quickest; more first lay out, then refine.", 1, MOST_SCALES, 1),
    Knob("passes", "Passes per step", "More passes tidy up, and take longer.", 1, 4, 1),
    Knob("top_k", "Top-k", "Choose among this many likeliest tokens; 0 means all.", 0, 512, 1),
    Knob("top_p", "Top-p", "Leave out the unlikeliest tokens; 1 means none.", 0.05, 1, 0.01),
    Knob("start", "Start step", "Edits that start at a finer step (lower) keep more of what was.", 1, MOST_START, 1),
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


def within(values: Mapping[str, Any]) -> dict[str, Any]:
    """The controls' values, those of sliders moved into their ranges: Gradio refuses others."""
    ranges = {knob.name: (knob.least, knob.most) for knob in KNOBS}
    return {
        name: min(max(value, ranges[name][0]), ranges[name][1]) if name in ranges else value
        for name, value in values.items()
    }
