"""Calls of the page's endpoints, and of the command line, with values of every kind: a picture or one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from effort import Effort
from page_server import FILE, UPLOADED, PageClient, served_to_client
from tiny_models import tiny_model, tiny_pipeline

from imagebart.cli import main

ANYTHING: list[Any] = [
    *(None, True, -1, 0, 1.5, 10**400, float("nan"), float("inf"), "", "x", "\ud800", "a\0b", [], [1], {}, {"a": 1}),
    *({"path": ""}, {**FILE, "path": ""}, {**FILE, "path": "/etc/passwd"}, {**FILE, "path": "../../app.py"}),
    *({**FILE, "path": "a\0b"}, {**FILE, "path": "x" * 5000}, {**FILE, "path": 3}, {**FILE, "path": None}, FILE),
    {**FILE, "path": "http://127.0.0.1:1/x.png"},
]
RIGHT: dict[str, list[Any]] = {
    "edit": [UPLOADED, None, "centre", "a hat", 1, None, 1],
    "generate": ["a hat", 1, None, 1],
    "vary": [UPLOADED, 0.3, "a hat", 1, None, 1],
    "suggest_mask": [UPLOADED, "a hat"],
    "describe": [UPLOADED],
}
SENTENCE = re.compile(r'"error": "[A-Z](?:[^"\\]|\\.)*\."|"detail"')


@pytest.fixture(scope="module")
def page() -> Iterator[PageClient]:
    with served_to_client(tiny_pipeline()) as page:
        yield page


def call(chance: Random) -> tuple[str, list[Any]]:
    """An endpoint, and values of which one or two are of any kind, or some are missing."""
    name = chance.choice(list(RIGHT))
    values = list(RIGHT[name])
    for _ in range(chance.choice([1, 1, 2])):
        values[chance.randrange(len(values))] = chance.choice(ANYTHING)
    return name, values[: chance.randrange(len(values))] if chance.random() < 0.05 else values


def test_a_call_ends_with_a_picture_or_a_sentence(
    effort: Effort, page: PageClient, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for case, chance in effort.cases(15, 1000):
        name, values = call(chance)
        said = page.call(name, values)
        if "event: complete" in said:
            continue
        assert SENTENCE.search(said), (case, name, values, said)
        for told in (os.getcwd(), str(page.folder), "Traceback", "error 0", "site-packages"):
            assert told not in said.replace(page.picture, ""), (case, name, values, said)
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err + caplog.text
    assert [path for path in page.folder.rglob("tmp*") if path.is_file()] == []


VALUES = [
    *("", "--", "-", "--seed", "0", "-1", "1e999", "nan", "inf", "9" * 400, "x", "0x10", "١", "1.5", "2**3", "a b"),
    *("\ud800", "/", "."),
]
OPTIONS = [
    *("--seed", "--variants", "--temperature", "--top-k", "--top-p", "--guidance", "--resamples", "--scales"),
    *("--prompt", "--model", "--out", "--like", "--steps-out", "--nothing"),
]


def test_a_command_ends_with_a_picture_or_a_sentence(
    effort: Effort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_model("text", scales=1).save_pretrained(tmp_path / "model")
    for case, chance in effort.cases(8, 300):
        given = {"--model": "model", "--out": "out.png", "--seed": "1"}
        for _ in range(chance.choice([1, 1, 2])):
            given[chance.choice(OPTIONS)] = chance.choice(VALUES)
        arguments = ["generate", *(f"{name}={value}" for name, value in given.items())]
        try:
            code = main(arguments)
        except SystemExit as end:  # what the reader of options says itself
            code = end.code
        said = capsys.readouterr().err
        assert code in (0, 2), (case, arguments)
        assert "Traceback" not in said and (code == 0 or said.strip()), (case, arguments)
