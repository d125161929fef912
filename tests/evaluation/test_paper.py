"""The paper's measures on a few pictures, a tiny model and small random networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import in_processes
from tiny_models import tiny_staged_model
from torchmetrics.image.fid import FrechetInceptionDistance
from transformers import ResNetConfig, ResNetForImageClassification

from imagebart.cli import main
from imagebart.errors import InputError
from imagebart.evaluation.metrics import frechet_distance
from imagebart.evaluation.paper import INCEPTION, coverage, load_feature_network, pictures_in, read_square


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(1)
    names = {0: "cat", 1: "dog", 2: "bird"}
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], id2label=names)
    ResNetForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_fid_is_that_of_torchmetrics() -> None:
    """Of features that hang together, of more pictures than features and of fewer."""
    mixed = torch.linspace(-1, 1, 64).reshape(8, 8) + torch.eye(8)
    for count in (200, 6):
        real, drawn = torch.randn(count, 8) @ mixed, 2 * torch.randn(count + 3, 8) @ mixed.T + 1
        given = torch.nn.Identity()
        given.num_features = 8
        metric = FrechetInceptionDistance(feature=given)
        metric.update(real, real=True)
        metric.update(drawn, real=False)
        assert frechet_distance(real, drawn) == pytest.approx(float(metric.compute()), rel=1e-3)


def test_coverage_of_sets_in_part_apart() -> None:
    line = torch.arange(10.0)[:, None]
    assert coverage(line, line) == (1, 1)
    assert coverage(line, line[:5]) == (1, 0.8)  # 0 to 4 reach, by their third neighbours, to 7
    assert coverage(line, line + 100) == (0, 0)
    with pytest.raises(InputError, match="2 pictures are too few"):
        coverage(line, line[:2])


def test_pictures_are_the_middle_square(data: Path) -> None:
    paths = pictures_in(data, 4)
    assert [path.name for path in paths] == ["0.png", "1.png", "2.png", "3.png"]
    whole = np.asarray(Image.open(paths[0]))
    assert ((read_square(paths[0], 40)[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy().tolist() == (
        whole[:, 5:45].tolist()
    )
    with pytest.raises(InputError, match="holds no pictures"):
        pictures_in(data / "notes.txt", 4)


def test_the_table_goes_on_where_it_was(
    data: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_staged_model("class").save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    command = ["evaluate", "paper", "--model", str(tmp_path / "model"), "--data", str(data), "--out", str(out)]
    command += ["--features", str(classifier), "--samples", "6"]
    assert main(command) == 0
    said = capsys.readouterr().out
    table = (out / "table.md").read_text()
    assert said.startswith(table + "images a second: T = 1: ")
    rows = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    measures = ["FID", "Inception score", "precision", "recall"]
    assert rows == ["acceptance rate", *measures, *(f"upper half completed: {name}" for name in measures)]
    assert Image.open(out / "neighbours.png").size == (4 * 32, 6 * 32)
    samples = {path.name: path.read_bytes() for path in (out / "samples").iterdir()}
    assert len(samples) == 6
    for name in ("000002.png", "000003.png", "000005.png"):
        (out / "samples" / name).unlink()
    assert main(command) == 0
    assert {path.name: path.read_bytes() for path in (out / "samples").iterdir()} == samples
    assert (out / "table.md").read_text() == table
    before, after = (np.asarray(Image.open(path)) for path in (data / "0.png", out / "upper-halves" / "000000.png"))
    small = np.asarray(Image.fromarray(before[:, 5:45]).resize((32, 32), Image.Resampling.LANCZOS))
    assert (after[16:] == small[16:]).all() and (after[:16] != small[:16]).any()


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(data: Path, classifier: Path, tmp_path: Path) -> None:
    """Shared out, and gone on with where some is missing, whichever process drew it before."""
    tiny_staged_model("class").save_pretrained(tmp_path / "model")
    command = ["evaluate", "paper", "--model", str(tmp_path / "model"), "--data", str(data), "--batch", "2"]
    command += ["--features", str(classifier), "--samples", "7", "--out"]
    assert main([*command, str(tmp_path / "one")]) == 0
    here = {path.relative_to(tmp_path / "one"): path.read_bytes() for path in (tmp_path / "one").rglob("*.*")}
    assert len([path for path in here if path.suffix == ".png"]) == 7 + 6 + 1
    for missing in ((), ("samples/000001.png", "samples/000004.png", "upper-halves/000003.png")):
        for name in missing:
            (tmp_path / "two" / name).unlink()
        assert in_processes(2, "-m", "imagebart", *command, str(tmp_path / "two")) == [0, 0]
        assert {path: (tmp_path / "two" / path).read_bytes() for path in here} == here


def test_of_several_the_judge_keeps_the_best(data: Path, classifier: Path, tmp_path: Path) -> None:
    tiny_staged_model("class").save_pretrained(tmp_path / "model")
    command = ["evaluate", "paper", "--model", str(tmp_path / "model"), "--data", str(data)]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("dog\n")
    command += ["--features", str(classifier), "--samples", "5", "--prompts", str(prompts), "--pictures", "5"]
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    assert main([*command, "--out", str(tmp_path / "best"), "--best-of", "4", "--scorer", str(classifier)]) == 0
    network = load_feature_network(str(classifier))
    scores = []
    for run in ("one", "best"):
        images = torch.cat([read_square(path, 32) for path in sorted((tmp_path / run / "samples").iterdir())])
        scores.append(network.many([images]).logits.log_softmax(-1)[:, 1].mean())
    assert scores[1] > scores[0]
    assert "| acceptance rate | 0.25 |" in (tmp_path / "best" / "table.md").read_text()


def test_weights_that_cannot_be_had_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing: the weights of the FID of papers. Fetch https://github.com"):
        load_feature_network(str(tmp_path / INCEPTION))
    with pytest.raises(InputError, match="The network .*nothing cannot be loaded"):
        load_feature_network(str(tmp_path / "nothing"))
