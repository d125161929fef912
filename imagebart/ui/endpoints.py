"""The page's public endpoints, for other programs: plain values in, a growing picture out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from imagebart.errors import InputError
from imagebart.images import load_image
from imagebart.masks import PRESETS, load_mask, preset
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.ui import wording
from imagebart.ui.files import publish

Answers = Iterator[tuple[str, str, int]]


class Endpoints:
    """`/edit` and `/generate` on one pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def edit(self, image: str, mask: str | None, area: str, prompt: str, seed: float | None) -> Answers:
        """
        Redraw a part of a picture, from noise to coarse to fine. Everything outside the mask stays as it is.

        Args:
            image: the picture: a PNG, JPEG, WebP, GIF, BMP or TIFF file
            mask: a picture of the same shape, white (or opaque) where it should be redrawn; may be left out
            area: where to redraw if there is no mask: upper half, lower half, left half, right half, centre,
                border or everything
            prompt: what should be there; may be empty
            seed: a whole number from 0 that makes the result repeatable; left out, a new one is drawn

        Returns:
            the picture so far (the last one is the result), how far it is, and the seed
        """

        def start() -> Iterator[PipelineEvent]:
            picture = load_image(image or "")
            painted = load_mask(mask, picture.size) if mask else preset(area, picture.size)
            return self._pipeline.edit(picture, painted, prompt, seed=_whole(seed))

        yield from _answer(start)

    def generate(self, prompt: str, seed: float | None) -> Answers:
        """
        Draw a new picture from a prompt, from noise to coarse to fine.

        Args:
            prompt: what to draw; may be empty
            seed: a whole number from 0 that makes the result repeatable; left out, a new one is drawn

        Returns:
            the picture so far (the last one is the result), how far it is, and the seed
        """
        yield from _answer(lambda: self._pipeline.generate(prompt, seed=_whole(seed)))


def add_endpoints(pipeline: Pipeline, concurrency_id: str) -> None:
    """Add the endpoints to the page being built. Their components are never shown."""
    endpoints = Endpoints(pipeline)
    with gr.Row(visible=False):
        image, mask = gr.File(label="image", type="filepath"), gr.File(label="mask", type="filepath")
        area = gr.Dropdown(list(PRESETS), value="everything", label="area")
        prompt, seed = gr.Textbox(label="prompt", value=""), gr.Number(label="seed", value=None, precision=0)
        answer = [
            gr.Image(label="picture", format="png"),
            gr.Textbox(label="progress"),
            gr.Number(label="seed used", precision=0),
        ]
        edit, generate = gr.Button("edit"), gr.Button("generate")
    turn: dict[str, Any] = {"concurrency_id": concurrency_id, "concurrency_limit": 1}
    edit.click(endpoints.edit, [image, mask, area, prompt, seed], answer, api_name="edit", **turn)
    generate.click(endpoints.generate, [prompt, seed], answer, api_name="generate", **turn)


def _answer(start: Callable[[], Iterator[PipelineEvent]]) -> Answers:
    try:
        events = start()
        with closing(events):  # type: ignore[type-var]
            for event in events:
                done = event.kind == "result"
                yield publish(event.image), "done" if done else wording.progress_line(event), event.seed
    except InputError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _whole(seed: float | None) -> int | None:
    return None if seed is None else int(seed)
