"""What `list` says of the published models: sizes, reckoned from their shapes, and what a picture takes here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from imagebart.models.first_stage import FirstStage
from imagebart.models.published import build_stage
from imagebart.weights.places import places
from imagebart.weights.registry import MODELS, PublishedModel
from imagebart.writing import readable

TOKENS = 256  # of a picture of theirs
PROBE = (4608, 1152, 12)  # layers of a size like theirs, more than a cache holds: rows, columns, how many
COPIES = 2  # of each number of a stage that its checkpoint holds: as trained, and averaged


@dataclass(frozen=True)
class Row:
    """A model. Sizes and times are about right: they follow from its shapes."""

    name: str
    draws: str
    stages: int
    download: str
    memory: str  # while drawing
    picture: str  # time for a whole one on this machine
    where: str  # it is, if it is here


@dataclass(frozen=True)
class Sizes:
    """Of a model: its stages' parameters, about how many bytes its checkpoints have, and what a picture reads."""

    numbers: int
    download: int
    read: int  # parameters, each as often as it is read


def sizes(model: PublishedModel) -> Sizes:
    """Reckoned from the shapes of its tensors."""
    with torch.device("meta"):
        configs = [model.description(t).stage_config(t, 0.5, 0) for t in range(1, model.stages + 1)]
        stages = [build_stage(config, model.stages) for config in configs]
        first_stage = _numbers(FirstStage(model.description(1).first_stage))  # which each checkpoint has
    numbers = sum(_numbers(stage) for stage in stages)
    # A token a pass, which reads all of a decoder; drafts make it fewer.
    read = sum(TOKENS * _numbers(stage.decoder) + _numbers(stage) for stage in stages)
    return Sizes(numbers, 4 * (COPIES * numbers + model.stages * first_stage), read)


def overview() -> Iterator[Row]:
    """All published models, in the registry's order."""
    speed = numbers_a_second()
    for model in MODELS.values():
        size = sizes(model)
        here = next((str(place) for place in places(model.name) if place.is_dir()), "not here")
        yield Row(
            model.name,
            model.knows,
            model.stages,
            f"about {readable(size.download)}",
            readable(4 * size.numbers),
            f"at most {_duration(size.read / speed)}",
            here,
        )


def numbers_a_second() -> float:
    """How many weights a second go through a product with one vector on this machine."""
    rows, columns, layers = PROBE
    weights = [torch.rand(rows, columns) for _ in range(layers)]
    x = torch.rand(1, columns)
    best = 0.0
    for _ in range(4):
        began = time.perf_counter()
        for weight in weights:
            F.linear(x, weight)
        best = max(best, layers * rows * columns / (time.perf_counter() - began))
    return best


def _numbers(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
