"""`evaluate folder` and `evaluate paper` on a few images, tiny models and small random networks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from tiny_models import tiny_model, tiny_staged_model
from tiny_runs import draw_folder
from transformers import ResNetConfig, ResNetForImageClassification

from imagebart.cli import main
from imagebart.core.errors import InputError
from imagebart.evaluation.paper import INCEPTION, images_in, in_manifold, load_network, read_square


def test_the_table_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = tmp_path / "model", draw_folder(tmp_path / "data", "text")
    out, sheet = tmp_path / "figures.json", tmp_path / "sheet.png"
    tiny_model("none").save_pretrained(model)
    command = ["evaluate", "folder", "--model", str(model)]
    for more, said in (([], "give --data"), (["--samples", "1"], "greater than or equal to 4")):
        assert main([*command, *more]) == 2
        assert said in capsys.readouterr().err
    more = ["--samples", "4", "--test-steps", "2", "--out", str(out), "--sheet", str(sheet)]
    assert main([*command, "--data", str(data), *more]) == 0
    measures = {m["name"]: m for m in json.loads(out.read_text())["measures"]}
    assert measures["reconstruction: PSNR"]["unit"] == "dB"
    for made in ("reconstruction", "center box filled", "lower half filled", "generated images"):
        test = measures[f"{made}: two-sample test"]
        assert 0 <= test["low"] <= test["value"] <= test["high"] <= 1 and test["unit"] == "%"
    assert "| generated images: two-sample test |" in capsys.readouterr().out
    assert Image.open(sheet).size == (160 + 4 * 36, 5 * 36)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of classes, a classifier for features, images in data/, and a run's results in out/."""
    work = tmp_path_factory.mktemp("work")
    tiny_staged_model("class").save_pretrained(work / "model")
    torch.manual_seed(1)
    names = {0: "cat", 1: "dog", 2: "bird"}
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], id2label=names)
    ResNetForImageClassification(config).save_pretrained(work / "classifier")
    (work / "data").mkdir()
    (work / "data" / "notes.txt").write_text("no image")
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(work / "data" / f"{i}.png")
    assert evaluate(work, work / "out") == 0
    return work


def evaluate(work: Path, out: Path, *more: str) -> int:
    given = [f"--{option}={work / name}" for option, name in (("model", "model"), ("features", "classifier"))]
    given += ["--data", str(work / "data"), "--samples", "6", "--batch", "2", "--out", str(out)]
    return main(["evaluate", "paper", *given, *more])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


def test_a_run_writes_samples_completions_and_the_table(work: Path) -> None:
    out = work / "out"
    rows = [measure["name"] for measure in json.loads((out / "figures.json").read_text())["measures"]]
    measures = ["FID", "Inception score", "precision", "recall"]
    assert rows == ["acceptance rate", *measures, *(f"upper half completed: {name}" for name in measures)]
    assert Image.open(out / "nearest.png").size == (4 * 32, 6 * 32)
    assert len([path for path in contents(out) if path.suffix == ".png"]) == 6 + 6 + 1
    small = np.asarray(ImageOps.fit(Image.open(work / "data" / "0.png"), (32, 32), Image.Resampling.LANCZOS))
    after = np.asarray(Image.open(out / "upper-halves" / "000000.png"))
    assert (after[16:] == small[16:]).all() and (after[:16] != small[:16]).any()


def test_a_run_goes_on_where_one_was_stopped(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(work / "out", tmp_path / "again")
    for name in ("samples/000000", "samples/000003", "samples/000005", "upper-halves/000002", "upper-halves/000003"):
        (tmp_path / "again" / f"{name}.png").unlink()
    assert evaluate(work, tmp_path / "again") == 0
    assert contents(tmp_path / "again") == contents(work / "out")
    assert "images a second: T = 2: " in capsys.readouterr().out


def test_a_scorer_keeps_the_best_of_several(work: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("dog\n")
    common = ("--prompts", str(tmp_path / "prompts.txt"), "--images", "4")
    assert evaluate(work, tmp_path / "one", *common) == 0
    assert evaluate(work, tmp_path / "best", *common, "--best-of", "4", "--scorer", str(work / "classifier")) == 0
    network, scores = load_network(str(work / "classifier")), []
    for run in ("one", "best"):
        images = torch.cat([read_square(path, 32) for path in sorted((tmp_path / run / "samples").iterdir())])
        scores.append(network(images).logits.log_softmax(-1)[:, 1].mean())
    assert scores[1] > scores[0]
    assert json.loads((tmp_path / "best" / "figures.json").read_text())["measures"][0]["value"] == 0.25


def test_images_are_the_middle_square_and_what_is_missing_is_named(work: Path, tmp_path: Path) -> None:
    paths = images_in(work / "data", 4)
    assert [path.name for path in paths] == ["0.png", "1.png", "2.png", "3.png"]
    square = ((read_square(paths[0], 40)[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    assert (square == np.asarray(Image.open(paths[0]))[:, 5:45]).all()
    with pytest.raises(InputError, match="holds no images"):
        images_in(work / "data" / "notes.txt", 4)
    with pytest.raises(InputError, match="is missing: the weights of the FID of papers. Fetch https://github.com"):
        load_network(str(tmp_path / INCEPTION))
    with pytest.raises(InputError, match="The network .*nothing cannot be loaded"):
        load_network(str(tmp_path / "nothing"))


def test_points_in_the_manifold_are_within_a_third_neighbors_distance() -> None:
    others = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]])
    points = torch.tensor([[1.5], [5.9], [6.1], [-3.1], [190.0]])
    # Third neighbors are 3, 2, 2, 3 and 99 away.
    assert in_manifold(points, others).tolist() == [True, True, True, False, True]
    assert in_manifold(torch.tensor([[6.1]]), others[:4]).tolist() == [False]
    with pytest.raises(InputError, match="2 images are too few"):
        in_manifold(points, others[:2])
