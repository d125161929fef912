"""`list`, `download`, `convert` and an edit with the outcome, as a person types them."""

from pathlib import Path

import numpy as np
import pytest
from loopback import apart_from_the_net, serving_file
from PIL import Image
from published_files import package_of, write_tiny

from imagebart.cli import main
from imagebart.weights.registry import MODELS

NAME = "ffhq_4_scales_geometric"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return apart_from_the_net(tmp_path, monkeypatch)


def test_from_nothing_to_an_edit(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(tmp_path / "files")
    with serving_file(package_of(tmp_path / "files", f"{NAME}/")) as server:
        server.breaks += [100_000]
        assert main(["download", NAME, "--from", server.address]) == 0
    assert capsys.readouterr().out == f"{home / 'imagebart' / 'published' / NAME}\n"
    assert main(["convert", NAME, "--dtype", "bfloat16", "--replace"]) == 0
    out = capsys.readouterr().out.strip()
    assert out == str(home / "imagebart" / "converted" / NAME)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    edit = ["edit", "--model", NAME, "--image", "in.png", "--mask", "upper half", "--seed", "1", "--out", "out.png"]
    assert main(edit) == 0
    edited = np.asarray(Image.open("out.png"))
    assert (edited[16:] == pixels[16:]).all() and (edited[:16] != pixels[:16]).any()


def test_the_list_names_all_and_where_they_are(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(home / "imagebart" / "published" / NAME)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(MODELS)
    assert all(name in line for name, line in zip(MODELS, lines[1:], strict=True))
    assert "photographs of faces" in lines[1] and "7.6 GB" in lines[1] and str(home) in lines[1]
    assert all("not here" in line for line in lines[2:])


def test_what_cannot_be_done_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(tmp_path / "files", stages=2)
    for command, reason in (
        (["download", "cat_3_scales"], "Did you mean cats_3_scales?"),
        (["download", "x"], "x is no published model"),
        (["generate", "--model", "cats_3_scales", "--out", "a.png"], "cats_3_scales is not on this machine: run `"),
        (["convert", "cats_3_scales"], "python -m imagebart download cats_3_scales"),
        (["convert", "files"], "say with --out where the new one is to be"),
        (["convert", "files", "--out", "."], "choose a new or empty folder"),
        (["convert", "files", "--out", "x", "--dtype", "int3"], "'int3', expected one of"),
        (["convert", "x" * 5000], "File name too long"),
        (["x" * 5000], "No such command"),
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert reason in said and said.count("\n") == 1 and len(said) < 1200, command
