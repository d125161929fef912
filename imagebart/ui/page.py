"""The page: its parts, and which action belongs to which button."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from imagebart.pipeline import Pipeline
from imagebart.ui import frame, model_panel, review
from imagebart.ui.canvas_actions import PLACED, RESTORED, CanvasActions
from imagebart.ui.choice import Choice
from imagebart.ui.controls import ORDER, starting_values
from imagebart.ui.endpoints import add_endpoints
from imagebart.ui.examples import Example
from imagebart.ui.layout import Canvas, Runner, add_canvas, add_foot, add_heading, add_runner
from imagebart.ui.library import Models
from imagebart.ui.results import Results, add_results
from imagebart.ui.revisit import OPENED, Opening
from imagebart.ui.running import Running
from imagebart.ui.settings import Settings, add_settings
from imagebart.ui.zero_gpu import on_gpu

# Pages that wait for the model at once; further ones are told that it is busy.
QUEUE = 24
# A session's picture is forgotten after this long without a sign of life, temporary files likewise; seconds.
MEMORY = 3600
CLEANING = 600
# All that use the model take turns.
TURN = "model"

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE: dict[str, Any] = {**QUIET, "queue": False}
# A picture with a mask that comes while the canvas is still being made is put onto it twice at once, and may lose the
# mask: the first one waits.
CANVAS_READY = """async () => {
    while (!document.querySelector("#canvas button[aria-label=Brush]")) await new Promise((go) => setTimeout(go, 50));
    const { visit, words } = JSON.parse(sessionStorage.getItem("imagebart") ?? "{}");
    return [visit ?? "", words ?? null, sessionStorage.getItem("imagebart-paint") ?? ""];
}"""
# To Gradio a run that is cancelled has failed. Only the browser knows which it was: page.js notes the last button.
WHY = """() => [document.documentElement.dataset.run]"""
# The browser sends the picture first, and Cancel may come before there is a run that could be cancelled.
UNLESS_CANCELLED = """(...values) => {
    if (document.documentElement.dataset.run === "cancelled") throw new Error("cancelled");
    return values;
}"""
SAVE = "() => document.querySelector('#animation')?.click()"


@dataclass(frozen=True)
class Page:
    """All parts of the page, to be wired."""

    canvas: Canvas
    runner: Runner
    results: Results
    settings: Settings
    named: dict[str, Any]  # what frames and actions set, by the names they use
    desk: list[Any]  # what tells which picture is on the canvas


def build_page(pipeline: Pipeline, examples: Sequence[Example] = (), models: Models | None = None) -> gr.Blocks:
    """The page, opened on a model and the first example; `models` can be switched to. See `launch_page`."""
    choice = Choice(pipeline, models)
    parts, values = model_panel.parts(pipeline), starting_values(pipeline)
    with gr.Blocks(
        title="ImageBART in the browser",
        analytics_enabled=False,
        delete_cache=(CLEANING, MEMORY),
        fill_width=False,
    ) as blocks:
        remembered: dict[str, Any] = {
            name: gr.State(None, time_to_live=MEMORY) for name in ("picture", "trail", "last_mask", "record", "results")
        }
        # First, because later events whose functions have the same names get other names.
        add_endpoints(pipeline, TURN)
        shown = add_heading(choice.names(), parts)
        with gr.Row(elem_id="desk", equal_height=False):
            with gr.Column(min_width=300, elem_id="left"):
                canvas = add_canvas(examples)
            with gr.Column(min_width=300, elem_id="right"):
                runner = add_runner(pipeline.conditioning, parts)
                settings = add_settings(values, model_panel.slider_options(pipeline))
                results = add_results()
        with gr.Column(elem_id="foot"):
            shown |= add_foot(parts)
        controls = {**runner.controls, **settings.controls}
        named = {**vars(canvas), **vars(runner), **vars(results), **shown, **runner.parts, **controls, **remembered}
        desk = [canvas.editor, remembered["picture"], remembered["trail"], runner.controls["words"]]
        page = Page(canvas, runner, results, settings, named, desk)
        actions = CanvasActions(choice, examples)
        _wire_canvas(page, actions)
        _wire_runs(page, Running(choice))
        _wire_review(page)
        _wire_model(page, choice)
        opening = Opening(blocks, actions, remembered)
        told = [named["visit"], named["words"], named["paint"]]
        blocks.load(opening.open, told, [named[name] for name in OPENED], js=CANVAS_READY, **AT_ONCE)
    blocks.queue(max_size=QUEUE, default_concurrency_limit=4)
    return blocks


def _wire_canvas(page: Page, actions: CanvasActions) -> None:
    canvas, named, desk = page.canvas, page.named, page.desk
    placed = [named[name] for name in PLACED]
    restored = [*placed, *(named[name] for name in RESTORED)]
    canvas.upload.upload(actions.upload, [canvas.upload, named["model"], *desk], restored, **QUIET)
    canvas.upload_mask.upload(actions.upload_mask, [canvas.upload_mask, *desk], placed, **QUIET)
    canvas.clear.click(actions.clear_mask, desk, placed, **QUIET)
    canvas.editor.clear(actions.clear_mask, desk, placed, **QUIET)
    canvas.undo.click(actions.undo, desk, placed, **QUIET)
    canvas.redo.click(actions.redo, desk, placed, **QUIET)
    for name, button in canvas.ready.items():
        button.click(partial(actions.ready_mask, name), desk, placed, **QUIET)
    for name in ("invert", "grow", "shrink"):
        canvas.tools[name].click(getattr(actions, name), desk, placed, **QUIET)
    canvas.tools["last_mask"].click(actions.last_mask, [named["last_mask"], *desk], placed, **QUIET)
    page.results.resume.click(actions.resume, [named["record"], page.results.scrubber, *desk], placed, **QUIET)
    page.results.results_gallery.select(actions.result, [named["results"], *desk], placed, **QUIET)
    if canvas.examples is not None:
        canvas.examples.select(actions.example, desk, placed, **QUIET)


def _wire_runs(page: Page, running: Running) -> None:
    named, runner = page.named, page.runner
    asked = [named["results"], *(named[name] for name in ORDER)]
    painted = [page.canvas.editor, named["picture"]]
    shown = [named[name] for name in frame.SHOWN]
    turn: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_id": TURN,
        "concurrency_limit": 1,
        "show_progress": "minimal",
        "show_progress_on": page.results.progress,
    }
    starts: list[tuple[gr.Button, Callable[..., Any], list[Any]]] = [
        (runner.edit, running.edit, [*painted, *asked]),
        (runner.generate, running.generate, asked),
        (runner.vary, running.vary, [*painted, *asked]),
    ]
    runs = []
    for button, action, inputs in starts:
        # The page answers at once, though the model may be busy for a while.
        run = button.click(frame.waiting, None, shown, **AT_ONCE).then(
            on_gpu(action), inputs, shown, js=UNLESS_CANCELLED, **turn
        )
        # The message is only what carries the reason here; it is read by nobody.
        run.failure(frame.stopped, page.results.messages, shown, js=WHY, **AT_ONCE)
        runs.append(run)
    # Gradio calls a run failed once the server has ended it, so that no preview comes after the message.
    runner.cancel.click(None, None, None, cancels=runs, **AT_ONCE)


def _wire_review(page: Page) -> None:
    named, results = page.named, page.results
    record = named["record"]
    looked = [results.preview, results.step_line]
    results.scrubber.input(review.scrub, [results.scrubber, record], looked, trigger_mode="always_last", **AT_ONCE)
    results.strip.select(review.jump, record, [results.scrubber, *looked], **AT_ONCE)
    results.variant_gallery.select(review.choose, record, [named[name] for name in frame.SHOWN], **AT_ONCE)
    for suffix, button in ((".webp", results.webp), (".gif", results.gif)):
        written = button.click(partial(review.animate, suffix), record, results.animation, **QUIET)
        written.success(None, None, None, js=SAVE, api_visibility="private")


def _wire_model(page: Page, choice: Choice) -> None:
    named, model = page.named, page.named["model"]
    model.input(
        partial(model_panel.switched, choice),
        model,
        [named[name] for name in model_panel.SWITCHED],
        api_visibility="private",
        show_progress="minimal",
        show_progress_on=named["model_line"],
    )
    page.settings.reset.click(
        partial(model_panel.reset, choice), model, [named[name] for name in model_panel.RESET], **AT_ONCE
    )
    surprised = [named["words"], named["choice"]]
    named["surprise"].click(partial(model_panel.surprise, choice), model, surprised, **AT_ONCE)
    page.settings.reuse.click(
        lambda record: (gr.skip(), gr.skip()) if record is None else (record.recipe.seed, False),
        named["record"],
        [named["seed"], named["new_seed"]],
        **AT_ONCE,
    )
