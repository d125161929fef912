"""What stands where, and what is asked for. Each function adds one part to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from imagebart.ui import messages as wording
from imagebart.ui.controls import MOST_PICTURES


@dataclass(frozen=True)
class Runner:
    """What is asked for, and the buttons; `controls` and `parts` by name."""

    controls: dict[str, gr.components.Component]
    parts: dict[str, gr.components.Component]
    edit: gr.Button
    generate: gr.Button
    vary: gr.Button
    cancel: gr.Button


def add_heading(names: Sequence[str], parts: Mapping[str, Mapping[str, Any]]) -> dict[str, gr.components.Component]:
    """What this is, which model it runs, and which others there are."""
    with gr.Row(elem_id="top"):
        gr.HTML(wording.HEADING, elem_id="heading")
        line = gr.HTML(elem_id="model", **parts["model_line"])
        model = gr.Dropdown(
            list(names), value=names[0], label="Model", filterable=False, visible=len(names) > 1, elem_id="model-choice"
        )
    lexicon = gr.HTML(elem_id="lexicon", **parts["lexicon"])
    return {"model": model, "model_line": line, "lexicon": lexicon}


def add_runner(kind: str, parts: Mapping[str, Mapping[str, Any]]) -> Runner:
    """The prompt and the buttons, for a model of a kind of conditioning; on a phone always within reach."""
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
                **parts["words"],
            )
            choice = gr.Dropdown(
                label="What should be there?",
                show_label=False,
                container=False,
                filterable=True,
                multiselect=True,
                max_choices=MOST_PICTURES,
                elem_id="choice",
                **parts["choice"],
            )
            surprise = gr.Button("Surprise me", size="sm", min_width=110, visible=kind != "none", elem_id="surprise")
        with gr.Row(elem_id="actions"):
            edit = gr.Button("Edit", variant="primary", min_width=90, elem_id="edit")
            generate = gr.Button("Generate", min_width=90, elem_id="generate")
            vary = gr.Button("Vary", min_width=70, elem_id="vary")
            cancel = gr.Button("Cancel", variant="stop", min_width=90, interactive=False, elem_id="cancel")
        progress = gr.HTML(elem_id="progress")
        announcement = gr.HTML(elem_id="announcement")
        messages = gr.HTML(elem_id="messages")
    gr.HTML(wording.UNKNOWN_LINE)
    suggestions = gr.HTML(elem_id="suggestions", **parts["suggestions"])
    variants = gr.Radio(list(range(1, MOST_PICTURES + 1)), value=1, label="Pictures at once", elem_id="how-many")
    best_first = gr.Checkbox(
        False,
        label="Best first",
        info="The pictures in which your words are seen best come first.",
        elem_id="best-first",
        **parts["best_first"],
    )
    controls: dict[str, gr.components.Component] = {
        "words": words,
        "choice": choice,
        "variants": variants,
        "best_first": best_first,
    }
    shown: dict[str, gr.components.Component] = {
        "suggestions": suggestions,
        "surprise": surprise,
        "progress": progress,
        "announcement": announcement,
        "messages": messages,
    }
    return Runner(controls, shown, edit, generate, vary, cancel)


def add_history() -> None:
    """Where the sketchpad shows the runs so far."""
    gr.HTML(wording.HISTORY, apply_default_css=False)


def add_foot(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, gr.components.Component]:
    """What a model knows, what it is, and its card, folded away."""
    with gr.Accordion("Words this model knows", open=False, elem_id="words"):
        words = gr.HTML(**parts["words_list"])
    with gr.Accordion("About this model", open=False, elem_id="card"):
        about = gr.Markdown(**parts["about"])
        with gr.Accordion("The whole card", open=False, elem_id="whole-card"):
            card = gr.Markdown(**parts["card"])
    return {"words_list": words, "about": about, "card": card}
