"""A page that is loaded again: what its visitor made is still there, for as long as the server remembers the session.

The browser keeps the name of the session, the prompt (page.js) and what is painted (canvas.js), in storage that each
tab has for itself; pictures, results and masks of edits stay where they are, in the session's memory.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from imagebart.errors import InputError
from imagebart.ui.canvas_actions import PLACED, CanvasActions
from imagebart.ui.frame import SHOWN, Frame
from imagebart.ui.record import Record
from imagebart.ui.running import Result, gallery, shown
from imagebart.ui.wording import visit_html

OPENED = ("visit", *PLACED, *SHOWN)
"""Names of what `Opening.open` sets."""


class Opening:
    """What stands on a page when it opens."""

    def __init__(self, page: gr.Blocks, actions: CanvasActions, remembered: Mapping[str, gr.State]) -> None:
        """remembered: the states of a session, by their names."""
        self._page, self._actions, self._remembered = page, actions, remembered

    def open(self, before: str, words: str | None, paint: str, request: gr.Request) -> list[Any]:
        """What was there before the page was loaded again, else the first example; values of `OPENED`.

        before: the session's name until then, "" for a new page; words: the prompt that stood there; paint: the mask
        that was on the canvas, a PNG as a data URL, or "".
        """
        left = self._left(before)
        visit = visit_html(request.session_hash or "")
        if left.get("picture") is None:
            return [visit, *self._actions.open(), *Frame().updates()]
        mask = _file_of(paint) or left.get("last_mask")
        canvas = self._actions.again(left["picture"], mask, left.get("trail"), words)
        return [visit, *canvas, *_again(left).updates()]

    def _left(self, session: str) -> dict[str, Any]:
        found = self._page.state_holder.session_data.get(session)
        if found is None:
            return {}
        return {name: found.state_data.get(state._id) for name, state in self._remembered.items()}


def _again(left: Mapping[str, Any]) -> Frame:
    """The last run and the results, as far as their files are still there."""
    record: Record | None = left.get("record")
    results: tuple[Result, ...] = tuple(r for r in left.get("results") or () if _there(r.path) and _there(r.small))
    frame = Frame()
    if record is not None and all(map(_there, record.results)):
        try:
            frame = shown(record)
        except InputError:  # its steps were deleted
            frame = Frame()
    if results:
        frame = replace(frame, results=results, results_gallery=gallery(results))
    return replace(frame, last_mask=left.get("last_mask"))


def _file_of(url: str) -> bytes | None:
    """The bytes of a PNG as a data URL; None for anything else."""
    kind, _, content = url.partition(",")
    if kind != "data:image/png;base64":
        return None
    with suppress(ValueError):
        return b64decode(content, validate=True)
    return None


def _there(path: str) -> bool:
    return Path(path).is_file()
