"""The endpoints as tools for MCP clients: what has to be there for it. Gradio does the rest."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from anyio.to_thread import run_sync
from fastapi import Request, Response
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from imagebart.pipeline import Pipeline
from imagebart.ui import model_list as model_panel
from imagebart.ui import prompt as sharing
from imagebart.ui import runs as frame
from imagebart.ui import sketch_actions
from imagebart.ui.controls import FOLD, ORDER, Settings, add_settings, starting_values
from imagebart.ui.endpoints import add_endpoints
from imagebart.ui.errors import Gate, Guarded, answering
from imagebart.ui.examples import Example
from imagebart.ui.files import NAME, NO_ROOM, tidied
from imagebart.ui.layout import Runner, add_foot, add_heading, add_history, add_runner
from imagebart.ui.model_list import Choice, Models
from imagebart.ui.prompt import ANSWER, Looking, add_reader
from imagebart.ui.runs import Running, Stopping
from imagebart.ui.sketchpad import stored_images as shelf
from imagebart.ui.sketchpad.component import add_channel, add_sketchpad
from imagebart.ui.zero_gpu import on_gpu

NEEDED = "mcp>=1.21,<2"


def missing_for_tools(page: gr.Blocks) -> str | None:
    """One sentence if the tools cannot be offered, because the package is missing or does not fit; else None.

    Gradio itself only prints a line in that case, and serves the page without tools.
    """
    from gradio.mcp import GradioMCPServer

    try:
        GradioMCPServer(page)
    except Exception as error:  # a package of another version lacks nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"Tools for MCP clients need another package: pip install '{NEEDED}' (Gradio says: {reason})"
    return None


def answer_with_pictures(page: gr.Blocks) -> None:
    """Have the tools of a launched page answer with the picture itself, and each other value as a text.

    Gradio makes one text of several values, in which the picture is a path of the server.
    """
    server: Any = page.mcp_server_obj
    if server is None:
        return

    async def values(job: Any) -> list[Any]:
        return list(await run_sync(job.result))

    server._execute_tool_without_progress = values


# Serving the page.


DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Larger files are refused while they are still arriving.
MAX_FILE = "40mb"
SCRIPTS = ("channel.js", "prompt.js", "live.js")
STYLES = ("page.css", "sketchpad/sketchpad.css")


def theme() -> gr.themes.Base:
    """Quiet surfaces, one strong colour, and the system's own fonts, so that nothing is fetched."""
    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
    mono = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
    return gr.themes.Base(
        primary_hue=gr.themes.colors.violet,
        secondary_hue=gr.themes.colors.violet,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=sans,
        font_mono=mono,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_border_width="1px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        # At once: half way between two states a label is hard to read.
        button_transition="none",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


def scripts() -> str:
    """The page's own JavaScript, as it stands in the head of the document."""
    here = files(__package__)
    return "".join(f"<script>{here.joinpath(name).read_text(encoding='utf-8')}</script>" for name in SCRIPTS)


def launch_page(page: gr.Blocks, **options: Any) -> tuple[Any, str, str]:
    """Launch a page made by `build_page`. `options` go to `Blocks.launch` (server_name, server_port, ...)."""
    here = files(__package__)
    launched = page.launch(
        theme=theme(),
        css="".join(here.joinpath(name).read_text(encoding="utf-8") for name in STYLES),
        head=scripts(),
        max_file_size=MAX_FILE,
        show_error=True,
        share=False,
        ssr_mode=False,
        run_history=False,
        footer_links=["api"],
        enable_monitoring=False,
        app_kwargs=_housekeeping(),
        # Gradio asks itself for the page and gives up after 3 s, which a busy machine may take.
        _frontend=False,
        **options,
    )
    answer_with_pictures(page)
    return launched


def _housekeeping() -> dict[str, Any]:
    """What the server does beside answering: say that the disk is full, or what else went wrong, and tidy up."""
    return {"exception_handlers": {OSError: _not_written}, "lifespan": _tidying, "middleware": [Middleware(Gate)]}


@asynccontextmanager
async def _tidying(app: Any) -> AsyncIterator[None]:
    """A server's lifespan in which the page's own temporary folder is tidied."""
    folder = Path(get_upload_folder())
    async with AsyncExitStack() as stack:
        # Another folder (app.py sets this one) may be shared with other programs.
        if folder.name.startswith(NAME):
            await stack.enter_async_context(tidied(folder)(app))
        yield


def _not_written(_request: Request, error: Exception) -> Response:
    """The answer to an upload that cannot be written."""
    if not (isinstance(error, OSError) and error.errno in DISK_FULL):
        raise error
    return Response(NO_ROOM, status_code=507, media_type="text/plain")


# The page: its parts, and which action belongs to which button.


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
        channels: dict[str, Any] = {name: add_channel(name) for name in ("run", "grid", "answer", "examples")}
        controls = {**runner.controls, **settings.controls}
        page = Page(pad, runner, settings, {**vars(runner), **shown, **runner.parts, **controls, **channels})
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
