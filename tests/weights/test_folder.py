from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import killed_at_every_step
from safetensors.torch import load_file, save_file

from imagebart import ImageBART, SamplingSettings
from imagebart.conditioning import Kind
from imagebart.model import About
from imagebart.stage import build_stage
from imagebart.testing import tiny_model
from imagebart.text_encoder import TextEncoderConfig
from imagebart.transformer import TransformerConfig
from imagebart.weights import WeightsError, folder, load, save

from .checkpoints import CLASS_MODEL, RESIDUAL_MODEL


def assert_same(one: ImageBART, other: ImageBART) -> None:
    """The same model, tensor by tensor and setting by setting."""
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert torch.equal(tensor, theirs[name]), name
    assert one.first_stage.config == other.first_stage.config
    assert [stage.config for stage in one.stages] == [stage.config for stage in other.stages]
    assert [type(stage) for stage in one.stages] == [type(stage) for stage in other.stages]
    assert one.schedule == other.schedule
    assert one.about == other.about
    assert one.conditioner == other.conditioner


@pytest.mark.parametrize("source", [CLASS_MODEL, RESIDUAL_MODEL], ids=lambda path: path.name)
def test_published_models_come_back_as_they_were(tmp_path: Path, source: Path) -> None:
    published = ImageBART.from_pretrained(source)
    published.save_pretrained(tmp_path)
    ours = ImageBART.from_pretrained(tmp_path)
    assert_same(ours, published)
    expected = load_file(source / "expected.safetensors")
    for t, stage in enumerate(ours.stages, 1):
        logits = stage.logits(expected[f"stage{t}.x"], expected[f"stage{t}.c"], expected.get("cond"))
        assert (logits - expected[f"stage{t}.logits"]).abs().max() < 1e-4


@pytest.mark.parametrize("conditioning", ["text", "class", "none"])
def test_models_of_our_own_come_back_as_they_were(tmp_path: Path, conditioning: Kind) -> None:
    model = tiny_model(conditioning)
    model.about = About("brüder", "avatars", SamplingSettings(top_k=5, guidance=2.5))
    save(model, tmp_path / "deep" / "inside")
    loaded = load(tmp_path / "deep" / "inside")
    assert_same(loaded, model)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def with_text_encoders(seeds: tuple[int, int]) -> ImageBART:
    """A tiny model whose two stages read prompts with text encoders of random weights from these seeds."""
    model = tiny_model("text")
    words, length = model.conditioner.vocab_size, model.conditioner.length
    transformer = TransformerConfig(32, 1, 2, words + 3, length + 3, causal=False)
    text = TextEncoderConfig(transformer, slots=3, phrase=2)
    stages = []
    for stage, seed in zip(model.stages, seeds, strict=True):
        torch.manual_seed(seed)
        other = build_stage(replace(stage.config, text=text), 2)
        torch.nn.init.normal_(other.text_map.weight)
        stages.append(other)
    return ImageBART(model.first_stage, stages, model.schedule, model.conditioner, model.about)


def test_a_text_encoder_that_stages_share_is_stored_once(tmp_path: Path) -> None:
    for seeds, shared in (((1, 1), True), ((1, 2), False)):
        model = with_text_encoders(seeds)
        for stage in model.stages[1:] if shared else ():
            stage.text.load_state_dict(model.stages[0].text.state_dict())
        save(model, tmp_path)
        assert (tmp_path / "text_encoder.safetensors").is_file() == shared
        for t in (1, 2):
            names = load_file(tmp_path / f"stage{t}.safetensors").keys()
            assert any(name.startswith("text.") for name in names) != shared
            assert "text_map.weight" in names
        loaded = load(tmp_path)
        assert_same(loaded, model)
        places = {stage.text.transformer.norm.weight.data_ptr() for stage in loaded.stages}
        assert len(places) == (1 if shared else 2)


