"""What the page shows of a model: the same for the one that it opens with and for one that is switched to."""

from __future__ import annotations

import logging
import random
from typing import Any

import gradio as gr

from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.ui import wording
from imagebart.ui.choice import Choice
from imagebart.ui.controls import RESET, starting_values
from imagebart.ui.sketchpad.shelf import describe_example

log = logging.getLogger(__name__)

PARTS = (
    "model_line",
    "lexicon",
    "suggestions",
    "surprise",
    "words_list",
    "about",
    "card",
    "words",
    "choice",
    "best_first",
)
SWITCHED = ("model", "examples", *PARTS, *RESET)
"""Names of the page's parts that depend on the model, in the order of `switched`."""


def parts(pipeline: Pipeline, name: str | None = None) -> dict[str, dict[str, Any]]:
    """Properties of the parts that show a model; `name` is what it was chosen by, else its own name is shown."""
    kind, vocabulary = pipeline.conditioning, pipeline.vocabulary
    summary = wording.model_summary(pipeline.knows, pipeline.image_size, pipeline.grid, pipeline.stages)
    return {
        "model_line": {"value": wording.model_html(name or pipeline.name, summary)},
        "lexicon": {"value": wording.lexicon_html(vocabulary)},
        "suggestions": {"value": wording.suggestions_html(pipeline.suggestions), "visible": bool(pipeline.suggestions)},
        "surprise": {"visible": kind != "none"},
        "best_first": {"visible": pipeline.can_judge},
        "words_list": {"value": wording.words_html(vocabulary) if vocabulary else wording.ALL_WORDS[kind]},
        "about": {"value": wording.opening(pipeline.card)},
        "card": {"value": pipeline.card or "This model has no card."},
        "words": {"visible": kind == "text"},
        "choice": {
            "choices": pipeline.classes,
            "value": pipeline.classes[:1],
            "visible": kind == "class",
        },
    }


def switched(choice: Choice, name: str) -> list[Any]:
    """The page with another model, at its best settings, in the order of `SWITCHED`."""
    try:
        pipeline = choice.get(name)
    except InputError as error:
        gr.Warning(str(error))
        name, pipeline = choice.first.name, choice.first
    panel = parts(pipeline, name)
    shown = [gr.update(**panel[part]) for part in PARTS]
    return [name, {"model": name, "examples": examples(choice, name)}, *shown, *reset(choice, name)]


def examples(choice: Choice, name: str | None) -> list[dict[str, Any]]:
    """A model's examples as the sketchpad takes them, less those that cannot be opened: the log names them."""
    described = []
    for example in choice.examples(name):
        try:
            described.append(describe_example(example))
        except InputError as error:
            log.warning("%s is left out: %s", example.path, error)
    return described


def reset(choice: Choice, name: str | None) -> list[Any]:
    """A model's best settings, in the order of `RESET`."""
    pipeline = choice.get(name)
    values = starting_values(pipeline)
    options = slider_options(pipeline)
    return [gr.update(value=values[name], **options.get(name, {})) for name in RESET]


def slider_options(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """Properties of the sliders that are not the same for all models."""
    return {
        "guidance": {"visible": pipeline.conditioning != "none"},
        "scales": {"visible": pipeline.any_scales},
        # There is nothing to choose in a model of one stage.
        "start": {"visible": pipeline.any_scales or pipeline.stages > 1},
    }


def surprise(choice: Choice, name: str | None) -> tuple[Any, Any]:
    """A prompt of two to four suggestions, or a class, drawn at random."""
    pipeline = choice.get(name)
    if pipeline.conditioning == "class":
        return gr.skip(), [random.choice(pipeline.classes)]
    suggestions = pipeline.suggestions
    if suggestions:
        chosen = random.sample(list(suggestions), min(len(suggestions), random.randint(2, 4)))
        return ", ".join(random.choice(suggestions[attribute]) for attribute in chosen), gr.skip()
    words = pipeline.vocabulary
    return (" ".join(random.sample(words, min(len(words), 2))), gr.skip()) if words else (gr.skip(), gr.skip())
