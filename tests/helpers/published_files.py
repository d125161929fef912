"""Random checkpoints in the layout of 2021, where averaged weights have names without dots, and checks of models."""

import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imagebart import ImageBART
from imagebart.core.errors import WeightsError
from imagebart.models.denoiser import Stage
from imagebart.models.diffusion import Schedule
from imagebart.models.vqgan import FirstStage
from imagebart.weights.convert import key_mapping
from imagebart.weights.folder import on_meta_device, shapes_of
from imagebart.weights.registry import PublishedStage, read_stage_yaml

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = FIXTURES / "tiny"  # recorded models
CLASS_MODEL = TINY / "class_cond_custom"
RESIDUAL_MODEL = TINY / "uncond_residual_geometric"
POOL = np.random.default_rng(0).standard_normal(1_000_003, np.float32)  # what weights are taken from
load = ImageBART.from_pretrained


def same_weights(one: ImageBART, other: ImageBART) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    same = (ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs)
    return ours.keys() == theirs.keys() and all(same)


def assert_refused(path: Path, *reasons: str, read: Callable[[Path], Any] = load) -> None:
    """What is there cannot be read: one sentence, with all these reasons in it."""
    with pytest.raises(WeightsError) as caught:
        read(path)
    for reason in reasons:
        assert reason in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert "weights_only" not in str(caught.value), "PyTorch's advice is to run the file"


def scale_tensors(stage: PublishedStage, t: int, betas: tuple[float, ...], scale: float = 0.3) -> dict[str, Tensor]:
    """The state_dict of stage t; scale: the deviation of its weights."""
    config, first = stage.config.replace(t=t, beta=betas[t - 1]), stage.first_stage
    with on_meta_device("a published model"):
        network, first_stage = Stage(config, len(betas)), FirstStage(first)
    mapping = key_mapping(config)
    begins = iter(np.random.default_rng(t).permutation(len(POOL)).tolist())

    def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
        mean = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0  # of a norm
        begin = next(begins)
        values = POOL.take(np.arange(begin, begin + prod(shape)), mode="wrap")
        return torch.from_numpy(values * np.float32(scale) + np.float32(mean)).reshape(shape)

    shapes = mapping.published_shapes(shapes_of(network))
    raw = {f"transformer.{name}": drawn(name, shape) for name, shape in shapes.items()}
    trained = {name: shape for name, shape in shapes.items() if name not in mapping.buffers}
    averaged = {f"transformer_ema.{name.replace('.', '')}": drawn(name, shape) for name, shape in trained.items()}
    begins = iter(range(0, len(POOL), 101))  # the first stage is the same in all files
    vqgan = {f"first_stage_model.{name}": drawn(name, shape) for name, shape in shapes_of(first_stage).items()}
    used = np.random.default_rng(1).permutation(first.codebook_size)[: first.vocab_size]
    vqgan["first_stage_model.quantize.used"] = torch.from_numpy(np.sort(used))
    alphas = torch.tensor([1, *(1 - float(beta) for beta in betas)])
    return {
        "alphats": alphas,
        "alphacum": alphas.cumprod(0),
        "sos_token": torch.zeros(1, dtype=torch.long),
        "transformer_ema.decay": torch.tensor(0.9999),
        "transformer_ema.num_updates": torch.tensor(77, dtype=torch.int32),
        **raw,
        **averaged,
        **vqgan,
    }


def write_checkpoint(path: Path, tensors: dict[str, Tensor]) -> None:
    """A checkpoint of PyTorch Lightning 1.4 with these tensors."""
    steps = {"epoch": 3, "global_step": 77, "pytorch-lightning_version": "1.4.2", "lr_schedulers": [{"last_epoch": 3}]}
    torch.save({**steps, "state_dict": OrderedDict(tensors), "callbacks": {}, "optimizer_states": []}, path)


def write_tiny(folder: Path, stages: int = 4) -> None:
    """A model of tiny networks, as the recorded ones are built, of as many stages as a published one has."""
    folder.mkdir(parents=True, exist_ok=True)
    betas = Schedule.geometric(stages).betas
    for t in range(1, stages + 1):
        described = RESIDUAL_MODEL / ("scale3.yaml" if t == stages else "scale1.yaml")
        shutil.copy(described, folder / f"scale{t}.yaml")
        write_checkpoint(folder / f"scale{t}.ckpt", scale_tensors(read_stage_yaml(described), t, betas))


def package_of(folder: Path, inside: str) -> bytes:
    """A zip of a folder's files in a folder inside, with another file, as the authors have it."""
    files = {inside + file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    return zipped({**files, f"{inside}README.txt": b"weights"})


def zipped(entries: dict[str, bytes]) -> bytes:
    """A zip of these entries: a checkpoint, say."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()
