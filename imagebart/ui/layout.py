"""What stands where. Each function adds one part to the page being built and returns its components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from imagebart.masks import PRESETS
from imagebart.pipeline import Pipeline
from imagebart.ui import wording
from imagebart.ui.examples import Example
from imagebart.ui.picture import BRUSH_OPACITY, BRUSH_RGB, SMALLEST_VIEW, Picture, to_editor
from imagebart.ui.settings import Settings, add_settings

BRUSH = f"rgba({', '.join(map(str, BRUSH_RGB))}, {BRUSH_OPACITY})"
BRUSH_SIZE = 28
CANVAS_HEIGHT = 460


@dataclass(frozen=True)
class Canvas:
    """Where the picture is chosen and painted on."""

    editor: gr.ImageEditor
    upload: gr.UploadButton
    clear: gr.Button
    ready: dict[str, gr.Button]
    upload_mask: gr.UploadButton
    examples: gr.Gallery | None


@dataclass(frozen=True)
class Runner:
    """What is asked for, and the buttons."""

    prompt: gr.Textbox | gr.Dropdown
    edit: gr.Button
    generate: gr.Button
    cancel: gr.Button


@dataclass(frozen=True)
class Results:
    """What came out."""

    progress: gr.HTML
    announcement: gr.HTML
    messages: gr.HTML
    preview: gr.Image
    comparison: gr.ImageSlider
    strip: gr.Gallery
    resume: gr.Button


@dataclass(frozen=True)
class Vary:
    """A variation of the whole picture."""

    strength: gr.Slider
    button: gr.Button


def add_heading(pipeline: Pipeline) -> None:
    """What this is, and which model it runs."""
    summary = wording.model_summary(pipeline.knows, pipeline.image_size, pipeline.grid, pipeline.stages)
    gr.HTML(wording.heading_html(pipeline.name, summary), elem_id="heading")


def add_canvas(first: Picture | None, examples: Sequence[Example]) -> Canvas:
    gr.HTML(wording.step_html(1, "Pick a picture", "or drop, paste or upload one"))
    gallery = _examples(examples) if examples else None
    with gr.Row(elem_classes="ib-tools"):
        upload = gr.UploadButton("Upload a picture", size="sm", elem_id="upload")
    gr.HTML(wording.step_html(2, "Paint over what should change"))
    editor = gr.ImageEditor(
        value=to_editor(first) if first else None,  # type: ignore[arg-type]
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
    gr.HTML(wording.READY_MASKS)
    with gr.Row(elem_classes="ib-tools", elem_id="ready"):
        ready = {name: gr.Button(name.capitalize(), size="sm") for name in PRESETS}
        upload_mask = gr.UploadButton("Upload a mask", size="sm", elem_id="upload-mask")
        clear = gr.Button("Clear the mask", size="sm", elem_id="clear-mask")
    return Canvas(editor, upload, clear, ready, upload_mask, gallery)


def _examples(examples: Sequence[Example]) -> gr.Gallery:
    return gr.Gallery(
        [(str(example.path), example.caption) for example in examples],
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


def add_runner(pipeline: Pipeline) -> Runner:
    prompt: gr.Textbox | gr.Dropdown
    title = "Press Edit" if pipeline.conditioning == "none" else "Say what should be there"
    gr.HTML(wording.step_html(3, title, "Generate makes a whole new picture"))
    if pipeline.conditioning == "class":
        prompt = gr.Dropdown(
            pipeline.classes,
            value=pipeline.classes[0],
            label="What should be there?",
            filterable=True,
            elem_id="prompt",
        )
    else:
        prompt = gr.Textbox(
            label="What should be there?",
            placeholder="A few words, such as: sunglasses. May be empty.",
            show_label=False,
            lines=1,
            max_lines=3,
            submit_btn=False,
            visible=pipeline.conditioning == "text",
            elem_id="prompt",
        )
    with gr.Row(elem_id="actions"):
        edit = gr.Button("Edit", variant="primary", min_width=90, elem_id="edit")
        generate = gr.Button("Generate", min_width=90, elem_id="generate")
        cancel = gr.Button("Cancel", variant="stop", min_width=90, interactive=False, elem_id="cancel")
    return Runner(prompt, edit, generate, cancel)


def add_results() -> Results:
    progress = gr.HTML(elem_id="progress")
    announcement = gr.HTML(elem_id="announcement")
    messages = gr.HTML(elem_id="messages")
    with gr.Tabs(elem_id="results"):
        with gr.Tab("Result"):
            preview = gr.Image(
                label="Result",
                show_label=False,
                format="png",
                interactive=False,
                height=360,
                elem_id="preview",
                buttons=["download", "fullscreen"],
            )
        with gr.Tab("Before and after"):
            comparison = gr.ImageSlider(
                label="Before and after",
                show_label=False,
                format="png",
                type="pil",
                interactive=False,
                height=360,
                elem_id="comparison",
                buttons=[],
            )
    strip = gr.Gallery(
        label="From noise to picture",
        elem_id="strip",
        columns=6,
        height="auto",
        object_fit="contain",
        interactive=False,
        format="png",
        buttons=[],
    )
    resume = gr.Button("Continue from this result", size="md", interactive=False, elem_id="resume")
    return Results(progress, announcement, messages, preview, comparison, strip, resume)


def add_foot(pipeline: Pipeline) -> tuple[Settings, Vary]:
    settings = add_settings(pipeline.defaults, guided=pipeline.conditioning != "none")
    with gr.Accordion("Vary the whole picture", open=False, elem_id="vary-section"):
        strength = gr.Slider(
            0.05,
            1,
            value=0.5,
            step=0.05,
            label="Strength",
            info="Small keeps the picture's layout, large starts nearly from noise.",
        )
        button = gr.Button("Vary", size="md", elem_id="vary")
    if pipeline.vocabulary:
        with gr.Accordion("Words this model knows", open=False, elem_id="words"):
            gr.HTML(wording.words_html(pipeline.vocabulary))
    if pipeline.card:
        with gr.Accordion("About this model", open=False, elem_id="card"):
            gr.Markdown(pipeline.card)
    return settings, Vary(strength, button)
