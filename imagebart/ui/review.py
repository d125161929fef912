"""Looking at a finished run again: its variants, its steps, and the run as a moving picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from imagebart.errors import InputError
from imagebart.ui import wording
from imagebart.ui.frame import KEEP, Frame
from imagebart.ui.record import GONE, Record
from imagebart.ui.running import shown


def scrub(step: float, record: Record | None) -> tuple[Any, Any]:
    """The picture and the caption of a step, counted from 1."""
    if record is None:
        return KEEP, KEEP
    steps = record.of_variant()
    index = min(max(int(step), 1), len(steps)) - 1
    last = index == len(steps) - 1
    path = record.results[record.variant] if last else record.shown(index)
    if not Path(path).is_file():
        gr.Warning(GONE)
        return KEEP, KEEP
    return path, wording.step_html_line(index + 1, len(steps), steps[index].caption)


def jump(event: gr.SelectData, record: Record | None) -> tuple[Any, Any, Any]:
    """The end of the stage that was chosen in the strip: the step's number, its picture and caption."""
    if record is None:
        return KEEP, KEEP, KEEP
    ends = [index for index, step in enumerate(record.of_variant(), 1) if step.stage is not None]
    step = ends[min(event.index, len(ends) - 1)]
    return (step, *scrub(step, record))


def choose(event: gr.SelectData, record: Record | None) -> list[Any]:
    """Another variant takes the place of the one that is shown."""
    if record is None or not event.index < len(record.results):
        return Frame().updates()
    if not Path(record.results[event.index]).is_file():
        gr.Warning(GONE)
        return Frame().updates()
    return shown(replace(record, variant=event.index)).updates()


def animate(suffix: str, record: Record | None) -> Any:
    """The file of the run as a moving picture, ".webp" or ".gif"."""
    if record is None:
        return KEEP
    try:
        return record.animation(suffix)
    except InputError as error:
        gr.Warning(str(error))
        return KEEP
