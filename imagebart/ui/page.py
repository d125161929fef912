"""The page: its parts, and which action belongs to which button."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr

from imagebart.pipeline import Pipeline
from imagebart.ui.endpoints import add_endpoints
from imagebart.ui.examples import Example
from imagebart.ui.handlers import Handlers
from imagebart.ui.layout import (
    Canvas,
    Results,
    Runner,
    Vary,
    add_canvas,
    add_foot,
    add_heading,
    add_results,
    add_runner,
)
from imagebart.ui.picture import Picture
from imagebart.ui.settings import Settings

# Pages that wait for the model at once; further ones are told that it is busy.
QUEUE = 24
# A session's picture is forgotten after this long without a sign of life, temporary files likewise; seconds.
MEMORY = 3600
CLEANING = 600
# All that use the model take turns.
TURN = "model"


def build_page(pipeline: Pipeline, examples: Sequence[Example] = ()) -> gr.Blocks:
    """The page for one pipeline, opened on the first example. Launch it with `launch_page`."""
    first = Picture.of(examples[0].open()) if examples else None
    with gr.Blocks(
        title="ImageBART in the browser",
        analytics_enabled=False,
        delete_cache=(CLEANING, MEMORY),
        fill_width=False,
    ) as page:
        picture = gr.State(first, time_to_live=MEMORY)
        outcome = gr.State(None, time_to_live=MEMORY)
        # First, because later events whose functions have the same names get other names.
        add_endpoints(pipeline, TURN)
        add_heading(pipeline)
        with gr.Row(elem_id="desk", equal_height=False):
            with gr.Column(min_width=300, elem_id="left"):
                canvas = add_canvas(first, examples)
            with gr.Column(min_width=300, elem_id="right"):
                runner = add_runner(pipeline)
                results = add_results()
        with gr.Column(elem_id="foot"):
            settings, vary = add_foot(pipeline)
        _wire_canvas(Handlers(pipeline), canvas, results, picture, outcome, examples)
        _wire_runs(Handlers(pipeline), canvas, runner, results, settings, vary, picture, outcome)
    page.queue(max_size=QUEUE, default_concurrency_limit=4)
    return page


def _wire_canvas(
    handlers: Handlers,
    canvas: Canvas,
    results: Results,
    picture: gr.State,
    outcome: gr.State,
    examples: Sequence[Example],
) -> None:
    filled: list[Any] = [canvas.editor, picture]
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    canvas.upload.upload(handlers.upload, canvas.upload, filled, **quiet)
    canvas.upload_mask.upload(handlers.upload_mask, [canvas.upload_mask, *filled], filled, **quiet)
    canvas.clear.click(handlers.clear_mask, filled, filled, **quiet)
    canvas.editor.clear(handlers.clear_mask, filled, filled, **quiet)
    for name, button in canvas.ready.items():
        button.click(partial(handlers.ready_mask, name), filled, filled, **quiet)
    results.resume.click(handlers.resume, outcome, filled, **quiet)
    if canvas.examples is not None:

        def pick(event: gr.SelectData) -> tuple[Any, Any]:
            return handlers.upload(str(examples[event.index].path))

        canvas.examples.select(pick, None, filled, **quiet)


def _wire_runs(
    handlers: Handlers,
    canvas: Canvas,
    runner: Runner,
    results: Results,
    settings: Settings,
    vary: Vary,
    picture: gr.State,
    outcome: gr.State,
) -> None:
    asked: list[Any] = [runner.prompt, *settings.inputs()]
    painted: list[Any] = [canvas.editor, picture]
    shown: list[Any] = [
        results.preview,
        results.progress,
        results.announcement,
        results.messages,
        results.strip,
        results.comparison,
        settings.seed,
        outcome,
        runner.edit,
        runner.generate,
        vary.button,
        runner.cancel,
        results.resume,
    ]
    turn: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_id": TURN,
        "concurrency_limit": 1,
        "show_progress": "minimal",
        "show_progress_on": results.progress,
    }
    runs = [
        runner.edit.click(handlers.edit, [*painted, *asked], shown, **turn),
        runner.generate.click(handlers.generate, asked, shown, **turn),
        vary.button.click(handlers.vary, [vary.strength, *painted, *asked], shown, **turn),
    ]
    # First the run ends, then the page says so: its last preview could otherwise come after the message.
    silent: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    ended = runner.cancel.click(lambda: None, None, None, cancels=list(runs), **silent)
    ended.then(handlers.cancelled, None, shown, **silent)
    settings.reuse.click(
        lambda last: (gr.skip(), gr.skip()) if last is None else (last.seed, False),
        outcome,
        [settings.seed, settings.new_seed],
        queue=False,
        api_visibility="private",
        show_progress="hidden",
    )
