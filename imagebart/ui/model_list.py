"""The models in a folder, loaded when they are first asked for."""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr

from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.ui import messages as wording
from imagebart.ui.controls import RESET, starting_values
from imagebart.ui.examples import EXAMPLES, Example, find_examples
from imagebart.ui.sketchpad.stored_images import describe_example
from imagebart.weights.folder import CONFIG
from imagebart.weights.published.registry import find

PUBLISHED = ("scale1.ckpt", "*/scale1.ckpt")  # the archives of 2021 hold a folder, or the files themselves


class Models:
    """The models of a folder by the names of their own folders. Threads may share it.

    most: how many are kept in memory; the one unused for longest goes first (a run that still uses it ends in
    peace). load: makes a pipeline of a model's folder.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        most: int = 2,
        load: Callable[[Path], Pipeline] = Pipeline.from_pretrained,
    ) -> None:
        if most < 1:
            raise ValueError(f"{most} models are to be kept, expected 1 or more")
        self._folder = Path(folder)
        self._most = most
        self._load = load
        self._loaded: OrderedDict[str, Pipeline] = OrderedDict()
        self._turn = Lock()

    @classmethod
    def beside(cls, source: str | PathLike[str], most: int = 1) -> Models:
        """The models in the folder that holds a model: `source` is its own folder, or a published model's name."""
        folder = Path(source)
        return cls((folder if folder.is_dir() else find(str(source))).resolve().parent, most)

    def names(self) -> list[str]:
        """The models that are there now, sorted. Folders without a model's files are none."""
        return sorted(path.name for path in self._folder.iterdir() if _is_model(path)) if self._folder.is_dir() else []

    def examples(self, name: str) -> list[Example]:
        """The pictures that a model brings to start from; none for a name that is not among `names`."""
        return find_examples(self._folder / name / EXAMPLES) if name in self.names() else []

    def get(self, name: str) -> Pipeline:
        """The model of this name, from memory or from its folder; one is loaded at a time.

        Raises InputError for a name that is not among `names`, WeightsError for files that cannot be used.
        """
        with self._turn:
            if name not in self._loaded:
                if name not in self.names():
                    there = f"choose one of {', '.join(self.names())}" if self.names() else "the folder holds none"
                    raise InputError(f"There is no model {name[:80]!r} in {self._folder.name}; {there}.")
                while len(self._loaded) >= self._most:  # before loading: both would have to fit otherwise
                    self._loaded.popitem(last=False)
                self._loaded[name] = self._load(self._folder / name)
            self._loaded.move_to_end(name)
            return self._loaded[name]


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or any(next(folder.glob(pattern), None) for pattern in PUBLISHED)


# The models that a person can choose among.


log = logging.getLogger(__name__)


class Choice:
    """The model that the page opens with, its examples, and the other models of a folder."""

    def __init__(self, first: Pipeline, others: Models | None = None, examples: Sequence[Example] = ()) -> None:
        self.first = first
        self._others = others
        self._examples = examples

    def names(self) -> list[str]:
        """The first model's name, then those of the others."""
        others = self._others.names() if self._others else []
        return [self.first.name, *(name for name in others if name != self.first.name)]

    def examples(self, name: str | None) -> Sequence[Example]:
        """The examples of a model; those of the first where it has none of its own."""
        if name is None or name == self.first.name or self._others is None:
            return self._examples
        return self._others.examples(name) or self._examples

    def get(self, name: str | None) -> Pipeline:
        """The model of a name; None is the first. Raises InputError for one that cannot be used."""
        if name is None or name == self.first.name or self._others is None:
            return self.first
        try:
            return self._others.get(name)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            log.warning("the model %s cannot be loaded: %s", name, error)  # it names folders of the server
            raise InputError(f"The model {name} cannot be loaded; the server's log says why.") from error


# What the page shows of a model: the same for the one that it opens with and for one that is switched to.


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
        "best_first": {"visible": pipeline.can_rank},
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
