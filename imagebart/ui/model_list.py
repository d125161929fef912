"""The models that can be chosen or downloaded, and what the page shows of the one that is chosen."""

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

from imagebart.atomic_io import format_bytes
from imagebart.errors import InputError, WeightsError
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.published.registry import (
    MODELS,
    PublishedModel,
    estimate_edit_seconds,
    estimate_sizes,
    format_seconds,
    model_folder,
)
from imagebart.ui import messages
from imagebart.ui.controls import DEFAULT_SCALES, RESET, starting_values
from imagebart.ui.downloads import NO_DOWNLOAD, Downloads
from imagebart.ui.examples import Example, find_examples
from imagebart.weights import CONFIG, EXAMPLES, ModelConfig, card_license, read_card, read_config

PUBLISHED = ("scale1.ckpt", "*/scale1.ckpt")  # the archives of 2021 hold a folder, or the files themselves

# Shares of an image's tokens between which an edit's time says how long one of a quarter takes.
MIN_MEASURED_SHARE, MAX_MEASURED_SHARE = 0.1, 0.6

log = logging.getLogger(__name__)


class Models:
    """The models of a folder, by the names of their own folders, and the published ones that are on this machine.

    They are loaded when they are first used. Threads may share it.

    max_loaded: how many are kept in memory; the one unused for longest goes first (a run that still uses it goes on).
    load: makes a pipeline of a model's folder.
    """

    def __init__(
        self,
        folder: str | PathLike[str] | None,
        max_loaded: int = 2,
        load: Callable[[Path], Pipeline] = Pipeline.from_pretrained,
    ) -> None:
        if max_loaded < 1:
            raise ValueError(f"max_loaded is {max_loaded}, expected 1 or more")
        self._folder = None if folder is None else Path(folder)
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
        return sorted(self.folders())

    def folders(self) -> dict[str, Path]:
        """Where they are."""
        inside = self._folder.iterdir() if self._folder is not None and self._folder.is_dir() else ()
        places = {name: model_folder(name) for name in MODELS} | {path.name: path for path in inside}
        return {name: path for name, path in places.items() if _is_model(path)}

    def examples(self, name: str) -> list[Example]:
        """The examples in a model's folder; none for a name that is not among `names`."""
        folder = self.folders().get(name)
        return find_examples(folder / EXAMPLES) if folder else []

    def get(self, name: str) -> Pipeline:
        """The model of this name, from memory or from its folder; one is loaded at a time.

        Raises InputError for a name that is not among `names`, WeightsError for files that cannot be used.
        """
        with self._lock:
            if name not in self._loaded:
                folders = self.folders()
                if name not in folders:
                    there = f"choose one of {', '.join(sorted(folders))}" if folders else "the folder holds none"
                    raise InputError(f"There is no model {name[:80]!r} here; {there}.")
                while len(self._loaded) >= self._max_loaded:  # before loading: both would have to fit otherwise
                    self._loaded.popitem(last=False)
                self._loaded[name] = self._load(folders[name])
            self._loaded.move_to_end(name)
            return self._loaded[name]


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or any(next(folder.glob(pattern), None) for pattern in PUBLISHED)


