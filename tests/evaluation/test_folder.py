"""A model of a folder of images: the two-sample test, inpainting baselines, `evaluate folder` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from image_folders import draw_folder
from PIL import Image
from tiny_models import tiny_model, tiny_staged_model
from torch import Tensor

from imagebart.cli.main import main
from imagebart.evaluation.folder import (
    HOLES,
    OPENCV,
    Pairs,
    edge_distance,
    opencv_inpaint,
    preference_test,
    spread,
    two_sample_test,
)
from imagebart.imaging.masks import preset_array


def noise(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def blurred(images: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(images, 3, 1, 1)


def test_blurred_images_are_found_and_others_of_the_same_kind_are_not() -> None:
    """A network is tested on images that it has not seen: memorising them is of no use."""
    real, state = noise(60, 0), torch.get_rng_state()
    found = two_sample_test(real, blurred(real), steps=30)
    assert found.value > 0.95 and found.low > 0.8
    alike = two_sample_test(noise(60, 3), noise(60, 103), steps=15)
    assert alike.low < 0.5 < alike.high
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="3 images"):
        two_sample_test(real[:3], real[:3])


def test_preference_does_not_depend_on_the_order_and_the_key_says_it() -> None:
    real = noise(60, 0)
    pairs = Pairs(real, real + 0.02 * noise(60, 2), blurred(real), seed=3)
    better, ours, theirs = preference_test(pairs, steps=40)
    assert better.value > 0.9 and better.low > 0.75
    assert ours.value > theirs.value and theirs.value < 0.1
    worse, *_ = preference_test(Pairs(real, pairs.theirs, pairs.ours, seed=3), steps=40)
    assert worse.value < 0.1
    key = pairs.key()
    assert len(key) == 40 and 10 <= list(key.values()).count("A") <= 30
    assert key != Pairs(real, real, real, seed=4).key()


def test_the_sheet_shows_each_pair_as_the_key_says() -> None:
    dark, grey, light = (torch.full((5, 3, 16, 16), value) for value in (-1.0, 0.0, 1.0))
    pairs = Pairs(grey, dark, light)
    page = pairs.sheet().convert("L")
    cell, row = 20, 20 + 14
    for number, place in pairs.key().items():
        y, x = divmod(int(number) - 1, 4)
        shown = [page.getpixel((cell * (3 * x + i) + 10, row * y + 10)) for i in range(3)]
        assert shown == ([0, 128, 255] if place == "A" else [255, 128, 0])


@pytest.mark.parametrize("method", OPENCV.values())
@pytest.mark.parametrize(("hole", "share"), [("centre box", 0.25), ("lower half", 0.5)])
def test_only_the_hole_is_filled_and_one_colour_continues(method: int, hole: str, share: float) -> None:
    images = torch.full((2, 3, 32, 32), 0.6)
    mask = preset_array(HOLES[hole], 32)
    assert mask.mean() == share
    damaged = torch.where(torch.from_numpy(mask), torch.tensor(-1.0), images)
    error = (opencv_inpaint(damaged, mask, method) - images).abs()
    assert error.max() < 0.05  # Telea's is a few levels of 255
    assert error[..., ~torch.from_numpy(mask)].max() < 1 / 255


def test_color_differences_are_those_over_the_edge_alone() -> None:
    hole = preset_array("lower half", 8)
    images = torch.zeros(1, 3, 8, 8)
    images[..., 4:, :] = 0.4
    images[..., 7, :] = -1  # inside the hole
    assert edge_distance(images, hole).tolist() == pytest.approx([0.4 * 127.5])
    with pytest.raises(ValueError, match="no edge"):
        edge_distance(images, np.zeros((8, 8), bool))


@pytest.mark.parametrize(("count", "most"), [(362, 100), (362, 200), (6718, 2000), (7, 7), (7, 3), (1, 5), (0, 5)])
def test_the_measured_images_are_spread_evenly(count: int, most: int) -> None:
    """Of each tenth of the images, in their order, a tenth of those chosen, to one more or less."""
    chosen = spread(list(range(count)), most)
    assert len(chosen) == min(most, count) and chosen == sorted(set(chosen))
    for part in range(10):
        there = range(part * count // 10, (part + 1) * count // 10)
        assert abs(len(set(chosen) & set(there)) - len(chosen) * len(there) / max(1, count)) <= 1


def evaluate(model: Path, *more: str) -> int:
    AcceleratorState._reset_state(reset_partial_state=True)
    return main(["evaluate", "folder", "--model", str(model), *more])


def test_the_table_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out, sheet = tmp_path / "model", tmp_path / "figures.json", tmp_path / "sheet.png"
    tiny_model("none").save_pretrained(model)
    data = draw_folder(tmp_path / "data", "text")
    given = ["--data", str(data), "--samples", "4", "--steps", "2", "--out", str(out), "--sheet", str(sheet)]
    tiny_staged_model("none", 1).save_pretrained(tmp_path / "left")
    tiny_model("none", seed=1).save_pretrained(tmp_path / "other")
    given += ["--test-steps", "2", "--baseline", str(tmp_path / "left"), "--beside", str(tmp_path / "other")]
    assert evaluate(model, *given) == 0
    measures = {m["name"]: m for m in json.loads(out.read_text())["measures"]}
    for hole in ("centre box", "lower half"):
        name = f"{hole}, {{}}: color difference over the edge"
        own, telea, real = (measures[name.format(method)] for method in ("model", "Telea", "as it was"))
        assert own["value"] > telea["value"]  # noise has an edge, and Telea continues colors
        assert real["low"] <= real["value"] <= real["high"]
    assert 0 <= measures["prompts: class classified right"]["value"] <= 1
    assert measures["reconstruction: PSNR"]["unit"] == "dB"
    for way in ("model", "left to right", "Telea", "Navier-Stokes"):
        test = measures[f"centre box, {way}: two-sample test"]
        assert 0 <= test["low"] <= test["value"] <= test["high"] <= 1 and test["unit"] == "%"
    assert measures["model: sampling parameters, millions"]["value"] > 0
    assert measures["left to right: sampling parameters, millions"]["value"] > 0
    own, other = measures["reconstruction: PSNR"], measures["reconstruction, the other: PSNR"]
    assert own["value"] != other["value"] and measures["pairs: looks more real than the other"]["images"] == 4
    assert "| generated images: precision |" in capsys.readouterr().out
    with Image.open(sheet) as page:
        assert page.size == (160 + 4 * 36, 12 * 36)
    key = json.loads((model / "evaluation" / "pairs.json").read_text())["the model's own"]
    assert set(key) == {"1", "2", "3", "4"} and set(key.values()) <= {"A", "B"}
    with Image.open(model / "evaluation" / "pairs.png") as page:
        assert page.size == (12 * 36, 36 + 14)


def test_a_baseline_that_sees_what_follows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model("none").save_pretrained(tmp_path / "model")
    given = ["--data", str(draw_folder(tmp_path / "data", "text")), "--steps", "2"]
    assert evaluate(tmp_path / "model", *given, "--baseline", str(tmp_path / "model")) == 2
    assert "expected one decoder_only" in capsys.readouterr().err
    assert evaluate(tmp_path / "model", *given, "--beside", str(tmp_path / "data")) == 2
    assert "No first stage can be initialised" in capsys.readouterr().err


def test_missing_images_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model("none").save_pretrained(tmp_path)
    assert evaluate(tmp_path) == 2
    assert "give --data" in capsys.readouterr().err
    assert evaluate(tmp_path, "--samples", "1") == 2
    assert "greater than or equal to 4" in capsys.readouterr().err
