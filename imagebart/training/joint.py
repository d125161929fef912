"""Training all stages of a schedule at once, as the original's joint configuration for FFHQ does.

Each step noises the same pictures for every t; the loss is the mean of the stages' (the bound of ImageBART, eq. 6, has
their sum). Stages share no weights, so that each learns what it would alone; what is shared is the pictures' way to
tokens, one learning rate, and one checkpoint to go on from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from imagebart.models.published import Stage
from imagebart.training.alike import as_table
from imagebart.training.config import StageRun
from imagebart.training.loop import Batch, Task, train
from imagebart.training.parts import save_stage
from imagebart.training.stages import StageTask, stage_tasks


class Stages(nn.Module):
    """Stages 1 ... T as one network: `forward` is told which of them is asked."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, index: int, x: Tensor, c: Tensor, cond: Tensor | None) -> Tensor:
        """Logits [B, N, K] of stage index + 1; x, c, cond as it takes them."""
        return self.stages[index](x, c, cond)


class JointTask(Task):
    """All stages on the same pictures and captions."""

    def __init__(self, tasks: Sequence[StageTask]) -> None:
        self.tasks = tasks
        self.model: nn.Module = Stages([task.model for task in tasks])
        self.dataset = tasks[0].dataset

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        """The mean of the stages' losses, and each one."""
        x0 = self.tasks[0].encode(batch["image"])
        losses = {
            f"stage{task.t}": task.loss_of(partial(model, index), x0, batch["text"])["loss"]
            for index, task in enumerate(self.tasks)
        }
        return {"loss": torch.stack(list(losses.values())).mean(), **losses}

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """What each stage would show of itself, stage 1 on top."""
        assert isinstance(model, Stages)
        grids = [task.sample(stage) for task, stage in zip(self.tasks, model.stages, strict=True)]
        return Image.fromarray(np.vstack([np.asarray(part) for part in grids]))


def train_stages(run: StageRun, folder: Path) -> list[Stage]:
    """Trains (or goes on training) all stages in a run's folder, and writes them to its folders stage1, stage2, ..."""
    tasks = stage_tasks(run, range(1, len(run.betas) + 1))
    trained = train(JointTask(tasks), run.loop, folder)
    assert isinstance(trained, Stages)
    as_table(trained)
    stages = []
    for task, stage in zip(tasks, trained.stages, strict=True):
        assert isinstance(stage, Stage)
        save_stage(stage, task.schedule, task.conditioner, folder / f"stage{task.t}")
        stages.append(stage)
    return stages
