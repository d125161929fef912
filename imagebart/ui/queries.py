"""What the page asks without a run: about the image on the sketchpad, the prompt that is typed, and a link.

Each takes the values of components by name, and returns the page's changes by name. Answers to the sketchpad say which
version of image and mask they are about: it drops those that are late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from PIL import Image

from imagebart.errors import InputError, whole_characters
from imagebart.fitting import EditOptions
from imagebart.imaging.files import load_image
from imagebart.imaging.metadata import read_recipe
from imagebart.pipeline import Pipeline
from imagebart.ui import messages
from imagebart.ui.controls import RESET, context_size, link_values, recipe_values
from imagebart.ui.model_list import ModelChoice
from imagebart.ui.runs import asked_for
from imagebart.ui.sketchpad.component import Sketch, SketchValue, pack_for_view
from imagebart.ui.sketchpad.stored_images import IMAGE_LIMIT, ImageDeleted, find

MAX_CHECKED = 2000  # characters of a prompt, or of a model's name
RESTORED = ("words", "choice", *RESET)
"""The controls that an image which was made here sets."""


def share_of(mask: Image.Image) -> int:
    """How much of an image a mask covers, in percent, at least one."""
    kept = mask.histogram()[0]
    return max(1, round(100 * (1 - kept / (mask.width * mask.height))))


class Queries:
    """The page's queries, on the model that is chosen. All else comes in with each call."""

    def __init__(self, choice: ModelChoice) -> None:
        self._choice = choice

    @IMAGE_LIMIT
    def fit(
        self, sketchpad: SketchValue, model: str | None, words: str | None, exact: bool, context: float
    ) -> dict[str, Any]:
        """What Edit would change: its mask, and how much of the image that is, in percent; and the tokens of its first
        pass: a square in the image's pixels, and its patches as 1 and 0 by rows.

        elsewhere: the mask of the place that the words are about, where something else is painted. Answers repeat the
        question's number, see fit.js; without a mask, nothing can be changed yet.
        """
        number = sketchpad.get("question") if sketchpad else None
        answer: dict[str, Any] = {"question": number if isinstance(number, int) else 0}
        try:
            sketch, pipeline = Sketch.read(sketchpad), self._choice.get(model)
            mask, prompt = asked_for(pipeline, sketch, words or None)
            exact = exact or sketch.mode == "expand"
            options = EditOptions(exact, sketch.movable, sketch.mode == "remove", 0, context_size(context))
            fitted = pipeline.fit_mask(sketch.file(), mask, prompt, options=options)
        except InputError:  # reported when Edit is pressed
            return {"fit": answer}
        answer |= {"mask": pack_for_view(fitted.mask), "share": share_of(fitted.mask)}
        if fitted.elsewhere is not None:
            answer["elsewhere"] = pack_for_view(fitted.elsewhere)
        region = fitted.passes[0].region
        if region is not None:
            box = [region.box.left, region.box.top, region.box.side]
            cells = "".join("1" if cell else "0" for cell in region.regenerated.flatten())
            answer |= {"box": box, "side": region.grid, "cells": cells}
        return {"fit": answer}

    def select_by_prompt(self, sketchpad: SketchValue, model: str | None, words: str | None) -> dict[str, Any]:
        """The mask of what the prompt is about, packed as the sketchpad sends one."""

        def select(pipeline: Pipeline, image: Image.Image) -> dict[str, str]:
            return {"mask": pack_for_view(pipeline.suggest_mask(image, words))}

        return self._answer("select", sketchpad, model, select)

    def describe_image(self, sketchpad: SketchValue, model: str | None) -> dict[str, Any]:
        """What the image shows, in words that the model knows."""
        return self._answer("describe", sketchpad, model, lambda pipeline, image: {"caption": pipeline.describe(image)})

    def recognize_image(self, sketchpad: SketchValue, model: str | None) -> dict[str, Any]:
        """A sentence where the model does not know such images, so that it is read before an edit; "" where it does."""

        def recognize(pipeline: Pipeline, image: Image.Image) -> dict[str, str]:
            return {"note": " ".join(pipeline.domain_notes(image))}

        sketchpad = sketchpad or {}
        small = {**sketchpad, "image": sketchpad.get("view")}  # what the browser shows: a large upload would take long
        return {"answer": self._answer("recognize", small, model, recognize)["answer"]}

    def _answer(
        self,
        task: str,
        sketchpad: SketchValue,
        model: str | None,
        ask: Callable[[Pipeline, Image.Image], dict[str, str]],
    ) -> dict[str, Any]:
        # With an id, since the page passes on only what changes, and the same may be asked twice.
        answer: dict[str, Any] = {"id": uuid4().hex, "task": task, "version": 0}
        try:
            sketch = Sketch.read(sketchpad)
            answer["version"] = sketch.version
            return {"answer": {**answer, **ask(self._choice.get(model), load_image(sketch.file()))}, "messages": ""}
        except ImageDeleted as error:
            return {"answer": {**answer, "deleted": True}, "messages": messages.problem_html(str(error))}
        except InputError as error:
            return {"answer": answer, "messages": messages.problem_html(str(error))}

    def no_answer(self) -> dict[str, Any]:
        """The page where no answer comes: too many people wait, or something unexpected happened."""
        answer = {"id": uuid4().hex, "task": "", "version": 0}
        return {"answer": answer, "messages": messages.problem_html(messages.SERVER_BUSY)}

    def restore_settings(self, sketchpad: SketchValue, model: str | None) -> dict[str, Any]:
        """The prompt, seed and settings of the image on the sketchpad, if this page made it."""
        try:
            path = Sketch.read(sketchpad).path
            recipe = None if path is None else read_recipe(find(path))
        except InputError as error:
            return {"messages": messages.problem_html(str(error))}
        if recipe is None:
            return {}
        pipeline = self._choice.get(model)
        other = recipe.model if recipe.model != pipeline.name else None
        note = messages.of_model(messages.SETTINGS_RESTORED, other)
        values = recipe_values(recipe, pipeline)
        return {name: values[name] for name in RESTORED if name in values} | {"messages": messages.notes_html([note])}

    def open_link(self, link: Any, model: str | None) -> dict[str, Any]:
        """The controls' values that a link holds; the browser reads it (images.js)."""
        pipeline = self._choice.get(model)
        other = link.get("model") if isinstance(link, Mapping) else None
        other = None if other in (None, pipeline.name, model) else whole_characters(str(other)[:MAX_CHECKED])
        note = messages.of_model(messages.LINK_OPENED, other)
        return {**link_values(link, pipeline), "messages": messages.notes_html([note])}

    def check_prompt(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """{"prompt": …, "model": a model's name} to {"unknown": …, "corrections": …}, for prompt.js while one types.

        unknown: words that this model neither knows nor corrects; corrections: those that it corrects, and to what.
        """
        try:
            pipeline = self._choice.get(str(question["model"]))
            words = str(question["prompt"])[:MAX_CHECKED]
            return {"unknown": pipeline.unknown_words(words), "corrections": pipeline.corrections(words)}
        except (InputError, KeyError, TypeError):
            return {"unknown": [], "corrections": {}}
