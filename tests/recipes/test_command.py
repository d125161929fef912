"""`python -m recipes.avatars evaluate`, run on a tiny model as a person runs it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny_model, tiny_staged_model

from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.model import ImageBART
from imagebart.models.text_encoder import TextEncoder
from imagebart.settings import SamplingSettings
from imagebart.training.config import StageShape
from imagebart.training.token_task import text_config
from imagebart.weights import Part, save_part
from imagebart.worlds.attribute_classifier import CaptionReader, load_classifier, save_heads
from recipes.avatars import READER
from recipes.avatars.__main__ import main
from recipes.avatars.captions import avatar_conditioner
from recipes.avatars.evaluation import IMAGES_EACH, Renders, Study, compare


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model("text").save_pretrained(folder)
    return folder


def test_everything_is_measured_printed_and_written_and_the_images_are_counted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "report.json"
    options = ["--samples", "20", "--guidance", "2", "--out", str(out)]
    assert main(["evaluate", "table", "--model", str(model), *options]) == 0
    said = capsys.readouterr()
    assert "| prompts: named attributes found |" in said.out
    done, total = re.findall(r"(\d+)/(\d+) +images", said.err)[-1]
    assert "100%" in said.err and done == total
    content = json.loads(out.read_text())
    assert content["sampling"]["guidance"] == 2
    assert content["samples"] == 20
    measures = content["measures"]
    assert all(np.isfinite([m["value"], m["low"], m["high"]]).all() for m in measures)
    assert all(m["low"] <= m["value"] <= m["high"] for m in measures)
    totals = {m["name"]: m["value"] for m in measures if not m["group"]}
    assert sum(not m["group"] for m in measures) == len(totals) == 19
    assert 0 <= totals["edits: another background, with slivers of the old one"] <= 1
    assert totals["prompts: named attributes found"] < 0.5 and 0 <= totals["edits: changed as asked"] <= 1
    assert sum(m["group"] == "plain prompts" for m in measures) == 60
    # A comparison measures less, and the same with the same seed.
    counts: list[int] = []
    settings = SamplingSettings.from_json(json.dumps(content["sampling"]))
    sampler = ImageSampler(ImageBART.from_pretrained(model), settings, progress=counts.append)
    study = Study(sampler, load_classifier(READER), 20)
    first, *others = compare(study, Renders.of(study))
    assert sum(counts) == IMAGES_EACH * 20
    weights = sampler.model.denoiser.named_parameters()
    size = sum(weight.numel() for name, weight in weights if not name.startswith("text."))
    assert first.name == "sampling parameters, millions" and first.value == pytest.approx(size / 1e6)
    assert [m for m in others if totals.get(m.name) == m.value]


def test_scales_puts_numbers_of_scales_side_by_side(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "baseline"
    tiny_staged_model("text", stages=1).save_pretrained(baseline)
    out, picture = tmp_path / "scales.json", tmp_path / "scales.png"
    options = ["--baseline", str(baseline), "--scales", "2", "--samples", "20"]
    files = ["--out", str(out), "--sheet", str(picture)]
    assert main(["evaluate", "scales", "--model", str(model), *options, *files]) == 0
    assert "| measure | left to right | T = 2 |" in capsys.readouterr().out
    assert set(json.loads(out.read_text())["models"]) == {"left to right", "T = 2"}
    assert Image.open(picture).size[1] == 5 * 132
    assert main(["evaluate", "scales", "--model", str(model), "--scales", "9", "--samples", "20"]) == 2
    assert "scales is 9" in capsys.readouterr().err


def test_best_of_needs_a_judge(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "best-of", "--model", str(model), "--samples", "20"]) == 2
    assert "has no scorer" in capsys.readouterr().err


def test_the_shipped_examples_are_written(tmp_path: Path) -> None:
    assert main(["examples", "--out", str(tmp_path)]) == 0
    shipped = sorted(Path("checkpoints/avatars/examples").iterdir())
    assert [path.name for path in sorted(tmp_path.iterdir())] == [path.name for path in shipped]
    for path in shipped:
        made = tmp_path / path.name
        if path.suffix == ".txt":
            assert made.read_text() == path.read_text()
        else:
            assert (np.asarray(Image.open(made)) == np.asarray(Image.open(path))).all()


def test_grids_are_written(model: Path, tmp_path: Path) -> None:
    assert main(["evaluate", "grids", "--model", str(model), "--out", str(tmp_path)]) == 0
    assert Image.open(tmp_path / "prompts.png").size == (8 * 132, 6 * 146)
    assert Image.open(tmp_path / "edits.png").size == (9 * 132, 8 * 146)
    page = np.asarray(Image.open(tmp_path / "completions.png"), int)
    assert page.shape[:2] == (8 * 146, 9 * 132)
    before, masked, after = (page[2:130, 2 + 132 * i : 130 + 132 * i] for i in range(3))
    above, below = slice(0, 52), slice(76, 128)  # resizing fourfold mixes three rows of pixels between them
    for shown in (masked, after):
        assert (shown[below] == before[below]).all()
        assert (shown[above] != before[above]).any()
    green = masked[above, :, 1].mean() / before[above, :, 1].mean()
    assert green == pytest.approx(0.5, abs=0.01), "half of it is magenta, which has no green"


def test_typed_says_what_a_text_encoder_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = StageShape(width=32, heads=2, head_size=16, encoder_depth=1, query_tokens=14)
    conditioner = avatar_conditioner(77)
    reader = CaptionReader(TextEncoder(text_config(shape, conditioner)))
    for head in reader.heads:  # says nothing of anything, whatever it reads
        head.bias.data[-1] = 1e6
    save_part(Part(reader.encoder, conditioner), tmp_path)
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
    assert main(["evaluate", "table", "--model", str(model), *extra]) == 2
    assert said in capsys.readouterr().err
