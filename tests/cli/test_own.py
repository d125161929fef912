"""`evaluate folder` as a user runs it, on a tiny random model."""

import json
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from drawn_folders import draw_folder
from PIL import Image

from imagebart.cli.main import main
from imagebart.testing import tiny_model


def evaluate(model: Path, *more: str) -> int:
    AcceleratorState._reset_state(reset_partial_state=True)
    return main(["evaluate", "folder", "--model", str(model), *more])


def test_the_table_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out, picture = tmp_path / "model", tmp_path / "figures.json", tmp_path / "sheet.png"
    tiny_model("none").save_pretrained(model)
    data = draw_folder(tmp_path / "data", "text")
    given = ["--data", str(data), "--samples", "4", "--steps", "2", "--out", str(out), "--picture", str(picture)]
    assert evaluate(model, *given) == 0
    measures = {m["name"]: m for m in json.loads(out.read_text())["measures"]}
    for hole in ("centre box", "lower half"):
        own, telea, real = (measures[f"{hole}, {way}: colour over the edge"] for way in ("model", "Telea", "as it was"))
        assert own["value"] > telea["value"]  # noise does not join, and what is smeared over does
        assert real["low"] <= real["value"] <= real["high"]
    assert 0 <= measures["prompts: class read right"]["value"] <= 1
    assert measures["reconstruction: PSNR"]["unit"] == "dB"
    assert "| drawn pictures: precision |" in capsys.readouterr().out
    with Image.open(picture) as sheet:
        assert sheet.size == (160 + 4 * 36, 6 * 36)


def test_pictures_that_are_not_there_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model("none").save_pretrained(tmp_path)
    assert evaluate(tmp_path) == 2
    assert "give --data" in capsys.readouterr().err
    assert evaluate(tmp_path, "--samples", "1") == 2
    assert "greater than or equal to 4" in capsys.readouterr().err
