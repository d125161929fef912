"""The models that can be chosen, and what the page shows of the one that is."""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import gradio as gr

from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.ui import messages
from imagebart.ui.controls import RESET, starting_values
from imagebart.ui.examples import EXAMPLES, Example, find_examples
from imagebart.weights.folder import CONFIG
from imagebart.weights.published.registry import model_folder

PUBLISHED = ("scale1.ckpt", "*/scale1.ckpt")  # the archives of 2021 hold a folder, or the files themselves

log = logging.getLogger(__name__)


class Models:
    """The models of a folder by the names of their own folders, loaded when they are first used. Threads may share it.

    max_loaded: how many are kept in memory; the one unused for longest goes first (a run that still uses it goes on).
    load: makes a pipeline of a model's folder.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        max_loaded: int = 2,
        load: Callable[[Path], Pipeline] = Pipeline.from_pretrained,
    ) -> None:
        if max_loaded < 1:
            raise ValueError(f"max_loaded is {max_loaded}, expected 1 or more")
        self._folder = Path(folder)
        self._max_loaded = max_loaded
        self._load = load
        self._loaded: OrderedDict[str, Pipeline] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def beside(cls, source: str | PathLike[str], max_loaded: int = 1) -> Models:
        """The models in the folder that holds a model: `source` is its own folder, or a published model's name."""
        folder = Path(source)
        return cls((folder if folder.is_dir() else model_folder(str(source))).resolve().parent, max_loaded)

    def names(self) -> list[str]:
        """The models that are there now, sorted, without folders that lack a model's files."""
        return sorted(path.name for path in self._folder.iterdir() if _is_model(path)) if self._folder.is_dir() else []

    def examples(self, name: str) -> list[Example]:
        """The examples in a model's folder; none for a name that is not among `names`."""
        return find_examples(self._folder / name / EXAMPLES) if name in self.names() else []

    def get(self, name: str) -> Pipeline:
        """The model of this name, from memory or from its folder; one is loaded at a time.

        Raises InputError for a name that is not among `names`, WeightsError for files that cannot be used.
        """
        with self._lock:
            if name not in self._loaded:
                if name not in self.names():
                    there = f"choose one of {', '.join(self.names())}" if self.names() else "the folder holds none"
                    raise InputError(f"There is no model {name[:80]!r} in {self._folder.name}; {there}.")
                while len(self._loaded) >= self._max_loaded:  # before loading: both would have to fit otherwise
                    self._loaded.popitem(last=False)
                self._loaded[name] = self._load(self._folder / name)
            self._loaded.move_to_end(name)
            return self._loaded[name]


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or any(next(folder.glob(pattern), None) for pattern in PUBLISHED)


class ModelChoice:
    """The model that the page opens with, its examples, and the other models of a folder."""

    def __init__(self, first: Pipeline, others: Models | None = None, examples: Sequence[Example] = ()) -> None:
        self.first = first
        self._others = others
        self._examples = examples

    def names(self) -> list[str]:
        """The first model's name, then those of the others."""
        others = self._others.names() if self._others else []
        return [self.first.name, *(name for name in others if name != self.first.name)]

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

    def examples(self, name: str | None = None) -> list[dict[str, Any]]:
        """A model's examples as the sketchpad takes them; those of the first model where it has none of its own.

        Examples that cannot be opened are left out, and named in the log.
        """
        examples = self._examples
        if name is not None and name != self.first.name and self._others is not None:
            examples = self._others.examples(name) or examples
        published = []
        for example in examples:
            try:
                published.append(example.publish())
            except InputError as error:
                log.warning("%s is left out: %s", example.path, error)
        return published


def model_properties(pipeline: Pipeline, name: str | None = None) -> dict[str, dict[str, Any]]:
    """Properties of the components that show a model; `name` is what it was chosen by, else its own name is shown."""
    kind, vocabulary = pipeline.conditioning, pipeline.vocabulary
    stages = None if pipeline.any_scales else pipeline.stages
    summary = messages.model_summary(pipeline.knows, pipeline.image_size, pipeline.grid, stages)
    return {
        "model_line": {"value": messages.model_html(name or pipeline.name, summary)},
        "lexicon": {"value": messages.lexicon_html(vocabulary)},
        "suggestions": {
            "value": messages.suggestions_html(pipeline.suggestions),
            "visible": bool(pipeline.suggestions),
        },
        "surprise": {"visible": kind != "none"},
        "best_first": {"visible": pipeline.can_rank},
        "vocabulary": {"value": messages.vocabulary_html(vocabulary) if vocabulary else messages.NO_VOCABULARY[kind]},
        "about": {"value": messages.card_summary(pipeline.card)},
        "card": {"value": pipeline.card or "This model has no card."},
        "words": {"visible": kind == "text"},
        "choice": {"choices": pipeline.classes, "value": pipeline.classes[:1], "visible": kind == "class"},
    }


def slider_properties(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """Properties of the sliders that are not the same for all models."""
    return {
        "guidance": {"visible": pipeline.conditioning != "none"},
        "scales": {"visible": pipeline.any_scales},
        # There is nothing to choose in a model of one stage.
        "start": {"visible": pipeline.any_scales or pipeline.stages > 1},
    }


def switch_model(choice: ModelChoice, model: str) -> dict[str, Any]:
    """The page's changes when another model is chosen, with its own settings; the first where it cannot be loaded."""
    try:
        pipeline = choice.get(model)
    except InputError as error:
        gr.Warning(str(error))
        model, pipeline = choice.first.name, choice.first
    shown = {name: gr.update(**properties) for name, properties in model_properties(pipeline, model).items()}
    examples = {"model": model, "examples": choice.examples(model)}
    return {"model": model, "examples": examples, **shown, **reset_settings(choice, model)}


def reset_settings(choice: ModelChoice, model: str | None) -> dict[str, Any]:
    """A model's own settings."""
    pipeline = choice.get(model)
    values, properties = starting_values(pipeline), slider_properties(pipeline)
    return {name: gr.update(value=values[name], **properties.get(name, {})) for name in RESET}


def surprise(choice: ModelChoice, model: str | None) -> dict[str, Any]:
    """A random prompt of two to four suggestions, or a random class."""
    pipeline = choice.get(model)
    if pipeline.conditioning == "class":
        return {"choice": [random.choice(pipeline.classes)]}
    suggestions = pipeline.suggestions
    if suggestions:
        chosen = random.sample(list(suggestions), min(len(suggestions), random.randint(2, 4)))
        words = ", ".join(random.choice(suggestions[attribute]) for attribute in chosen)
    else:
        words = " ".join(random.sample(pipeline.vocabulary, min(len(pipeline.vocabulary), 2)))
    # With an id, since the page passes on only what changes. The browser sets the prompt, so that it can be undone.
    return {"random_prompt": {"words": words, "id": uuid4().hex}} if words else {}
