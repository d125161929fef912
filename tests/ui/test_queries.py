"""What the page asks without a run: what will change, masks and words from the image, settings, links, the prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_models import FixedDescriber, hat_model
from page_values import noise_image, sketch_value
from PIL import Image, PngImagePlugin
from tiny_models import tiny_pipeline

from imagebart.fitting import EditOptions
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


def fit(value: Any, words: str | None = None, exact: bool = False, context: float = 3.0) -> dict[str, Any]:
    """What Edit would change, by the model that knows where hats go."""
    answer: dict[str, Any] = HAT_QUERIES.fit(value, None, words, exact, context)["fit"]
    return answer


@pytest.mark.parametrize(("size", "area"), [((90, 61), "centre"), ((700, 1300), "upper half"), ((2000, 90), "border")])
@pytest.mark.parametrize("exact", [False, True])
def test_what_will_change_is_what_the_library_says(size: tuple[int, int], area: str, exact: bool) -> None:
    pad = sketch_value(noise_image(size), area, version=9)
    answer = fit({**pad, "question": 12}, "a hat", exact)
    mask = scale_mask(unpack_mask(pad["mask"], view_size(size)), size)
    fitted = HAT_PIPELINE.fit_mask(noise_image(size), mask, "a hat", options=EditOptions(exact))
    shown = np.asarray(scale_mask(fitted.mask, view_size(size)))
    assert answer["question"] == 12 and np.array_equal(unpack_mask(answer["mask"], view_size(size)), shown)
    assert abs(answer["share"] - 100 * (np.asarray(fitted.mask) > 0).mean()) <= 1
    region = fitted.passes[0].region
    assert region is not None and answer["side"] == region.grid
    assert answer["box"] == [region.box.left, region.box.top, region.box.side]
    assert answer["cells"] == "".join(str(int(cell)) for cell in region.regenerated.flatten())
    if exact:
        assert np.array_equal(np.asarray(fitted.mask) > 0, np.asarray(mask) > 0)


def test_what_will_change_follows_the_context() -> None:
    corner = Image.new("L", (512, 512))
    corner.paste(255, (0, 0, 100, 100))
    pad = sketch_value(Image.new("RGB", (512, 512)), corner)
    assert fit(pad, context=0.25)["box"][2] < fit(pad)["box"][2] == 512


def test_words_find_their_place_move_a_mask_that_nobody_painted_and_leave_a_painted_one() -> None:
    image = noise_image((64, 64))
    place = fit(sketch_value(image, None), "a hat")["mask"]
    lower = sketch_value(image, "lower half")
    assert fit({**lower, "movable": True}, "a hat")["mask"] == place
    painted = fit(lower, "a hat")
    assert painted["elsewhere"] == place and painted["mask"] == lower["mask"]
    assert fit({**lower, "mode": "remove"}, "a hat").keys().isdisjoint({"elsewhere"})


def test_the_background_is_found_by_words_for_it_whatever_is_painted() -> None:
    pad = {**sketch_value(noise_image((64, 64)), "lower half"), "mode": "background"}
    found = np.asarray(unpack_mask(fit(pad, "hat")["mask"], (64, 64))) > 0
    assert np.array_equal(found[:32, 8:56], np.ones((32, 48))) and found.sum() == 32 * 48, "half a patch more each way"
    assert fit(pad, "a hat background") == fit(pad, "hat") and "mask" not in fit(pad, " ")


def test_nothing_is_answered_where_nothing_can_be_changed() -> None:
    pads: list[Any] = [None, {"version": "x"}, {"question": "x"}, sketch_value(noise_image((40, 40)), None)]
    for pad in pads:
        assert fit(pad) == {"question": 0}
    deleted = sketch_value(noise_image((40, 40)))
    Path(deleted["image"]).unlink()
    assert fit({**deleted, "question": 4}, "a hat") == {"question": 4}


@pytest.mark.parametrize("size", [[-40, -40], [0, 40], [40, 15], [8000, 5001], [10**30, 10**30]])
def test_a_size_that_no_image_has_is_not_answered(size: list[int]) -> None:
    painted = sketch_value(noise_image((40, 40)), "centre")
    assert fit({**painted, "size": size, "mask": "255 1"}) == {"question": 0}


def made(path: str, recipe: Recipe) -> None:
    write_png(noise_image((32, 32)), path, recipe)


def test_an_image_made_here_brings_back_its_prompt_seed_and_settings() -> None:
    pad = sketch_value(noise_image((32, 32)), None)
    settings = SamplingSettings(temperature=0.7, top_k=20, top_p=None, guidance=3.0, resamples=2)
    recipe = Recipe(
        model="tiny", task="edit", prompt="a red hat", seed=11, settings=settings, feather=3, context=0.5, variant=2
    )
    made(pad["image"], recipe)
    changes = QUERIES.restore_settings(pad, "tiny")
    names = ("words", "seed", "new_seed", "temperature", "top_k", "top_p", "guidance", "resamples", "feather")
    values = ("a red hat", 13, False, 0.7, 20, 1, 3.0, 2, 3)
    assert tuple(changes[name] for name in names) == values and changes["context"] == 0.5
    assert "made here" in changes["messages"] and "another model" not in changes["messages"]
    made(pad["image"], recipe.replace(model="elsewhere", settings=SamplingSettings(guidance=99)))
    changes = QUERIES.restore_settings(pad, "tiny")
    assert "elsewhere" in changes["messages"] and changes["guidance"] == 8  # what the slider can hold


@pytest.mark.parametrize(("prompt", "chosen"), [("dog", "dog"), ("cow", "cat")])
def test_a_class_is_chosen_again_or_the_first_one(prompt: str, chosen: str) -> None:
    animals = Queries(ModelChoice(tiny_pipeline("class")))
    pad = sketch_value(noise_image((32, 32)), None)
    made(pad["image"], Recipe(model="tiny", task="generate", prompt=prompt, seed=3))
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
    assert (answer["version"], answer["task"], messages) == (9, "select", "")
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
