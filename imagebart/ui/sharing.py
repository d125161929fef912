"""Links that hold what is asked for; the browser writes and reads them (sketchpad/sharing.js)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import gradio as gr

from imagebart.ui import wording
from imagebart.ui.choice import Choice
from imagebart.ui.controls import ORDER, starting_values
from imagebart.ui.knobs import MOST_PICTURES, within
from imagebart.ui.reading import LONGEST

RECEIVED = (*(name for name in ORDER if name not in ("model", "new_seed")), "new_seed", "messages")
"""What a link sets."""
SEND = f"""(...values) => {{
  const named = Object.fromEntries({json.dumps(ORDER)}.map((name, i) => [name, values[i]]));
  dispatchEvent(new CustomEvent("imagebart-share", {{ detail: named }}));
}}"""
LISTEN = """addEventListener("imagebart-shared", ({ detail }) => {
  props.value = detail;
  trigger("input");
});"""


def add_sharing() -> dict[str, gr.components.Component]:
    """Add the buttons that copy the words and a link, and a part without looks that takes what a link holds."""
    with gr.Row(elem_id="sharing"):
        gr.Button("Copy the words", size="sm", min_width=110, elem_id="copy-words")
        share = gr.Button("Copy a link to this", size="sm", min_width=110, elem_id="share")
    shared = gr.HTML(html_template="<span></span>", js_on_load=LISTEN, elem_classes="sp-wire", elem_id="wire-shared")
    return {"share": share, "shared": shared}


def received(choice: Choice, given: Any, model: str | None) -> list[Any]:
    """The controls' values that a link holds, in the order of `RECEIVED`; what no page would write is left as it is."""
    pipeline = choice.get(model)
    given = given if isinstance(given, Mapping) else {}
    usual = {**starting_values(pipeline), "words": "", "choice": []}
    values = within({name: given[name] for name in usual if name in given and _alike(given[name], usual[name])})
    if "words" in values:
        values["words"] = values["words"][:LONGEST]
    chosen = values.pop("choice", [])
    if chosen and len(chosen) <= MOST_PICTURES and all(one in pipeline.classes for one in chosen):
        values["choice"] = chosen
    if "variants" in values and values["variants"] not in range(1, MOST_PICTURES + 1):
        del values["variants"]
    values["new_seed"] = False  # the link's is used
    other = given.get("model")
    note = wording.shared(None if other in (None, pipeline.name, model) else str(other)[:LONGEST])
    values["messages"] = wording.notes_html([note])
    return [values.get(name, gr.skip()) for name in RECEIVED]


def _alike(value: Any, usual: Any) -> bool:
    """Whether a value is of the kind that a control has."""
    if isinstance(usual, bool | str | list):
        return isinstance(value, type(usual))
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
