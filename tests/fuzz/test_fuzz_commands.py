"""Command lines with odd arguments: done, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from fuzzing import FuzzRun, any_text, limited
from PIL import Image
from tiny_models import tiny_model

from imagebart.cli import main

COMMANDS = {
    "generate": ["--model", "model", "--prompt", "a hat", "--out", "out.png"],
    "edit": ["--model", "model", "--image", "in.png", "--mask", "upper half", "--prompt", "a hat", "--out", "out.png"],
    "vary": ["--model", "model", "--image", "in.png", "--strength", "0.3", "--out", "out.png"],
    "describe": ["in.png", "--model", "model"],
    "convert": ["model", "--out", "converted", "--dtype", "bf16"],
    "push": ["model", "owner/name"],
    "download": ["cats_3_scales", "--from", "nowhere"],
    "evaluate": ["folder", "--model", "model", "--data", "model", "--samples", "4"],
    "train": ["log", "--run", "model"],
}
OPTIONS = [
    *("--seed", "--variants", "--temperature", "--top-k", "--top-p", "--guidance", "--scales", "--resamples"),
    *("--like", "--steps-out", "--best-of", "--scorer", "--feather", "--context"),
    *("--nonsense", "--help", "--", "-", "--out", "--mask", "--model", "--dtype", "--revision"),
]
VALUES = [
    *("", " ", "0", "-1", "1", "2", "1.5", "1e400", "nan", "inf", "9" * 5000, "x" * 5000, "auto", "centre"),
    *("in.png", "model", "model/config.json", ".", "..", "/", "/dev/null", "/dev/full", "a/b/c", "\0", "\udcff", "~"),
    *("out.webp", "out.gif", "out.words", "owner/name", "http://127.0.0.1:1", "1,2,3", "1,,", "[1]", "--seed", "int8"),
]


def odd_line(random: Random) -> list[str]:
    """A command line that would do, with some of its words replaced, left out, said twice or added."""
    name = random.choice(list(COMMANDS))
    line = [name, *COMMANDS[name]]
    for _ in range(random.choice([1, 1, 2, 4])):
        place = random.randrange(1, len(line) + 1)
        value = random.choice(VALUES) if random.random() < 0.8 else any_text(random)
        kind = random.randrange(4)
        if kind == 0:
            line[place : place + 1] = [value]
        elif kind == 1:
            del line[place : place + 1]
        elif kind == 2:
            line[place:place] = [random.choice(OPTIONS)]
        else:
            line[place:place] = [random.choice(OPTIONS), value]
    return line


def test_a_command_line_is_done_or_refused_in_one_sentence(
    fuzz_run: FuzzRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    tiny_model("text", scales=1).save_pretrained(tmp_path / "model")
    original = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    refused = 0
    for case, random in fuzz_run.cases(25, 300):
        Image.fromarray(pixels).save(tmp_path / "in.png")
        line = odd_line(random)
        with limited(case):
            code = main(line)
        said = capsys.readouterr().err
        assert code in (0, 2), (case, line)
        assert "Traceback" not in said, (case, line)
        if code == 2:
            refused += 1
            last = said.splitlines()[-1]
            assert last.startswith("imagebart") and len(last) < 1200, (case, line, last)
        for path, content in original.items():
            assert path.read_bytes() == content, (case, line)
    assert refused
