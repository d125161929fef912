"""Model folders: saved, loaded, replaced; and what is wrong in one, however large, named within bounds."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_injection import killed_at_every_step, run_in_fork
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model, tiny_staged_model
from torch import Tensor

from imagebart import ImageBART, SamplingSettings
from imagebart.atomic_io import OBSOLETE, SAVED
from imagebart.errors import WeightsError
from imagebart.models.denoiser import Denoiser
from imagebart.models.imagebart import About
from imagebart.models.stages import Stage
from imagebart.models.vqgan import FirstStage
from imagebart.pipeline import Pipeline
from imagebart.text.conditioners import Kind
from imagebart.weights import folder as folder_module
from imagebart.weights.folder import Part, config_of, load_part, networks, save_part

from .checkpoints import CLASS_MODEL, RESIDUAL_MODEL, assert_refused, load, same_weights


def assert_same(one: ImageBART, other: ImageBART) -> None:
    """The same model, tensor by tensor and setting by setting."""
    assert same_weights(one, other)
    assert config_of(one) == config_of(other)
    assert [type(network) for network in networks(one).values()] == [type(n) for n in networks(other).values()]


BOTH = pytest.mark.parametrize("source", [CLASS_MODEL, RESIDUAL_MODEL], ids=lambda path: path.name)


@BOTH
def test_published_models_come_back_as_they_were(tmp_path: Path, source: Path) -> None:
    published = ImageBART.from_pretrained(source)
    published.save_pretrained(tmp_path)
    ours = ImageBART.from_pretrained(tmp_path)
    assert_same(ours, published)
    expected = load_file(source / "expected.safetensors")
    for t, stage in enumerate(ours.stages, 1):
        logits = stage.logits(expected[f"stage{t}.x"], expected[f"stage{t}.c"], expected.get("cond"))
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


def sharing_a_text_encoder() -> ImageBART:
    """A tiny model of two stages with the same text encoder."""
    model = tiny_staged_model("text")
    assert model.text is not None
    model.stages[1].text.load_state_dict(model.text.state_dict())
    return model


def test_a_text_encoder_that_stages_share_is_stored_once(tmp_path: Path) -> None:
    for model, shared in ((sharing_a_text_encoder(), True), (tiny_staged_model("text"), False)):
        model.save_pretrained(tmp_path)
        assert (tmp_path / "text_encoder.safetensors").is_file() == shared
        for t in (1, 2):
            names = load_file(tmp_path / f"stage{t}.safetensors").keys()
            assert any(name.startswith("text.") for name in names) != shared
            assert "text_map.weight" in names
        loaded = load(tmp_path)
        assert_same(loaded, model)
        places = {stage.text.transformer.norm.weight.data_ptr() for stage in loaded.stages}
        assert len(places) == (1 if shared else 2)


def test_the_denoiser_and_its_text_encoder_have_files_of_their_own(tmp_path: Path) -> None:
    model = tiny_model("text")
    model.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"config.json", "first_stage.safetensors", "text_encoder.safetensors", "denoiser.safetensors"}
    names = load_file(tmp_path / "denoiser.safetensors").keys()
    assert "text_map.weight" in names and not any(name.startswith("text.") for name in names)
    encoder = load_file(tmp_path / "text_encoder.safetensors")
    assert model.text is not None and encoder.keys() == model.text.state_dict().keys()


@pytest.mark.parametrize(("make", "stem"), [(tiny_model, "denoiser"), (sharing_a_text_encoder, "stage1")])
def test_a_broken_text_encoder_is_named(tmp_path: Path, make: Any, stem: str) -> None:
    make().save_pretrained(tmp_path)
    path = tmp_path / "text_encoder.safetensors"
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if name != "phrase.convolution.bias"}, path)
    with pytest.raises(WeightsError, match=r"text_encoder\.safetensors lacks the tensor phrase\.convolution\.bias"):
        load(tmp_path)
    path.unlink()
    with pytest.raises(WeightsError, match=rf"{stem}\.safetensors lacks the tensor text\."):
        load(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stored_dtype_and_loaded_dtype(tmp_path: Path, dtype: str) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path, dtype)
    kind = getattr(torch, dtype)
    stored = load_file(tmp_path / "denoiser.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {kind}
    assert load_file(tmp_path / "first_stage.safetensors")["quantize.used"].dtype == torch.int64
    for name, tensor in load(tmp_path).state_dict().items():
        original = model.state_dict()[name]
        assert tensor.dtype == original.dtype
        assert torch.equal(tensor, original if name.endswith("used") else original.to(kind).float())
    denoiser = load(tmp_path, dtype="bfloat16").denoiser
    assert denoiser is not None and denoiser.decoder.position_embedding.dtype == torch.bfloat16


@pytest.mark.parametrize("make", [tiny_model, tiny_staged_model])
def test_configuration_is_readable(tmp_path: Path, make: Any) -> None:
    make("text").save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    own = ["denoiser", "betas", "stages"]
    assert list(json.loads(text)) == ["format", "version", "about", "first_stage", "conditioner", *own]
    assert ('\n  "betas": [0.5, 1.0],\n' in text) == (make is tiny_staged_model)
    assert '"decoder": {\n' in text and ' "width": 32,\n' in text
    assert len(text.splitlines()) < 180


def test_large_files_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_module.MAX_FILE_BYTES + 100_000 < 10_000_000, "what a Space takes"
    model = tiny_model()
    monkeypatch.setattr(folder_module, "MAX_FILE_BYTES", 20_000)
    model.save_pretrained(tmp_path)
    parts = sorted(path.name for path in tmp_path.glob("denoiser-*"))
    assert len(parts) > 2
    assert parts[0] == f"denoiser-1-of-{len(parts)}.safetensors"
    assert not (tmp_path / "denoiser.safetensors").exists()
    for path in tmp_path.glob("*-of-*.safetensors"):
        tensors = load_file(path)
        assert sum(t.numel() * t.itemsize for t in tensors.values()) <= 20_000 or len(tensors) == 1
    assert_same(load(tmp_path), model)
    (tmp_path / parts[1]).unlink()
    assert_refused(tmp_path, str(tmp_path / parts[1]), "is missing")


def test_saving_again_replaces_the_model_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer files, whole ones in place of parts, stages in place of a denoiser and the other way round."""
    (tmp_path / "README.md").write_text("the card")
    (tmp_path / "stage1-notes.txt").write_text("of the author")
    others = {"README.md", "stage1-notes.txt", "config.json", "first_stage.safetensors"}
    with monkeypatch.context() as small:
        small.setattr(folder_module, "MAX_FILE_BYTES", 20_000)
        tiny_staged_model(stages=3).save_pretrained(tmp_path)
    stages = {"stage1.safetensors", "stage2.safetensors"}
    for model, own in (
        (tiny_staged_model(stages=2, seed=1), stages),
        (tiny_model("text"), {"denoiser.safetensors", "text_encoder.safetensors"}),
        (tiny_model("none"), {"denoiser.safetensors"}),
        (tiny_staged_model(stages=2), stages),
    ):
        model.save_pretrained(tmp_path)
        assert_same(load(tmp_path), model)
        assert {path.name for path in tmp_path.iterdir()} == others | own
    assert (tmp_path / "README.md").read_text() == "the card"


