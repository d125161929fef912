"""Training the reader on fresh renders, blurred and shifted as a first stage may leave a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.avatars.artwork import render
from imagebart.avatars.attributes import VALUES, Attributes
from imagebart.avatars.dataset import sample
from imagebart.avatars.reader import SIZE, Reader, ReaderConfig, save_reader
from imagebart.training.config import LoopConfig
from imagebart.training.data import grid
from imagebart.training.loop import Batch, Task, train
from imagebart.training.vqgan import to_float

HIDDEN = -100  # the label of an attribute that a picture does not show: no loss


@dataclass(frozen=True)
class Wear:
    """How pictures are worn before the reader sees them; each kind on half of the pictures."""

    blur: float = 1.5  # largest standard deviation of the Gaussian, in pixels
    noise: float = 0.06  # largest standard deviation, of the range -1 to 1
    colour: float = 0.06  # largest shift and stretch of a channel
    blocks: float = 0.5  # coarsest step to which 8 x 8 cosine coefficients are rounded, as JPEG does


@dataclass(frozen=True)
class ReaderRun:
    """`python -m imagebart train reader --config FILE`."""

    loop: LoopConfig
    model: ReaderConfig = field(default_factory=ReaderConfig)
    wear: Wear = field(default_factory=Wear)
    seed: int = 7001  # of the series of avatars; no other part of the project draws from it


@dataclass(frozen=True)
class LabelledAvatars(Dataset[dict[str, Tensor]]):
    """Avatars of all combinations. Items: image uint8 [3, SIZE, SIZE]; labels int64 [14], `HIDDEN` where unseen."""

    seed: int
    length: int = 10**9

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        attributes = sample(index, self.seed, "all")
        image = torch.from_numpy(render(attributes, SIZE)).permute(2, 0, 1).contiguous()
        return {"image": image, "labels": labels(attributes)}


def labels(attributes: Attributes) -> Tensor:
    """The number of each attribute's value, int64 [14] in the order of `VALUES`; `HIDDEN` where it does not show."""
    shown = attributes.visible()
    values = attributes.as_dict()
    numbers = [VALUES[name].index(values[name]) if name in shown else HIDDEN for name in VALUES]
    return torch.tensor(numbers)


def worn(images: Tensor, wear: Wear) -> Tensor:
    """Images [B, 3, H, W] in [-1, 1] with blur, block artefacts, colour shifts and noise, each on half of them."""
    batch = len(images)

    def strength(largest: float) -> Tensor:
        return torch.rand(batch, 1, 1, 1) * largest * (torch.rand(batch, 1, 1, 1) < 0.5)

    images = _blurred(images, strength(wear.blur))
    images = _rounded_in_blocks(images, strength(wear.blocks))
    stretch = 1 + (torch.rand(batch, 3, 1, 1) * 2 - 1) * strength(wear.colour)
    shift = (torch.rand(batch, 3, 1, 1) * 2 - 1) * strength(wear.colour)
    return images * stretch + shift + torch.randn_like(images) * strength(wear.noise)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, a standard deviation [B, 1, 1, 1] an image."""
    radius = 4
    x = torch.arange(-radius, radius + 1.0)
    kernel = torch.exp(-0.5 * (x / sigma.clamp_min(1e-3).flatten()[:, None]) ** 2)  # [B, 9]
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    padded = F.pad(images, (radius,) * 4, mode="replicate").flatten(0, 1)[None]
    rows = F.conv2d(padded, kernel[:, None, None, :], groups=len(kernel))
    return F.conv2d(rows, kernel[:, None, :, None], groups=len(kernel)).reshape(images.shape)


def _rounded_in_blocks(images: Tensor, step: Tensor) -> Tensor:
    """Cosine coefficients of 8 x 8 blocks rounded to multiples of a step [B, 1, 1, 1]; 0 leaves an image alone."""
    n = np.arange(8)
    cosine = np.cos(math.pi * (2 * n[None] + 1) * n[:, None] / 16) * np.where(n[:, None] == 0, 1, math.sqrt(2)) / 8**0.5
    matrix = torch.from_numpy(cosine.astype(np.float32))
    batch, channels, height, width = images.shape
    blocks = images.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)  # [B, 3, H/8, W/8, 8, 8]
    coefficients = matrix @ blocks @ matrix.T
    size = step[..., None, None].clamp_min(1e-6)
    blocks = matrix.T @ ((coefficients / size).round() * size) @ matrix
    return torch.where(step > 0, blocks.transpose(3, 4).reshape(images.shape), images)


class ReaderTask(Task):
    """Cross-entropy of every attribute that shows."""

    def __init__(self, model: Reader, dataset: LabelledAvatars, wear: Wear) -> None:
        self.model: nn.Module = model
        self.dataset: Dataset[Any] = dataset
        self.wear = wear

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        truth = batch["labels"]
        answers = model(worn(to_float(batch["image"]), self.wear))
        losses = [
            F.cross_entropy(logits, truth[:, i], ignore_index=HIDDEN, reduction="sum")
            for i, logits in enumerate(answers.values())
        ]
        shown = truth != HIDDEN
        right = torch.stack([logits.argmax(1) for logits in answers.values()], 1) == truth
        return {"loss": torch.stack(losses).sum() / shown.sum(), "accuracy": right[shown].float().mean()}

    def sample(self, model: nn.Module) -> Image.Image:
        """Pictures above what wear makes of them."""
        images = to_float(torch.stack([self.dataset[i]["image"] for i in range(8)]))
        return grid(torch.cat([images, worn(images, self.wear)]), columns=8)


def train_reader(run: ReaderRun, folder: Path) -> Reader:
    """Trains (or goes on training) a reader in a run's folder and writes it there as `reader.safetensors`."""
    torch.manual_seed(run.loop.seed)
    model = Reader(run.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = train(ReaderTask(model, LabelledAvatars(run.seed), run.wear), run.loop, folder)
    assert isinstance(trained, Reader)
    save_reader(trained, folder / "reader.safetensors")
    return trained
