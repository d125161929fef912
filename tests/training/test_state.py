"""Resuming from damaged, foreign and hostile files."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from tiny_runs import train_line

import imagebart
from imagebart.errors import InputError
from imagebart.training.loop import hours_so_far, read_log

FOREIGN = (b"", b"{}", b"\x00" * 999, b"\xff" * 999, save({"other": torch.ones(2)}), b"PK\x03\x04" + b"\x80" * 99)


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        train_line(folder, 4)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 600
    return said


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps."""
    folder = tmp_path_factory.mktemp("run")
    train_line(folder, 3)
    return folder


def test_a_damaged_state_is_named_and_the_one_before_is_resumed_from(run: Path, tmp_path: Path) -> None:
    whole = train_line(tmp_path / "whole", 4)
    content = (run / "state" / "step-0000003.safetensors").read_bytes()
    cuts = [content[: len(content) * part // 10] for part in range(1, 10)]
    for number, damaged in enumerate([*FOREIGN, *cuts, content[:-1], content + b"\0"]):
        folder = tmp_path / str(number)
        shutil.copytree(run, folder)
        last = folder / "state" / "step-0000003.safetensors"
        last.write_bytes(damaged)
        said = refusal(folder)
        assert said.startswith(f"{last} is damaged") and said.endswith("; delete it to resume from step 2."), damaged
        last.unlink()
        assert all(torch.equal(a, b) for a, b in zip(train_line(folder, 4), whole, strict=True))


def test_without_a_state_before_the_run_starts_again(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    (tmp_path / "state" / "step-0000002.safetensors").unlink()
    last = tmp_path / "state" / "step-0000003.safetensors"
    last.write_bytes(b"")
    assert refusal(tmp_path).endswith(f"; delete it to start {tmp_path} from step 0.")
    last.unlink()
    assert all(
        torch.equal(a, b) for a, b in zip(train_line(tmp_path, 3), train_line(tmp_path / "whole", 3), strict=True)
    )


def test_a_file_in_the_place_of_the_states_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert refusal(tmp_path).startswith(f"{tmp_path / 'state'} is damaged, or of another run (not a folder); delete it")


def test_tensors_that_are_not_the_run_s_are_named(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "state" / "step-0000003.safetensors"
    path.parent.mkdir()
    tensors = load_file(run / "state" / path.name)
    weight = tensors["model/weight"]
    for changed, reason in (
        ({"model/weight": weight.repeat(2, 1)}, "model/weight of shape [2, 1], expected [1, 1]"),
        ({"ema/other": weight.clone()}, "ema/other"),
        ({"optimizer0/0.exp_avg": weight.repeat(2, 1)}, "0.exp_avg has shape [2, 1], expected [1, 1]"),
        ({"optimizer0/7.exp_avg": weight.clone()}, "list index out of range"),
        ({"optimizer0/x": weight.clone()}, "'x'"),
        ({"more": weight.clone()}, "unknown tensor more"),
    ):
        path.write_bytes(save({**tensors, **changed}))
        said = refusal(tmp_path)
        assert said.startswith(f"{path} is damaged, or of another run") and reason in said
    path.write_bytes(save({name: tensor for name, tensor in tensors.items() if name != "ema/n_averaged"}))
    assert "lacks the tensor ema/n_averaged" in refusal(tmp_path)


class RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_states_of_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    place = tmp_path / "run" / "state"
    place.mkdir(parents=True)
    (place / "step.json").write_text('{"step": 20}')
    for name in ("pytorch_model.bin", "optimizer.bin", "custom_checkpoint_0.pkl", "random_states_0.pkl"):
        (place / name).write_bytes(pickle.dumps(RunsCode(tmp_path / "ran")))
    assert f"{place} is of an earlier version" in refusal(tmp_path / "run")
    assert not (tmp_path / "ran").exists()
    shutil.rmtree(place)
    train_line(tmp_path / "run", 1)


def test_no_module_unpickles() -> None:
    """Published checkpoints have a reader of their own, in `published/checkpoint.py`; a package's weights are
    read by torch as tensors only."""
    loaders = re.compile(r"\b(pickle|torch|joblib)\.load|accelerator\.load_state|allow_pickle=True")
    for path in Path(imagebart.__file__).parent.rglob("*.py"):
        lines = [line.replace("torch.load(path, weights_only=True)", "") for line in path.read_text().splitlines()]
        lines = [line for line in lines if "Why not `torch.load" not in line]
        assert not loaders.search("\n".join(lines)), path


def test_states_are_tensors_and_nothing_else(run: Path) -> None:
    assert sorted(path.name for path in (run / "state").iterdir()) == [
        "step-0000002.safetensors",
        "step-0000003.safetensors",
    ]
    assert {name.split("/")[0] for name in load_file(run / "state" / "step-0000003.safetensors")} == {
        "model",
        "ema",
        "optimizer0",
    }


@pytest.mark.parametrize("content", [*FOREIGN, b"[" * 100_000, b'{"step": 1}\n', b'{"step": "x", "hours": []}\n'])
def test_a_damaged_log_ends_no_run(run: Path, tmp_path: Path, content: bytes) -> None:
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    whole = (run / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(whole[: len(whole) // 2] + content)
    train_line(tmp_path, 4)
    records = read_log(tmp_path)
    assert [record["step"] for record in records] == [1, 4] and hours_so_far(tmp_path) == records[-1]["hours"]
