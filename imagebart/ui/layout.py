"""The page's layout and looks. Each function adds a part to the page, and returns its components by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import gradio as gr

from imagebart.ui import messages
from imagebart.ui.controls import BASIC, MAX_IMAGES, SLIDERS, Slider

SCRIPTS = ("channel.js", "prompt.js", "live.js")
STYLES = ("page.css", "sketchpad/sketchpad.css")
# Folds both parts of the settings once they are there. In a part that begins folded, Gradio gives fields their first
# values again some frames after they came, and what somebody wrote meanwhile is lost
# (`render_previously_invisible_children`).
FOLD = """() => {
  document.documentElement.dataset.folded = "";
  return [{ __type__: "update", open: false }, { __type__: "update", open: false }];
}"""

Parts = dict[str, Any]  # components by name
Properties = Mapping[str, Mapping[str, Any]]  # of components, by their names


def add_heading(models: Sequence[str], properties: Properties) -> Parts:
    """The title, the model that is used, and the others that can be chosen."""
    with gr.Row(elem_id="top"):
        gr.HTML(messages.HEADING, elem_id="heading")
        return {
            "model_line": gr.HTML(elem_id="model", **properties["model_line"]),
            "model": gr.Dropdown(
                list(models),
                value=models[0],
                label="Model",
                filterable=False,
                visible=len(models) > 1,
                elem_id="model-choice",
            ),
            "lexicon": gr.HTML(elem_id="lexicon", **properties["lexicon"]),
        }


def add_prompt_and_buttons(properties: Properties) -> Parts:
    """The prompt, the buttons of runs and their progress: on a phone always within reach."""
    label: dict[str, Any] = {"label": "What should be there?", "show_label": False, "container": False}
    small: dict[str, Any] = {"size": "sm", "min_width": 110}
    parts: Parts = {}
    with gr.Column(elem_id="dock"):
        with gr.Row(elem_id="ask"):
            parts["words"] = gr.Textbox(
                placeholder="What should be there? A few words, such as: sunglasses",
                lines=1,
                max_lines=3,
                submit_btn=False,
                elem_id="prompt",
                **label,
                **properties["words"],
            )
            parts["choice"] = gr.Dropdown(
                filterable=True,
                multiselect=True,
                max_choices=MAX_IMAGES,
                elem_id="choice",
                **label,
                **properties["choice"],
            )
            parts["surprise"] = gr.Button("Surprise me", elem_id="surprise", **small, **properties["surprise"])
        with gr.Row(elem_id="actions"):
            parts["edit"] = gr.Button("Edit", variant="primary", min_width=90, elem_id="edit")
            gr.HTML(messages.MODES, elem_id="modes", apply_default_css=False)
            parts["generate"] = gr.Button("Generate", min_width=90, elem_id="generate")
            parts["vary"] = gr.Button("Vary", elem_id="vary")  # pressed by Edit, see modes.js
            parts["cancel"] = gr.Button("Cancel", variant="stop", min_width=90, elem_id="cancel")
        parts |= {name: gr.HTML(elem_id=name) for name in ("progress", "announcement")}
        with gr.Column(elem_id="notes"):
            parts["messages"] = gr.HTML(elem_id="messages")
            gr.HTML(messages.PROMPT_CHECK)
    parts["suggestions"] = gr.HTML(elem_id="suggestions", **properties["suggestions"])
    counts = list(range(1, MAX_IMAGES + 1))
    parts["variants"] = gr.Radio(counts, value=1, label="Images at once", elem_id="how-many")
    parts["best_first"] = gr.Checkbox(
        False,
        label="Best first",
        info="The images that match your prompt best come first.",
        elem_id="best-first",
        **properties["best_first"],
    )
    with gr.Row(elem_id="sharing"):
        gr.Button("Copy the prompt", elem_id="copy-words", **small)
        parts["share"] = gr.Button("Copy a link to this", elem_id="share", **small)
    gr.HTML(messages.HISTORY, apply_default_css=False)
    return parts


def add_settings(values: Mapping[str, Any], properties: Properties) -> Parts:
    """The seed and the sliders, at these values, those that few need further in; to be folded by FOLD."""
    parts: Parts = {}
    with gr.Accordion("Settings", elem_id="settings") as parts["settings"]:
        for slider in SLIDERS[:BASIC]:
            _add_slider(parts, slider, values, properties)
        with gr.Row():
            parts["seed"] = gr.Number(
                value=values["seed"],
                precision=0,
                label="Seed",
                info="The same seed, image, mask and prompt give the same result.",
                elem_id="seed",
            )
            with gr.Column(min_width=160):
                parts["new_seed"] = gr.Checkbox(
                    values["new_seed"], label="New seed each time", info="Off: the seed stays.", elem_id="new-seed"
                )
                parts["reuse_seed"] = gr.Button("Keep the last seed", size="sm", elem_id="reuse-seed")
        parts["exact"] = gr.Checkbox(
            values["exact"],
            label="Only what I painted",
            info="Off: what you paint is fitted to your words, as the outline shows.",
            elem_id="exact",
        )
        with gr.Accordion("Advanced", elem_id="advanced") as parts["advanced"]:
            for slider in SLIDERS[BASIC:]:
                _add_slider(parts, slider, values, properties)
        parts["reset"] = gr.Button("Reset the settings", size="sm", elem_id="reset")
    return parts


def _add_slider(parts: Parts, slider: Slider, values: Mapping[str, Any], properties: Properties) -> None:
    """A slider with its line of help."""
    parts[slider.name] = gr.Slider(
        slider.minimum,
        slider.maximum,
        values[slider.name],
        step=slider.step,
        label=slider.label,
        info=slider.info,
        elem_id=slider.name.replace("_", "-"),
        **properties.get(slider.name, {}),
    )


def add_about(properties: Properties) -> Parts:
    """What a model knows, what it is, and its card, folded."""
    parts: Parts = {}
    with gr.Accordion("Words this model knows", open=False, elem_id="words"):
        parts["vocabulary"] = gr.HTML(**properties["vocabulary"])
    with gr.Accordion("About this model", open=False, elem_id="card"):
        parts["about"] = gr.Markdown(**properties["about"])
        with gr.Accordion("The whole card", open=False, elem_id="whole-card"):
            parts["card"] = gr.Markdown(**properties["card"])
    return parts


def scripts() -> str:
    """The page's own JavaScript, for the head of the document."""
    return "".join(f"<script>{_read(name)}</script>" for name in SCRIPTS)


