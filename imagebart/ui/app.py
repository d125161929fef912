"""The page: its parts, which action belongs to which event, and the server that it runs on.

Actions know components by their names only: they take values by name, and return updates by name (see `connect`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from importlib.resources import files
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.routes import templates
from jinja2 import Environment, FunctionLoader
from starlette.middleware import Middleware
from starlette.responses import FileResponse
from starlette.routing import Route

from imagebart.pipeline import Pipeline
from imagebart.ui import messages, runs
from imagebart.ui.controls import NAMES, RESET, starting_values
from imagebart.ui.downloads import Downloads
from imagebart.ui.endpoints import add_endpoints, answer_mcp_with_images
from imagebart.ui.environment import MAX_RUN_SECONDS, on_gpu
from imagebart.ui.errors import GuardedBlocks, RequestGuard, answering, upload_not_written
from imagebart.ui.examples import Example
from imagebart.ui.files import MAX_FILE, tidying
from imagebart.ui.layout import (
    FOLD,
    Parts,
    add_about,
    add_heading,
    add_prompt_and_buttons,
    add_settings,
    scripts,
    styles,
    theme,
)
from imagebart.ui.model_list import (
    ModelChoice,
    Models,
    list_models,
    model_properties,
    reset_settings,
    slider_properties,
    surprise,
    switch_model,
)
from imagebart.ui.queries import RESTORED, Queries
from imagebart.ui.runs import UPDATED, Cancellation, Runs, in_order
from imagebart.ui.sketchpad.component import add_channel, add_receiver, add_sketchpad
from imagebart.ui.sketchpad.stored_images import animate, compose, expand, link_token, open_image

MAX_QUEUE = 48  # requests that wait at once, of a page a run and a question; further ones are told that it is busy
# Seconds after which temporary files are forgotten, and between two looks for such files.
FILE_AGE, FILE_INTERVAL = 3600, 600
MODEL_QUEUE = "model"  # all that use the model take turns

LINK_PREVIEW = "/link-preview.png"
LINK_TAGS = re.compile(r'<meta\s+(?:property="og:|name="twitter:)[^>]*>')

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
AT_ONCE: dict[str, Any] = {**PRIVATE, "show_progress": "hidden", "queue": False}
IN_TURN: dict[str, Any] = {**PRIVATE, "concurrency_id": MODEL_QUEUE, "concurrency_limit": 1}

# For RunState (sketchpad/run.js): that the last run is over. Its name is where RunState has put it.
RUN_OVER = 'imagebart.send("run_over", true);'
RUN_NAME = "document.documentElement.dataset.runName"
WITH_RUN_NAME = f"(sketchpad, ...values) => [{{ ...sketchpad, run: {RUN_NAME} }}, ...values]"
SEND_CONTROLS = f"""(...values) => {{
  imagebart.send("share", Object.fromEntries({json.dumps(NAMES)}.map((name, i) => [name, values[i]])));
}}"""


def build_page(
    pipeline: Pipeline,
    examples: Sequence[Example] = (),
    models: Models | None = None,
    max_run_seconds: float = MAX_RUN_SECONDS,
    downloads: Downloads | None = None,
) -> gr.Blocks:
    """The page, opened on a model and the first example; `models` can be switched to. See `launch_page`.

    max_run_seconds: after which a run is ended by a sentence, as others wait for the model. downloads: of published
    models; by default nobody may start one.
    """
    choice = ModelChoice(pipeline, models, examples, downloads)
    properties = model_properties(pipeline)
    with GuardedBlocks(
        title=messages.TITLE,
        analytics_enabled=False,
        delete_cache=(FILE_INTERVAL, FILE_AGE),
        fill_width=False,
    ) as page:
        # First, because later events whose functions have the same names get other names.
        add_endpoints(pipeline, MODEL_QUEUE, max_run_seconds)
        queries, cancellation = Queries(choice), Cancellation(page)
        calls = (open_image, link_token, compose, animate, expand, queries.check_prompt)
        functions = [answering(call) for call in calls]
        parts = add_heading(choice.names(), properties)
        with gr.Row(elem_id="desk", equal_height=False):
            with gr.Column(min_width=300, elem_id="left"):
                parts["sketchpad"] = add_sketchpad(choice.examples(), [*functions, cancellation.endpoint()])
            with gr.Column(min_width=300, elem_id="right"):
                parts |= add_prompt_and_buttons(properties)
                parts |= add_settings(starting_values(pipeline), slider_properties(pipeline))
                parts |= add_about(properties)
        parts |= {name: add_channel(name) for name in ("run", "fit", "answer", "examples", "random_prompt")}
        parts["link"] = add_receiver("open_link")
        _connect_queries(parts, queries)
        _connect_runs(parts, Runs(choice, max_run_seconds), cancellation)
        _connect_model(parts, choice, page)
        page.load(None, None, [parts["settings"], parts["advanced"]], js=FOLD, **AT_ONCE)
    page.queue(max_size=MAX_QUEUE, default_concurrency_limit=4)
    return page


def connect(
    parts: Parts,
    event: Callable[..., Any],
    action: Callable[..., Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
    **options: Any,
) -> Any:
    """Connects an event to an action.

    action: takes the values of `inputs` by name, and returns an update: new values of some of `outputs` by name. A
    generator yields updates.
    """

    def values_of(update: dict[str, Any]) -> Any:
        unknown = update.keys() - set(outputs)
        if unknown:
            raise ValueError(f"{action} updates {sorted(unknown)}, expected some of {outputs}")
        values = in_order(update, tuple(outputs))
        return values if len(values) > 1 else values[0]

    def call(*values: Any) -> Any:
        return values_of(action(**dict(zip(inputs, values, strict=True))))

    def stream(*values: Any) -> Any:
        with closing(action(**dict(zip(inputs, values, strict=True)))) as updates:
            for update in updates:
                yield values_of(update)

    function = stream if isgeneratorfunction(action) else call
    function.__name__ = getattr(action, "__name__", function.__name__)
    return event(function, [parts[name] for name in inputs], [parts[name] for name in outputs], **options)


def _connect_queries(parts: Parts, queries: Queries) -> None:
    sketchpad = parts["sketchpad"]
    sketch = ("sketchpad", "model")
    # Asked by the sketchpad alone, one question at a time: see fit.js.
    fitted: dict[str, Any] = {**PRIVATE, "show_progress": "hidden", "concurrency_id": "fit", "concurrency_limit": 1}
    given = (*sketch, "words", "exact", "context")
    answered = connect(parts, sketchpad.input, on_gpu(queries.fit), given, ("fit",), trigger_mode="multiple", **fitted)
    answered.failure(None, None, None, js="() => imagebart.send('fit', {})", **AT_ONCE)
    for name in ("exact", "context", "model"):
        parts[name].change(None, None, None, js="() => imagebart.send('fit_again', true)", **AT_ONCE)
    connect(parts, sketchpad.upload, queries.restore_settings, sketch, (*RESTORED, "messages"), **AT_ONCE)
    # The sketchpad's requests have the names of events that nothing else triggers, see gradio.js.
    answers = ("answer", "messages")
    asked = {**IN_TURN, "show_progress": "hidden", "trigger_mode": "multiple"}
    for answered in (
        connect(parts, sketchpad.select, on_gpu(queries.select_by_prompt), (*sketch, "words"), answers, **asked),
        connect(parts, sketchpad.copy, on_gpu(queries.describe_image), sketch, answers, **asked),
    ):
        connect(parts, answered.failure, queries.no_answer, (), answers, **AT_ONCE)
    connect(parts, sketchpad.tick, on_gpu(queries.recognize_image), sketch, ("answer",), **asked)
    parts["share"].click(None, [parts[name] for name in NAMES], None, js=SEND_CONTROLS, **AT_ONCE)
    opened = (*(name for name in NAMES if name != "model"), "messages")
    connect(parts, parts["link"].input, queries.open_link, ("link", "model"), opened, **AT_ONCE)


def _connect_runs(parts: Parts, page_runs: Runs, cancellation: Cancellation) -> None:
    updated = [parts[name] for name in UPDATED]
    # Updates that the browser makes by itself: at the click, though the model may be busy for a while, and at the end.
    # A run is not over with its last update: until Gradio has heard of the end, it drops a click.
    waiting = f"() => ({json.dumps(in_order(runs.waiting(), UPDATED))})"
    failure = json.dumps(in_order(runs.failed(messages.SERVER_BUSY, "RUN_NAME"), UPDATED))
    values = failure.replace('"RUN_NAME"', RUN_NAME)
    failed = f"() => {{ {RUN_OVER} return {values}; }}"
    for name, run in (("edit", page_runs.edit), ("generate", page_runs.generate), ("vary", page_runs.vary)):
        click = parts[name].click
        click(None, None, updated, js=waiting, **AT_ONCE)
        # The values are read at the very click, so nothing may come before it.
        going_on = connect(
            parts,
            click,
            cancellation.applied_to(on_gpu(run)),
            ("sketchpad", *NAMES),
            UPDATED,
            js=WITH_RUN_NAME,
            show_progress="minimal",
            show_progress_on=parts["progress"],
            **IN_TURN,
        )
        going_on.success(None, None, None, js=f"() => {{ {RUN_OVER} }}", **AT_ONCE)
        going_on.failure(None, None, updated, js=failed, **AT_ONCE)


def _connect_model(parts: Parts, choice: ModelChoice, page: gr.Blocks) -> None:
    model = parts["model"]
    # Models may have come since the server started.
    connect(parts, page.load, partial(list_models, choice), (), ("model",), **AT_ONCE)
    # Not `input`, which comes, too, when the Tab key leaves the list: then all settings would be lost.
    connect(
        parts,
        model.change,
        partial(switch_model, choice),
        ("model",),
        ("model", "examples", *model_properties(choice.first), *RESET),
        show_progress="minimal",
        show_progress_on=parts["model_line"],
        **PRIVATE,
    )
    connect(parts, parts["reset"].click, partial(reset_settings, choice), ("model",), RESET, **AT_ONCE)
    random = ("random_prompt", "choice")
    connect(parts, parts["surprise"].click, partial(surprise, choice), ("model",), random, **AT_ONCE)
    # The seed's field shows what the last run used.
    connect(parts, parts["reuse_seed"].click, lambda: {"new_seed": False}, (), ("new_seed",), **AT_ONCE)


def link_preview() -> Path | None:
    """The image that previews of links to the page show; None where the package is installed without it."""
    path = Path(str(files("imagebart"))).parent / "assets" / "edit-strip.png"
    return path if path.is_file() else None


def describe_page_to_links(environment: Environment, image: bool) -> None:
    """Has Gradio's template describe this page to previews of links; it would show Gradio's own title and image."""
    loader = environment.loader

    def load(name: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        assert loader is not None
        source, path, unchanged = loader.get_source(environment, name)
        tags = {"og:title": messages.TITLE, "og:description": messages.SUMMARY, "og:type": "website"}
        # Such an address has to be whole. `root` is the page's own, as Gradio finds it for each request.
        tags |= (
            {"og:image": "{{ config['root'] }}" + LINK_PREVIEW, "twitter:card": "summary_large_image"} if image else {}
        )
        ours = "".join(f'<meta property="{name}" content="{content}">' for name, content in tags.items())
        return LINK_TAGS.sub("", source).replace("<head>", f"<head>{ours}", 1), path, unchanged

    environment.loader = FunctionLoader(load)


def launch_page(page: gr.Blocks, **options: Any) -> tuple[Any, str, str]:
    """Launches a page made by `build_page`. `options` go to `Blocks.launch` (server_name, server_port, ...)."""
    preview = link_preview()
    if not isinstance(templates.env.loader, FunctionLoader):  # another page of this process has done it
        describe_page_to_links(templates.env, preview is not None)
    launched = page.launch(
        theme=theme(),
        css=styles(),
        head=scripts(),
        max_file_size=MAX_FILE,
        show_error=True,
        share=False,
        ssr_mode=False,
        run_history=False,
        footer_links=["api"],
        enable_monitoring=False,
        app_kwargs={
            "exception_handlers": {OSError: upload_not_written},
            "lifespan": tidying,
            "routes": [Route(LINK_PREVIEW, lambda _: FileResponse(preview))] if preview else [],
            "middleware": [Middleware(RequestGuard)],
        },
        # Gradio asks itself for the page and gives up after 3 s, which a busy machine may take.
        _frontend=False,
        **options,
    )
    answer_mcp_with_images(page)
    return launched
