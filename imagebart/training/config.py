"""Settings of a training run, read from one JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from imagebart.first_stage import FirstStageConfig

C = TypeVar("C")


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast to train."""

    steps: int
    batch_size: int = 32
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    warmup: int = 150  # steps of linear warm-up
    final_lr: float = 0.05  # where the cosine ends, as a share of lr
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the averaged weights
    mixed_precision: str = "bf16"  # "no" for fp32
    seed: int = 0
    workers: int = 0  # processes that load data; 0: the training process itself
    log_every: int = 50
    save_every: int = 250
    sample_every: int = 1000


@dataclass(frozen=True)
class FirstStageLoss:
    """Weights of the first stage's loss."""

    gradient: float = 0.5  # edges, on three scales
    commitment: float = 0.25  # latents towards their codes
    face: float = 2.5  # weight of the face region in avatars; 1 elsewhere
    codebook_decay: float = 0.99  # of the moving averages that are the codes
    dead_after: float = 0.1  # a code used less often than this share of the mean is replaced


@dataclass(frozen=True)
class FirstStageRun:
    """`python -m imagebart train first-stage --config FILE`."""

    data: str  # "avatars", or a folder in imagefolder layout
    model: FirstStageConfig
    loop: LoopConfig
    loss: FirstStageLoss = field(default_factory=FirstStageLoss)


def from_dict(cls: type[C], values: dict[str, Any], where: str = "") -> C:
    """Builds a (nested) dataclass; raises ValueError naming a key that is unknown, missing or of a wrong kind."""
    if not isinstance(values, dict):
        raise ValueError(f"{where or cls.__name__} is {values!r}, expected an object with named settings")
    hints = get_type_hints(cls)
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown setting {where + unknown[0]!r}; known ones: {', '.join(sorted(known))}")
    built = {}
    for name, value in values.items():
        if is_dataclass(hints[name]):
            value = from_dict(hints[name], value, f"{where}{name}.")  # type: ignore[arg-type]
        built[name] = tuple(value) if isinstance(value, list) else value
    try:
        return cls(**built)
    except TypeError as error:
        raise ValueError(f"{where or cls.__name__}: {error}") from error


def load(cls: type[C], path: Path) -> C:
    """Reads a run's settings from a JSON file."""
    try:
        values = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot read the configuration {path}: {error}") from error
    return from_dict(cls, values)
