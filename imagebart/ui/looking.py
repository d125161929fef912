"""Find it, and What is here?: where words belong in the picture on the sketchpad, and which words it shows.

Both are answers: they say which picture and mask they are about, and the sketchpad drops those that are late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from PIL import Image

from imagebart.conditioning.tokenizer import whole_characters
from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.ui import wording
from imagebart.ui.choice import Choice
from imagebart.ui.picture import scale_mask, view_size
from imagebart.ui.sketchpad.bitmap import pack
from imagebart.ui.sketchpad.component import Sketch
from imagebart.ui.sketchpad.shelf import Gone

ANSWER = ("looked", "messages")
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
