"""`evaluate folder` as a user runs it, on a tiny random model."""

import json
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from image_folders import draw_folder
from PIL import Image
from tiny_models import tiny_model, tiny_staged_model

from imagebart.cli.main import main


def evaluate(model: Path, *more: str) -> int:
    AcceleratorState._reset_state(reset_partial_state=True)
    return main(["evaluate", "folder", "--model", str(model), *more])


def test_the_table_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out, picture = tmp_path / "model", tmp_path / "figures.json", tmp_path / "sheet.png"
    tiny_model("none").save_pretrained(model)
    data = draw_folder(tmp_path / "data", "text")
    given = ["--data", str(data), "--samples", "4", "--steps", "2", "--out", str(out), "--picture", str(picture)]
    tiny_staged_model("none", 1).save_pretrained(tmp_path / "left")
    tiny_model("none", seed=1).save_pretrained(tmp_path / "other")
    given += ["--telling", "2", "--baseline", str(tmp_path / "left"), "--beside", str(tmp_path / "other")]
    assert evaluate(model, *given) == 0
    measures = {m["name"]: m for m in json.loads(out.read_text())["measures"]}
    for hole in ("centre box", "lower half"):
        own, telea, real = (measures[f"{hole}, {way}: colour over the edge"] for way in ("model", "Telea", "as it was"))
        assert own["value"] > telea["value"]  # noise does not join, and what is smeared over does
        assert real["low"] <= real["value"] <= real["high"]
    assert 0 <= measures["prompts: class read right"]["value"] <= 1
    assert measures["reconstruction: PSNR"]["unit"] == "dB"
    for way in ("model", "left to right", "Telea", "Navier-Stokes"):
        told = measures[f"centre box, {way}: told from real"]
        assert 0 <= told["low"] <= told["value"] <= told["high"] <= 1 and told["unit"] == "%"
    assert measures["model: weights that draw, millions"]["value"] > 0
    assert measures["left to right: weights that draw, millions"]["value"] > 0
    own, other = measures["reconstruction: PSNR"], measures["reconstruction, the other: PSNR"]
    assert own["value"] != other["value"] and measures["pairs: looks more real than the other"]["pictures"] == 4
    assert "| drawn pictures: precision |" in capsys.readouterr().out
    with Image.open(picture) as sheet:
        assert sheet.size == (160 + 4 * 36, 12 * 36)
    key = json.loads((model / "evaluation" / "pairs.json").read_text())["the model's own"]
    assert set(key) == {"1", "2", "3", "4"} and set(key.values()) <= {"A", "B"}
    with Image.open(model / "evaluation" / "pairs.png") as sheet:
        assert sheet.size == (12 * 36, 36 + 14)


def test_a_baseline_that_sees_what_follows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model("none").save_pretrained(tmp_path / "model")
    given = ["--data", str(draw_folder(tmp_path / "data", "text")), "--steps", "2"]
    assert evaluate(tmp_path / "model", *given, "--baseline", str(tmp_path / "model")) == 2
    assert "expected one decoder_only" in capsys.readouterr().err
    assert evaluate(tmp_path / "model", *given, "--beside", str(tmp_path / "data")) == 2
    assert "No first stage can be taken over" in capsys.readouterr().err


def test_pictures_that_are_not_there_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model("none").save_pretrained(tmp_path)
    assert evaluate(tmp_path) == 2
    assert "give --data" in capsys.readouterr().err
    assert evaluate(tmp_path, "--samples", "1") == 2
    assert "greater than or equal to 4" in capsys.readouterr().err
