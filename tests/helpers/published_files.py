"""Checkpoints of random numbers in the very layout of 2021, written tensor by tensor, so that full size fits anywhere.

`python tests/helpers/published_files.py NAME FOLDER` writes a published model in full size. What a file holds besides
tensors is what PyTorch Lightning 1.4 put there: callbacks under their class, optimizer states, averaged weights under
names that lost their dots. `torch.save` could not write more than memory holds; so pickle and zip are made here.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from imagebart.models.denoiser import Stage
from imagebart.models.vqgan import FirstStage
from imagebart.weights.convert import key_mapping
from imagebart.weights.folder import on_meta_device, shapes_of
from imagebart.weights.registry import MODELS, PublishedStage, read_stage_yaml

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"
ALIGNMENT = 64  # of tensors in a file of PyTorch's
POOL = np.random.default_rng(0).standard_normal(1_000_003, np.float32)  # what weights are taken from
TINY_SCALE, FULL_SCALE = 0.3, 0.05  # of weights, so that logits differ clearly
STORAGES = {
    np.dtype("float32"): torch.FloatStorage,
    np.dtype("int64"): torch.LongStorage,
    np.dtype("int32"): torch.IntStorage,
}


@dataclass(frozen=True)
class Planned:
    """A tensor to be written: its numbers, or their shape and where they begin in the pool of random numbers."""

    shape: tuple[int, ...]
    begin: int = 0
    scale: float = 0.3
    mean: float = 0.0
    numbers: np.ndarray | None = None

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("float32") if self.numbers is None else self.numbers.dtype

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def array(self) -> np.ndarray:
        if self.numbers is not None:
            return self.numbers
        return _repeated_pool(self.scale, self.mean)[self.begin : self.begin + self.size].reshape(self.shape)


@cache
def _repeated_pool(scale: float, mean: float) -> np.ndarray:
    """The pool, scaled, moved and repeated, so that it is longer than any published tensor."""
    return np.resize(POOL, 8_000_000) * np.float32(scale) + np.float32(mean)


@dataclass(frozen=True)
class _Storage:
    key: str
    planned: Planned


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one in Python, which asks for each object
    """Writes planned tensors as PyTorch writes its own."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, 2)
        self.storages: list[_Storage] = []

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, _Storage):
            return None
        return "storage", STORAGES[value.planned.dtype], value.key, "cpu", value.planned.size

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Planned):
            return NotImplemented
        storage = _Storage(str(len(self.storages)), value)
        self.storages.append(storage)
        stride = torch.empty(value.shape, device="meta").stride()
        return torch._utils._rebuild_tensor_v2, (storage, 0, value.shape, stride, False, OrderedDict())


def write_checkpoint(
    file: Path,
    tensors: dict[str, Planned],
    root: str = "archive",
) -> None:
    """A checkpoint of PyTorch Lightning 1.4 with these tensors."""
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    with _lightning() as callback:
        pickler.dump(
            {
                "epoch": 3,
                "global_step": 77,
                "pytorch-lightning_version": "1.4.2",
                "state_dict": OrderedDict(tensors),
                "callbacks": {callback: {"monitor": "val/loss", "best_model_score": Planned((), 5), "dirpath": "ckpt"}},
                "optimizer_states": [],
                "lr_schedulers": [{"last_epoch": 3, "_last_lr": [4.5e-6]}],
            }
        )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _write_entry(archive, f"{root}/data.pkl", buffer.getvalue())
        for storage in pickler.storages:
            _write_entry(archive, f"{root}/data/{storage.key}", storage.planned.array())
        _write_entry(archive, f"{root}/version", b"3\n")


