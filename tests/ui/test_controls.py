"""The controls' values, on their way to the model and back, and from links."""

from __future__ import annotations

import math
from typing import Any

import pytest
from page_values import control_values
from tiny_models import tiny_pipeline, tiny_staged_model

from imagebart.core.settings import SamplingSettings
from imagebart.imaging.files import Recipe
from imagebart.pipeline import Pipeline
from imagebart.ui.actions import Actions
from imagebart.ui.controls import RESET, Controls, context_size, recipe_values, starting_values
from imagebart.ui.models import Models

PIPELINE = tiny_pipeline(scales=3)


def test_the_sliders_ends_mean_off() -> None:
    plain = Controls(**control_values(PIPELINE))
    assert plain.for_run(PIPELINE)["settings"] == SamplingSettings(scales=3) and context_size(plain.context) == math.inf
    given = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "guidance": 2, "resamples": 2}
    chosen = Controls(**control_values(PIPELINE, context=0.5, **given))
    assert chosen.for_run(PIPELINE)["settings"] == SamplingSettings(**given, scales=3)
    assert context_size(chosen.context) == 0.5


def test_the_page_opens_with_steps_to_be_seen() -> None:
    """Of a model that takes any number; stages are as many as they are."""
    assert [starting_values(tiny_pipeline(scales=scales))["scales"] for scales in (1, 2, 5)] == [4, 4, 5]
    assert starting_values(Pipeline(tiny_staged_model(stages=2)))["scales"] == 2


def test_a_new_seed_is_none() -> None:
    assert Controls(**control_values(PIPELINE, seed=5, new_seed=True)).for_run(PIPELINE)["seed"] is None
    assert Controls(**control_values(PIPELINE, seed=5)).for_run(PIPELINE)["seed"] == 5


def test_each_kind_of_model_is_asked_in_its_way() -> None:
    asked = Controls(**control_values(PIPELINE, words="hat", choice=["cat"]))
    assert [asked.prompt(tiny_pipeline(kind)) for kind in ("text", "class", "none")] == ["hat", "cat", None]
    assert Controls(**control_values(PIPELINE, choice=[])).prompt(tiny_pipeline("class")) is None


def test_of_several_classes_there_is_an_image_each() -> None:
    asked = Controls(**control_values(PIPELINE, choice=["cat", "dog"], variants=3, best_first=True))
    animals = tiny_pipeline("class")
    last = list(animals.generate(asked.prompt(animals), **asked.for_run(animals)))[-1]
    assert [recipe.prompt for recipe in last.recipes] == ["cat", "dog"]
    assert asked.for_run(PIPELINE)["variants"] == 3  # of a text model


def test_a_recipe_restores_the_controls_that_made_it() -> None:
    settings = SamplingSettings(temperature=0.8, top_k=40, top_p=0.9, guidance=2.5, resamples=2, scales=5)
    recipe = Recipe(model="tiny", task="edit", prompt="a hat", seed=3, settings=settings, feather=7, context=0.75)
    values = starting_values(PIPELINE) | recipe_values(recipe, PIPELINE)
    asked = Controls(**{"model": "tiny", "choice": None, "variants": 1, "best_first": False, **values})
    given = asked.for_run(PIPELINE)
    assert (given["settings"], given["seed"], asked.words) == (settings, 3, "a hat")
    assert (asked.feather, context_size(asked.context)) == (7, 0.75)
    assert set(values) == {"words", *RESET}


ACTIONS = Actions(Models(tiny_pipeline()))


def values(given: Any) -> dict[str, Any]:
    return ACTIONS.open_link(given, "tiny")


def test_a_link_sets_words_seed_and_settings_and_keeps_the_seed() -> None:
    given = {"model": "tiny", "words": "a hat", "seed": 7, "new_seed": True, "guidance": 3, "top_p": 0.8, "variants": 2}
    found = values(given)
    assert "other" not in found.pop("messages")
    del given["model"]
    assert found == given | {"new_seed": False}


def test_another_model_is_named() -> None:
    assert "another model: &lt;faces&gt;" in values({"model": "<faces>"})["messages"]


OTHERS_CLASS = {"choice": ["bird"]}  # of another model
WRONG_KINDS = [{"guidance": "3"}, {"seed": True}, {"seed": math.nan}, {"new_seed": 1}, {"words": 5}, {"choice": "bird"}]


@pytest.mark.parametrize(
    "given",
    [
        {},
        *WRONG_KINDS,
        OTHERS_CLASS,
        *({"variants": count} for count in (0, 1.5, 5, 9)),
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
    found = Actions(Models(tiny_pipeline("class"))).open_link({"choice": chosen}, None)
    assert ("choice" in found) == taken and found.get("choice", chosen) == chosen


def test_sliders_stay_in_their_ranges() -> None:
    found = values({"guidance": 1000, "top_p": -1, "variants": 4})
    assert {name: found[name] for name in ("guidance", "top_p", "variants")} == {
        "guidance": 8,
        "top_p": 0.05,
        "variants": 4,
    }
