"""A model of a folder of images: `evaluate folder` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from image_folders import draw_folder
from PIL import Image
from tiny_models import tiny_model

from imagebart.cli.main import main
from imagebart.evaluation.folder import spread


@pytest.mark.parametrize(("count", "most"), [(362, 100), (362, 200), (6718, 2000), (7, 7), (7, 3), (1, 5), (0, 5)])
def test_the_measured_images_are_spread_evenly(count: int, most: int) -> None:
    """Of each tenth of the images, in their order, a tenth of those chosen, to one more or less."""
    chosen = spread(list(range(count)), most)
    assert len(chosen) == min(most, count) and chosen == sorted(set(chosen))
    for part in range(10):
        there = range(part * count // 10, (part + 1) * count // 10)
        assert abs(len(set(chosen) & set(there)) - len(chosen) * len(there) / max(1, count)) <= 1


def evaluate(model: Path, *more: str) -> int:
    return main(["evaluate", "folder", "--model", str(model), *more])


def test_the_table_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out, sheet = tmp_path / "model", tmp_path / "figures.json", tmp_path / "sheet.png"
    tiny_model("none").save_pretrained(model)
    data = draw_folder(tmp_path / "data", "text")
    more = ["--samples", "4", "--test-steps", "2", "--out", str(out), "--sheet", str(sheet)]
    assert evaluate(model, "--data", str(data), *more) == 0
    measures = {m["name"]: m for m in json.loads(out.read_text())["measures"]}
    assert measures["reconstruction: PSNR"]["unit"] == "dB"
    for made in ("reconstruction", "center box filled", "lower half filled", "generated images"):
        test = measures[f"{made}: two-sample test"]
        assert 0 <= test["low"] <= test["value"] <= test["high"] <= 1 and test["unit"] == "%"
    assert "| generated images: two-sample test |" in capsys.readouterr().out
    with Image.open(sheet) as page:
        assert page.size == (160 + 4 * 36, 5 * 36)


def test_missing_images_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model("none").save_pretrained(tmp_path)
    assert evaluate(tmp_path) == 2
    assert "give --data" in capsys.readouterr().err
    assert evaluate(tmp_path, "--samples", "1") == 2
    assert "greater than or equal to 4" in capsys.readouterr().err
