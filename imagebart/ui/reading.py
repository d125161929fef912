"""What a model reads in a prompt, asked by the page's script (prompt.js) while the prompt is typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from imagebart.errors import InputError
from imagebart.ui.choice import Choice

LONGEST = 2000  # characters that are looked at
# The script stands in the document's head, where Gradio gives nobody a way to the server.
LISTEN = """addEventListener("imagebart-typed", async ({ detail }) => {
  const read = await server.read_prompt(detail).catch(() => null);
  if (read) dispatchEvent(new CustomEvent("imagebart-read", { detail: { ...detail, ...read } }));
});"""


def add_reader(choice: Choice) -> None:
    """Add a part without looks to the page being built, through which the script asks."""

    def read_prompt(asked: Mapping[str, Any]) -> dict[str, Any]:
        return read(choice, asked)

    gr.HTML(
        html_template="<span></span>",
        js_on_load=LISTEN,
        server_functions=[read_prompt],
        elem_classes="sp-wire",
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
