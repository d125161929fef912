"""What the page asks without a run: the grid, masks and words from the image, settings, links, the prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_models import FixedDescriber, hat_model
from page_values import noise_image, sketch_value
from PIL import Image, PngImagePlugin
from tiny_models import tiny_pipeline

from imagebart.imaging.masks import preset
from imagebart.imaging.metadata import Recipe, write_png
from imagebart.pipeline import Pipeline
from imagebart.settings import SamplingSettings
from imagebart.ui.model_list import ModelChoice
from imagebart.ui.queries import MAX_CHECKED, Queries
from imagebart.ui.sketchpad.component import scale_mask, unpack_mask
from imagebart.ui.sketchpad.stored_images import view_size

pytestmark = pytest.mark.usefixtures("own_files")
PIPELINE = tiny_pipeline()
QUERIES = Queries(ModelChoice(PIPELINE))
HAT_PIPELINE = Pipeline(hat_model(), scorer=FixedDescriber("a hat"))
HAT_QUERIES = Queries(ModelChoice(HAT_PIPELINE))


@pytest.mark.parametrize(("size", "area"), [((90, 61), "centre"), ((700, 1300), "upper half"), ((2000, 90), "border")])
def test_the_grid_is_that_of_the_library(size: tuple[int, int], area: str) -> None:
    answer = QUERIES.grid(sketch_value(Image.new("RGB", size), area, version=9), "tiny", 3.0)["grid"]
    cells = PIPELINE.region(size, preset(area, size))
    assert answer["version"] == 9 and answer["side"] == cells.grid
    assert answer["box"] == [cells.box.left, cells.box.top, cells.box.side]
    found = np.array([cell == "1" for cell in answer["cells"]]).reshape(cells.regenerated.shape)
    # A reduced mask may touch a token more at its edge.
    assert not (cells.regenerated & ~found).any() and (found != cells.regenerated).mean() < 0.13
    if max(size) <= 1024:
        assert (found == cells.regenerated).all()


def test_the_grid_follows_the_context() -> None:
    corner = Image.new("L", (512, 512))
    corner.paste(255, (0, 0, 100, 100))
    pad = sketch_value(Image.new("RGB", (512, 512)), corner)
    assert QUERIES.grid(pad, None, 0.25)["grid"]["box"][2] < QUERIES.grid(pad, None, 3.0)["grid"]["box"][2] == 512


def test_nothing_is_answered_where_nothing_is_painted() -> None:
    for pad in (None, sketch_value(noise_image((40, 40)), None), {"version": "x"}):
        assert QUERIES.grid(pad, None, 3.0) == {}


@pytest.mark.parametrize("size", [[-40, -40], [0, 40], [40, 15], [8000, 5001], [10**30, 10**30]])
def test_a_size_that_no_image_has_is_not_answered(size: list[int]) -> None:
    painted = sketch_value(noise_image((40, 40)), "centre")
    assert QUERIES.grid({**painted, "size": size, "mask": "255 1"}, None, 3.0) == {}


def made(path: str, recipe: Recipe) -> None:
    write_png(noise_image((32, 32)), path, recipe)


def test_an_image_made_here_brings_back_its_prompt_seed_and_settings() -> None:
    pad = sketch_value(noise_image((32, 32)), None)
    settings = SamplingSettings(temperature=0.7, top_k=20, top_p=None, guidance=3.0, resamples=2, start=1)
    recipe = Recipe("tiny", "edit", "a red hat", 11, settings, feather=3, context=0.5, variant=2)
    made(pad["image"], recipe)
    changes = QUERIES.restore_settings(pad, "tiny")
    names = ("words", "seed", "new_seed", "temperature", "top_k", "top_p", "guidance", "resamples", "start", "feather")
    values = ("a red hat", 13, False, 0.7, 20, 1, 3.0, 2, 1, 3)
    assert tuple(changes[name] for name in names) == values and changes["context"] == 0.5
    assert "made here" in changes["messages"] and "another model" not in changes["messages"]
    made(pad["image"], replace(recipe, model="elsewhere", settings=SamplingSettings(guidance=99)))
    changes = QUERIES.restore_settings(pad, "tiny")
    assert "elsewhere" in changes["messages"] and changes["guidance"] == 8  # what the slider can hold


@pytest.mark.parametrize(("prompt", "chosen"), [("dog", "dog"), ("cow", "cat")])
def test_a_class_is_chosen_again_or_the_first_one(prompt: str, chosen: str) -> None:
    animals = Queries(ModelChoice(tiny_pipeline("class")))
    pad = sketch_value(noise_image((32, 32)), None)
    made(pad["image"], Recipe("tiny", "generate", prompt, 3))
    assert animals.restore_settings(pad, None)["choice"] == [chosen]


def test_another_image_changes_nothing_and_a_damaged_recipe_is_said() -> None:
    pad = sketch_value(noise_image((32, 32)), None)
    assert QUERIES.restore_settings(pad, None) == {}
    text = PngImagePlugin.PngInfo()
    text.add_text("imagebart", '{"seed": "many"}')
    noise_image((32, 32)).save(pad["image"], pnginfo=text)
    assert "recipe" in QUERIES.restore_settings(pad, None)["messages"]
    Path(pad["image"]).unlink()
    assert set(QUERIES.restore_settings(pad, None)) == {"messages"}


@pytest.mark.parametrize("size", [(64, 64), (90, 61), (2000, 1500)])
def test_what_is_found_is_the_library_s_mask_in_the_sketchpad_s_pixels(size: tuple[int, int]) -> None:
    image = noise_image(size)
    answer, messages = HAT_QUERIES.select_by_prompt(sketch_value(image, None, version=9), None, "a hat").values()
    assert (answer["version"], answer["task"], answer["selected_by"], messages) == (9, "select", "a hat", "")
    expected = scale_mask(HAT_PIPELINE.suggest_mask(image, "a hat"), view_size(size))
    assert (np.asarray(unpack_mask(answer["mask"], view_size(size))) == np.asarray(expected)).all()


def test_what_is_painted_does_not_change_what_is_found_and_no_two_answers_are_alike() -> None:
    image = noise_image((64, 64))
    (first, _), (second, _) = (
        HAT_QUERIES.select_by_prompt(sketch_value(image, area), None, "a hat").values() for area in (None, "centre")
    )
    assert first["mask"] == second["mask"] and first["id"] != second["id"]


def test_what_is_here_is_told_in_words() -> None:
    answer, messages = HAT_QUERIES.describe_image(sketch_value(noise_image((40, 40)), None, version=4), None).values()
    assert (answer["caption"], answer["version"], messages) == ("a hat", 4, "")


def test_an_image_that_the_model_does_not_know_is_said_to_be_one_and_asked_of_its_small_copy() -> None:
    pad = sketch_value(noise_image((40, 40)), None, version=5)
    asked = {**pad, "image": "gone.png", "view": pad["image"]}
    answer = QUERIES.recognize_image(asked, None)["answer"]
    assert (answer["task"], answer["version"]) == ("recognize", 5) and "knows nothing only" in answer["note"]
    for wrong in (None, pad, {**asked, "view": 7}):
        assert "note" not in QUERIES.recognize_image(wrong, None)["answer"]


def test_what_cannot_be_done_is_a_sentence_and_no_mask() -> None:
    pad = sketch_value(noise_image((40, 40)), None)
    for words, said in (("", "Without words"), ("zzqx", "no word of"), ("red hair", "nothing that")):
        answer, messages = HAT_QUERIES.select_by_prompt(pad, None, words).values()
        assert said in messages and answer["version"] == 3 and not answer.keys() & {"mask", "caption", "deleted"}
    assert "no image" in HAT_QUERIES.select_by_prompt(None, None, "a hat")["messages"]
    assert "cannot read" in HAT_QUERIES.describe_image({"version": "x"}, None)["messages"]


def test_an_image_that_is_no_longer_kept_is_asked_for_again() -> None:
    pad = sketch_value(noise_image((40, 40)), None)
    Path(pad["image"]).unlink()
    answer, messages = HAT_QUERIES.select_by_prompt(pad, None, "a hat").values()
    assert answer["deleted"] and answer["task"] == "select" and "no longer on the server" in messages


CORRECTIONS = {"Sunglases": "sunglasses", "hiar": "hair"}


@pytest.mark.parametrize(
    ("prompt", "unknown", "corrections"),
    [
        ("Sunglases, zebra and red hiar", ["zebra"], CORRECTIONS),
        ("a hat", [], {}),
        ("hat " * (MAX_CHECKED // 4) + "zebra", [], {}),  # of a very long one, the beginning counts
    ],
)
def test_unknown_and_corrected_words_are_named(prompt: str, unknown: list[str], corrections: dict[str, str]) -> None:
    answer = QUERIES.check_prompt({"prompt": prompt, "model": "tiny"})
    assert answer == {"unknown": unknown, "corrections": corrections}


@pytest.mark.parametrize("asked", [{}, {"prompt": "zebra"}, None, 3])
def test_what_no_page_sends_is_no_fault(asked: Any) -> None:
    assert QUERIES.check_prompt(asked) == {"unknown": [], "corrections": {}}
