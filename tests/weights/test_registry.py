"""Every tensor of the seven published models, by the shapes recorded from the original implementation."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from imagebart.conditioning import ClassConditioner
from imagebart.models.stages import build_stage
from imagebart.models.vqgan import FirstStage
from imagebart.weights import MODELS, WeightsError, load
from imagebart.weights.folder import shapes_of
from imagebart.weights.published.convert import KeyMapping, key_mapping
from imagebart.weights.published.registry import read_stage_yaml

from .checkpoints import FIXTURES

MANIFESTS = json.loads(gzip.decompress((FIXTURES / "published_manifests.json.gz").read_bytes()))
KINDS = {
    ("DenoisingXTransformer", "XTransformer"): "encoder_decoder",
    ("DenoisingXTransformer", "ResidualScaledXTransformer"): "residual",
    ("DecoderOnlyDenoiser", "GPT"): "decoder_only",
}
TARGETS = {
    "XTransformer": "imagebart.modules.xtransformers.x_transformer.XTransformer",
    "ResidualScaledXTransformer": "imagebart.modules.xtransformers.x_transformer.ResidualScaledXTransformer",
    "GPT": "imagebart.modules.transformer.mingpt.GPT",
}
EVERY_STAGE = [
    pytest.param(name, stage, id=f"{name}-{stage['stage']}")
    for name, manifest in MANIFESTS.items()
    for stage in manifest["stages"]
]


def recorded(shapes: dict[str, list[int]], prefix: str = "") -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items()}


def published_twice(layout: KeyMapping) -> list[str]:
    names = [name for parts in layout.sources.values() for name in parts] + [*layout.unused, *layout.buffers]
    return sorted(name for name in set(names) if names.count(name) > 1)


def test_all_seven_are_known() -> None:
    assert MODELS.keys() == MANIFESTS.keys()
    assert len(MODELS) == 7
    for name, model in MODELS.items():
        assert model.stages == len(MANIFESTS[name]["stages"])
        assert model.url == f"https://ommer-lab.com/files/{name}.zip"


@pytest.mark.parametrize("name", MANIFESTS)
def test_first_stages_match_tensor_by_tensor(name: str) -> None:
    with torch.device("meta"):
        first_stage = FirstStage(MODELS[name].stage(1).first_stage)
    assert shapes_of(first_stage) == recorded(MANIFESTS[name]["first_stage"]["state"], "first_stage_model.")
    assert first_stage.config.downsampling == 16
    assert first_stage.config.vocab_size == MANIFESTS[name]["first_stage"]["used_codes"]


@pytest.mark.parametrize(("name", "manifest"), EVERY_STAGE)
def test_stages_match_tensor_by_tensor(name: str, manifest: dict[str, Any]) -> None:
    t, stages = manifest["stage"], MODELS[name].stages
    config = MODELS[name].stage(t).stage_config(t, manifest["betas"][t], 0)
    with torch.device("meta"):
        stage = build_stage(config, stages)
    layout, ours = key_mapping(config), shapes_of(stage)

    assert config.kind == KINDS[manifest["kind"], manifest["transformer"]]
    assert (config.tokens, config.vocab_size) == (256, MANIFESTS[name]["first_stage"]["used_codes"])
    assert config.cond_length == (manifest["conditioner"] is not None)
    assert layout.sources.keys() == ours.keys(), "each of our tensors is made of published ones"
    assert published_twice(layout) == [], "and no published one is used twice"
    assert layout.published_shapes(ours) == recorded(manifest["transformer_state"])
    parameters = sum(p.numel() for p in stage.parameters()) + sum(map(math.prod, layout.unused.values()))
    assert parameters == manifest["n_transformer_params"]


@pytest.mark.parametrize(("name", "manifest"), EVERY_STAGE)
def test_configurations_say_the_same_as_the_registry(name: str, manifest: dict[str, Any], tmp_path: Path) -> None:
    first_stage = MANIFESTS[name]["first_stage"]
    vqgan = {key: first_stage[key] for key in ("embed_dim", "n_embed", "ddconfig")} | {"remap": "x.npy"}
    network = {"target": TARGETS[manifest["transformer"]], "params": manifest["transformer_params"]}
    params = {
        "transformer_config": network,
        "first_stage_config": {"target": "imagebart.models.vqgan.VQGANWrapper", "params": vqgan},
        "conditioner_config": manifest["conditioner"],
    }
    model = {"target": f"imagebart.models.diffusion.{manifest['kind']}", "params": params}
    path = tmp_path / "scale.yaml"
    path.write_text(json.dumps({"model": model}))  # JSON is YAML
    assert read_stage_yaml(path) == MODELS[name].stage(manifest["stage"])


def test_classes_of_imagenet_have_names() -> None:
    model = MODELS["cin_5_scales_custom"]
    named = model.with_class_names(model.stage(1).conditioner)
    known = {"tench": 0, "golden retriever": 207, "crane (bird)": 134, "toilet paper": 999}
    assert named.encode(list(known)).tokens.flatten().tolist() == list(known.values())
    assert named.encode([207, "207"]).tokens.flatten().tolist() == [207, 207]
    with pytest.raises(ValueError, match='Did you mean "golden retriever"'):
        named.encode(["golden retreiver"])
    few = ClassConditioner(("0", "1"))  # of a folder that has the name, but other classes
    assert model.with_class_names(few) == few


def test_a_model_that_is_not_installed_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(WeightsError) as caught:
            load("cats_3_scales")
        assert "https://ommer-lab.com/files/cats_3_scales.zip" in str(caught.value)
        assert "checkpoints/cats_3_scales" in str(caught.value)
        (tmp_path / "checkpoints" / "cats_3_scales").mkdir(parents=True, exist_ok=True)  # an empty one is no better


def test_another_name_lists_those_there_are() -> None:
    with pytest.raises(WeightsError, match="dogs_3_scales is no folder.*cats_3_scales"):
        load("dogs_3_scales")
