"""The page's public endpoints, for other programs and MCP clients: plain values in, previews and the result out.

Their docstrings describe them to other programs; Gradio reads one line for each argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from inspect import signature
from typing import Any, TypeVar

import gradio as gr
from anyio.to_thread import run_sync

from imagebart.errors import InputError, format_value
from imagebart.imaging.files import FORMAT_NAMES, load_image
from imagebart.imaging.masks import PRESETS, load_mask, preset
from imagebart.imaging.metadata import write_png
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.settings import SamplingSettings
from imagebart.ui import messages
from imagebart.ui.environment import MAX_RUN_SECONDS, on_gpu
from imagebart.ui.files import publish, publish_file, publish_preview
from imagebart.ui.runs import within_time

MCP_PACKAGE = "mcp>=1.21,<2"
DEFAULT_STRENGTH = 0.3  # of /vary
ARGUMENTS = {
    "image": "the image: a PNG, JPEG, WebP, GIF, BMP or TIFF file",
    "mask": "an image of the same shape, white (or opaque) where to regenerate the first one, grey where to forget "
    "only a part of what is there; optional",
    "exact": "whether no pixel outside of the mask may change; by default it is fitted to the model and the prompt",
    "area": "what to regenerate if there is no mask: upper, lower, left or right half, centre, border or everything",
    "strength": "the share that is regenerated, over 0 (nearly the same) to 1 (another image)",
    "prompt": "what should be there, in a few words (or the class of a class model)",
    "seed": "a whole number from 0 that makes the result repeatable; by default a new one",
    "guidance": "how strictly to follow the prompt, from 1 to about 8; by default the model's own",
    "scales": "the number of coarse-to-fine steps, from 1 to 8; by default the model's own",
}

Answers = Iterator[tuple[str, str, int]]
Upload = Mapping[str, Any] | None  # a file in the page's folder, as Gradio describes it
Function = TypeVar("Function", bound=Callable[..., Any])


def describe_arguments(function: Function) -> Function:
    """Adds to an endpoint's docstring what its arguments are; a run's answer is described, too."""
    names = list(signature(function).parameters)[1:]
    lines = [function.__doc__ or "", "", "Args:", *(f"    {name}: {ARGUMENTS[name]}" for name in names)]
    if "seed" in names:
        answer = 'the image so far (the last one is the result), the progress ("done" at the end), and the seed'
        lines += ["", "Returns:", f"    {answer}"]
    function.__doc__ = "\n".join(lines)
    return function


class Endpoints:
    """`/edit`, `/generate`, `/vary`, `/suggest_mask` and `/describe` on one pipeline."""

    def __init__(self, pipeline: Pipeline, max_seconds: float = MAX_RUN_SECONDS) -> None:
        self._pipeline, self._max_seconds = pipeline, max_seconds

    @describe_arguments
    def edit(
        self,
        image: Upload,
        mask: Upload = None,
        area: str = "everything",
        prompt: str = "",
        seed: float | None = None,
        guidance: float | None = None,
        scales: float | None = None,
        exact: bool = False,
    ) -> Answers:
        """Regenerate a part of an image, from noise to coarse to fine. All else stays as it is, to the pixel."""

        def start(settings: SamplingSettings) -> Iterator[PipelineEvent]:
            upload = load_image(_file(image, "image"))
            painted = load_mask(_file(mask, "mask"), upload.size) if mask else preset(area, upload.size)
            options: dict[str, Any] = {"exact": bool(exact), "movable": not mask}
            return self._pipeline.edit(upload, painted, _words(prompt), seed=_whole(seed), settings=settings, **options)

        yield from self._answer(start, guidance, scales)

    @describe_arguments
    def generate(
        self, prompt: str = "", seed: float | None = None, guidance: float | None = None, scales: float | None = None
    ) -> Answers:
        """Generate an image from a prompt, from noise to coarse to fine."""

        def start(settings: SamplingSettings) -> Iterator[PipelineEvent]:
            return self._pipeline.generate(_words(prompt), seed=_whole(seed), settings=settings)

        yield from self._answer(start, guidance, scales)

    @describe_arguments
    def vary(
        self,
        image: Upload,
        strength: float = DEFAULT_STRENGTH,
        prompt: str = "",
        seed: float | None = None,
        guidance: float | None = None,
        scales: float | None = None,
    ) -> Answers:
        """Vary an image: a share of it becomes noise and is regenerated."""

        def start(settings: SamplingSettings) -> Iterator[PipelineEvent]:
            upload = load_image(_file(image, "image"))
            return self._pipeline.vary(upload, strength, _words(prompt), seed=_whole(seed), settings=settings)

        yield from self._answer(start, guidance, scales)

    @describe_arguments
    def suggest_mask(self, image: Upload, prompt: str) -> str:
        """Select what a prompt is about in an image: a mask for /edit, white where the prompt belongs."""
        with _input_errors():
            return publish(self._pipeline.suggest_mask(_file(image, "image"), _words(prompt)))

    @describe_arguments
    def describe(self, image: Upload) -> str:
        """Describe an image in words that the model knows; with a word changed, they are a prompt for /edit."""
        with _input_errors():
            return self._pipeline.describe(_file(image, "image"))

    def _answer(
        self,
        start: Callable[[SamplingSettings], Iterator[PipelineEvent]],
        guidance: float | None,
        scales: float | None,
    ) -> Answers:
        with _input_errors():
            given = {"guidance": guidance, "scales": _whole(scales)}
            settings = self._pipeline.defaults.replace(
                **{name: value for name, value in given.items() if value is not None}
            )
            with closing(within_time(start(settings), self._max_seconds)) as events:
                for event in events:
                    progress = "done" if event.kind == "result" else messages.progress_line(event)
                    yield _published(event), progress, event.seed


@contextmanager
def _input_errors() -> Iterator[None]:
    """What is wrong with the input becomes Gradio's own error, which it passes on."""
    try:
        yield
    except InputError as error:
        raise gr.Error(str(error), print_exception=False) from error


