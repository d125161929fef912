"""Model folders: saved, loaded, replaced; and what is wrong in one named."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_injection import killed_at_every_step
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model, tiny_staged_model

from imagebart import ImageBART, SamplingSettings
from imagebart.models.imagebart import About
from imagebart.pipeline import Pipeline
from imagebart.text.conditioners import Kind
from imagebart.weights import folder as weights
from imagebart.weights.folder import config_of, load_networks

from .checkpoints import CLASS_MODEL, RESIDUAL_MODEL, assert_refused, load, same_weights


def assert_same(one: Any, other: Any) -> None:
    """The same model, tensor by tensor and setting by setting."""
    assert same_weights(one, other)
    assert config_of(one) == config_of(other)


@pytest.mark.parametrize("source", [CLASS_MODEL, RESIDUAL_MODEL], ids=lambda path: path.name)
def test_published_models_come_back_as_they_were(tmp_path: Path, source: Path) -> None:
    published = ImageBART.from_pretrained(source)
    published.save_pretrained(tmp_path / "model")
    ours = ImageBART.from_pretrained(tmp_path / "model")
    assert_same(ours, published)
    expected = load_file(source / "expected.safetensors")
    for t, stage in enumerate(ours.stages, 1):
        logits = stage(expected[f"stage{t}.x"], expected[f"stage{t}.c"], expected.get("cond"))
        assert (logits - expected[f"stage{t}.logits"]).abs().max() < 1e-4


@pytest.mark.parametrize("make", [tiny_model, tiny_staged_model])
@pytest.mark.parametrize("conditioning", ["text", "class", "none"])
def test_models_of_our_own_come_back_as_they_were(tmp_path: Path, conditioning: Kind, make: Any) -> None:
    model = make(conditioning)
    model.about = About(name="brüder", knows="avatars", sampling=SamplingSettings(top_k=5, guidance=2.5))
    model.save_pretrained(tmp_path / "deep" / "inside")
    loaded = load(tmp_path / "deep" / "inside")
    assert_same(loaded, model)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert {path.name for path in (tmp_path / "deep" / "inside").iterdir()} == {"config.json", "model.safetensors"}
    assert len({path.stat().st_mode for path in (tmp_path / "deep" / "inside").iterdir()}) == 1, "others may read both"


def test_a_model_in_training_lacks_networks(tmp_path: Path) -> None:
    whole, staged = tiny_model("text"), tiny_staged_model("text")
    conditioner, schedule = staged.conditioner, staged.schedule
    for number, (model, lacking) in enumerate(
        [
            (ImageBART(whole.first_stage), "a denoiser, or all stages"),
            (ImageBART(None, whole.denoiser, whole.conditioner), "a first stage"),
            (ImageBART(None, [], whole.conditioner, text_encoder=whole.text), "a first stage"),
            (ImageBART(staged.first_stage, [staged.stages[1]], conditioner, schedule=schedule), "all stages"),
        ]
    ):
        model.save_pretrained(tmp_path / str(number))
        loaded: Any = load_networks(tmp_path / str(number))
        assert_same(loaded, model)
        assert (loaded.text is None) == (model.text is None)
        assert_refused(tmp_path / str(number), "is no whole model yet: it needs ", lacking)


def test_a_text_encoder_that_stages_share_is_stored_once(tmp_path: Path) -> None:
    sharing = tiny_staged_model("text")
    assert sharing.text is not None
    sharing.stages[1].text.load_state_dict(sharing.text.state_dict())
    for model, shared in ((sharing, True), (tiny_staged_model("text"), False)):
        model.save_pretrained(tmp_path)
        names = load_file(tmp_path / "model.safetensors").keys()
        assert any(name.startswith("stages.0.text.") for name in names)
        assert any(name.startswith("stages.1.text.") for name in names) != shared
        loaded = load(tmp_path)
        assert_same(loaded, model)
        assert len({stage.text.transformer.norm.weight.data_ptr() for stage in loaded.stages}) == (1 if shared else 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stored_dtype_and_loaded_dtype(tmp_path: Path, dtype: str) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path, dtype)
    kind = getattr(torch, dtype)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert tensor.dtype == (torch.int64 if name.endswith("used") else kind)
    for name, tensor in load(tmp_path).state_dict().items():
        original = model.state_dict()[name]
        assert tensor.dtype == original.dtype
        assert torch.equal(tensor, original if name.endswith("used") else original.to(kind).float())
    denoiser = load(tmp_path, dtype="bfloat16").denoiser
    assert denoiser is not None and denoiser.decoder.position_embedding.dtype == torch.bfloat16


def test_large_models_are_split_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.MAX_SHARD_BYTES + 100_000 <= 9_500_000, "a Space takes less than 10 MB"
    model = tiny_model("none")
    monkeypatch.setattr(weights, "MAX_COPIED_BYTES", 0)
    weights.save_folder(model, tmp_path, max_shard_bytes=20_000)
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 2 and not (tmp_path / "model.safetensors").exists()
    for path in parts:
        tensors = load_file(path)
        assert sum(t.numel() * t.itemsize for t in tensors.values()) <= 20_000 or len(tensors) == 1
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    mapped = load(tmp_path)
    assert_same(mapped, model)
    assert torch.equal(mapped.sample(1, seed=1), model.sample(1, seed=1))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    parts[1].unlink()
    assert_refused(tmp_path, f"No such file or directory: '{parts[1]}'")


def test_saving_again_replaces_the_model_and_nothing_else(tmp_path: Path) -> None:
    """Fewer files, whole ones in place of parts, stages in place of a denoiser; the model itself, too."""
    others = {"README.md": "the card", "model-notes.txt": "of the author", "examples/1.txt": "a hat"}
    (tmp_path / "examples").mkdir()
    for name, text in others.items():
        (tmp_path / name).write_text(text)
    weights.save_folder(tiny_staged_model(stages=3), tmp_path, max_shard_bytes=20_000)
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

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_torch_state_dict", full_disk)
    with pytest.raises(OSError, match="^model cannot be written to .* it takes .* are free there"):
        tiny_model(seed=1).save_pretrained(tmp_path / "model")
    assert_same(load(tmp_path / "model"), model)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


WHOLE, SHARDS, OTHER_SHARDS = 10**9, 600_000, 700_000  # bytes a file, at most


@pytest.mark.parametrize(
    ("old", "old_bytes", "new_bytes"),
    [
        (tiny_model("none"), SHARDS, OTHER_SHARDS),
        (tiny_staged_model("none"), WHOLE, SHARDS),
        (tiny_staged_model("none"), SHARDS, WHOLE),
    ],
    ids=["shards over shards", "shards over one file", "one file over shards"],
)
def test_a_killed_save_leaves_the_old_model_or_the_new(
    tmp_path: Path, old: ImageBART, old_bytes: int, new_bytes: int
) -> None:
    """Killed before each file operation."""
    new, replaced = tiny_model("none", seed=1), []
    weights.save_folder(old, tmp_path, max_shard_bytes=old_bytes)
    for _ in killed_at_every_step(lambda: weights.save_folder(new, tmp_path, max_shard_bytes=new_bytes)):
        loaded = load(tmp_path)
        replaced.append(same_weights(loaded, new))
        assert replaced[-1] or same_weights(loaded, old)
        weights.save_folder(old, tmp_path, max_shard_bytes=old_bytes)
    assert set(replaced) == {False, True} and replaced == sorted(replaced), "from some step on it is the new one"
    assert same_weights(load(tmp_path), new)
    names = {re.sub(r"model-[0-9a-f]{8}-", "model-", path.name) for path in tmp_path.iterdir()}
    weights.save_folder(new, tmp_path / "fresh", max_shard_bytes=new_bytes)
    assert names == {path.name for path in (tmp_path / "fresh").iterdir()}, "nothing is left over"


def test_a_killed_first_save_leaves_no_model_or_all_of_it(tmp_path: Path) -> None:
    model = tiny_model("none")
    for _ in killed_at_every_step(lambda: weights.save_folder(model, tmp_path, max_shard_bytes=SHARDS)):
        if (tmp_path / "config.json").exists():
            assert same_weights(load(tmp_path), model)
            (tmp_path / "config.json").unlink()
    assert same_weights(load(tmp_path), model)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    tiny_staged_model("class").save_pretrained(path / "stages")
    tiny_model("class").save_pretrained(path / "denoiser")
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """A model of two stages."""
    return Path(shutil.copytree(saved / "stages", tmp_path / "model"))


def change_config(path: Path, *keys: str | int, value: Any) -> None:
    values = json.loads((path / "config.json").read_text())
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (path / "config.json").write_text(json.dumps(values))


# Keys of config.json, another value, and what is said of it.
ODD_STAGES: list[Any] = [
    (("version",), 1, "version is 1, expected"),
    (("format",), "other", "format is 'other', expected one of 'imagebart'"),
    (("extra",), 1, "unknown setting 'extra'"),
    (("first_stage", "channels"), "wide", "first_stage.channels is 'wide', expected a whole number"),
    (("first_stage", "channels"), 33, "cannot be built"),
    (("first_stage", "multipliers"), [], "cannot be built"),
    (("stages",), [], "has the tensor stages.0."),
    (("stages", 0, "kind"), "aligned", "stages[0].kind is 'aligned', expected one of 'decoder_only'"),
    (("stages", 0, "kind"), "odd", "stages[0].kind is 'odd', expected one of 'decoder_only'"),
    (("stages", 0, "encoder"), None, "cannot be built"),
    (("stages", 0, "decoder", "heads"), 2.5, "stages[0].decoder.heads is 2.5"),
    (("stages", 0, "decoder", "width"), 64, "shape"),
    (("stages", 0, "vocab_size"), 25, "25"),
    (("stages", 0, "beta"), 0.25, "beta 0.25"),
    (("stages", 0, "cond_length"), 3, "cond_length 3"),
    (("betas",), [0.5, 0.5], "betas"),
    (("betas",), [1.0], "stages are for t = [1, 2], expected ascending ones of 1 to 1"),
    (("stages", 0, "t"), 2, "stages are for t = [2, 2]"),
    (("first_stage",), None, "has the tensor first_stage."),
    (("betas",), 1, "betas is 1, expected a list"),
    (("conditioner",), {"type": "none"}, "cond_length 1"),
    (("conditioner",), {"type": "mind"}, "'mind'"),
    (("conditioner",), [], "conditioner is []"),
    (("about", "sampling", "temperature"), 0, "temperature is 0"),
    (("stages", 0, "decoder", "depth"), 10**9, "stages[0].decoder.depth is 1000000000, expected at most 256"),
    (("stages", 0, "decoder", "width"), 10**30, "stages[0].decoder.width is 1" + "0" * 30),
    (("stages", 0, "start_token"), 2**62, "stages[0].start_token is 4611686018427387904, expected at most"),
    (("stages", 0, "start_token"), 5000, "stage 1 has the start_token 5000, expected one of"),
    (("first_stage", "multipliers"), [1] * 9, "first_stage.multipliers"),
    (("first_stage", "res_blocks"), 10**8, "first_stage.res_blocks is 100000000, expected at most 64"),
]
ODD_DENOISER: list[Any] = [
    (("denoiser",), None, "has the tensor denoiser."),
    (("betas",), [1.0], "expected either a denoiser or stages with betas"),
    (("denoiser", "extra"), 1, "unknown setting 'denoiser.extra'"),
    (("denoiser", "tokens"), "many", "denoiser.tokens is 'many', expected a whole number"),
    (("denoiser", "decoder", "width"), 33, "model.safetensors"),
    (("denoiser", "vocab_size"), 25, "the denoiser was made for 25 codes, expected 24"),
    (("denoiser", "cond_length"), 3, "the denoiser has cond_length 3, expected the conditioner's 1"),
    (("conditioner",), {"type": "none"}, "the denoiser has cond_length 1, expected the conditioner's 0"),
    (("about", "sampling", "scales"), 9, "scales is 9"),
    (("weights",), 5, "weights is 5, expected"),
]


class TestBadFolders:
    @pytest.mark.parametrize("content", [b"", b"{", b"[" * 10**5, b"\xff\x00", b"null", b"[1]"])
    def test_broken_configurations_are_named(self, copy: Path, content: bytes) -> None:
        (copy / "config.json").write_bytes(content)
        assert_refused(copy, str(copy / "config.json"))

    @pytest.mark.parametrize(
        ("name", "keys", "value", "reason"),
        [("stages", *odd) for odd in ODD_STAGES] + [("denoiser", *odd) for odd in ODD_DENOISER],
    )
    def test_odd_settings_are_named(
        self, saved: Path, tmp_path: Path, name: str, keys: Any, value: Any, reason: str
    ) -> None:
        folder = Path(shutil.copytree(saved / name, tmp_path / name))
        change_config(folder, *keys, value=value)
        assert_refused(folder, str(folder), reason)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (
                lambda t: t.pop("stages.0.decoder.norm.bias"),
                "lacks the tensor stages.0.decoder.norm.bias, expected it with shape [32]",
            ),
            (lambda t: t.update(extra=torch.zeros(1)), "has the tensor extra"),
            (lambda t: t.update({"stages.0.decoder.norm.bias": torch.zeros(31)}), "of shape [31], expected [32]"),
            (lambda t: t.update({"stages.0.decoder.norm.bias": torch.zeros(32).long()}), "expected floating point"),
            (lambda t: t["first_stage.quantize.used"][-1].fill_(24), "from 0 to 23"),
        ],
    )
    def test_tensors_that_do_not_fit_are_named(self, copy: Path, change: Any, reason: str) -> None:
        path = copy / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        assert_refused(copy, str(path), reason)

    @pytest.mark.parametrize("size", [0, 7, 100, -8])
    def test_truncated_files_are_named(self, copy: Path, size: int) -> None:
        path = copy / "model.safetensors"
        path.write_bytes(path.read_bytes()[:size])
        assert_refused(copy, str(path), "damaged")

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../x"}}'])
    def test_a_bad_index_is_named(self, copy: Path, content: str) -> None:
        (copy / "model.safetensors.index.json").write_text(content)
        assert_refused(copy, str(copy))


@pytest.mark.parametrize("content", [b"\xff\xfe caf\xe9", "a café".encode(), b""])
def test_any_card_is_shown(copy: Path, content: bytes) -> None:
    (copy / "README.md").write_bytes(content)
    card = Pipeline.from_pretrained(copy).card
    assert ("caf" in card) if content else "2 scales" in card
