"""What one moment changes on the page."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any
from uuid import uuid4

import gradio as gr

from imagebart.ui import wording

# Buttons that start a run.
STARTERS = ("edit", "generate", "vary")


@dataclass(frozen=True)
class Frame:
    """New values of what shows a run; None leaves a thing as it is."""

    run: Any = None  # what the sketchpad is told
    progress: Any = None
    announcement: Any = None
    messages: Any = None
    seed: Any = None
    running: bool | None = None

    def updates(self) -> list[Any]:
        """Values in the order of `SHOWN`."""
        values = [getattr(self, name) for name in VALUES]
        start: Any = gr.skip() if self.running is None else gr.update(interactive=not self.running)
        stop: Any = gr.skip() if self.running is None else gr.update(interactive=self.running)
        return [gr.skip() if value is None else value for value in values] + [start] * len(STARTERS) + [stop]


VALUES = tuple(field.name for field in fields(Frame) if field.name != "running")
BUTTONS = (*STARTERS, "cancel")
SHOWN = (*VALUES, *BUTTONS)
"""Names of the page's parts that a frame sets, in the order of `Frame.updates`."""

WAITING = Frame(progress=wording.waiting_html(), messages="", announcement="", running=True)
IDLE = Frame(progress="", announcement="")


def failed(sentence: str) -> Frame:
    """The page when something cannot be done: the sentence, and everything else as it was."""
    return replace(IDLE, messages=wording.problem_html(sentence), run=_over())


def stopped(why: str) -> list[Any]:
    """The page when a run ended before its end, outside our own code.

    why: "cancelled" after Cancel; else the run broke: too many wait, or what the browser sent cannot be read.
    """
    cancelled = why == "cancelled"
    said = wording.notes_html([wording.CANCELLED]) if cancelled else wording.problem_html(wording.BROKEN)
    return replace(IDLE, messages=said, run=_over(), running=False).updates()


def _over() -> dict[str, str]:
    """What the sketchpad is told of a run without a result. Each differs: the page passes on only what changes."""
    return {"over": uuid4().hex}


def waiting_script() -> str:
    """The page from the click until it is this page's turn, set by the browser alone."""
    return f"() => ({json.dumps(WAITING.updates())})"


def ended_script() -> str:
    """The buttons once a run is over. Not with its last frame: until Gradio has heard of the end, it drops a click.

    A run that was cancelled ends for the browser before it does for the server: `stopped` comes then.
    """
    free, held = (json.dumps(frame.updates()[-len(BUTTONS) :]) for frame in (Frame(running=False), Frame()))
    return f"() => document.documentElement.dataset.run === 'cancelled' ? {held} : {free}"
