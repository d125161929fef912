"""`python -m imagebart evaluate`, run on a tiny model as a person runs it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from imagebart.cli import main
from imagebart.testing import tiny_model
from imagebart.text_encoder import TextEncoder
from imagebart.training.config import StageShape
from imagebart.training.parts import save_text_encoder
from imagebart.training.reading import CaptionReader, save_heads
from imagebart.training.stages import avatar_conditioner, text_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model("text").save_pretrained(folder)
    return folder


def test_avatars_prints_a_table_and_writes_json(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "report.json"
    options = ["--samples", "20", "--guidance", "2", "--out", str(out)]
    assert main(["evaluate", "avatars", "--model", str(model), *options]) == 0
    said = capsys.readouterr()
    assert "| prompts: named attributes found |" in said.out
    assert "100%" in said.err
    content = json.loads(out.read_text())
    assert content["sampling"]["guidance"] == 2
    assert content["samples"] == 20
    edits = next(m for m in content["measures"] if m["name"] == "edits: changed as asked")
    assert 0 <= edits["low"] <= edits["value"] <= edits["high"] <= 1
    assert sum(m["group"] == "plain prompts" for m in content["measures"]) == 60


def test_scales_puts_models_side_by_side(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "three"
    tiny_model("text", stages=3).save_pretrained(other)
    out, picture = tmp_path / "scales.json", tmp_path / "scales.png"
    options = ["--samples", "20", "--out", str(out), "--picture", str(picture)]
    assert main(["evaluate", "scales", "--models", str(model), str(other), *options]) == 0
    assert "| stages | 2 ± 0 | 3 ± 0 |" in capsys.readouterr().out
    assert set(json.loads(out.read_text())["models"]) == {str(model), str(other)}
    assert Image.open(picture).size[1] == 5 * 132


def test_pictures_draws_both_grids(model: Path, tmp_path: Path) -> None:
    assert main(["evaluate", "pictures", "--model", str(model), "--out", str(tmp_path)]) == 0
    assert Image.open(tmp_path / "prompts.png").size == (8 * 132, 6 * 146)
    assert Image.open(tmp_path / "edits.png").size == (9 * 132, 8 * 146)


def test_words_says_how_much_captions_help(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "words", "--model", str(model), "--samples", "2"]) == 0
    assert [line[:8] for line in capsys.readouterr().out.splitlines()] == ["stage 1:", "stage 2:"]


def test_typed_says_what_a_text_encoder_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = StageShape(width=32, heads=2, head_size=16, encoder_depth=1, slots=14)
    conditioner = avatar_conditioner(77)
    reader = CaptionReader(TextEncoder(text_config(shape, conditioner)))
    for head in reader.heads:  # says nothing of anything, whatever it reads
        head.bias.data[-1] = 1e6
    save_text_encoder(reader.encoder, conditioner, tmp_path)
    save_heads(reader, tmp_path)
    assert main(["evaluate", "typed", "--text", str(tmp_path), "--show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "plain: 0 of 76 claims read rightly, 0 of 60 prompts wholly, 0 attributes read unasked"
    assert [line.split(":")[0] for line in lines[1:3]] == ["seen", "held"]
    assert "purple afro: {}" in lines and not any("blue eyes" in line for line in lines if line != "big blue eyes: {}")


@pytest.mark.parametrize(("extra", "said"), [(["--samples", "3"], "3 samples"), (["--batch", "0"], "a batch of 0")])
def test_bad_input_is_one_sentence(
    model: Path, extra: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "avatars", "--model", str(model), *extra]) == 2
    assert said in capsys.readouterr().err
