"""Files of the published layouts and of ours, damaged in their bytes, pickles and settings: a model, or a sentence."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
from effort import Effort, bounded, mutated
from tiny_models import tiny_model, tiny_staged_model
from weights.checkpoints import CLASS_MODEL, RESIDUAL_MODEL, edit_entry

from imagebart.models.imagebart import ImageBART
from imagebart.pipeline import Pipeline
from imagebart.weights import WeightsError, load

CANARY = "canary"
# Programs that would make the canary, were they run; `test_checkpoint.py` shows that PyTorch's own reader runs such.
PROGRAMS = [
    f"cos\nmkdir\n(X{struct.pack('<I', len(CANARY)).decode()}{CANARY}tR".encode(),
    f"(S'mkdir {CANARY}'\nios\nsystem\n".encode(),
    f'c__builtin__\neval\n(S\'__import__("os").mkdir("{CANARY}")\'\ntR'.encode(),
    f"(cos\nmkdir\nS'{CANARY}'\no".encode(),
]
TAGGED = [f"!!python/object/apply:os.mkdir [{CANARY}]", f"!!python/object/new:os.system ['mkdir {CANARY}']"]
ODD = [
    *("", "null", "true", "-1", "0", "1e999", ".nan", "9" * 400, "9" * 6000, "[]", "{}", "[1, 2]", "{a: b}", "*a"),
    *("x" * 3000, "'\\ud800'", "&a [*a, *a]", "2147483648", "1.5", "[[[[[[]]]]]]", "\0", "2001-01-01", *TAGGED),
]


def in_the_text(path: Path, chance: Random) -> None:
    """Another value for one of the settings, or another text."""
    text = path.read_text(encoding="utf-8")
    if chance.random() < 0.3:
        path.write_bytes(mutated(text.encode(), chance))
        return
    lines = text.splitlines()
    number = chance.choice([number for number, line in enumerate(lines) if ":" in line])
    lines[number] = f"{lines[number].partition(':')[0]}: {chance.choice(ODD)}"
    path.write_text("\n".join(lines), encoding="utf-8")


def in_the_program(path: Path, chance: Random) -> None:
    """Another program in the checkpoint: damaged, or with one that would make the canary in its midst."""
    with zipfile.ZipFile(path) as archive:
        (entry,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        program = archive.read(entry)
    if chance.random() < 0.5:
        place = chance.randrange(len(program))
        program = program[:place] + chance.choice(PROGRAMS) + program[place:]
    else:
        program = mutated(program, chance)
    edit_entry(path, "data.pkl", program)


def in_the_bytes(path: Path, chance: Random) -> None:
    path.write_bytes(mutated(path.read_bytes(), chance))


@pytest.mark.parametrize("source", [CLASS_MODEL, RESIDUAL_MODEL], ids=lambda path: path.name)
def test_a_model_is_right_or_refused(
    effort: Effort, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    sound = {path: path.read_bytes() for path in folder.iterdir()}
    checkpoints, texts = (sorted(folder.glob(f"*.{ending}")) for ending in ("ckpt", "yaml"))
    refused = 0
    for case, chance in effort.cases(12, 3000):
        change = chance.choice([in_the_text, in_the_program, in_the_bytes])
        path = chance.choice(texts if change is in_the_text else checkpoints)
        change(path, chance)
        try:
            with bounded(case):
                assert isinstance(load(folder), ImageBART), case
        except WeightsError as error:
            refused += 1
            assert source.name in str(error) and "\n" not in str(error), (case, error)
        path.write_bytes(sound[path])
    assert not (tmp_path / CANARY).exists(), "a file's program was run"
    assert refused


ANYTHING: list[Any] = [
    *(None, True, -1, 0, 1, 1.5, 2**31, 10**30, 1e308, float("nan"), float("inf")),
    *("", "x", "\ud800", "a\0b", "x" * 3000),
    *([], [1], [[]] * 500, ["x"] * 500, {}, {"a": 1}, {"type": "clip", "length": 10**9}),
]


def in_the_settings(path: Path, chance: Random) -> None:
    """Another value anywhere in a configuration, or one less, or another text."""
    if chance.random() < 0.2:
        path.write_bytes(mutated(path.read_bytes(), chance))
        return
    values = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(chance.choice([1, 1, 2])):
        place: Any = values
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(place[key], dict | list) and chance.random() < 0.8:
                place = place[key]
            elif chance.random() < 0.1:
                del place[key]
                break
            else:
                place[key] = chance.choice(ANYTHING)
                break
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize("make", [tiny_model, tiny_staged_model])
def test_a_folder_of_ours_is_right_or_refused(effort: Effort, tmp_path: Path, make: Any) -> None:
    folder = tmp_path / "ours"
    make("text").save_pretrained(folder)
    (folder / "README.md").write_text("---\ntags: [x]\n---\nA card.", encoding="utf-8")
    sound = {path: path.read_bytes() for path in folder.iterdir()}
    refused = 0
    for case, chance in effort.cases(12, 1000):
        path = chance.choice([folder / "config.json", *sound])
        (in_the_settings if path.name == "config.json" else in_the_bytes)(path, chance)
        try:
            with bounded(case):
                pipe = Pipeline.from_pretrained(folder)
                assert pipe.knows is not None and pipe.vocabulary is not None and pipe.suggestions is not None, case
        except WeightsError as error:
            refused += 1
            assert folder.name in str(error) and "\n" not in str(error), (case, error)
        path.write_bytes(sound[path])
    assert refused
