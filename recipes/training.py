"""What the trainings of both recipes share: endless data, tasks by their loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.core.settings import Length, Settings
from imagebart.training.config import LoopConfig, StageShape
from imagebart.training.loop import Batch, Task

Trainings = Mapping[str, tuple[type[Settings], Callable[..., object]]]
"""Of each part of a model its training, and the type of its settings."""


@dataclass(frozen=True)
class Series(Dataset[dict[str, Any]]):
    """Items without end: a number is always the same item, and nothing is stored."""

    item: Callable[[int], dict[str, Any]]

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.item(number)


def pixels_first(image: np.ndarray) -> Tensor:
    """An image [H, W, C] as [C, H, W]."""
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


@dataclass
class LossTask(Task):
    """A network, its data, and its loss: scalars to log, of which the one named `loss` is minimized."""

    model: nn.Module
    dataset: Dataset[Any]
    losses: Callable[[nn.Module, Batch], dict[str, Tensor]]

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        return self.losses(model, batch)


class CaptionsRun(Settings):
    """`python -m recipes.NAME train captions --config FILE`."""

    loop: LoopConfig
    shape: StageShape = StageShape()  # of the networks that will use it
    text_length: Length = 77  # conditioning tokens a caption