class ModelChoice:
    """The model that the page opens with, its examples, and the other models of a folder."""

    def __init__(
        self,
        first: Pipeline,
        others: Models | None = None,
        examples: Sequence[Example] = (),
        downloads: Downloads | None = None,
    ) -> None:
        self.first = first
        self.downloads = downloads or Downloads()
        self._others = others
        self._examples = examples
        self._facts: dict[str, dict[str, str]] = {}  # of models that are here, and of those that are not

    def names(self) -> list[str]:
        """The first model's name, then those of the others."""
        others = self._others.names() if self._others else []
        return [self.first.name, *(name for name in others if name != self.first.name and not self._on_its_way(name))]

    def _on_its_way(self, name: str) -> bool:
        return self.downloads.all().get(name, NO_DOWNLOAD).running

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
                log.warning("the example %s is left out: %s", example.name, error)
        return published

    def record_edit(self, name: str | None, event: PipelineEvent) -> None:
        """Keeps how long an edit took, as the list of models shows it, if its settings were the page's own."""
        pipeline = self.get(name)
        share = event.total / pipeline.grid**2
        usual = starting_values(pipeline)["scales"] == event.stages and event.resamples == len(event.images) == 1
        if usual and MIN_MEASURED_SHARE <= share <= MAX_MEASURED_SHARE:
            self.downloads.times.record(name or self.first.name, event.elapsed, share)

    def rows(self) -> list[dict[str, Any]]:
        """All models, the published ones last and always in one order."""
        downloads = self.downloads.all()  # before the names: what has ended by now is among them
        folders = self._others.folders() if self._others else {}
        here = self.names()
        missing = {name: model for name, model in MODELS.items() if name not in here}
        own = [name for name in here if name not in MODELS]
        published = [name for name in MODELS if name in here or self.downloads.allowed]
        return [
            self._row(name, folders.get(name), missing.get(name)) | vars(downloads.get(name, NO_DOWNLOAD))
            for name in own + published
        ]

    def _row(self, name: str, folder: Path | None, missing: PublishedModel | None) -> dict[str, Any]:
        place = str(folder or missing)
        if name not in self._facts or self._facts[name]["place"] != place:
            self._facts[name] = {"place": place, **self._describe(name, folder, missing)}
        facts, measured = self._facts[name], self.downloads.times.get(name)
        seconds = facts["estimate"] if measured is None else f"25 % edit in {format_seconds(measured)} (measured here)"
        return {
            "name": name,
            "draws": facts["draws"],
            "facts": " · ".join(filter(None, (facts["size"], seconds))),
            "license": facts["license"],
            "here": missing is None,
        }

    def _describe(self, name: str, folder: Path | None, missing: PublishedModel | None) -> dict[str, str]:
        """What does not change of a row."""
        published = missing or MODELS.get(name)
        config: PublishedModel | ModelConfig | None = published
        draws, license_ = (published.domain, published.license) if published else ("", "")
        if name == self.first.name:
            draws = self.first.knows
        if folder is not None:
            try:
                license_ = card_license(read_card(folder)) or license_
                if (folder / CONFIG).is_file():
                    config = read_config(folder / CONFIG)
                    draws = config.about.knows or draws
            except (WeightsError, OSError) as error:  # said when it is chosen
                log.warning("the model %s cannot be described: %s", name, error)
        size = ""
        if missing:
            sizes = estimate_sizes(missing)
            size = f"about {format_bytes(sizes.download)} to download, {format_bytes(4 * sizes.parameters)} in the end"
        elif folder is not None:
            size = format_bytes(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
        estimate = ""
        if config is not None:
            seconds = estimate_edit_seconds(config, DEFAULT_SCALES)
            estimate = f"25 % edit in at most {format_seconds(seconds)} (an estimate)"
        license_ = license_ or "none stated"
        return {"draws": draws, "size": size, "license": license_, "estimate": estimate}


def list_models(choice: ModelChoice) -> dict[str, Any]:
    """The list that a model is chosen from, as it is now."""
    names = choice.names()
    return {"model": gr.update(choices=names, visible=len(names) > 1)}


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
    """A random prompt of some suggestions, or a random class."""
    pipeline = choice.get(model)
    if pipeline.conditioning == "class":
        return {"choice": [random.choice(pipeline.classes)]}
    suggestions = pipeline.suggestions
    if suggestions:
        count = random.randint(min(2, pipeline.surprises), pipeline.surprises)
        chosen = random.sample(list(suggestions), min(len(suggestions), count))
        words = ", ".join(random.choice(suggestions[attribute]) for attribute in chosen)
    else:
        words = " ".join(random.sample(pipeline.vocabulary, min(len(pipeline.vocabulary), 2)))
    # With an id, since the page passes on only what changes. The browser sets the prompt, so that it can be undone.
    return {"random_prompt": {"words": words, "id": uuid4().hex}} if words else {}
