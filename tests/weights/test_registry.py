"""The seven published models: each tensor by the shapes that the original has; scaleN.yaml; two in full size."""

import gzip
import json
import math
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from published_files import CLASS_MODEL, FIXTURES, assert_refused, scale_tensors, write_checkpoint

from imagebart.models.denoiser import Stage
from imagebart.models.diffusion import Schedule
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
def test_stages_match_tensor_by_tensor(name: str, manifest: dict[str, Any], tmp_path: Path) -> None:
    t, first_stage, described = manifest["stage"], MANIFESTS[name]["first_stage"], tmp_path / "scale.yaml"
    vqgan = {key: first_stage[key] for key in ("embed_dim", "n_embed", "ddconfig")} | {"remap": "x.npy"}
    params = {
        "transformer_config": {"target": TARGETS[manifest["transformer"]], "params": manifest["transformer_params"]},
        "first_stage_config": {"target": "imagebart.models.vqgan.VQGANWrapper", "params": vqgan},
        "conditioner_config": manifest["conditioner"],
    }
    described.write_text(json.dumps({"model": {"params": params}}))  # JSON is YAML
    assert read_stage_yaml(described) == MODELS[name].stage(t)
    config = MODELS[name].stage(t).config.replace(t=t, beta=manifest["betas"][t])
    with on_meta_device(name):
        stage = Stage(config, MODELS[name].stages)
    mapping, ours = key_mapping(config), shapes_of(stage)
    assert config.kind == KINDS[TARGETS[manifest["transformer"]]]
    assert (config.tokens, config.vocab_size) == (256, first_stage["used_codes"])
    assert config.cond_length == (manifest["conditioner"] is not None)
    assert mapping.sources.keys() == ours.keys(), "each of our tensors is made of published ones"
    published = [name for parts in mapping.sources.values() for name in parts] + [*mapping.unused, *mapping.buffers]
    assert len(published) == len(set(published)), "and no published one is used twice"
    assert mapping.published_shapes(ours) == recorded(manifest["transformer_state"])
    parameters = sum(p.numel() for p in stage.parameters()) + sum(map(math.prod, mapping.unused.values()))
    assert parameters == manifest["n_transformer_params"]


DESCRIBED = (CLASS_MODEL / "scale1.yaml").read_bytes()
# Nine lists of nine, each of the one before: a few hundred bytes that would be said in 10^9 words.
NINE = [b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 10)]
BOMB = b"a0: &a0 [x]\n" + b"".join(NINE) + b"model: {params: *a9, target: *a9}\n"


def test_odd_configurations_are_named_and_nothing_runs(tmp_path: Path) -> None:
    for old, new, reason in (
        *((DESCRIBED, content, "") for content in (b"", b"[" * 1000, b"\xff\xfe\x00", b"model: &a [*a]", BOMB)),
        (b"dim: 32", b"dim: 100000000", "width is 100000000, expected at most 16384"),
        (b"dim: 32", b"dim: 32\n        " + b"x" * 1000 + b": 1", "unknown setting 'xxx"),
        (b"        dim: 32\n", b"", "lacks the setting 'dim'"),
        (b"tie_token_emb: false", b"tie_token_emb: true", "tie_token_emb is True, expected"),
        (b"x_transformer.XTransformer", b"x_transformer.Other", "x_transformer.Other"),
        (b"imagebart.util.ClassProvider", b"os.system", "os.system"),
        (b"dim: 32", b"dim: !!python/object/apply:os.mkdir [executed]", "could not determine a constructor"),
        (b"dim: 32", b"dim: !!" + b"x" * 5000 + b" 1", "could not determine a constructor"),
    ):
        path = tmp_path / "scale1.yaml"
        assert old in DESCRIBED
        path.write_bytes(DESCRIBED.replace(old, new, 1))
        assert_refused(path, str(path), reason, read=read_stage_yaml)
        assert not Path("executed").exists()


def run(home: Path, *command: str) -> tuple[str, int]:
    """What the command line said, and the most memory that it had of its own: not mapped from files, in bytes."""
    environment = {**os.environ, "HF_HOME": str(home), "PYTHONPATH": os.getcwd(), "COLUMNS": "100"}
    program, memory = [sys.executable, "-m", "imagebart", *command], 0
    with subprocess.Popen(program, env=environment, cwd=home.parent, stdout=subprocess.PIPE, text=True) as job:
        while job.poll() is None:
            with suppress(OSError):
                found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{job.pid}/status").read_text())
                memory = max(memory, 1024 * int(found[1]) if found else 0)
            time.sleep(0.05)
        assert job.returncode == 0 and job.stdout is not None
        return job.stdout.read(), memory


@pytest.mark.release
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's account of memory")
@pytest.mark.parametrize(
    ("name", "prompt"), [("ffhq_4_scales_geometric", ()), ("cin_5_scales_custom", ("--prompt", "golden retriever"))]
)
def test_a_conversion_and_an_edit_in_full_size(tmp_path: Path, name: str, prompt: tuple[str, ...]) -> None:
    """The smallest and the largest, their memory measured: minutes, and up to 40 GB on the disk of `--basetemp`."""
    home, betas = tmp_path / "home", Schedule.geometric(MODELS[name].stages).betas  # whatever its own are
    published, converted = (home / "imagebart" / part / name for part in ("published", "converted"))
    published.mkdir(parents=True)
    for t in range(1, len(betas) + 1):
        write_checkpoint(published / f"scale{t}.ckpt", scale_tensors(MODELS[name].stage(t), t, betas, scale=0.05))
    said, memory = run(home, "convert", name, "--dtype", "bfloat16", "--replace")
    assert said == f"{converted}\n" and memory < 7e9
    assert not list(published.glob("*.ckpt"))
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    asked = ("--mask", "upper half", *prompt, "--seed", "1", "--out", "out.png")
    _, memory = run(home, "edit", "--model", name, "--image", "in.png", *asked)
    assert memory < 14e9
    edited = np.asarray(Image.open(tmp_path / "out.png"))
    assert (edited[128:] == pixels[128:]).all() and (edited[:128] != pixels[:128]).any()
