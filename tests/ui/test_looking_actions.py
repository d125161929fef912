"""Select by prompt and Describe image: what the sketchpad is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk import noise, sketch, told
from hatted import hatted_model
from torch import Tensor

from imagebart.pipeline import Pipeline
from imagebart.ui.examples import scale_mask, view_size
from imagebart.ui.model_list import Choice
from imagebart.ui.prompt import ANSWER, Looking
from imagebart.ui.sketchpad.stored_images import unpack

pytestmark = pytest.mark.usefixtures("own_files")


class Teller:
    """Sees a hat in everything, and cannot say what else there is."""

    def score(self, images: Tensor, prompt: str) -> Tensor:
        return images.mean((1, 2, 3))

    def describe(self, image: Tensor) -> str:
        return "a hat"

    def contrast(self, image: Tensor, prompt: str) -> None:
        return None


PIPELINE = Pipeline(hatted_model(), scorer=Teller())
LOOKING = Looking(Choice(PIPELINE))


def answer(updates: list[Any]) -> tuple[dict[str, Any], str]:
    changes = told(updates, ANSWER)
    return changes["answer"], changes["messages"]


@pytest.mark.parametrize("size", [(64, 64), (90, 61), (2000, 1500)])
def test_what_is_found_is_the_library_s_mask_in_the_sketchpad_s_pixels(size: tuple[int, int]) -> None:
    image = noise(size)
    looked, messages = answer(LOOKING.find(sketch(image, None, version=9), None, "a hat"))
    assert (looked["version"], looked["task"], looked["of"], messages) == (9, "find", "a hat", "")
    expected = scale_mask(PIPELINE.suggest_mask(image, "a hat"), view_size(size))
    assert (np.asarray(unpack(looked["mask"], view_size(size))) == np.asarray(expected)).all()


def test_what_is_painted_does_not_change_what_is_found_and_no_two_answers_are_alike() -> None:
    image = noise((64, 64))
    (first, _), (second, _) = (answer(LOOKING.find(sketch(image, area), None, "a hat")) for area in (None, "centre"))
    assert first["mask"] == second["mask"] and first["asked"] != second["asked"]


def test_what_is_here_is_told_in_words() -> None:
    looked, messages = answer(LOOKING.describe(sketch(noise((40, 40)), None, version=4), None))
    assert (looked["words"], looked["version"], messages) == ("a hat", 4, "")


def test_what_cannot_be_done_is_a_sentence_and_no_mask() -> None:
    pad = sketch(noise((40, 40)), None)
    for words, said in (("", "Without words"), ("zzqx", "no word of"), ("red hair", "nothing that")):
        looked, messages = answer(LOOKING.find(pad, None, words))
        assert said in messages and looked["version"] == 3 and not looked.keys() & {"mask", "words", "gone"}
    assert "no picture" in answer(LOOKING.find(None, None, "a hat"))[1]
    assert "cannot be read" in answer(LOOKING.describe({"version": "x"}, None))[1]


def test_a_picture_that_is_no_longer_kept_is_asked_for_again() -> None:
    pad = sketch(noise((40, 40)), None)
    Path(pad["picture"]).unlink()
    looked, messages = answer(LOOKING.find(pad, None, "a hat"))
    assert looked["gone"] and looked["task"] == "find" and "no longer kept" in messages
