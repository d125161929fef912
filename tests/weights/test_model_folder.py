"""Model folders: saved, loaded, replaced; and what is wrong in one named."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from fault_injection import killed_at_every_step
from published_files import assert_refused, load, same_weights
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model, tiny_staged_model

from imagebart import ImageBART, SamplingSettings
from imagebart.models.imagebart import About
from imagebart.weights import folder as weights
from imagebart.weights.folder import config_of, load_networks, save_folder


def assert_same(one: Any, other: Any) -> None:
    """The same model, tensor by tensor and setting by setting."""
    assert same_weights(one, other) and config_of(one) == config_of(other)


@pytest.mark.parametrize("model", [*map(tiny_model, ("text", "class", "none")), tiny_staged_model("text")])
def test_a_model_comes_back_as_it_was(tmp_path: Path, model: ImageBART) -> None:
    model.about = About(name="brüder", knows="avatars", sampling=SamplingSettings(top_k=5, guidance=2.5))
    folder = tmp_path / "deep" / "inside"
    model.save_pretrained(folder)
    loaded = load(folder)
    assert_same(loaded, model)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1, "others may read both"


def test_a_model_in_training_lacks_networks(tmp_path: Path) -> None:
    whole, staged = tiny_model("text"), tiny_staged_model("text")
    conditioner, schedule = staged.conditioner, staged.schedule
    for model, lacking in (
        (ImageBART(whole.first_stage), "a denoiser, or all stages"),
        (ImageBART(None, whole.denoiser, whole.conditioner), "a first stage"),
        (ImageBART(None, [], whole.conditioner, text_encoder=whole.text), "a first stage"),
        (ImageBART(staged.first_stage, [staged.stages[1]], conditioner, schedule=schedule), "all stages"),
    ):
        model.save_pretrained(tmp_path)
        loaded: Any = load_networks(tmp_path)
        assert_same(loaded, model)
        assert (loaded.text is None) == (model.text is None)
        assert_refused(tmp_path, "is no whole model yet: it needs ", lacking)


def test_a_text_encoder_that_stages_share_is_stored_once(tmp_path: Path) -> None:
    sharing = tiny_staged_model("text")
    sharing.stages[1].text.load_state_dict(sharing.text.state_dict())
    for model, shared in ((sharing, True), (tiny_staged_model("text"), False)):
        model.save_pretrained(tmp_path)
        names = load_file(tmp_path / "model.safetensors").keys()
        assert any(name.startswith("stages.0.text.") for name in names)
        assert any(name.startswith("stages.1.text.") for name in names) != shared
        loaded = load(tmp_path)
        assert_same(loaded, model)
        assert len({stage.text.transformer.norm.weight.data_ptr() for stage in loaded.stages}) == (1 if shared else 2)


def test_tied_embeddings_are_stored_once(tmp_path: Path) -> None:
    model = tiny_model()
    denoiser = model.denoiser
    table = denoiser.decoder.token_embedding.weight.data
    heads = [denoiser.decoder.head.weight, denoiser.draft_head.weight]
    for tensor in (denoiser.encoder.token_embedding.weight, *heads):
        tensor.data = table[: len(tensor)].clone()
    sizes = []
    for tied in (False, True):
        denoiser.config = denoiser.config.replace(tied_embeddings=tied)
        model.save_pretrained(tmp_path)
        assert_same(load(tmp_path), model)
        sizes.append(sum(tensor.numel() for tensor in load_file(tmp_path / "model.safetensors").values()))
    assert sizes[0] - sizes[1] == table.numel() + sum(head.numel() for head in heads)


def test_stored_dtype_and_loaded_dtype(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path, "bfloat16")
    stored, exact = load_file(tmp_path / "model.safetensors"), model.state_dict()
    loaded, half = load(tmp_path).state_dict(), load(tmp_path, dtype="float16").state_dict()
    for name, tensor in exact.items():
        floats = tensor.is_floating_point()
        assert torch.equal(stored[name], tensor.bfloat16() if floats else tensor)
        assert torch.equal(loaded[name], tensor.bfloat16().float() if floats else tensor)
        assert half[name].dtype == (torch.float16 if floats else torch.int64)


@pytest.mark.parametrize("kind", ["none", "stages"])
def test_bfloat16_of_large_models_draws_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    (tiny_staged_model() if kind == "stages" else tiny_model(kind)).save_pretrained(tmp_path, "bfloat16")
    copied = load(tmp_path)
    monkeypatch.setattr(weights, "MAX_COPIED_BYTES", 0)
    mapped = load(tmp_path)
    types = Counter(weight.dtype for weight in mapped.parameters())
    assert types[torch.bfloat16] > 4 and types[torch.float32] > 4 and len(types) == 2
    assert {weight.dtype for weight in copied.parameters()} == {torch.float32}
    assert torch.equal(mapped.sample(2, seed=1), copied.sample(2, seed=1))


def test_large_models_are_split_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.MAX_SHARD_BYTES + 100_000 <= 9_500_000, "a Space takes less than 10 MB"
    model = tiny_model("none")
    monkeypatch.setattr(weights, "MAX_COPIED_BYTES", 0)
    save_folder(model, tmp_path, max_shard_bytes=20_000)
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 2 and not (tmp_path / "model.safetensors").exists()
    for path in parts:
        tensors = load_file(path)
        assert sum(t.numel() * t.itemsize for t in tensors.values()) <= 20_000 or len(tensors) == 1
    mapped = load(tmp_path)
    assert str(parts[0]) in Path("/proc/self/maps").read_text()
    assert_same(mapped, model)
    assert torch.equal(mapped.sample(1, seed=1), model.sample(1, seed=1))
    parts[1].unlink()
    assert_refused(tmp_path, f"No such file or directory: '{parts[1]}'")


def test_saving_again_replaces_the_model_and_nothing_else(tmp_path: Path) -> None:
    """Fewer files, whole ones in place of parts, stages in place of a denoiser; the model itself, too."""
    others = {"README.md": "the card", "model.safetensors.txt": "of the author", "examples/1.txt": "a hat"}
    (tmp_path / "examples").mkdir()
    for name, text in others.items():
        (tmp_path / name).write_text(text)
    save_folder(tiny_staged_model(stages=3), tmp_path, max_shard_bytes=20_000)
    for model in (tiny_staged_model(stages=2, seed=1), tiny_model("text")):
        model.save_pretrained(tmp_path)
        assert_same(load(tmp_path), model)
        names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
        assert names == {"config.json", "model.safetensors", *others}
    assert all((tmp_path / name).read_text() == text for name, text in others.items())
    loaded = load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    loaded.save_pretrained(tmp_path)
    assert_same(load(tmp_path), model)


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(weights, "save_torch_state_dict", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="^model cannot be written to .* it takes .* are free there"):
        tiny_model(seed=1).save_pretrained(tmp_path / "model")
    assert_same(load(tmp_path / "model"), model)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new_bytes"), [(tiny_model("none"), 700_000), (tiny_staged_model("none"), 10**9)])
def test_a_killed_save_leaves_the_old_model_or_the_new(tmp_path: Path, old: ImageBART, new_bytes: int) -> None:
    """Killed before each file operation."""
    new, replaced = tiny_model("none", seed=1), []
    save_folder(old, tmp_path, max_shard_bytes=600_000)
    for _ in killed_at_every_step(lambda: save_folder(new, tmp_path, max_shard_bytes=new_bytes)):
        loaded = load(tmp_path)
        replaced.append(same_weights(loaded, new))
        assert replaced[-1] or same_weights(loaded, old)
        save_folder(old, tmp_path, max_shard_bytes=600_000)
    assert set(replaced) == {False, True} and replaced == sorted(replaced), "from some step on it is the new one"
    assert same_weights(load(tmp_path), new)
    names = {re.sub(r"model-[0-9a-f]{8}-", "model-", path.name) for path in tmp_path.iterdir()}
    save_folder(new, tmp_path / "fresh", max_shard_bytes=new_bytes)
    assert names == {path.name for path in (tmp_path / "fresh").iterdir()}, "nothing is left over"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The folder of a model of two stages."""
    tiny_staged_model("class").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change_config(path: Path, keys: tuple[str | int, ...], value: Any) -> None:
    inner = values = json.loads((path / "config.json").read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (path / "config.json").write_text(json.dumps(values))


def test_odd_settings_are_named(tmp_path: Path) -> None:
    for make, keys, value, reason in (
        (tiny_staged_model, ("version",), 1, "version is 1, expected"),
        (tiny_staged_model, ("first_stage",), None, "has the tensor first_stage."),
        (tiny_staged_model, ("stages", 0, "encoder"), None, "cannot be built"),
        (tiny_staged_model, ("stages", 0, "decoder", "width"), 64, "shape"),
        (tiny_staged_model, ("stages", 0, "cond_length"), 3, "stage 1 has cond_length 3"),
        (tiny_staged_model, ("stages", 0, "start_token"), 5000, "stage 1 has the start_token 5000, expected one of"),
        (tiny_staged_model, ("betas",), [0.5, 0.5], "betas are (0.5, 0.5), expected numbers in (0, 1]"),
        (tiny_model, ("betas",), [1.0], "expected either a denoiser or stages with betas"),
    ):
        make("class").save_pretrained(tmp_path)
        change_config(tmp_path, keys, value)
        assert_refused(tmp_path, str(tmp_path), reason)


NORM = "stages.0.decoder.norm.bias"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop(NORM), f"lacks the tensor {NORM}, expected it with shape [32]"),
        (lambda t: t.update(extra=torch.zeros(1)), "has the tensor extra"),
        (lambda t: t.update({NORM: torch.zeros(31)}), "of shape [31], expected [32]"),
        (lambda t: t["first_stage.quantize.used"][-1].fill_(24), "from 0 to 23"),
        (lambda t: t["first_stage.quantize.used"][0].fill_(-1), "from 0 to 23"),
        (lambda t: t["first_stage.quantize.used"][1].fill_(0), "not ascending"),
    ],
)
def test_tensors_that_do_not_fit_are_named(copy: Path, change: Any, reason: str) -> None:
    path = copy / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    assert_refused(copy, str(path), reason)


def test_damaged_files_are_named(copy: Path) -> None:
    """The index is read first, weights only with a configuration."""
    for name, contents in (
        ("model.safetensors", (b"", b"\xff" * 100, b"\x08" + b"\x00" * 7 + b"{       ")),
        ("model.safetensors.index.json", (b"", b"[]", b'{"weight_map": {"a": 1}}')),
        ("config.json", (b"", b"[" * 10**5, b"\xff\x00", b"[1]")),
    ):
        for content in contents:
            (copy / name).write_bytes(content)
            assert_refused(copy, str(copy / name))


def test_weights_outside_the_folder_are_never_read(copy: Path, tmp_path: Path) -> None:
    outside = (copy / "model.safetensors").rename(tmp_path / "outside.safetensors")
    for name in ("../outside", str(tmp_path / "outside")):
        change_config(copy, ("weights",), name)
        assert_refused(copy, str(copy), "No such file")
        index = json.dumps({"weight_map": {"a": f"{name}.safetensors"}})
        (copy / "model.safetensors.index.json").write_text(index)
        assert_refused(copy, str(copy), f"No such file or directory: '{copy / outside.name}'")
        (copy / "model.safetensors.index.json").unlink()
