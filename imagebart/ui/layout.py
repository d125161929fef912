"""The page's layout and looks. Each function adds a part to the page, and returns its components by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import gradio as gr

from imagebart.ui import messages
from imagebart.ui.controls import MAX_IMAGES, SLIDERS

SCRIPTS = ("channel.js", "prompt.js", "live.js")
STYLES = ("page.css", "sketchpad/sketchpad.css")
# Folds the settings once they are there. In a part that begins folded, Gradio gives fields their first values again
# some frames after they came, and what somebody wrote meanwhile is lost (`render_previously_invisible_children`).
FOLD = """() => {
  document.documentElement.dataset.folded = "";
  return { __type__: "update", open: false };
}"""

Parts = dict[str, Any]  # components by name
Properties = Mapping[str, Mapping[str, Any]]  # of components, by their names


def add_heading(models: Sequence[str], properties: Properties) -> Parts:
    """The title, the model that is used, and the others that can be chosen."""
    with gr.Row(elem_id="top"):
        gr.HTML(messages.HEADING, elem_id="heading")
        line = gr.HTML(elem_id="model", **properties["model_line"])
        model = gr.Dropdown(
            list(models),
            value=models[0],
            label="Model",
            filterable=False,
            visible=len(models) > 1,
            elem_id="model-choice",
        )
    lexicon = gr.HTML(elem_id="lexicon", **properties["lexicon"])
    return {"model": model, "model_line": line, "lexicon": lexicon}


def add_prompt_and_buttons(properties: Properties) -> Parts:
    """The prompt, the buttons of runs and their progress: on a phone always within reach."""
    with gr.Column(elem_id="dock"):
        with gr.Row(elem_id="ask"):
            words = gr.Textbox(
                label="What should be there?",
                placeholder="What should be there? A few words, such as: sunglasses",
                show_label=False,
                container=False,
                lines=1,
                max_lines=3,
                submit_btn=False,
                elem_id="prompt",
                **properties["words"],
            )
            choice = gr.Dropdown(
                label="What should be there?",
                show_label=False,
                container=False,
                filterable=True,
                multiselect=True,
                max_choices=MAX_IMAGES,
                elem_id="choice",
                **properties["choice"],
            )
            surprise = gr.Button("Surprise me", size="sm", min_width=110, elem_id="surprise", **properties["surprise"])
        with gr.Row(elem_id="actions"):
            edit = gr.Button("Edit", variant="primary", min_width=90, elem_id="edit")
            generate = gr.Button("Generate", min_width=90, elem_id="generate")
            vary = gr.Button("Vary", min_width=70, elem_id="vary")
            cancel = gr.Button("Cancel", variant="stop", min_width=90, interactive=False, elem_id="cancel")
        progress = gr.HTML(elem_id="progress")
        announcement = gr.HTML(elem_id="announcement")
        notes = gr.HTML(elem_id="messages")
    gr.HTML(messages.PROMPT_CHECK)
    suggestions = gr.HTML(elem_id="suggestions", **properties["suggestions"])
    variants = gr.Radio(list(range(1, MAX_IMAGES + 1)), value=1, label="Images at once", elem_id="how-many")
    best_first = gr.Checkbox(
        False,
        label="Best first",
        info="The images that match your prompt best come first.",
        elem_id="best-first",
        **properties["best_first"],
    )
    with gr.Row(elem_id="sharing"):
        gr.Button("Copy the prompt", size="sm", min_width=110, elem_id="copy-words")
        share = gr.Button("Copy a link to this", size="sm", min_width=110, elem_id="share")
    gr.HTML(messages.HISTORY, apply_default_css=False)
    return {
        "words": words,
        "choice": choice,
        "surprise": surprise,
        "edit": edit,
        "generate": generate,
        "vary": vary,
        "cancel": cancel,
        "progress": progress,
        "announcement": announcement,
        "messages": notes,
        "suggestions": suggestions,
        "variants": variants,
        "best_first": best_first,
        "share": share,
    }


def add_settings(values: Mapping[str, Any], properties: Properties) -> Parts:
    """The seed and the sliders, at these values, to be folded by FOLD; each has a line of help."""
    with gr.Accordion("Settings", elem_id="settings") as accordion:
        with gr.Row():
            seed = gr.Number(
                value=values["seed"],
                precision=0,
                label="Seed",
                info="The same seed, image, mask and prompt give the same result.",
                elem_id="seed",
            )
            with gr.Column(min_width=160):
                new_seed = gr.Checkbox(
                    values["new_seed"], label="New seed each time", info="Off: the seed stays.", elem_id="new-seed"
                )
                reuse_seed = gr.Button("Keep the last seed", size="sm", elem_id="reuse-seed")
        sliders = {}
        for slider in SLIDERS:
            sliders[slider.name] = gr.Slider(
                slider.minimum,
                slider.maximum,
                values[slider.name],
                step=slider.step,
                label=slider.label,
                info=slider.info,
                elem_id=slider.name.replace("_", "-"),
                **properties.get(slider.name, {}),
            )
        reset = gr.Button("Reset the settings", size="sm", elem_id="reset")
    buttons = {"reuse_seed": reuse_seed, "reset": reset}
    return {"settings": accordion, "seed": seed, "new_seed": new_seed, **sliders, **buttons}


def add_about(properties: Properties) -> Parts:
    """What a model knows, what it is, and its card, folded."""
    with gr.Accordion("Words this model knows", open=False, elem_id="words"):
        vocabulary = gr.HTML(**properties["vocabulary"])
    with gr.Accordion("About this model", open=False, elem_id="card"):
        about = gr.Markdown(**properties["about"])
        with gr.Accordion("The whole card", open=False, elem_id="whole-card"):
            card = gr.Markdown(**properties["card"])
    return {"vocabulary": vocabulary, "about": about, "card": card}


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
    return gr.themes.Base(
        primary_hue=gr.themes.colors.violet,
        secondary_hue=gr.themes.colors.violet,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=sans,
        font_mono=mono,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_border_width="1px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        # At once: half way between two states a label is hard to read.
        button_transition="none",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
