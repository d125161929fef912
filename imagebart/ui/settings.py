"""The settings, folded away, each with a line of help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from imagebart.ui.knobs import KNOBS, Knob

# What a slider is called by people who do not know the field; its word there stands in the hint.
PLAIN = {
    "guidance": "How closely to follow your words",
    "strength": "How much Vary changes",
    "temperature": "How daring",
    "scales": "Steps from coarse to fine",
    "passes": "Times each step is gone over",
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
