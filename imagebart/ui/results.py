"""Where a run is watched, and looked at again when it is finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

RESULT_HEIGHT = 340


@dataclass(frozen=True)
class Results:
    """The parts that show a run."""

    progress: gr.HTML
    announcement: gr.HTML
    messages: gr.HTML
    preview: gr.Image
    comparison: gr.ImageSlider
    variant_gallery: gr.Gallery
    scrubber: gr.Slider
    step_line: gr.HTML
    strip: gr.Gallery
    resume: gr.Button
    download: gr.DownloadButton
    webp: gr.Button
    gif: gr.Button
    animation: gr.DownloadButton
    results_gallery: gr.Gallery


def add_results() -> Results:
    """Add the progress, the pictures of the run, and what can be done with them."""
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
                height=RESULT_HEIGHT,
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
                height=RESULT_HEIGHT,
                elem_id="comparison",
                buttons=[],
            )
    variant_gallery = _gallery("Variants: pick one", "variants", visible=False)
    scrubber = gr.Slider(
        1,
        2,
        value=1,
        step=1,
        label="From noise to picture",
        visible=False,
        buttons=[],
        elem_id="scrubber",
    )
    step_line = gr.HTML(elem_id="step-line")
    strip = _gallery("Stages of the run", "strip")
    resume = gr.Button("Continue from what is shown", size="md", interactive=False, elem_id="resume")
    with gr.Row(elem_classes="ib-tools", elem_id="save"):
        download = gr.DownloadButton("Download the result", size="sm", interactive=False, elem_id="download")
        webp = gr.Button("Save the run as WebP", size="sm", interactive=False, elem_id="save-webp")
        gif = gr.Button("… as GIF", size="sm", interactive=False, elem_id="save-gif")
        animation = gr.DownloadButton("Animation", size="sm", visible="hidden", elem_id="animation")
    results_gallery = _gallery("Results so far: pick one to go on from it", "history")
    return Results(
        progress,
        announcement,
        messages,
        preview,
        comparison,
        variant_gallery,
        scrubber,
        step_line,
        strip,
        resume,
        download,
        webp,
        gif,
        animation,
        results_gallery,
    )


def _gallery(label: str, elem_id: str, **options: Any) -> gr.Gallery:
    return gr.Gallery(
        label=label,
        elem_id=elem_id,
        elem_classes="ib-strip",
        columns=6,
        height="auto",
        object_fit="contain",
        allow_preview=False,
        interactive=False,
        format="png",
        buttons=[],
        **options,
    )
