"""What one moment changes on the page."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import gradio as gr

from imagebart.ui import wording

KEEP = gr.skip()
# Buttons that start a run, and those that need a finished one.
STARTERS = ("edit", "generate", "vary")
FOLLOWERS = ("resume", "download", "webp", "gif")


@dataclass(frozen=True)
class Frame:
    """New values of what shows a run; None leaves a thing as it is."""

    preview: Any = None
    progress: Any = None
    announcement: Any = None
    messages: Any = None
    strip: Any = None
    scrubber: Any = None
    step_line: Any = None
    variant_gallery: Any = None
    comparison: Any = None
    seed: Any = None
    record: Any = None
    results: Any = None
    results_gallery: Any = None
    last_mask: Any = None
    saved: Any = None
    running: bool | None = None

    def updates(self) -> list[Any]:
        """Values in the order of `SHOWN`."""
        values = [getattr(self, name) for name in VALUES]
        return [KEEP if value is None else value for value in values] + self._buttons()

    def _buttons(self) -> list[Any]:
        start: Any = KEEP if self.running is None else gr.update(interactive=not self.running)
        stop: Any = KEEP if self.running is None else gr.update(interactive=self.running)
        follow: list[Any] = [KEEP] * len(FOLLOWERS)
        if self.record is not None:
            follow = [gr.update(interactive=True)] * len(FOLLOWERS)
            follow[FOLLOWERS.index("download")] = gr.update(interactive=True, value=self.saved)
        return [start] * len(STARTERS) + [stop, *follow]


VALUES = tuple(field.name for field in fields(Frame) if field.name not in ("running", "saved"))
BUTTONS = (*STARTERS, "cancel", *FOLLOWERS)
SHOWN = (*VALUES, *BUTTONS)
"""Names of the page's parts that a frame sets, in the order of `Frame.updates`."""

WAITING = Frame(progress=wording.waiting_html(), messages="", announcement="", running=True)
START = replace(WAITING, strip=[], scrubber=gr.update(interactive=False), step_line="")
IDLE = Frame(progress="", announcement="", running=False)


def problem(sentence: str) -> list[Any]:
    """The page when something cannot be done: the sentence, and everything else as it was."""
    gr.Warning(sentence)
    return replace(IDLE, messages=wording.problem_html(sentence)).updates()


def waiting() -> list[Any]:
    """The page from the click until it is this page's turn."""
    return WAITING.updates()


def stopped(why: str) -> list[Any]:
    """The page when a run ended before its end, outside our own code.

    why: "cancelled" after Cancel; else the run broke: too many wait, or what the browser sent cannot be read.
    """
    cancelled = why == "cancelled"
    said = wording.notes_html([wording.CANCELLED]) if cancelled else wording.problem_html(wording.BROKEN)
    return replace(IDLE, messages=said).updates()
