"""The controls' values: on their way to the model, from the recipe of an image, and from a link."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from page_values import control_values, noise_image, sketch_value
from PIL import PngImagePlugin
from tiny_models import tiny_pipeline, tiny_staged_model

from imagebart.core.settings import SamplingSettings
from imagebart.imaging.files import Recipe, write_png
from imagebart.pipeline import Pipeline
from imagebart.ui.actions import Actions
from imagebart.ui.controls import NAMES, RESET, SLIDERS, Controls, context_size, starting_values
from imagebart.ui.models import Models

PIPELINE, CLASSES = tiny_pipeline(scales=3), tiny_pipeline("class")
ACTIONS = Actions(Models(PIPELINE))


def test_the_sliders_ends_mean_off_and_a_new_seed_is_none() -> None:
    plain = Controls(**control_values(PIPELINE))
    assert plain.for_run(PIPELINE)["settings"] == SamplingSettings(scales=3) and context_size(plain.context) == math.inf
    assert plain.for_run(PIPELINE)["seed"] == 7
    given = {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "guidance": 2, "resamples": 2}
    chosen = Controls(**control_values(PIPELINE, context=0.5, new_seed=True, **given))
    assert chosen.for_run(PIPELINE)["settings"] == SamplingSettings(**given, scales=3)
    assert context_size(chosen.context) == 0.5 and chosen.for_run(PIPELINE)["seed"] is None


def test_the_page_opens_with_steps_to_be_seen() -> None:
    """Of a model that takes any number; stages are as many as they are."""
    assert [starting_values(tiny_pipeline(scales=scales))["scales"] for scales in (1, 2, 5)] == [4, 4, 5]
    assert starting_values(Pipeline(tiny_staged_model(stages=2)))["scales"] == 2


def test_each_kind_of_model_is_asked_in_its_way_and_of_several_classes_there_is_an_image_each() -> None:
    asked = Controls(**control_values(PIPELINE, words="hat", choice=["cat"]))
    assert [asked.prompt(tiny_pipeline(kind)) for kind in ("text", "class", "none")] == ["hat", "cat", None]
    assert Controls(**control_values(PIPELINE, choice=[])).prompt(CLASSES) is None
    asked = Controls(**control_values(PIPELINE, choice=["cat", "dog"], variants=3, best_first=True))
    last = list(CLASSES.generate(asked.prompt(CLASSES), **asked.for_run(CLASSES)))[-1]
    assert [recipe.prompt for recipe in last.recipes] == ["cat", "dog"]
    assert asked.for_run(PIPELINE)["variants"] == 3, "of a text model"


SAMPLING = SamplingSettings(temperature=0.8, top_k=40, top_p=None, guidance=2.5, resamples=2, scales=5)
RECIPE = Recipe(
    model="tiny", task="edit", prompt="a hat", seed=11, settings=SAMPLING, feather=7, context=0.75, variant=2
)


@pytest.fixture
def made() -> dict[str, Any]:
    """An image without a recipe on the sketchpad."""
    return sketch_value(noise_image((32, 32)), None)


def test_an_image_made_here_brings_back_its_prompt_seed_and_settings(made: dict[str, Any]) -> None:
    assert ACTIONS.restore_settings(made, None) == {}
    write_png(noise_image((32, 32)), made["image"], RECIPE)
    values = ACTIONS.restore_settings(made, "tiny")
    said = values.pop("messages")
    assert "made here" in said and "another model" not in said and set(values) == {"words", *RESET}
    asked = Controls(**control_values(PIPELINE) | values)
    assert asked.for_run(PIPELINE) == {"settings": SAMPLING, "seed": 13, "variants": 1, "best_first": False}
    assert (asked.words, asked.feather, context_size(asked.context)) == ("a hat", 7, 0.75)
    write_png(noise_image((32, 32)), made["image"], RECIPE.replace(model="elsewhere", settings={"guidance": 99}))
    values = ACTIONS.restore_settings(made, "tiny")
    assert "elsewhere" in values["messages"] and values["guidance"] == 8, "what the slider can hold"
    for prompt, chosen in (("dog", "dog"), ("cow", "cat")):  # where there is no such class, the first one
        write_png(noise_image((32, 32)), made["image"], RECIPE.replace(prompt=prompt))
        assert Actions(Models(CLASSES)).restore_settings(made, None)["choice"] == [chosen]


def test_a_damaged_recipe_and_an_image_that_is_gone_are_said(made: dict[str, Any]) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("imagebart", '{"seed": "many"}')
    noise_image((32, 32)).save(made["image"], pnginfo=text)
    assert "recipe" in ACTIONS.restore_settings(made, None)["messages"]
    Path(made["image"]).unlink()
    assert set(ACTIONS.restore_settings(made, None)) == {"messages"}


def test_a_link_sets_words_seed_and_settings_within_the_sliders_ranges_and_keeps_the_seed() -> None:
    given = {"words": "a hat", "seed": 7, "new_seed": True, "guidance": 3, "top_p": 0.8, "variants": 4}
    found = ACTIONS.open_link({"model": "tiny", **given}, "tiny")
    assert "other" not in found.pop("messages") and found == given | {"new_seed": False}
    found = ACTIONS.open_link({"model": "<faces>", "guidance": 1000, "top_p": -1}, "tiny")
    assert "another model: &lt;faces&gt;" in found["messages"] and (found["guidance"], found["top_p"]) == (8, 0.05)
    assert Actions(Models(CLASSES)).open_link({"choice": ["cat", "dog"]}, None)["choice"] == ["cat", "dog"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["cat", "cow"]),
    lambda values: st.lists(values, max_size=5) | st.dictionaries(st.text(max_size=3), values, max_size=2),
    max_leaves=6,
)


@settings(deadline=None)
@example({"choice": ["cow"]}, CLASSES)
@example({"choice": ["cat"] * 5}, CLASSES)
@given(st.dictionaries(st.sampled_from([*NAMES, "unheard"]), JSON, max_size=4), st.sampled_from([PIPELINE, CLASSES]))
def test_of_a_link_only_what_a_page_writes_is_taken(link: dict[str, Any], pipeline: Pipeline) -> None:
    found = Actions(Models(pipeline)).open_link(link, None)
    del found["messages"]
    controls = Controls(**control_values(pipeline) | found)
    assert set(found) - {"new_seed"} <= set(link) and "unheard" not in found and not controls.new_seed
    assert set(found.get("choice", [])) <= set(pipeline.classes)
    assert all(s.minimum <= found[s.name] <= s.maximum for s in SLIDERS if s.name in found)
