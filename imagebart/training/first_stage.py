"""Training a first stage: reconstruct images through a codebook kept by moving averages.

The codebook follows van den Oord et al., Neural Discrete Representation Learning (2017), appendix A.1, on the unit
sphere where the model says so. The reconstruction loss is pixels plus their differences on three scales, which
keeps edges without a discriminator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.first_stage import FirstStage, Quantizer
from imagebart.training.config import FirstStageLoss, FirstStageRun
from imagebart.training.data import dataset_for, grid, pixel_weight
from imagebart.training.loop import Batch, train
from imagebart.training.parts import load_first_stage, save_first_stage


class CodebookAverages(nn.Module):
    """Moving averages of the latents that each code received; the codes are their means."""

    count: Tensor
    total: Tensor

    def __init__(self, quantizer: Quantizer, decay: float, dead_after: float) -> None:
        super().__init__()
        self.decay, self.dead_after = decay, dead_after
        # Nothing counted yet: codes that the first batch does not use are taken from it.
        self.register_buffer("count", torch.zeros(quantizer.embedding.num_embeddings))
        self.register_buffer("total", torch.zeros_like(quantizer.embedding.weight))

    def begin_from(self, quantizer: Quantizer) -> None:
        """Counts every code of a trained quantiser once, so that the first batch does not take its place."""
        self.count.fill_(1.0)
        self.total.copy_(quantizer.project(quantizer.embedding.weight.detach()))

    @torch.no_grad()
    def update(self, quantizer: Quantizer, z: Tensor, tokens: Tensor, accelerator: Accelerator) -> None:
        """Latents [M, d] and their tokens [M] of one step, on every process."""
        one_hot = F.one_hot(tokens, len(self.count)).to(z.dtype)
        count = accelerator.reduce(one_hot.sum(0), "sum")
        total = accelerator.reduce(one_hot.T @ z, "sum")
        self.count.lerp_(count, 1 - self.decay)
        self.total.lerp_(total, 1 - self.decay)
        least = self.dead_after * self.count.mean()
        dead = self.count < least
        if dead.any():
            # Where codes are far from latents, as k-means++ begins: most cells of a flat picture look the same.
            far = (z - quantizer.lookup(tokens)).square().sum(-1) + 1e-9
            chosen = z[far.multinomial(int(dead.sum()), replacement=True)]
            grace = 2 * least  # a code that stays unused is soon replaced again
            self.total[dead] = grace * accelerator.reduce(chosen, "mean")
            self.count[dead] = grace
        quantizer.embedding.weight.copy_(quantizer.project(self.total / self.count.clamp_min(1e-9)[:, None]))


def gradient_loss(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Mean weighted difference of horizontal and vertical differences on three scales. x, y: [B, 3, H, W]."""
    error, loss = (x - y), x.new_zeros(())
    for _ in range(3):
        dx, dy = error.diff(dim=-1).abs(), error.diff(dim=-2).abs()
        loss = loss + (dx * weight[..., :, 1:]).mean() + (dy * weight[..., 1:, :]).mean()
        error, weight = F.avg_pool2d(error, 2), F.avg_pool2d(weight, 2)
    return loss / 3


class FirstStageTask:
    """Reconstruction with L1 + L2 + edges, and a commitment of latents to their codes."""

    def __init__(self, model: FirstStage, dataset: Dataset[Any], weight: Tensor, loss: FirstStageLoss) -> None:
        self.model: nn.Module = model
        self.dataset, self.config = dataset, loss
        self.weight = weight / weight.mean()  # [H, W], mean 1
        model.quantize.embedding.weight.requires_grad_(False)  # moved by averages, not by gradients
        self.averages = CodebookAverages(model.quantize, loss.codebook_decay, loss.dead_after)
        self.pending: tuple[Tensor, Tensor] | None = None
        self.preview = torch.stack([self.dataset[i]["image"] for i in range(min(12, len(dataset)))])  # type: ignore[arg-type]

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        images = to_float(batch["image"]).to(memory_format=torch.channels_last)
        first: FirstStage = accelerator.unwrap_model(model)
        output, z, tokens = model(images)
        output = output.float()
        weight = self.weight.to(images.device)[None, None]
        error = (output - images) * weight.sqrt()
        l1, l2 = (error.abs() * weight.sqrt()).mean(), error.square().mean()
        edges = gradient_loss(output, images, weight)
        projected = first.quantize.project(z.float())
        commitment = (projected - first.quantize.lookup(tokens).detach()).square().sum(-1).mean()
        self.pending = (projected.detach().flatten(0, -2), tokens.flatten())
        used = tokens.unique().numel() / first.config.vocab_size
        psnr = -10 * ((output.detach() - images).square().mean() / 4).log10()
        total = l1 + l2 + self.config.gradient * edges + self.config.commitment * commitment
        return {
            "loss": total,
            "l1": l1,
            "edges": edges,
            "commitment": commitment,
            "psnr": psnr,
            "used": torch.tensor(used),
        }

    def after_step(self, model: nn.Module, accelerator: Accelerator) -> None:
        if self.pending is not None:
            self.averages.to(self.pending[0].device)
            self.averages.update(model.quantize, *self.pending, accelerator)  # type: ignore[arg-type]
            self.pending = None

    def state(self) -> list[Any]:
        return [self.averages]

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Images above their reconstructions."""
        images = to_float(self.preview).to(next(model.parameters()).device)
        return grid(torch.cat([images, model.decode(model.encode(images))]), columns=len(images))  # type: ignore[operator]


class DecoderTask(FirstStageTask):
    """Reconstruction by the decoder alone: pictures become the same tokens as before."""

    def __init__(self, model: FirstStage, dataset: Dataset[Any], weight: Tensor, loss: FirstStageLoss) -> None:
        super().__init__(model, dataset, weight, loss)
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)

    def after_step(self, model: nn.Module, accelerator: Accelerator) -> None:
        """Codes stay."""


def to_float(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] -> float in [-1, 1]."""
    return images.float() / 127.5 - 1


def train_first_stage(run: FirstStageRun, folder: Path) -> FirstStage:
    """Trains (or goes on training) a first stage in a run's folder; returns it with averaged weights."""
    model = FirstStage(run.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if run.begin_from is not None:
        other = load_first_stage(Path(run.begin_from))
        if other.config != run.model:
            raise ValueError(f"{run.begin_from} was made as {other.config}, expected {run.model}")
        model.load_state_dict(other.state_dict())
    weight = pixel_weight(run.data, run.model.resolution, run.loss.face)
    kind = DecoderTask if run.decoder_only else FirstStageTask
    task = kind(model, dataset_for(run.data, run.model.resolution), weight, run.loss)
    if run.begin_from is not None:
        task.averages.begin_from(model.quantize)
    trained = train(task, run.loop, folder)
    assert isinstance(trained, FirstStage)
    save_first_stage(trained, folder)
    return trained
