"""Every tensor of the seven published models, by the shapes recorded from the original; and scaleN.yaml."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
from published_files import CLASS_MODEL, FIXTURES, assert_refused, load

from imagebart.core.errors import WeightsError
from imagebart.models.denoiser import Stage
from imagebart.models.vqgan import FirstStage
from imagebart.weights.convert import key_mapping
from imagebart.weights.folder import on_meta_device, shapes_of
from imagebart.weights.registry import KINDS, MODELS, read_stage_yaml

MANIFESTS = json.loads(gzip.decompress((FIXTURES / "published_manifests.json.gz").read_bytes()))
TARGETS = {target.rpartition(".")[2]: target for target in KINDS}
EVERY_STAGE = [
    pytest.param(name, stage, id=f"{name}-{stage['stage']}")
    for name, manifest in MANIFESTS.items()
    for stage in manifest["stages"]
]


def recorded(shapes: dict[str, list[int]], prefix: str = "") -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items()}


def test_all_seven_are_known_with_their_first_stages() -> None:
    assert MODELS.keys() == MANIFESTS.keys() and len(MODELS) == 7
    for name, model in MODELS.items():
        assert model.stages == len(MANIFESTS[name]["stages"])
        assert model.url == f"https://ommer-lab.com/files/{name}.zip"
        with on_meta_device(name):
            first_stage = FirstStage(model.stage(1).first_stage)
        assert shapes_of(first_stage) == recorded(MANIFESTS[name]["first_stage"]["state"], "first_stage_model.")
        assert first_stage.config.downsampling == 16


@pytest.mark.parametrize(("name", "manifest"), EVERY_STAGE)
def test_stages_match_tensor_by_tensor(name: str, manifest: dict[str, Any]) -> None:
    t = manifest["stage"]
    config = MODELS[name].stage(t).config.replace(t=t, beta=manifest["betas"][t])
    with on_meta_device(name):
        stage = Stage(config, MODELS[name].stages)
    mapping, ours = key_mapping(config), shapes_of(stage)
    assert config.kind == KINDS[TARGETS[manifest["transformer"]]]
    assert (config.tokens, config.vocab_size) == (256, MANIFESTS[name]["first_stage"]["used_codes"])
    assert config.cond_length == (manifest["conditioner"] is not None)
    assert mapping.sources.keys() == ours.keys(), "each of our tensors is made of published ones"
    published = [name for parts in mapping.sources.values() for name in parts] + [*mapping.unused, *mapping.buffers]
    assert len(published) == len(set(published)), "and no published one is used twice"
    assert mapping.published_shapes(ours) == recorded(manifest["transformer_state"])
    parameters = sum(p.numel() for p in stage.parameters()) + sum(map(math.prod, mapping.unused.values()))
    assert parameters == manifest["n_transformer_params"]


@pytest.mark.parametrize(("name", "manifest"), EVERY_STAGE)
def test_configurations_say_the_same_as_the_registry(name: str, manifest: dict[str, Any], tmp_path: Path) -> None:
    first_stage = MANIFESTS[name]["first_stage"]
    vqgan = {key: first_stage[key] for key in ("embed_dim", "n_embed", "ddconfig")} | {"remap": "x.npy"}
    params = {
        "transformer_config": {"target": TARGETS[manifest["transformer"]], "params": manifest["transformer_params"]},
        "first_stage_config": {"target": "imagebart.models.vqgan.VQGANWrapper", "params": vqgan},
        "conditioner_config": manifest["conditioner"],
    }
    path = tmp_path / "scale.yaml"
    path.write_text(json.dumps({"model": {"params": params}}))  # JSON is YAML
    assert read_stage_yaml(path) == MODELS[name].stage(manifest["stage"])


def test_a_model_that_is_not_installed_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    installed = tmp_path / "checkpoints" / "cats_3_scales"
    for _ in range(2):
        with pytest.raises(WeightsError, match=f"https://ommer-lab.com/files/cats_3_scales.zip.*{installed.name}"):
            load("cats_3_scales")
        installed.mkdir(parents=True, exist_ok=True)  # an empty one is no better
    with pytest.raises(WeightsError, match="dogs_3_scales is no published model, no folder.*cats_3_scales"):
        load("dogs_3_scales")


ENCODER_DECODER = (CLASS_MODEL / "scale1.yaml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("model:", "other:", "lacks the setting 'model'"),
        ("model:", "- model:", "cannot be used"),
        ("dim: 32", "dim: 100000000", "width is 100000000, expected at most 16384"),
        ("dim: 32", f"dim: 32\n        {'x' * 1000}: 1", "unknown setting 'xxx"),
        ("        dim: 32\n", "", "lacks the setting 'dim'"),
        ("tie_token_emb: false", "tie_token_emb: true", "tie_token_emb is True, expected"),
        ("x_transformer.XTransformer", "x_transformer.Other", "x_transformer.Other"),
        ("imagebart.util.ClassProvider", "os.system", "os.system"),
        ("imagebart.util.ClassProvider", "x" * 5000, "the conditioner is 'xxx"),
        ("dim: 32", "dim: !!python/object/apply:os.mkdir [executed]", "could not determine a constructor"),
        ("dim: 32", f"dim: !!{'x' * 5000} 1", "could not determine a constructor"),
    ],
)
def test_odd_configurations_are_named_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "scale1.yaml"
    assert old in ENCODER_DECODER
    path.write_text(ENCODER_DECODER.replace(old, new, 1))
    assert_refused(path, str(path), reason, read=read_stage_yaml)
    assert not (tmp_path / "executed").exists()


# Nine lists of nine, each of the one before: a few hundred bytes that would be said in 10^9 words.
NINE = [b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 10)]
BOMB = b"a0: &a0 [x]\n" + b"".join(NINE) + b"model: {params: *a9, target: *a9}\n"


@pytest.mark.parametrize("content", [b"", b"[" * 1000, b"\xff\xfe\x00", b"model: &a [*a]", BOMB])
def test_what_is_no_configuration_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scale1.yaml"
    path.write_bytes(content)
    assert_refused(path, str(path), read=read_stage_yaml)
