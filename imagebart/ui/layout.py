"""What stands where on the left and at the foot, and what is asked for. Each function adds one part to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from imagebart.masks import PRESETS
from imagebart.ui import wording
from imagebart.ui.examples import Example
from imagebart.ui.picture import BRUSH_OPACITY, BRUSH_RGB, SMALLEST_VIEW

BRUSH = f"rgba({', '.join(map(str, BRUSH_RGB))}, {BRUSH_OPACITY})"
BRUSH_SIZE = 28
CANVAS_HEIGHT = 460
# As they are called on the page, by the names of the actions.
TOOLS = {
    "invert": "Invert",
    "grow": "Grow",
    "shrink": "Shrink",
    "last_mask": "Last mask",
}


@dataclass(frozen=True)
class Canvas:
    """Where the picture is chosen and painted on."""

    editor: gr.ImageEditor
    facts: gr.HTML
    upload: gr.UploadButton
    undo: gr.Button
    redo: gr.Button
    ready: dict[str, gr.Button]
    tools: dict[str, gr.Button]
    upload_mask: gr.UploadButton
    clear: gr.Button
    examples: gr.Gallery | None


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
    gr.HTML(wording.HEADING, elem_id="heading")
    line = gr.HTML(elem_id="model", **parts["model_line"])
    model = gr.Dropdown(
        list(names), value=names[0], label="Model", filterable=False, visible=len(names) > 1, elem_id="model-choice"
    )
    lexicon = gr.HTML(elem_id="lexicon", **parts["lexicon"])
    visit = gr.HTML(elem_id="visit")
    paint = gr.HTML(visible=False)
    return {"model": model, "model_line": line, "lexicon": lexicon, "visit": visit, "paint": paint}


def add_canvas(examples: Sequence[Example]) -> Canvas:
    """The examples, the canvas, empty at first, and the masks."""
    gr.HTML(wording.step_html(1, "Pick a picture", "or drop, paste or upload one"))
    gallery = _examples(examples) if examples else None
    with gr.Row(elem_classes="ib-tools"):
        upload = gr.UploadButton("Upload a picture", size="sm", elem_id="upload")
        undo = gr.Button("Previous picture", size="sm", interactive=False, elem_id="undo-picture")
        redo = gr.Button("Next picture", size="sm", interactive=False, elem_id="redo-picture")
    gr.HTML(wording.step_html(2, "Paint over what should change"))
    editor = gr.ImageEditor(
        label="Paint here",
        show_label=False,
        elem_id="canvas",
        type="pil",
        format="png",
        # Files come in through the upload button (dropped and pasted ones too, see page.js): the server sees
        # the file itself and not the browser's drawing of it.
        sources=(),
        transforms=(),
        layers=False,
        brush=gr.Brush(default_size=BRUSH_SIZE, colors=[BRUSH], default_color=BRUSH, color_mode="fixed"),
        eraser=gr.Eraser(default_size=BRUSH_SIZE),
        canvas_size=(SMALLEST_VIEW, SMALLEST_VIEW),
        fixed_canvas=False,
        height=CANVAS_HEIGHT,
        buttons=[],
    )
    with gr.Row(elem_id="under-canvas"):
        gr.HTML(wording.GRID_LINE)
        gr.Checkbox(
            True, label="Show the tokens", interactive=True, container=False, min_width=120, elem_id="show-grid"
        )
        facts = gr.HTML(wording.facts_html(None), elem_id="facts")
    gr.HTML(wording.READY_MASKS)
    with gr.Row(elem_classes="ib-tools", elem_id="ready"):
        ready = {name: gr.Button(name.capitalize(), size="sm") for name in PRESETS}
    gr.HTML(wording.MASK_TOOLS)
    with gr.Row(elem_classes="ib-tools", elem_id="mask-tools"):
        tools = {name: gr.Button(label, size="sm") for name, label in TOOLS.items()}
        upload_mask = gr.UploadButton("Upload a mask", size="sm", elem_id="upload-mask")
        clear = gr.Button("Clear the mask", size="sm", elem_id="clear-mask")
    return Canvas(editor, facts, upload, undo, redo, ready, tools, upload_mask, clear, gallery)


def _examples(examples: Sequence[Example]) -> gr.Gallery:
    return gr.Gallery(
        [(example.thumbnail(), example.caption) for example in examples],
        label="Examples",
        show_label=False,
        elem_id="examples",
        columns=len(examples),
        height="auto",
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        format="png",
        buttons=[],
    )


def add_runner(kind: str, parts: Mapping[str, Mapping[str, Any]]) -> Runner:
    """The prompt and the buttons, for a model of a kind of conditioning."""
    title = "Press Edit" if kind == "none" else "Say what should be there"
    gr.HTML(wording.step_html(3, title, "Generate makes a whole new picture"))
    with gr.Row(elem_id="ask"):
        words = gr.Textbox(
            label="What should be there?",
            placeholder="A few words, such as: sunglasses. May be empty.",
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
            elem_id="choice",
            **parts["choice"],
        )
        surprise = gr.Button("Surprise me", size="sm", min_width=110, visible=kind != "none", elem_id="surprise")
    gr.HTML(wording.UNKNOWN_LINE)
    suggestions = gr.HTML(elem_id="suggestions", **parts["suggestions"])
    with gr.Row(elem_id="actions"):
        edit = gr.Button("Edit", variant="primary", min_width=90, elem_id="edit")
        generate = gr.Button("Generate", min_width=90, elem_id="generate")
        vary = gr.Button("Vary", min_width=70, elem_id="vary")
        cancel = gr.Button("Cancel", variant="stop", min_width=90, interactive=False, elem_id="cancel")
    variants = gr.Radio([1, 2, 3, 4], value=1, label="Pictures at once", elem_id="how-many")
    controls: dict[str, gr.components.Component] = {"words": words, "choice": choice, "variants": variants}
    return Runner(controls, {"suggestions": suggestions, "surprise": surprise}, edit, generate, vary, cancel)


def add_foot(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, gr.components.Component]:
    """What a model knows, and its card, folded away."""
    with gr.Accordion("Words this model knows", open=False, elem_id="words"):
        words = gr.HTML(**parts["words_list"])
    with gr.Accordion("About this model", open=False, elem_id="card"):
        card = gr.Markdown(**parts["card"])
    return {"words_list": words, "card": card}
