"""The page's public endpoints, for other programs and MCP clients: plain values in, previews and the result out.

Their docstrings describe them to other programs; Gradio reads one line for each argument.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import gradio as gr
from gradio import FileData

from imagebart.core.errors import InputError, format_value
from imagebart.core.settings import DEFAULT_STRENGTH
from imagebart.imaging.files import FORMAT_NAMES, load_image, write_png
from imagebart.imaging.masks import load_mask, preset
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.ui import MAX_RUN_SECONDS, on_gpu
from imagebart.ui.actions import within_time
from imagebart.ui.files import publish, publish_file


class Endpoints:
    """Each method is one, on one pipeline. Values come as they were sent; a file as a dictionary, see `FileData`."""

    def __init__(self, pipeline: Pipeline, max_seconds: float = MAX_RUN_SECONDS) -> None:
        self._pipeline, self._max_seconds = pipeline, max_seconds

    def edit(
        self,
        image: FileData,
        mask: FileData | None = None,
        area: str = "everything",
        prompt: str = "",
        seed: int | None = None,
        guidance: float | None = None,
        scales: int | None = None,
        exact: bool = False,
    ) -> Iterator[FileData]:
        """Regenerate a part of an image, from noise to coarse to fine. All else stays as it is, to the pixel.

        Args:
            image: the image: a PNG, JPEG or WebP file
            mask: an image of the same shape: white (or opaque) where to regenerate, gray where to forget only a part
            area: what to regenerate if there is no mask: upper, lower, left or right half, center, border or everything
            prompt: what should be there, in a few words (or the class of a class model)
            seed: a whole number from 0 that makes the result repeatable; by default a new one
            guidance: how strictly to follow the prompt, from 1 to about 8; by default the model's own
            scales: the number of coarse-to-fine steps, from 1 to 8; by default the model's own
            exact: whether no pixel outside of the mask may change; by default it is fitted to the model and the prompt

        Returns:
            the image so far; the last one is the result, and its name ends in the seed
        """
        with _input_errors():
            upload = load_image(_path(image))
            painted = load_mask(_path(mask), upload.size) if mask else preset(area, upload.size)
            options = self._options(seed, guidance, scales) | {"exact": exact, "movable": not mask}
            yield from self._images(self._pipeline.edit(upload, painted, _text(prompt), **options))

    def generate(
        self, prompt: str = "", seed: int | None = None, guidance: float | None = None, scales: int | None = None
    ) -> Iterator[FileData]:
        """Generate an image from a prompt, from noise to coarse to fine.

        Args:
            prompt: what should be there, in a few words (or the class of a class model)
            seed: a whole number from 0 that makes the result repeatable; by default a new one
            guidance: how strictly to follow the prompt, from 1 to about 8; by default the model's own
            scales: the number of coarse-to-fine steps, from 1 to 8; by default the model's own

        Returns:
            the image so far; the last one is the result, and its name ends in the seed
        """
        with _input_errors():
            options = self._options(seed, guidance, scales)
            yield from self._images(self._pipeline.generate(_text(prompt), **options))

    def vary(
        self,
        image: FileData,
        strength: float = DEFAULT_STRENGTH,
        prompt: str = "",
        seed: int | None = None,
        guidance: float | None = None,
        scales: int | None = None,
    ) -> Iterator[FileData]:
        """Vary an image: a share of it becomes noise and is regenerated.

        Args:
            image: the image: a PNG, JPEG or WebP file
            strength: the share that is regenerated, over 0 (nearly the same) to 1 (another image)
            prompt: what should be there, in a few words (or the class of a class model)
            seed: a whole number from 0 that makes the result repeatable; by default a new one
            guidance: how strictly to follow the prompt, from 1 to about 8; by default the model's own
            scales: the number of coarse-to-fine steps, from 1 to 8; by default the model's own

        Returns:
            the image so far; the last one is the result, and its name ends in the seed
        """
        with _input_errors():
            options = self._options(seed, guidance, scales)
            yield from self._images(self._pipeline.vary(_path(image), strength, _text(prompt), **options))

    def suggest_mask(self, image: FileData, prompt: str) -> FileData:
        """Select what a prompt is about in an image: a mask for /edit, white where the prompt belongs.

        Args:
            image: the image: a PNG, JPEG or WebP file
            prompt: what should be there, in a few words
        """
        with _input_errors():
            return FileData(path=publish(self._pipeline.suggest_mask(_path(image), _text(prompt))))

    def describe(self, image: FileData) -> str:
        """Describe an image in words that the model knows; with a word changed, they are a prompt for /edit.

        Args:
            image: the image: a PNG, JPEG or WebP file
        """
        with _input_errors():
            return self._pipeline.describe(_path(image))

    def _options(self, seed: int | None, guidance: float | None, scales: int | None) -> dict[str, Any]:
        given = {"guidance": guidance, "scales": scales}
        settings = {name: value for name, value in given.items() if value is not None}
        return {"seed": seed, "settings": self._pipeline.defaults.replace(**settings)}

    def _images(self, events: Iterator[PipelineEvent]) -> Iterator[FileData]:
        with closing(within_time(events, self._max_seconds)) as in_time:
            for event in in_time:
                if event.kind == "result":
                    write = partial(write_png, event.image, recipe=event.recipe)
                    yield FileData(path=publish_file(f"{event.recipe.task}-{event.seed}.png", write))
                else:
                    yield FileData(path=publish(event.image, "preview"))


@contextmanager
def _input_errors() -> Iterator[None]:
    """What is wrong with the input becomes Gradio's own error, which it passes on."""
    try:
        yield
    except InputError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _path(file: Any) -> str:
    if not file:
        raise InputError(f"There is no image; give a {FORMAT_NAMES} file.")
    return str(file["path"])


def _text(prompt: Any) -> str | None:
    if prompt is not None and not isinstance(prompt, str):
        raise InputError(f"The prompt is {format_value(prompt)}; it must be a text.")
    return prompt or None


def add_endpoints(pipeline: Pipeline, concurrency_id: str, max_seconds: float) -> None:
    endpoints = Endpoints(pipeline, max_seconds)
    for function in (endpoints.edit, endpoints.generate, endpoints.vary, endpoints.suggest_mask, endpoints.describe):
        gr.api(on_gpu(function), concurrency_id=concurrency_id, concurrency_limit=1)
