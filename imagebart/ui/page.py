"""The page: its parts, and which action belongs to which button."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from imagebart.pipeline import Pipeline
from imagebart.ui import frame, model_panel, sharing, sketch_actions
from imagebart.ui.choice import Choice
from imagebart.ui.controls import ORDER, starting_values
from imagebart.ui.endpoints import add_endpoints
from imagebart.ui.examples import Example
from imagebart.ui.layout import Runner, add_foot, add_heading, add_history, add_runner
from imagebart.ui.library import Models
from imagebart.ui.looking import ANSWER, Looking
from imagebart.ui.mishaps import Guarded, answering
from imagebart.ui.reading import add_reader
from imagebart.ui.running import Running
from imagebart.ui.settings import FOLD, Settings, add_settings
from imagebart.ui.sketchpad import shelf
from imagebart.ui.sketchpad.component import add_sketchpad, add_wire
from imagebart.ui.stopping import Stopping
from imagebart.ui.zero_gpu import on_gpu

# Pages that wait for the model at once; further ones are told that it is busy.
QUEUE = 24
# Temporary files are forgotten after this long; seconds.
MEMORY = 3600
CLEANING = 600
# All that use the model take turns.
TURN = "model"

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
AT_ONCE: dict[str, Any] = {**QUIET, "queue": False}


@dataclass(frozen=True)
class Page:
    """All parts of the page, to be wired."""

    pad: gr.HTML
    runner: Runner
    settings: Settings
    named: dict[str, Any]  # what frames and actions set, by the names they use


def build_page(pipeline: Pipeline, examples: Sequence[Example] = (), models: Models | None = None) -> gr.Blocks:
    """The page, opened on a model and the first example; `models` can be switched to. See `launch_page`."""
    choice = Choice(pipeline, models, examples)
    parts, values = model_panel.parts(pipeline), starting_values(pipeline)
    with Guarded(
        title="ImageBART in the browser",
        analytics_enabled=False,
        delete_cache=(CLEANING, MEMORY),
        fill_width=False,
    ) as blocks:
        # First, because later events whose functions have the same names get other names.
        add_endpoints(pipeline, TURN)
        shown = add_heading(choice.names(), parts)
        with gr.Row(elem_id="desk", equal_height=False):
            with gr.Column(min_width=300, elem_id="left"):
                described = model_panel.examples(choice, None)
                functions = (shelf.take, shelf.lend, shelf.compose, shelf.film)
                stopping = Stopping(blocks)
                pad = add_sketchpad(described, [*(answering(function) for function in functions), stopping.answer()])
            with gr.Column(min_width=300, elem_id="right"):
                runner = add_runner(pipeline.conditioning, parts)
                shown |= sharing.add_sharing()
                add_history()
                settings = add_settings(values, model_panel.slider_options(pipeline))
                shown |= add_foot(parts)
        add_reader(choice)
        wires: dict[str, Any] = {name: add_wire(name) for name in ("run", "grid", "looked", "examples")}
        controls = {**runner.controls, **settings.controls}
        page = Page(pad, runner, settings, {**vars(runner), **shown, **runner.parts, **controls, **wires})
        _wire_sketchpad(page, choice)
        _wire_looking(page, Looking(choice))
        _wire_runs(page, Running(choice), stopping)
        _wire_model(page, choice)
        blocks.load(None, None, settings.fold, js=FOLD, **AT_ONCE)
    blocks.queue(max_size=QUEUE, default_concurrency_limit=4)
    return blocks


def _wire_sketchpad(page: Page, choice: Choice) -> None:
    pad, named = page.pad, page.named
    asked = [pad, named["model"], named["context"]]
    # Each answer says which mask it is about: the sketchpad drops those that are late.
    for event in (pad.input, named["context"].change, named["model"].change):
        event(partial(sketch_actions.grid, choice), asked, named["grid"], trigger_mode="multiple", **AT_ONCE)
    named["share"].click(None, [named[name] for name in ORDER], None, js=sharing.SEND, **AT_ONCE)
    received = [named[name] for name in sharing.RECEIVED]
    named["shared"].input(partial(sharing.received, choice), [named["shared"], named["model"]], received, **AT_ONCE)
    restored = [named[name] for name in sketch_actions.RESTORED]
    pad.upload(partial(sketch_actions.restored, choice), [pad, named["model"]], restored, **AT_ONCE)


def _wire_looking(page: Page, looking: Looking) -> None:
    pad, named = page.pad, page.named
    answers = [named[name] for name in ANSWER]
    turn: dict[str, Any] = {**QUIET, "concurrency_id": TURN, "concurrency_limit": 1, "trigger_mode": "multiple"}
    # Gradio's names for events that nothing else tells: a place is selected, the picture is copied into words.
    found = pad.select(on_gpu(looking.find), [pad, named["model"], named["words"]], answers, **turn)
    described = pad.copy(on_gpu(looking.describe), [pad, named["model"]], answers, **turn)
    for asked in (found, described):
        asked.failure(looking.broken, None, answers, **AT_ONCE)


def _wire_runs(page: Page, running: Running, stopping: Stopping) -> None:
    named, runner = page.named, page.runner
    shown = [named[name] for name in frame.SHOWN]
    turn: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_id": TURN,
        "concurrency_limit": 1,
        "show_progress": "minimal",
        "show_progress_on": named["progress"],
    }
    for button, action in (
        (runner.edit, running.edit),
        (runner.generate, running.generate),
        (runner.vary, running.vary),
    ):
        # The page answers at once, though the model may be busy for a while.
        button.click(None, None, shown, js=frame.waiting_script(), **AT_ONCE)
        # What is asked for is read at the very click, so nothing may come before it.
        asked = [page.pad, *(named[name] for name in ORDER)]
        run = button.click(stopping.heeded(on_gpu(action)), asked, shown, js=frame.NAMED, **turn)
        run.success(None, None, [named[name] for name in frame.BUTTONS], js=frame.ended_script(), **AT_ONCE)
        # The message is only what carries the name here; it is read by nobody.
        run.failure(frame.broken, named["messages"], shown, js=frame.BROKEN, **AT_ONCE)


def _wire_model(page: Page, choice: Choice) -> None:
    named, model = page.named, page.named["model"]
    # Not `input`, which comes, too, when the Tab key leaves the list: then all settings would be lost.
    model.change(
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
    # The seed's field says what the last run used.
    page.settings.reuse.click(lambda: False, None, named["new_seed"], **AT_ONCE)
