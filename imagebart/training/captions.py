"""Training the lower half of a decoder to say what captions claim, before it sees any picture.

A caption alone is a quarter of the positions and half of the layers, so that words cost a tenth of what they cost
beside pictures. A stage that begins from this reads from its first step on (see `imagebart.training.reading`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.avatars.artwork import render
from imagebart.avatars.attributes import VALUES, Attributes
from imagebart.avatars.dataset import AvatarDataset, caption, claims_vector, sample
from imagebart.conditioning import Conditioner
from imagebart.diffusion import Schedule
from imagebart.stage import Stage, build_stage
from imagebart.training.config import CaptionsRun
from imagebart.training.data import grid
from imagebart.training.first_stage import to_float
from imagebart.training.loop import Batch, train
from imagebart.training.parts import save_stage
from imagebart.training.reading import ReadingStage, reading_accuracy, reading_loss, save_head
from imagebart.training.stages import avatar_conditioner, stage_config

CLEAN = Schedule((1.0,))  # the decoder is that of a model of clean tokens
SHOWN, SIZE = 12, 128  # captions that are shown as what was read from them


class CaptionDataset(Dataset[dict[str, Tensor | str]]):
    """Captions of avatars by number, and what they claim: text, claims (see `claims_vector`)."""

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        said = caption(index)
        return {"text": said.text, "claims": claims_vector(said.claims)}


class CaptionReader(nn.Module):
    """A reading stage that is shown captions only: [B, cond_length] -> logits [B, sum(groups)]."""

    def __init__(self, stage: ReadingStage) -> None:
        super().__init__()
        self.reading = stage

    def forward(self, cond: Tensor) -> Tensor:
        return self.reading.read(cond)


class CaptionsTask:
    """Read what captions claim."""

    groups = AvatarDataset.claim_groups

    def __init__(self, stage: Stage, conditioner: Conditioner) -> None:
        self.model: nn.Module = CaptionReader(ReadingStage(stage, self.groups))
        self.dataset: Dataset[Any] = CaptionDataset()
        self.conditioner = conditioner

    def loss(self, model: nn.Module, batch: Batch, accelerator: Any) -> dict[str, Tensor]:
        readings = model(self.conditioner.encode(batch["text"]).tokens.to(batch["claims"].device))
        loss = reading_loss(readings, batch["claims"], self.groups)
        return {"loss": loss, "read": reading_accuracy(readings, batch["claims"], self.groups)}

    def after_step(self, model: nn.Module, accelerator: Any) -> None:
        """Nothing but gradients moves a stage."""

    def state(self) -> list[Any]:
        return []

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Avatars above what is read from captions of them."""
        numbers = range(len(self.dataset) - SHOWN, len(self.dataset))  # type: ignore[arg-type]
        texts = [caption(number).text for number in numbers]
        device = next(model.parameters()).device
        readings = model(self.conditioner.encode(texts).tokens.to(device)).cpu()
        read = [_likeliest(row) for row in readings]
        pictures = [render(a, SIZE) for a in (*(sample(number) for number in numbers), *read)]
        return grid(to_float(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)), columns=SHOWN)


def _likeliest(readings: Tensor) -> Attributes:
    """The avatar whose every value is the likeliest: logits [sum(groups)]."""
    parts = readings.split(list(CaptionsTask.groups))
    chosen = {name: values[int(part.argmax())] for (name, values), part in zip(VALUES.items(), parts, strict=True)}
    return Attributes(**chosen)


def train_captions(run: CaptionsRun, folder: Path) -> Stage:
    """Trains (or goes on training) a decoder to read in a run's folder; writes it there, as a stage of clean tokens."""
    conditioner = avatar_conditioner(run.text_length)
    torch.manual_seed(run.loop.seed)
    stage = build_stage(stage_config(run.shape, 1, CLEAN, run.vocab_size, run.tokens, conditioner), CLEAN.stages)
    trained = train(CaptionsTask(stage, conditioner), run.loop, folder)
    assert isinstance(trained, CaptionReader)
    save_stage(trained.reading.stage, CLEAN, conditioner, folder)
    save_head(trained.reading, folder)
    return trained.reading.stage
