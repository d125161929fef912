"""What the sketchpad asks the page for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from desk import UNCHANGED, noise, sketch, told
from PIL import Image, PngImagePlugin

from imagebart.imaging.masks import preset
from imagebart.imaging.metadata import Recipe, write_png
from imagebart.settings import SamplingSettings
from imagebart.testing import tiny_pipeline
from imagebart.ui.model_list import Choice
from imagebart.ui.sketch_actions import RESTORED, grid, restored

pytestmark = pytest.mark.usefixtures("own_files")
PIPELINE = tiny_pipeline()
CHOICE = Choice(PIPELINE)


@pytest.mark.parametrize(("size", "area"), [((90, 61), "centre"), ((700, 1300), "upper half"), ((2000, 90), "border")])
def test_the_grid_is_that_of_the_library(size: tuple[int, int], area: str) -> None:
    answer = grid(CHOICE, sketch(Image.new("RGB", size), area, version=9), "tiny", 3.0)
    cells = PIPELINE.region(size, preset(area, size))
    assert answer["version"] == 9 and answer["side"] == cells.grid
    assert answer["box"] == [cells.box.left, cells.box.top, cells.box.side]
    found = np.array([cell == "1" for cell in answer["cells"]]).reshape(cells.redrawn.shape)
    # A reduced mask may touch a token more at its edge.
    assert not (cells.redrawn & ~found).any() and (found != cells.redrawn).mean() < 0.13
    if max(size) <= 1024:
        assert (found == cells.redrawn).all()


def test_the_grid_follows_the_context() -> None:
    corner = Image.new("L", (512, 512))
    corner.paste(255, (0, 0, 100, 100))
    pad = sketch(Image.new("RGB", (512, 512)), corner)
    assert grid(CHOICE, pad, None, 0.25)["box"][2] < grid(CHOICE, pad, None, 3.0)["box"][2] == 512


def test_nothing_is_answered_where_nothing_is_painted() -> None:
    for pad in (None, sketch(noise((40, 40)), None), {"version": "x"}):
        assert grid(CHOICE, pad, None, 3.0) == UNCHANGED


@pytest.mark.parametrize("size", [[-40, -40], [0, 40], [40, 15], [8000, 5001], [10**30, 10**30]])
def test_a_size_that_no_picture_has_is_not_answered(size: list[int]) -> None:
    painted = sketch(noise((40, 40)), "centre")
    assert grid(CHOICE, {**painted, "size": size, "mask": "255 1"}, None, 3.0) == UNCHANGED


def made(path: str, recipe: Recipe) -> None:
    write_png(noise((32, 32)), path, recipe)


def test_a_picture_made_here_brings_back_its_prompt_seed_and_settings() -> None:
    pad = sketch(noise((32, 32)), None)
    settings = SamplingSettings(temperature=0.7, top_k=20, top_p=None, guidance=3.0, resamples=2, start=1)
    recipe = Recipe("tiny", "edit", "a red hat", 11, settings, feather=3, context=0.5, variant=2)
    made(pad["picture"], recipe)
    changes = told(restored(CHOICE, pad, "tiny"), RESTORED)
    names = ("words", "seed", "new_seed", "temperature", "top_k", "top_p", "guidance", "resamples", "start", "feather")
    values = ("a red hat", 13, False, 0.7, 20, 1, 3.0, 2, 1, 3)
    assert tuple(changes[name] for name in names) == values and changes["context"] == 0.5
    assert "made here" in changes["messages"] and "another model" not in changes["messages"]
    made(pad["picture"], replace(recipe, model="elsewhere", settings=SamplingSettings(guidance=99)))
    changes = told(restored(CHOICE, pad, "tiny"), RESTORED)
    assert "elsewhere" in changes["messages"] and changes["guidance"] == 8  # what the slider can hold


def test_a_class_is_chosen_again() -> None:
    animals = Choice(tiny_pipeline("class"))
    pad = sketch(noise((32, 32)), None)
    write_png(noise((32, 32)), pad["picture"], Recipe("tiny", "generate", "dog", 3))
    assert told(restored(animals, pad, None), RESTORED)["choice"] == ["dog"]
    write_png(noise((32, 32)), pad["picture"], Recipe("tiny", "generate", "cow", 3))
    assert told(restored(animals, pad, None), RESTORED)["choice"] == ["cat"]


def test_another_picture_changes_nothing_and_a_damaged_recipe_is_said() -> None:
    pad = sketch(noise((32, 32)), None)
    assert told(restored(CHOICE, pad, None), RESTORED) == {}
    text = PngImagePlugin.PngInfo()
    text.add_text("imagebart", '{"seed": "many"}')
    noise((32, 32)).save(pad["picture"], pnginfo=text)
    assert "recipe" in told(restored(CHOICE, pad, None), RESTORED)["messages"]
    Path(pad["picture"]).unlink()
    assert set(told(restored(CHOICE, pad, None), RESTORED)) == {"messages"}
