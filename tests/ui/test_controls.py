"""The controls' values, on their way to the model and back."""

from __future__ import annotations

import math

from desk import controls

from imagebart.imaging.metadata import Recipe
from imagebart.settings import SamplingSettings
from imagebart.testing import tiny_pipeline
from imagebart.ui.controls import ORDER, Controls, restored_values, starting_values

PIPELINE = tiny_pipeline(scales=3)


def test_the_sliders_ends_mean_off() -> None:
    plain = Controls(*controls(PIPELINE))
    assert plain.sampling(PIPELINE) == SamplingSettings(scales=3) and plain.around() == math.inf
    chosen = Controls(*controls(PIPELINE, temperature=0.8, top_k=40, top_p=0.9, guidance=2, resamples=2, start=2))
    assert chosen.sampling(PIPELINE) == SamplingSettings(0.8, 40, 0.9, 2, 2, 2, 3)
    assert Controls(*controls(PIPELINE, context=0.5)).around() == 0.5


def test_a_new_seed_is_none() -> None:
    assert Controls(*controls(PIPELINE, seed=5, new_seed=True)).fixed_seed() is None
    assert Controls(*controls(PIPELINE, seed=5.0)).fixed_seed() == 5


def test_each_kind_of_model_is_asked_in_its_way() -> None:
    asked = Controls(*controls(PIPELINE, words="hat", choice=["cat"]))
    assert [asked.prompt(tiny_pipeline(kind)) for kind in ("text", "class", "none")] == ["hat", "cat", None]
    assert Controls(*controls(PIPELINE, choice=[])).prompt(tiny_pipeline("class")) is None


def test_of_several_classes_there_is_a_picture_each() -> None:
    asked = Controls(*controls(PIPELINE, choice=["cat", "dog"], variants=3, best_first=True))
    animals = tiny_pipeline("class")
    last = list(animals.generate(asked.prompt(animals), **asked.variety(animals)))[-1]
    assert [recipe.prompt for recipe in last.recipes] == ["cat", "dog"]
    assert asked.variety(PIPELINE)["variants"] == 3  # of a text model


def test_a_recipe_restores_the_controls_that_made_it() -> None:
    settings = SamplingSettings(0.8, 40, 0.9, 2.5, 2, 2, 5)
    recipe = Recipe("tiny", "edit", "a hat", 3, settings, feather=7, context=0.75)
    values = starting_values(PIPELINE) | restored_values(recipe, PIPELINE)
    asked = Controls(**{"model": "tiny", "choice": None, **values})
    assert asked.sampling(PIPELINE) == settings and (asked.words, asked.fixed_seed()) == ("a hat", 3)
    assert (asked.feather, asked.around()) == (7, 0.75)
    assert set(values) | {"model", "choice"} == set(ORDER)