def test_a_broken_text_encoder_is_named(tmp_path: Path) -> None:
    model = with_text_encoders((1, 1))
    model.stages[1].text.load_state_dict(model.stages[0].text.state_dict())
    save(model, tmp_path)
    path = tmp_path / "text_encoder.safetensors"
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if name != "phrase.convolution.bias"}, path)
    with pytest.raises(WeightsError, match="text_encoder.safetensors lacks the tensor phrase.convolution.bias"):
        load(tmp_path)
    path.unlink()
    with pytest.raises(WeightsError, match=r"stage1.safetensors lacks the tensor text\."):
        load(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stored_dtype_and_loaded_dtype(tmp_path: Path, dtype: str) -> None:
    model = tiny_model()
    save(model, tmp_path, dtype)
    kind = getattr(torch, dtype)
    stored = load_file(tmp_path / "stage1.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {kind}
    assert load_file(tmp_path / "first_stage.safetensors")["quantize.used"].dtype == torch.int64
    for name, tensor in load(tmp_path).state_dict().items():
        original = model.state_dict()[name]
        assert tensor.dtype == original.dtype
        assert torch.equal(tensor, original if name.endswith("used") else original.to(kind).float())
    assert load(tmp_path, dtype="bfloat16").stages[0].decoder.position_embedding.dtype == torch.bfloat16


def test_configuration_is_readable(tmp_path: Path) -> None:
    save(tiny_model(), tmp_path)
    text = (tmp_path / "config.json").read_text()
    values = json.loads(text)
    assert list(values) == ["format", "version", "about", "first_stage", "betas", "stages", "conditioner"]
    assert '\n  "betas": [0.5, 1.0],\n' in text
    assert '\n      "decoder": {\n        "width": 32,\n' in text
    assert len(text.splitlines()) < 160


def test_large_files_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    monkeypatch.setattr(folder, "LARGEST_FILE", 20_000)
    save(model, tmp_path)
    parts = sorted(path.name for path in tmp_path.glob("stage1-*"))
    assert len(parts) > 2
    assert parts[0] == f"stage1-1-of-{len(parts)}.safetensors"
    assert not (tmp_path / "stage1.safetensors").exists()
    for path in tmp_path.glob("*-of-*.safetensors"):
        tensors = load_file(path)
        assert sum(t.numel() * t.itemsize for t in tensors.values()) <= 20_000 or len(tensors) == 1
    assert_same(load(tmp_path), model)
    (tmp_path / parts[1]).unlink()
    assert_refused(tmp_path, str(tmp_path / parts[1]), "is missing")


def test_default_split_keeps_files_under_ten_megabytes() -> None:
    assert folder.LARGEST_FILE + 100_000 < 10_000_000


def test_saving_again_replaces_the_model_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text("the card")
    with monkeypatch.context() as small:
        small.setattr(folder, "LARGEST_FILE", 20_000)
        save(tiny_model(stages=3), tmp_path)
    smaller = tiny_model(stages=2, seed=1)
    save(smaller, tmp_path)
    assert_same(load(tmp_path), smaller)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("README.md", "config.json", "first_stage.safetensors", "stage1.safetensors", "stage2.safetensors")
    }
    assert (tmp_path / "README.md").read_text() == "the card"


def test_a_loaded_model_can_be_saved_over_itself_or_lose_its_files(tmp_path: Path) -> None:
    save(tiny_model(), tmp_path)
    model = load(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    save(model, tmp_path)
    assert_same(load(tmp_path), model)


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    save(model, tmp_path)

    def full_disk(*arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(folder, "_readable", full_disk)
    with pytest.raises(OSError, match="no space"):
        save(tiny_model(seed=1), tmp_path)
    assert_same(load(tmp_path), model)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_model_is_the_old_one_or_the_new_one_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    old, new = tiny_model(stages=2), tiny_model(stages=1, seed=1)
    save(old, tmp_path)
    stages = []
    for step in killed_at_every_step(lambda: save(new, tmp_path)):
        found = load(tmp_path)
        assert_same(found, {1: new, 2: old}[found.schedule.stages])
        stages.append(found.schedule.stages)
        if found.schedule.stages == 1:
            save(old, tmp_path)
        assert len(stages) == step + 1
    assert stages == sorted(stages, reverse=True) and set(stages) == {1, 2}
    assert_same(load(tmp_path), new)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    save(tiny_model("class"), path)
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def assert_refused(path: Path, *reasons: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load(path)
    for reason in reasons:
        assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def change_config(path: Path, *keys: str | int, value: Any) -> None:
    values = json.loads((path / "config.json").read_text())
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (path / "config.json").write_text(json.dumps(values))


class TestBadFolders:
    @pytest.mark.parametrize("name", ["first_stage", "stage1", "stage2"])
    def test_missing_files_are_named(self, copy: Path, name: str) -> None:
        (copy / f"{name}.safetensors").unlink()
        assert_refused(copy, str(copy / f"{name}.safetensors"), "is missing", "config.json")

    @pytest.mark.parametrize("content", [b"", b"{", b"[" * 10**5, b"\xff\x00", b"null", b"[1]"])
    def test_broken_configurations_are_named(self, copy: Path, content: bytes) -> None:
        (copy / "config.json").write_bytes(content)
        assert_refused(copy, str(copy / "config.json"))

    @pytest.mark.parametrize(
        ("keys", "value", "reason"),
        [
            (("version",), 2, "format version 2, expected 1"),
            (("format",), "other", "format is 'other', expected one of imagebart"),
            (("extra",), 1, "unknown setting 'extra'"),
            (("first_stage", "channels"), "wide", "first_stage.channels is 'wide', expected a whole number"),
            (("first_stage", "channels"), 33, "cannot be built"),
            (("first_stage", "multipliers"), [], "cannot be built"),
            (("stages",), [], "0 stages"),
            (("stages", 0, "kind"), "odd", "stages[0].kind is 'odd', expected one of decoder_only"),
            (("stages", 0, "encoder"), None, "cannot be built"),
            (("stages", 0, "decoder", "heads"), 2.5, "stages[0].decoder.heads is 2.5"),
            (("stages", 0, "decoder", "width"), 64, "shape"),
            (("stages", 0, "vocab_size"), 25, "25"),
            (("stages", 0, "beta"), 0.25, "beta 0.25"),
            (("stages", 0, "cond_length"), 3, "cond_length 3"),
            (("betas",), [0.5, 0.5], "betas"),
            (("betas",), 1, "betas is 1, expected a list"),
            (("conditioner",), {"type": "none"}, "cond_length 1"),
            (("conditioner",), {"type": "mind"}, "'mind'"),
            (("conditioner",), [], "conditioner is []"),
            (("about", "sampling", "temperature"), 0, "temperature is 0"),
        ],
    )
    def test_odd_settings_are_named(self, copy: Path, keys: tuple[str | int, ...], value: Any, reason: str) -> None:
        change_config(copy, *keys, value=value)
        with pytest.raises(WeightsError) as caught:
            load(copy)
        assert reason in str(caught.value)
        assert str(copy) in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda t: t.pop("decoder.norm.bias"), "lacks the tensor decoder.norm.bias, expected it with shape [32]"),
            (lambda t: t.update(extra=torch.zeros(1)), "has the tensor extra"),
            (lambda t: t.update({"decoder.norm.bias": torch.zeros(31)}), "of shape [31], expected [32]"),
            (lambda t: t.update({"decoder.norm.bias": torch.zeros(32).long()}), "expected floating point"),
        ],
    )
    def test_tensors_that_do_not_fit_are_named(self, copy: Path, change: Any, reason: str) -> None:
        path = copy / "stage1.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        assert_refused(copy, str(path), reason)

    def test_codes_outside_the_codebook_are_named(self, copy: Path) -> None:
        path = copy / "first_stage.safetensors"
        tensors = load_file(path)
        tensors["quantize.used"][-1] = 24
        save_file(tensors, path)
        assert_refused(copy, str(path), "from 0 to 23")

    @pytest.mark.parametrize("size", [0, 7, 100, -8])
    def test_truncated_files_are_named(self, copy: Path, size: int) -> None:
        path = copy / "stage2.safetensors"
        path.write_bytes(path.read_bytes()[:size])
        assert_refused(copy, str(path), "damaged")

    def test_two_versions_of_a_file_are_named(self, copy: Path) -> None:
        shutil.copy(copy / "stage1.safetensors", copy / "stage1-1-of-1.safetensors")
        assert_refused(copy, str(copy), "stage1 in more than one way")


def test_auto_keeps_the_weights_and_lets_stages_round_them(tmp_path: Path) -> None:
    model = tiny_model("none")
    save(model, tmp_path)
    exact, fast = load(tmp_path), load(tmp_path, dtype="auto")
    for (name, ours), theirs in zip(fast.state_dict().items(), exact.state_dict().values(), strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), name
    assert [stage.precision for stage in exact.stages] == ["exact", "exact"]
    assert [stage.precision for stage in fast.stages] == ["rounded", "rounded"]
    assert [stage.precision for stage in load(tmp_path, dtype="int8").stages] == ["int8", "int8"]
    fast.prepare()
    logits = [m.stages[0].logits(torch.zeros(1, 64).long(), torch.zeros(1, 64).long()) for m in (exact, fast)]
    assert torch.equal(*logits)  # teacher-forced, nothing is rounded
