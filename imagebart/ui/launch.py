"""Serving the page."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import Request, Response
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware

from imagebart.ui.files import NO_ROOM
from imagebart.ui.mishaps import Gate
from imagebart.ui.temporary import NAME, tidied
from imagebart.ui.tools import answer_with_pictures

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Larger files are refused while they are still arriving.
MAX_FILE = "40mb"
SCRIPTS = ("prompt.js", "live.js")
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
