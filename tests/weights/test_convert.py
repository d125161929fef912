"""Published files into safetensors."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from fault_injection import run_in_fork
from published_files import scale_tensors, write_checkpoint, write_tiny
from safetensors.torch import load_file

from imagebart.core.errors import InputError, WeightsError
from imagebart.weights import convert as module
from imagebart.weights.convert import convert, read_state_dict
from imagebart.weights.registry import read_stage_yaml

from .checkpoints import CLASS_MODEL, RESIDUAL_MODEL, load, same_weights


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "ffhq_4_scales_geometric"
    write_tiny(folder)
    return folder


@pytest.mark.parametrize("folder", [CLASS_MODEL, RESIDUAL_MODEL], ids=lambda folder: folder.name)
def test_our_files_have_the_names_and_shapes_of_the_recorded_ones(folder: Path) -> None:
    """The random checkpoints are as the original's own."""
    for t in range(1, len(list(folder.glob("*.ckpt"))) + 1):
        recorded = read_state_dict(folder / f"scale{t}.ckpt")
        betas = tuple(1 - recorded["alphats"].double()[1:])
        planned = scale_tensors(read_stage_yaml(folder / f"scale{t}.yaml"), t, betas)
        ours = {name: (p.shape, f"torch.{p.dtype}") for name, p in planned.items()}
        assert ours == {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in recorded.items()}


def test_a_conversion_is_the_same_model(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SHARD_BYTES", 30_000)
    convert(tiny, tmp_path / "out")
    assert same_weights(load(tmp_path / "out"), load(tiny))
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and len(list(tiny.glob("*.ckpt"))) == 4
    names = {path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".safetensors"}
    assert names == {"config.json", "README.md", "model.safetensors.index.json"}


def test_a_published_class_model_knows_its_classes_by_name(tmp_path: Path) -> None:
    """Of as many classes as ImageNet has; before and after it is converted."""
    source = tmp_path / "cin_5_scales_custom"
    source.mkdir()
    for t in (1, 2):
        described = source / f"scale{t}.yaml"
        text = (CLASS_MODEL / described.name).read_text(encoding="utf-8")
        described.write_text(re.sub(r"(enc_num_tokens|input_vocab_size): 100\b", r"\1: 1000", text), encoding="utf-8")
        tensors = scale_tensors(read_stage_yaml(described), t, (1 / 2, 1.0))
        write_checkpoint(described.with_suffix(".ckpt"), tensors)
    convert(source, tmp_path / "out")
    for folder in (source, tmp_path / "out"):
        conditioner = load(folder).conditioner
        assert conditioner.encode(["Golden Retriever", 207]).tokens.tolist() == [[207], [207]]
    assert "1000 kinds of things (ImageNet) at 16 × 16 pixels" in (tmp_path / "out" / "README.md").read_text()


def test_stored_numbers_can_be_short_and_published_files_deleted(tiny: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny, tmp_path / tiny.name))
    convert(source, tmp_path / "out", "bfloat16", replace=True)
    stored = load_file(tmp_path / "out" / "model.safetensors")
    exact = load(tiny).state_dict()
    for name in exact:
        assert torch.equal(stored[name], exact[name].bfloat16() if exact[name].is_floating_point() else exact[name])
    assert not list(source.glob("*.ckpt"))
    with pytest.raises(ValueError, match="'int3', expected one of"):
        convert(tiny, tmp_path / "other", "int3")


def test_a_conversion_that_is_killed_leaves_nothing_in_its_place(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_text", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        assert run_in_fork(lambda: convert(tiny, tmp_path / "out")) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    convert(tiny, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and same_weights(load(tmp_path / "out"), load(tiny))


def test_other_folders_are_never_overwritten(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(InputError, match="holds thesis.txt; choose a new or empty folder"):
            convert(tiny, out)


@pytest.mark.parametrize("harm", ["truncated", "hostile"])
def test_files_that_cannot_be_used_are_named_and_nothing_is_made(tiny: Path, tmp_path: Path, harm: str) -> None:
    source = Path(shutil.copytree(tiny, tmp_path / tiny.name))
    if harm == "truncated":
        (source / "scale3.ckpt").write_bytes((tiny / "scale3.ckpt").read_bytes()[:-5000])
    else:
        torch.save({"state_dict": {"w": print}}, source / "scale3.ckpt")
    with pytest.raises(WeightsError, match="scale3.ckpt"):
        convert(source, tmp_path / "out", replace=True)
    assert not (tmp_path / "out").exists()
    assert len(list(source.glob("*.ckpt"))) == 4
