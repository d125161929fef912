"""What a model reads in a prompt, asked by the page's script (prompt.js) while the prompt is typed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import gradio as gr
from PIL import Image

from imagebart.conditioning.tokenizer import whole_characters
from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.ui import messages as wording
from imagebart.ui.controls import MOST_PICTURES, ORDER, starting_values, within
from imagebart.ui.examples import scale_mask, view_size
from imagebart.ui.model_list import Choice
from imagebart.ui.sketchpad.component import Sketch
from imagebart.ui.sketchpad.stored_images import Gone, pack

LONGEST = 2000  # characters that are looked at
# The script stands in the document's head, where Gradio gives nobody a way to the server.
LISTEN = """imagebart.on("check_prompt", async (question) => {
  const answer = await server.read_prompt(question).catch(() => null);
  if (answer) imagebart.send("prompt_check", { ...question, ...answer });
});"""


def add_reader(choice: Choice) -> None:
    """Add a part without looks to the page being built, through which the script asks."""

    def read_prompt(asked: Mapping[str, Any]) -> dict[str, Any]:
        return read(choice, asked)

    gr.HTML(
        html_template="<span></span>",
        js_on_load=LISTEN,
        server_functions=[read_prompt],
        elem_classes="sp-channel",
        elem_id="reader",
    )


def read(choice: Choice, asked: Mapping[str, Any]) -> dict[str, Any]:
    """{"words": a prompt, "model": a model's name} to {"unknown": …, "meant": …}.

    unknown: its words that this model takes for no other; meant: those that it does, and for what.
    """
    try:
        pipeline = choice.get(str(asked["model"]))
        words = str(asked["words"])[:LONGEST]
        return {"unknown": pipeline.unknown_words(words), "meant": pipeline.corrections(words)}
    except (InputError, KeyError, TypeError):
        return {"unknown": [], "meant": {}}


# Find it, and What is here?: where words belong in the picture on the sketchpad, and which words it shows.
#
# Both are answers: they say which picture and mask they are about, and the sketchpad drops those that are late.


ANSWER = ("answer", "messages")
"""Names of the page's parts that an answer sets."""


class Looking:
    """What the page asks about a picture without a run. All that is needed comes in with each call."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice

    def find(self, pad: Mapping[str, Any] | None, model: str | None, words: str | None) -> list[Any]:
        """The mask where the words belong, packed as the sketchpad sends one, and the words; values of `ANSWER`."""

        def mask(pipeline: Pipeline, image: Image.Image) -> dict[str, str]:
            found = pipeline.suggest_mask(image, words)
            return {"mask": pack(scale_mask(found, view_size(image.size))), "of": whole_characters(words or "")}

        return self._answer("find", pad, model, mask)

    def describe(self, pad: Mapping[str, Any] | None, model: str | None) -> list[Any]:
        """What the picture shows, in the model's own words; values of `ANSWER`."""
        return self._answer("describe", pad, model, lambda pipeline, image: {"words": pipeline.describe(image)})

    def broken(self) -> list[Any]:
        """Where no answer comes: too many wait, or nobody expected what went wrong; values of `ANSWER`."""
        return [{"asked": uuid4().hex, "task": "", "version": 0}, wording.problem_html(wording.BROKEN)]

    def _answer(
        self,
        task: str,
        pad: Mapping[str, Any] | None,
        model: str | None,
        look: Callable[[Pipeline, Image.Image], dict[str, str]],
    ) -> list[Any]:
        # The page passes on only what changes, and the same may be asked twice.
        said: dict[str, Any] = {"asked": uuid4().hex, "task": task, "version": 0}
        try:
            sketch = Sketch.read(pad)
            said["version"] = sketch.version
            return [{**said, **look(self._choice.get(model), sketch.picture())}, ""]
        except Gone as error:
            return [{**said, "gone": True}, wording.problem_html(str(error))]
        except InputError as error:
            return [said, wording.problem_html(str(error))]


# Links that hold what is asked for; the browser writes and reads them (sketchpad/images.js).


RECEIVED = (*(name for name in ORDER if name not in ("model", "new_seed")), "new_seed", "messages")
"""What a link sets."""
SEND = f"""(...values) => {{
  const named = Object.fromEntries({json.dumps(ORDER)}.map((name, i) => [name, values[i]]));
  imagebart.send("share", named);
}}"""
LISTEN_SHARED = """imagebart.on("open_link", (controls) => {
  props.value = controls;
  trigger("input");
});"""


def add_sharing() -> dict[str, gr.components.Component]:
    """Add the buttons that copy the words and a link, and a part without looks that takes what a link holds."""
    with gr.Row(elem_id="sharing"):
        gr.Button("Copy the words", size="sm", min_width=110, elem_id="copy-words")
        share = gr.Button("Copy a link to this", size="sm", min_width=110, elem_id="share")
    shared = gr.HTML(
        html_template="<span></span>", js_on_load=LISTEN_SHARED, elem_classes="sp-channel", elem_id="channel-open_link"
    )
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
