"""Weights that stay in their files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from imagebart import ImageBART, mmap_policy
from imagebart.models.denoiser import Denoiser
from imagebart.testing import tiny_model

from .checkpoints import CLASS_MODEL, RESIDUAL_MODEL


@pytest.mark.parametrize("source", [CLASS_MODEL, RESIDUAL_MODEL], ids=lambda path: path.name)
def test_mapped_models_are_the_same(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the published layout and of our own; drawing leaves their files as they were."""
    copied = ImageBART.from_pretrained(source)
    copied.save_pretrained(tmp_path / "ours")
    shutil.copytree(source, tmp_path / source.name)
    monkeypatch.setattr(mmap_policy, "available_memory", lambda: 0)
    for folder in (tmp_path / "ours", tmp_path / source.name):
        before = {path: path.read_bytes() for path in folder.iterdir()}
        mapped = ImageBART.from_pretrained(folder)
        state = mapped.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in copied.state_dict().items())
        cond = load_file(source / "expected.safetensors").get("cond")
        cond = None if cond is None else cond[:1]
        assert torch.equal(mapped.sample(1, cond, seed=1), copied.sample(1, cond, seed=1))
        assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("source", [CLASS_MODEL, RESIDUAL_MODEL], ids=lambda path: path.name)
def test_short_weights_stay_as_short_and_draw_the_same(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ImageBART.from_pretrained(source).save_pretrained(tmp_path, dtype="bfloat16")
    copied = ImageBART.from_pretrained(tmp_path)
    monkeypatch.setattr(mmap_policy, "available_memory", lambda: 0)
    mapped = ImageBART.from_pretrained(tmp_path)
    cond = load_file(source / "expected.safetensors").get("cond")
    cond = None if cond is None else cond[:1]
    x, c = (copied.sample(1, cond, seed=seed) for seed in (1, 2))
    for one, other in zip(copied.stages, mapped.stages, strict=True):
        kinds = {name: p.dtype for name, p in other.named_parameters() if p.dtype != torch.float32}
        assert kinds and all(name.endswith(".weight") for name in kinds) and set(kinds.values()) == {torch.bfloat16}
        assert torch.equal(one.logits(x, c, cond), other.logits(x, c, cond))
    assert torch.equal(mapped.sample(1, cond, seed=1), x)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory")
@pytest.mark.parametrize(("available", "expected"), [(1 << 20, (0, 30)), (1 << 40, (60, 120))])
def test_mapped_weights_take_no_memory_of_their_own(tmp_path: Path, available: int, expected: tuple[int, int]) -> None:
    model = tiny_model("none")
    assert model.denoiser is not None
    config = model.denoiser.config
    big = (replace(part, width=512, depth=depth) for part, depth in ((config.decoder, 6), (config.encoder, 3)))
    denoiser = Denoiser(replace(config, **dict(zip(("decoder", "encoder"), big, strict=True))))  # 19 million numbers
    ImageBART(model.first_stage, denoiser, model.conditioner, model.about).save_pretrained(tmp_path)
    program = f"""
import re, pathlib
from imagebart import ImageBART, mmap_policy
ImageBART.from_pretrained({str(CLASS_MODEL)!r})  # what is loaded of PyTorch at first
mmap_policy.available_memory = lambda: {available}
def own(): return int(re.search(r"RssAnon:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
before = own()
model = ImageBART.from_pretrained({str(tmp_path)!r})
print(own() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert expected[0] <= float(done.stdout) <= expected[1]