def scale_tensors(
    description: PublishedStage, t: int, betas: tuple[float, ...], scale: float = TINY_SCALE
) -> dict[str, Planned]:
    """The state_dict of stage t; scale: the deviation of its weights."""
    config = description.config.replace(t=t, beta=betas[t - 1])
    with on_meta_device("a published model"):
        stage, first_stage = Stage(config, len(betas)), FirstStage(description.first_stage)
    layout = key_mapping(config)
    begins = iter(np.random.default_rng(t).permutation(len(POOL)).tolist())

    def planned(name: str, shape: tuple[int, ...]) -> Planned:
        of_norm = len(shape) == 1 and name.endswith("weight")
        return Planned(shape, next(begins), scale, 1.0 if of_norm else 0.0)

    shapes = layout.published_shapes(shapes_of(stage))
    raw = {name: planned(name, shape) for name, shape in shapes.items()}
    trained = {name: shape for name, shape in shapes.items() if name not in layout.buffers}
    averaged = {name.replace(".", ""): planned(name, shape) for name, shape in trained.items()}
    begins = iter(range(0, len(POOL), 101))  # the first stage is the same in all files
    vqgan = {name: planned(name, shape) for name, shape in shapes_of(first_stage).items()}
    first = description.first_stage
    used = np.random.default_rng(1).permutation(first.codebook_size)[: first.vocab_size]
    vqgan["quantize.used"] = Planned(used.shape, numbers=np.sort(used).astype(np.int64))
    alphas = np.array([1, *(1 - beta for beta in betas)], np.float32)
    return {
        "alphats": Planned(alphas.shape, numbers=alphas),
        "alphacum": Planned(alphas.shape, numbers=alphas.cumprod(dtype=np.float32)),
        "sos_token": Planned((1,), numbers=np.zeros(1, np.int64)),
        **{f"transformer.{name}": planned for name, planned in raw.items()},
        "transformer_ema.decay": Planned((), numbers=np.array(0.9999, np.float32)),
        "transformer_ema.num_updates": Planned((), numbers=np.array(77, np.int32)),
        **{f"transformer_ema.{name}": planned for name, planned in averaged.items()},
        **{f"first_stage_model.{name}": planned for name, planned in vqgan.items()},
    }


def full_tensors(name: str) -> Iterator[tuple[str, dict[str, Planned]]]:
    """The files of a published model in full size, by name; geometric betas, whatever its own are."""
    model = MODELS[name]
    betas = tuple(1 / (model.stages + 1 - t) for t in range(1, model.stages + 1))
    for t in range(1, model.stages + 1):
        yield f"scale{t}", scale_tensors(model.stage(t), t, betas, FULL_SCALE)


def write_full(name: str, folder: Path) -> None:
    """A published model in full size."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, tensors in full_tensors(name):
        write_checkpoint(folder / f"{stem}.ckpt", tensors, stem)


def write_tiny(folder: Path, source: str = "uncond_residual_geometric", stages: int = 4) -> None:
    """A model of tiny networks, as the recorded ones are built, of as many stages as a published one has."""
    betas = tuple(1 / (stages + 1 - t) for t in range(1, stages + 1))
    folder.mkdir(parents=True, exist_ok=True)
    coarsest = max((TINY / source).glob("scale*.yaml"))
    for t in range(1, stages + 1):
        described = coarsest if t == stages else TINY / source / "scale1.yaml"
        settings = yaml.safe_load(described.read_text(encoding="utf-8"))
        (folder / f"scale{t}.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        write_checkpoint(folder / f"scale{t}.ckpt", scale_tensors(read_stage_yaml(described), t, betas))


def write_package(path: Path, folder: Path, inside: str = "") -> None:
    """A zip of a folder's files, which may lie in a folder inside; with the remap file that the authors' have."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inside + file.name)
        archive.writestr(inside + "README.txt", "weights")


def _write_entry(archive: zipfile.ZipFile, name: str, content: bytes | np.ndarray) -> None:
    data = memoryview(content if isinstance(content, bytes) else np.ascontiguousarray(content)).cast("B")
    entry = zipfile.ZipInfo(name)
    entry.file_size = len(data)
    begin = archive.fp.tell() + 30 + len(name) + 4  # type: ignore[union-attr]
    padding = -begin % ALIGNMENT
    entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(entry, "w") as file:
        file.write(data)


@contextmanager
def _lightning() -> Iterator[type]:
    """The class that the files name, for as long as they are written."""
    names = ["pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint"]
    modules = {name: types.ModuleType(name) for name in names}
    callback = type("ModelCheckpoint", (), {"__module__": names[-1]})
    modules[names[-1]].ModelCheckpoint = callback  # type: ignore[attr-defined]
    sys.modules.update(modules)
    try:
        yield callback
    finally:
        for name in names:
            del sys.modules[name]


if __name__ == "__main__":
    write_full(sys.argv[1], Path(sys.argv[2]))
