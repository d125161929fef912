"""What the sketchpad asks the page for: the grid of tokens, and the settings of a picture that was made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from imagebart.errors import InputError
from imagebart.imaging.metadata import read_recipe
from imagebart.ui import messages as wording
from imagebart.ui.controls import RESET, around, restored_values
from imagebart.ui.model_list import Choice
from imagebart.ui.sketchpad.component import Sketch
from imagebart.ui.sketchpad.stored_images import PICTURES, find, in_turn

RESTORED = ("words", "choice", *RESET, "messages")
"""What a picture that was made here sets."""


@in_turn(PICTURES)
def grid(choice: Choice, pad: Mapping[str, Any] | None, model: str | None, context: float) -> Any:
    """Which tokens an edit would redraw: the square in the picture's pixels, and its cells as 1 and 0 by rows."""
    try:
        sketch = Sketch.read(pad)
        cells = choice.get(model).region(sketch.size, sketch.mask(), around(context))
    except InputError:  # it is said when Edit is pressed
        return gr.skip()
    box = [cells.box.left, cells.box.top, cells.box.side]
    drawn = "".join("1" if redrawn else "0" for redrawn in cells.redrawn.flatten())
    return {"version": sketch.version, "box": box, "side": cells.grid, "cells": drawn}


def restored(choice: Choice, pad: Mapping[str, Any] | None, model: str | None) -> list[Any]:
    """The prompt, seed and settings of the picture on the sketchpad, if this page made it; values of `RESTORED`."""
    try:
        path = Sketch.read(pad).path
        recipe = None if path is None else read_recipe(find(path))
    except InputError as error:
        return [*[gr.skip()] * (len(RESTORED) - 1), wording.problem_html(str(error))]
    if recipe is None:
        return [gr.skip()] * len(RESTORED)
    pipeline = choice.get(model)
    values = restored_values(recipe, pipeline)
    if pipeline.conditioning == "class":
        values["choice"] = [recipe.prompt] if recipe.prompt in pipeline.classes else pipeline.classes[:1]
    note = wording.restored(recipe.model if recipe.model != pipeline.name else None)
    values["messages"] = wording.notes_html([note])
    return [values.get(name, gr.skip()) for name in RESTORED]
