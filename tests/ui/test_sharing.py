"""What a link sets of the controls, and what it may not."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from imagebart.testing import tiny_pipeline
from imagebart.ui.model_list import Choice
from imagebart.ui.prompt import RECEIVED, received

CHOICE = Choice(tiny_pipeline())


def values(given: Any) -> dict[str, Any]:
    found = dict(zip(RECEIVED, received(CHOICE, given, "tiny"), strict=True))
    return {name: value for name, value in found.items() if value != gr.skip()}


def test_a_link_sets_words_seed_and_settings_and_keeps_the_seed() -> None:
    given = {"model": "tiny", "words": "a hat", "seed": 7, "new_seed": True, "guidance": 3, "top_p": 0.8, "variants": 2}
    found = values(given)
    assert "other" not in found.pop("messages")
    del given["model"]
    assert found == given | {"new_seed": False}


def test_another_model_is_named() -> None:
    assert "another model: &lt;faces&gt;" in values({"model": "<faces>"})["messages"]


@pytest.mark.parametrize(
    "given",
    [
        *(None, 3, "x", [], {}),
        {"guidance": "3"},
        {"seed": True},
        {"seed": float("nan")},
        {"new_seed": 1},
        {"words": 5},
        {"choice": "bird"},
        {"choice": ["bird"]},  # of another model
        {"variants": 9},
        {"variants": 1.5},
        {"unheard": 1},
    ],
)
def test_what_no_page_writes_is_left_out(given: Any) -> None:
    found = values(given)
    assert set(found) == {"new_seed", "messages"}


@pytest.mark.parametrize(
    ("chosen", "taken"),
    [(["bird"], True), (["cat", "dog"], True), (["cow"], False), (["cat"] * 5, False), ("cat", False), ([[]], False)],
)
def test_a_link_chooses_classes_that_there_are(chosen: Any, taken: bool) -> None:
    found = dict(zip(RECEIVED, received(Choice(tiny_pipeline("class")), {"choice": chosen}, None), strict=True))
    assert (found["choice"] == chosen) == taken


def test_only_numbers_of_pictures_that_can_be_drawn_are_taken() -> None:
    assert [values({"variants": count}).get("variants") for count in (0, 1, 4, 5)] == [None, 1, 4, None]


def test_sliders_stay_in_their_ranges() -> None:
    assert values({"guidance": 1000, "top_p": -1}) | {"messages": ""} == {
        "guidance": 8,
        "top_p": 0.05,
        "new_seed": False,
        "messages": "",
    }