def add_endpoints(pipeline: Pipeline, concurrency_id: str, max_seconds: float) -> None:
    """Add the endpoints to the page being built, with so many seconds for a run. Their components are never shown."""
    endpoints = Endpoints(pipeline, max_seconds)
    with gr.Row(visible=False):
        image, mask = gr.File(label="image", type="filepath"), gr.File(label="mask", type="filepath")
        area = gr.Dropdown(list(PRESETS), value="everything", label="area")
        strength = gr.Number(label="strength", value=DEFAULT_STRENGTH)
        prompt, seed = gr.Textbox(label="prompt", value=""), gr.Number(label="seed", value=None, precision=0)
        guidance, scales = gr.Number(label="guidance", value=None), gr.Number(label="scales", value=None)
        exact = gr.Checkbox(label="exact")
        answer = [
            gr.Image(label="image", format="png"),
            gr.Textbox(label="progress"),
            gr.Number(label="seed used", precision=0),
        ]
        edit, generate, vary = gr.Button("edit"), gr.Button("generate"), gr.Button("vary")
        suggest, describe = gr.Button("suggest a mask"), gr.Button("describe")
        suggested, words = gr.Image(label="mask", format="png"), gr.Textbox(label="words")
    # Values come as they were sent, and are checked here: Gradio would leave an empty file behind for each upload, and
    # complain in sentences of its own.
    turn: dict[str, Any] = {"concurrency_id": concurrency_id, "concurrency_limit": 1, "preprocess": False}
    sampling = [prompt, seed, guidance, scales]
    edit.click(on_gpu(endpoints.edit), [image, mask, area, *sampling, exact], answer, api_name="edit", **turn)
    generate.click(on_gpu(endpoints.generate), sampling, answer, api_name="generate", **turn)
    vary.click(on_gpu(endpoints.vary), [image, strength, *sampling], answer, api_name="vary", **turn)
    suggest.click(on_gpu(endpoints.suggest_mask), [image, prompt], suggested, api_name="suggest_mask", **turn)
    describe.click(on_gpu(endpoints.describe), image, words, api_name="describe", **turn)


def _published(event: PipelineEvent) -> str:
    """The file of the image so far; the result's says how it was made."""
    if event.kind != "result":
        return publish_preview(event.image)
    return publish_file("image.png", lambda path: write_png(event.image, path, event.recipe))


def _file(given: Upload, name: str) -> str:
    if not given:
        raise InputError(f"There is no {name}; give a {FORMAT_NAMES} file.")
    return str(given["path"])


def _words(prompt: Any) -> str | None:
    if prompt is not None and not isinstance(prompt, str):
        raise InputError(f"The prompt is {format_value(prompt)}; it must be a text.")
    return prompt or None


def _whole(seed: Any) -> Any:
    """A whole number as JSON brings it: 7.0 is 7; all else is for the pipeline to judge."""
    return int(seed) if isinstance(seed, float) and seed.is_integer() else seed


def mcp_problem(page: gr.Blocks) -> str | None:
    """One sentence if the endpoints cannot be MCP tools, because the package is missing or does not fit; else None.

    Gradio itself only prints a line in that case, and serves the page without tools.
    """
    from gradio.mcp import GradioMCPServer

    try:
        GradioMCPServer(page)
    except Exception as error:  # a package of another version lacks nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"Tools for MCP clients need another package: pip install '{MCP_PACKAGE}' (Gradio says: {reason})"
    return None


def answer_mcp_with_images(page: gr.Blocks) -> None:
    """Makes the MCP tools of a launched page answer with the image itself, and each other value as a text.

    Gradio makes one text of several values, in which the image is a path of the server.
    """
    server: Any = page.mcp_server_obj
    if server is None:
        return

    async def values(job: Any) -> list[Any]:
        return list(await run_sync(job.result))

    server._execute_tool_without_progress = values