def test_a_loaded_model_can_be_saved_over_itself_or_lose_its_files(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    model = load(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.save_pretrained(tmp_path)
    assert_same(load(tmp_path), model)


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    model.save_pretrained(tmp_path)
    monkeypatch.setattr(folder_module, "config_bytes", lambda config: 1 / 0)  # which is called last
    with pytest.raises(ZeroDivisionError):
        tiny_model(seed=1).save_pretrained(tmp_path)
    assert_same(load(tmp_path), model)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_model_is_the_old_one_or_the_new_one_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    old, new = tiny_model(scales=2), tiny_model(scales=1, seed=1)
    old.save_pretrained(tmp_path)
    stages = []
    for step in killed_at_every_step(lambda: new.save_pretrained(tmp_path)):
        found = load(tmp_path)
        assert_same(found, {1: new, 2: old}[found.schedule.stages])
        stages.append(found.schedule.stages)
        if found.schedule.stages == 1:
            old.save_pretrained(tmp_path)
        assert len(stages) == step + 1
    assert stages == sorted(stages, reverse=True) and set(stages) == {1, 2}
    assert_same(load(tmp_path), new)


def test_a_replacement_that_was_cut_off_is_finished_before_reading(tmp_path: Path) -> None:
    old, new = tiny_model(), tiny_model(seed=1)
    old.save_pretrained(tmp_path)
    new.save_pretrained(tmp_path / SAVED)
    names = [path.name for path in (tmp_path / SAVED).iterdir()]
    (tmp_path / SAVED / OBSOLETE).write_text("\n".join([*names, "", ""]))
    assert_same(load(tmp_path), new)


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
    (("version",), 2, "format version 2, expected 1"),
    (("format",), "other", "format is 'other', expected one of 'imagebart'"),
    (("extra",), 1, "unknown setting 'extra'"),
    (("first_stage", "channels"), "wide", "first_stage.channels is 'wide', expected a whole number"),
    (("first_stage", "channels"), 33, "cannot be built"),
    (("first_stage", "multipliers"), [], "cannot be built"),
    (("stages",), [], "0 stages"),
    (("stages", 0, "kind"), "aligned", "stages[0].kind is 'aligned', expected one of 'decoder_only'"),
    (("stages", 0, "kind"), "odd", "stages[0].kind is 'odd', expected one of 'decoder_only'"),
    (("stages", 0, "encoder"), None, "cannot be built"),
    (("stages", 0, "decoder", "heads"), 2.5, "stages[0].decoder.heads is 2.5"),
    (("stages", 0, "decoder", "width"), 64, "shape"),
    (("stages", 0, "vocab_size"), 25, "25"),
    (("stages", 0, "beta"), 0.25, "beta 0.25"),
    (("stages", 0, "cond_length"), 3, "cond_length 3"),
    (("betas",), [0.5, 0.5], "betas"),
    (("betas",), [1.0], "2 stages, 1 betas and no denoiser, expected stages with as many betas, or a denoiser"),
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
    (("denoiser",), None, "0 stages, 0 betas and no denoiser, expected stages with as many betas"),
    (("betas",), [1.0], "0 stages, 1 betas and a denoiser, expected stages with as many betas, or a denoiser"),
    (("denoiser", "extra"), 1, "unknown setting 'denoiser.extra'"),
    (("denoiser", "tokens"), "many", "denoiser.tokens is 'many', expected a whole number"),
    (("denoiser", "decoder", "width"), 33, "denoiser.safetensors"),
    (("denoiser", "vocab_size"), 25, "the denoiser was made for 25 codes, expected 24"),
    (("denoiser", "cond_length"), 3, "the denoiser has cond_length 3, expected the conditioner's 1"),
    (("conditioner",), {"type": "none"}, "the denoiser has cond_length 1, expected the conditioner's 0"),
    (("about", "sampling", "scales"), 9, "scales is 9"),
]


class TestBadFolders:
    @pytest.mark.parametrize(
        ("kind", "name"),
        [("stages", "first_stage"), ("stages", "stage1"), ("stages", "stage2"), ("denoiser", "denoiser")],
    )
    def test_missing_files_are_named(self, saved: Path, tmp_path: Path, kind: str, name: str) -> None:
        folder = Path(shutil.copytree(saved / kind, tmp_path / kind))
        (folder / f"{name}.safetensors").unlink()
        assert_refused(folder, str(folder / f"{name}.safetensors"), "is missing", "config.json")

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

    def test_stages_and_a_denoiser_are_too_much(self, copy: Path, saved: Path) -> None:
        both = json.loads((saved / "denoiser" / "config.json").read_text())["denoiser"]
        change_config(copy, "denoiser", value=both)
        assert_refused(copy, str(copy / "config.json"), "2 stages, 2 betas and a denoiser, expected")

    @pytest.mark.parametrize(
        ("stem", "change", "reason"),
        [
            (
                "stage1",
                lambda t: t.pop("decoder.norm.bias"),
                "lacks the tensor decoder.norm.bias, expected it with shape [32]",
            ),
            ("stage1", lambda t: t.update(extra=torch.zeros(1)), "has the tensor extra"),
            ("stage1", lambda t: t.update({"decoder.norm.bias": torch.zeros(31)}), "of shape [31], expected [32]"),
            ("stage1", lambda t: t.update({"decoder.norm.bias": torch.zeros(32).long()}), "expected floating point"),
            ("first_stage", lambda t: t["quantize.used"][-1].fill_(24), "from 0 to 23"),
        ],
    )
    def test_tensors_that_do_not_fit_are_named(self, copy: Path, stem: str, change: Any, reason: str) -> None:
        path = copy / f"{stem}.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        assert_refused(copy, str(path), reason)

    @pytest.mark.parametrize("size", [0, 7, 100, -8])
    def test_truncated_files_are_named(self, copy: Path, size: int) -> None:
        path = copy / "stage2.safetensors"
        path.write_bytes(path.read_bytes()[:size])
        assert_refused(copy, str(path), "damaged")

    def test_two_versions_of_a_file_are_named(self, copy: Path) -> None:
        shutil.copy(copy / "stage1.safetensors", copy / "stage1-1-of-1.safetensors")
        assert_refused(copy, str(copy), "stage1 in more than one way")


def test_a_trained_part_goes_to_a_folder_and_back(tmp_path: Path) -> None:
    model, staged = tiny_model("text"), tiny_staged_model("text")
    for part in (
        Part(model.first_stage),
        Part(model.denoiser, model.conditioner),
        Part(model.text, model.conditioner),
        Part(staged.stages[0], staged.conditioner, staged.schedule),
    ):
        save_part(part, tmp_path)
        kind = Stage if isinstance(part.module, Stage) else type(part.module)
        loaded = load_part(tmp_path, kind)
        assert loaded.module.config == part.module.config
        assert (loaded.conditioner, loaded.schedule) == (part.conditioner, part.schedule)
        for name, tensor in part.module.state_dict().items():
            assert torch.equal(tensor, loaded.module.state_dict()[name])
        with pytest.raises(ValueError, match="damaged or of another kind"):
            load_part(tmp_path, Denoiser if isinstance(part.module, Stage) else Stage)
    save_part(Part(model.first_stage), tmp_path)
    values = json.loads((tmp_path / "part.json").read_text())["first_stage"]
    (tmp_path / "part.json").write_text(json.dumps(values))  # as earlier runs wrote a first stage
    assert load_part(tmp_path, FirstStage).module.config == model.first_stage.config
    with pytest.raises(ValueError, match="holds no finished part"):
        load_part(tmp_path / "nothing", Denoiser)


def test_tensors_of_earlier_names_are_read(tmp_path: Path) -> None:
    model = tiny_model("none", color_hint_grid=2)
    model.save_pretrained(tmp_path / "model")
    save_part(Part(model.denoiser, model.conditioner), tmp_path / "part")
    for path in (tmp_path / "model" / "denoiser.safetensors", tmp_path / "part" / "part.safetensors"):
        tensors = load_file(path)
        save_file(tensors | {"glance.weight": tensors.pop("color_hint_embedding.weight")}, path)
    assert_same(load(tmp_path / "model"), model)
    weight = load_part(tmp_path / "part", Denoiser).module.color_hint_embedding.weight
    assert torch.equal(weight, model.denoiser.color_hint_embedding.weight)  # type: ignore[union-attr]
    path = tmp_path / "model" / "denoiser.safetensors"
    save_file(load_file(path) | {"color_hint_embedding.weight": weight}, path)
    assert_refused(tmp_path / "model", "has the tensor glance.weight, expected only")


def one_cond(source: Path) -> Tensor | None:
    cond = load_file(source / "expected.safetensors").get("cond")
    return None if cond is None else cond[:1]


@BOTH
def test_mapped_models_are_the_same(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the published layout and of our own; drawing leaves their files as they were."""
    copied = load(source)
    copied.save_pretrained(tmp_path / "ours")
    shutil.copytree(source, tmp_path / source.name)
    monkeypatch.setattr("imagebart.models.imagebart.available_memory", lambda: 0)
    for folder in (tmp_path / "ours", tmp_path / source.name):
        before = {path: path.read_bytes() for path in folder.iterdir()}
        mapped = load(folder)
        assert same_weights(mapped, copied)
        cond = one_cond(source)
        assert torch.equal(mapped.sample(1, cond, seed=1), copied.sample(1, cond, seed=1))
        assert {path: path.read_bytes() for path in folder.iterdir()} == before


@BOTH
def test_short_weights_stay_as_short_and_sample_the_same(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(source).save_pretrained(tmp_path, dtype="bfloat16")
    copied = load(tmp_path)
    monkeypatch.setattr("imagebart.models.imagebart.available_memory", lambda: 0)
    mapped, cond = load(tmp_path), one_cond(source)
    x, c = (copied.sample(1, cond, seed=seed) for seed in (1, 2))
    for one, other in zip(copied.stages, mapped.stages, strict=True):
        kinds = {name: p.dtype for name, p in other.named_parameters() if p.dtype != torch.float32}
        assert kinds and all(name.endswith(".weight") for name in kinds) and set(kinds.values()) == {torch.bfloat16}
        assert torch.equal(one.logits(x, c, cond), other.logits(x, c, cond))
    assert torch.equal(mapped.sample(1, cond, seed=1), x)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory")
def test_mapped_weights_take_no_memory_of_their_own(tmp_path: Path) -> None:
    """In a process of its own, whose memory nothing else has used before."""
    model = tiny_model("none")
    assert model.denoiser is not None
    config = model.denoiser.config
    big = (part.replace(width=512, depth=depth) for part, depth in ((config.decoder, 6), (config.encoder, 3)))
    denoiser = Denoiser(config.replace(**dict(zip(("decoder", "encoder"), big, strict=True))))  # 19 million numbers
    ImageBART(model.first_stage, denoiser, model.conditioner, model.about).save_pretrained(tmp_path)
    program = f"""
import re, pathlib
from imagebart import ImageBART
from imagebart.models import imagebart as module
ImageBART.from_pretrained({str(CLASS_MODEL)!r})  # what is loaded of PyTorch at first
def own(): return int(re.search(r"RssAnon:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024
for available in (1 << 20, 1 << 40):
    module.available_memory = lambda: available
    before = own()
    model = ImageBART.from_pretrained({str(tmp_path)!r})
    print(own() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    mapped, copied = map(float, done.stdout.split())
    assert 0 <= mapped <= 30 and 60 <= copied <= 120


SECONDS = 10  # of the processor
MEMORY = 10**9  # bytes, beside what is there


def within_bounds(work: Callable[[], object], said: str) -> None:
    """Does the work in a process with so much time and memory, in which it has to be refused with these words."""

    def limited() -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        with pytest.raises(WeightsError, match=said):
            work()

    assert run_in_fork(limited) == 0


def sparse(path: Path) -> None:
    """Three gigabytes that take no room on the disk."""
    with path.open("wb") as file:
        file.truncate(3 << 30)


def long_header(path: Path, tensors: int) -> None:
    """A file of safetensors with so many tensors of no numbers."""
    listed = ",".join(f'"t{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(tensors))
    path.write_bytes(struct.pack("<Q", len(listed) + 2) + b"{" + listed.encode() + b"}")


def many_entries(path: Path, count: int) -> None:
    """A zip whose list names so many entries."""
    one = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, *[0] * 7, 1, *[0] * 6) + b"a"
    listed = one * count
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(listed), 0)
    end64 += struct.pack("<4sLQL", b"PK\6\7", 0, len(listed), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(listed + end64 + end)


def test_a_huge_configuration_is_refused_unread(copy: Path) -> None:
    sparse(copy / "config.json")
    within_bounds(lambda: load(copy), r"config.json cannot be used: it has 3,221,225,472 bytes, expected at most")


def test_a_file_with_many_tensors_is_refused_by_its_header(copy: Path) -> None:
    long_header(copy / "first_stage.safetensors", 50_000)
    within_bounds(lambda: load(copy), r"first_stage.safetensors is damaged .* its header has [\d,]+ bytes")


def test_a_checkpoint_with_a_million_entries_is_refused_by_its_list(tmp_path: Path) -> None:
    folder = tmp_path / "published"
    shutil.copytree(CLASS_MODEL, folder)
    many_entries(folder / "scale1.ckpt", 1_000_000)
    within_bounds(
        lambda: load(folder), r"scale1.ckpt is no PyTorch checkpoint.*its list of entries has 47,000,000 bytes"
    )


def test_the_shipped_files_are_far_from_the_bounds() -> None:
    shipped = Path(__file__).parents[2] / "checkpoints" / "avatars"
    assert (shipped / "config.json").stat().st_size < folder_module.MAX_CONFIG_BYTES / 10
    for path in shipped.glob("*.safetensors"):
        assert int.from_bytes(path.read_bytes()[:8], "little") < folder_module.MAX_INDEX_BYTES / 10


@pytest.mark.parametrize("content", [b"\xff\xfe caf\xe9", "a café".encode(), b""])
def test_any_card_is_shown(copy: Path, content: bytes) -> None:
    (copy / "README.md").write_bytes(content)
    card = Pipeline.from_pretrained(copy).card
    assert ("caf" in card) if content else "2 scales" in card


def test_of_a_huge_card_the_beginning_is_shown(copy: Path) -> None:
    sparse(copy / "README.md")
    assert len(Pipeline.from_pretrained(copy).card) == 200_000
