"""The command line, run as a person runs it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagebart.cli import main
from imagebart.testing import tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model("text").save_pretrained(folder)
    return folder


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (45, 61, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def test_edit_changes_the_mask_only_and_a_seed_repeats(model: Path, upload: Path, tmp_path: Path) -> None:
    common = ["edit", "--model", str(model), "--image", str(upload), "--mask", "upper half", "--prompt", "red hair"]
    outs = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for out, seed in zip(outs, ("7", "7", "8"), strict=True):
        assert main([*common, "--seed", seed, "--out", str(out)]) == 0
    before, a, b, c = (np.asarray(Image.open(path)) for path in (upload, *outs))
    assert (a == b).all()
    assert (a != c).any()
    assert (a[22:] == before[22:]).all()
    assert (a[:22] != before[:22]).any()


def test_generate_writes_every_variant(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.png"
    assert main(["generate", "--model", str(model), "--prompt", "a hat", "--variants", "3", "--out", str(out)]) == 0
    assert sorted(p.name for p in tmp_path.glob("new*")) == ["new-2.png", "new-3.png", "new.png"]
    assert Image.open(out).size == (32, 32)


def test_vary_keeps_the_size(model: Path, upload: Path, tmp_path: Path) -> None:
    out = tmp_path / "varied.png"
    assert main(["vary", "--model", str(model), "--image", str(upload), "--strength", "0.2", "--out", str(out)]) == 0
    assert Image.open(out).size == (61, 45)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--temperature", "0"], "temperature is 0"),
        (["--mask", "nowhere.png"], "nowhere.png"),
        (["--model", "no/such/folder"], "no/such/folder"),
        (["--variants", "99"], "99 variants"),
    ],
)
def test_bad_input_is_one_sentence(
    model: Path, upload: Path, tmp_path: Path, extra: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["edit", "--model", str(model), "--image", str(upload), "--mask", "centre"]
    assert main([*options, "--out", str(tmp_path / "o.png"), *extra]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "o.png").exists()


def test_help_needs_no_torch() -> None:
    code = "import sys; from imagebart.cli import main\n"
    code += "try: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "edit" in done.stdout