def styles() -> str:
    """The page's own CSS."""
    return "".join(_read(name) for name in STYLES)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Quiet surfaces, one strong color, and the system's own fonts, so that nothing is fetched."""
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
    mono = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
    look = {
        "body_background_fill": ("*neutral_50", "*neutral_950"),
        "body_text_color_subdued": ("*neutral_600", "*neutral_300"),
        "block_info_text_color": ("*neutral_600", "*neutral_300"),
        "block_label_text_color": ("*neutral_700", "*neutral_200"),
        "block_title_text_color": ("*neutral_700", "*neutral_200"),
        "button_primary_background_fill": ("*primary_600", "*primary_600"),
        "button_primary_background_fill_hover": ("*primary_700", "*primary_700"),
        "input_background_fill": ("white", "*neutral_900"),
        "input_placeholder_color": ("*neutral_500", "*neutral_400"),
    }
    return gr.themes.Base(
        primary_hue=gr.themes.colors.violet,
        secondary_hue=gr.themes.colors.violet,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=sans,
        font_mono=mono,
    ).set(
        **{name: light for name, (light, _) in look.items()},
        **{f"{name}_dark": dark for name, (_, dark) in look.items()},
        block_border_width="1px",
        input_border_width="1px",
        button_primary_text_color="white",
        # At once: half way between two states a label is hard to read.
        button_transition="none",
    )
