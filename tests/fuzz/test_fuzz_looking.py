"""Select by prompt, and Describe image: any picture, words and sketchpad are answered with a place or a sentence."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import orjson
from effort import Effort, any_text
from fake_models import hat_model
from PIL import Image
from torch import Tensor

from imagebart.errors import InputError
from imagebart.pipeline import Pipeline
from imagebart.ui.files import publish
from imagebart.ui.model_list import ModelChoice
from imagebart.ui.queries import Queries
from imagebart.ui.sketchpad.component import unpack_mask
from imagebart.ui.sketchpad.stored_images import view_size


class Unsure:
    """Says what it sees in light pictures only."""

    def score(self, images: Tensor, prompt: str) -> Tensor:
        return images.mean((1, 2, 3))

    def describe(self, image: Tensor) -> str | None:
        return "a hat" if image.mean() > 0 else None

    def contrast(self, image: Tensor, prompt: str) -> tuple[str, str] | None:
        return (f"{prompt}, a hat", "a hat") if image.mean() > 0.5 else None


PIPELINE = Pipeline(hat_model(), scorer=Unsure())
MODES = ("L", "1", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I", "F")
SIZES = [(16, 16), (32, 32), (37, 50), (16, 90), (900, 17), (64, 64)]


def picture(chance: Random) -> Image.Image:
    """A grey picture of any mode and size, dark or light."""
    width, height = chance.choice(SIZES)
    grey = np.full((height, width), chance.randrange(256), np.uint8)
    mode = chance.choice(MODES)
    if mode in ("I;16", "I", "F"):
        return Image.fromarray(grey.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    return Image.fromarray(grey).convert(mode)


def words(chance: Random) -> str:
    return chance.choice(["", "a hat, "]) + any_text(chance)


def test_words_have_a_place_in_any_picture_or_a_sentence_is_said(effort: Effort) -> None:
    found = 0
    for case, chance in effort.cases(12, 1000):
        image = picture(chance)
        try:
            mask = PIPELINE.suggest_mask(image, words(chance))
        except InputError as error:
            check(str(error), case)
        else:
            found += 1
            assert mask.mode == "L" and mask.size == image.size and mask.getbbox() is not None, case
        try:
            assert PIPELINE.describe(image) == "a hat", case
        except InputError as error:
            check(str(error), case)
    assert found, "nothing was found"


def check(said: str, case: str) -> None:
    assert said[:1].isupper() and said.endswith(".") and len(said) < 400, (case, said)
    said.encode()  # what no file or page can hold, it could not


ANYTHING: list[Any] = [
    *(None, True, -1, 0, 1.5, 10**400, float("nan"), float("inf"), "", "x", "a\0b", "\ud800", [], [1], {}, {"a": 1}),
    *("/etc/passwd", "../app.py", "x" * 5000, [16, 16], [10**30, 1], "255 10", "-1 5 " * 9),
]


def test_the_sketchpad_is_answered_with_a_place_or_a_sentence(effort: Effort) -> None:
    queries, places = Queries(ModelChoice(PIPELINE)), (str(Path.cwd()), os.environ["GRADIO_TEMP_DIR"], "Traceback")
    for case, chance in effort.cases(30, 1000):
        image = picture(chance).convert("RGB")
        size = list(image.size)
        pad = {"version": 3, "picture": publish(image), "size": size, "mask": ""}
        for _ in range(chance.choice([0, 0, 1, 2])):
            pad[chance.choice(list(pad))] = chance.choice(ANYTHING)
        given = chance.choice([pad] * 9 + [None])
        model = chance.choice([None, "x", PIPELINE.name])
        find = chance.random() < 0.7
        said = words(chance)
        update = queries.select_by_prompt(given, model, said) if find else queries.describe_image(given, model)
        answer, messages = update["answer"], update["messages"]
        told = orjson.dumps(update).decode()  # as Gradio sends it
        assert not any(place in told for place in places), (case, told)
        assert answer["task"] == ("find" if find else "describe"), case
        if messages:
            assert not answer.keys() & {"mask", "words"}, case
        elif find:
            assert unpack_mask(answer["mask"], view_size((size[0], size[1]))).getbbox() is not None, case
        else:
            assert answer["words"] == "a hat", case
