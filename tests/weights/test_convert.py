"""Published files into safetensors."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from fault_injection import killed_at_step, run_in_fork
from published_files import scale_tensors, write_checkpoint, write_tiny
from safetensors.torch import load_file

from imagebart.errors import InputError, WeightsError
from imagebart.published import convert
from imagebart.published.checkpoint import read_tensors
from imagebart.published.convert import Conversion
from imagebart.published.registry import read_stage_yaml

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
        recorded = read_tensors(folder / f"scale{t}.ckpt")
        betas = tuple(1 - recorded["alphats"].read().double()[1:])
        planned = scale_tensors(read_stage_yaml(folder / f"scale{t}.yaml"), t, betas)
        ours = {name: (p.shape, str(p.dtype)) for name, p in planned.items()}
        assert ours == {name: (t.shape, str(t.storage.dtype).removeprefix("torch.")) for name, t in recorded.items()}


def test_pytorch_reads_the_random_checkpoints_as_we_do(tiny: Path) -> None:
    with pytest.raises(Exception, match="pytorch_lightning"):
        torch.load(tiny / "scale1.ckpt", weights_only=True)  # callbacks under their class, as published
    stored = read_tensors(tiny / "scale1.ckpt")
    planned = scale_tensors(read_stage_yaml(tiny / "scale1.yaml"), 1, (1 / 4, 1 / 3, 1 / 2, 1.0))
    assert all(torch.equal(stored[n].read(), torch.from_numpy(p.array()).reshape(p.shape)) for n, p in planned.items())


def test_a_conversion_is_the_same_model(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "SHARD_BYTES", 30_000)
    said: list[str] = []
    convert.convert(Conversion(tiny, tmp_path / "out"), said.append)
    assert same_weights(load(tmp_path / "out"), load(tiny))
    assert len(list((tmp_path / "out").glob("stage1-*-of-*.safetensors"))) > 1
    assert said == [f"stage {t} of 4 is written" for t in range(1, 5)]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    names = {path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".safetensors"}
    assert names == {"config.json", "README.md"}


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
    convert.convert(Conversion(source, tmp_path / "out"), print)
    for folder in (source, tmp_path / "out"):
        conditioner = load(folder).conditioner
        assert conditioner.encode(["Golden Retriever", 207]).tokens.tolist() == [[207], [207]]
    assert "1000 kinds of things (ImageNet) at 16 × 16 pixels" in (tmp_path / "out" / "README.md").read_text()


def test_stored_numbers_can_be_short(tiny: Path, tmp_path: Path) -> None:
    convert.convert(Conversion(tiny, tmp_path / "out", "bfloat16"), print)
    stored = load_file(tmp_path / "out" / "stage4.safetensors")
    exact = load(tiny).stages[3].state_dict()
    assert all(torch.equal(stored[name], exact[name].bfloat16()) for name in exact)
    with pytest.raises(ValueError, match="'int3', expected one of"):
        convert.convert(Conversion(tiny, tmp_path / "out", "int3"), print)


def test_killed_at_any_moment_nothing_is_lost(tmp_path: Path) -> None:
    """Killed at its first operation on a file, its eighth, its fifteenth ..., each time going on from what was done."""
    source, out = tmp_path / CLASS_MODEL.name, tmp_path / "out"
    shutil.copytree(CLASS_MODEL, source)
    work, step = Conversion(source, out, replace=True), 0
    while run_in_fork(partial(killed_at_step, lambda: convert.convert(work, print), step)) != 0:
        step += 7
        left = [t for t in (1, 2) if (source / f"scale{t}.ckpt").is_file()]
        done = [t for t in (1, 2) for place in (out, work.work_folder) if (place / f"stage{t}.done").is_file()]
        assert {*left, *done} == {1, 2} or same_weights(load(out), load(CLASS_MODEL))
    assert step > 10
    assert same_weights(load(out), load(CLASS_MODEL))
    assert not list(source.glob("*.ckpt"))


def test_published_files_stay_by_default(tmp_path: Path) -> None:
    source = Path(shutil.copytree(CLASS_MODEL, tmp_path / "source"))
    convert.convert(Conversion(source, tmp_path / "out"), print)
    assert len(list(source.glob("*.ckpt"))) == 2


def test_a_conversion_with_other_settings_restarts(tiny: Path, tmp_path: Path) -> None:
    job = Conversion(tiny, tmp_path / "out", "float16")
    place = job.work_folder
    place.mkdir()
    (place / "conversion.json").write_text(json.dumps({"source": str(tiny), "dtype": "float32", "files": "x"}))
    (place / "stage1.done").touch()
    convert.convert(job, print)
    assert (job.out / "stage1.safetensors").is_file() and not place.exists()


def test_other_folders_are_never_overwritten(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds thesis.txt; choose a new or empty folder"):
        convert.convert(Conversion(tiny, tmp_path), print)
    with pytest.raises(InputError, match="thesis.txt"):
        convert.convert(Conversion(tiny, tmp_path / "thesis.txt"), print)


@pytest.mark.parametrize("harm", ["truncated", "hostile"])
def test_files_that_cannot_be_used_are_named_and_nothing_is_made(tiny: Path, tmp_path: Path, harm: str) -> None:
    source = Path(shutil.copytree(tiny, tmp_path / tiny.name))
    if harm == "truncated":
        (source / "scale3.ckpt").write_bytes((tiny / "scale3.ckpt").read_bytes()[:-5000])
    else:
        torch.save({"state_dict": {"w": torch.device("cpu")}}, source / "scale3.ckpt")
    with pytest.raises(WeightsError, match="scale3.ckpt"):
        convert.convert(Conversion(source, tmp_path / "out", replace=True), print)
    assert not (tmp_path / "out").exists()
    assert len(list(source.glob("*.ckpt"))) == 4
