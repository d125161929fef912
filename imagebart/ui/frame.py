"""What one moment changes on the page."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any

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


def failed(sentence: str, run: str) -> Frame:
    """The page when the run of a name cannot be done: the sentence, and everything else as it was."""
    return replace(IDLE, messages=wording.problem_html(sentence), run={"over": run})


def cancelled(run: str) -> Frame:
    """The page when the run of a name was cancelled, and will give no result."""
    return replace(IDLE, messages=wording.notes_html([wording.CANCELLED]), run={"over": run})


def broken(run: str) -> list[Any]:
    """The page when the run of a name did not come about: too many wait, or what the browser sent cannot be read."""
    return replace(failed(wording.BROKEN, run), running=False).updates()


# What asked.js knows of the run that was asked for last: how far it is, and its name.
OVER = "document.documentElement.dataset.run = ''"
NAME = "document.documentElement.dataset.name"
NAMED = f"(pad, ...values) => [{{ ...pad, run: {NAME} }}, ...values]"
"""A run's values as they are sent: with its name."""
BROKEN = f"() => {{ {OVER}; return [{NAME}]; }}"
"""What `broken` takes."""


def waiting_script() -> str:
    """The page from the click until it is this page's turn, set by the browser alone."""
    return f"() => ({json.dumps(WAITING.updates())})"


def ended_script() -> str:
    """The buttons once a run is over. Not with its last frame: until Gradio has heard of the end, it drops a click."""
    return f"() => {{ {OVER}; return {json.dumps(Frame(running=False).updates()[-len(BUTTONS) :])}; }}"
