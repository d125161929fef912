"""Training the published kinds of stages: p(x_{t-1} | x_t) on the tokens of a frozen first stage (ImageBART).

One stage, or all of a schedule side by side: the loss is then the mean of the stages' (the bound has their sum). They
share no weights, so that each learns what it would alone. The original's joint configuration is another network: one
transformer for all steps, which a token tells the step.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from imagebart.core.errors import InputError
from imagebart.model import ImageBART
from imagebart.models.denoiser import Stage, StageConfig
from imagebart.models.diffusion import Schedule, add_uniform_noise, posterior
from imagebart.training.config import StageRun
from imagebart.training.data import grid
from imagebart.training.loop import Batch
from imagebart.training.token_task import Data, TokensTask, TokenTaskInputs, prefix_size, token_tables, train_network
from imagebart.weights.folder import load_networks

SHOWN = 12  # images in a grid


class Stages(nn.Module):
    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages: Any = nn.ModuleList(stages)
        self.times = [stage.config.t for stage in stages]

    def forward(self, index: int, x_s: Tensor, x_t: Tensor, cond: Tensor | None) -> Tensor:
        return self.stages[index](x_s, x_t, cond)


class StagesTask(TokensTask[StageRun]):
    """Stages on images and captions: encode, diffuse to t - 1 and t, predict the step back."""

    model: Stages

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        x0, schedule = self.tokens(batch), Schedule(self.run.betas)
        losses, accuracies = {}, []
        for index, t in enumerate(self.model.times):
            x_s = add_uniform_noise(x0, 1 - schedule.alphacum(t - 1), self.vocab_size)
            x_t = add_uniform_noise(x_s, schedule.betas[t - 1], self.vocab_size)
            noise, chance = torch.rand(2, len(x0), 1, device=x0.device)  # see `DenoiserTask.corrupted`
            noisy = add_uniform_noise(x_s, noise * (chance < self.run.decoder_corruption), self.vocab_size)
            logits = model(index, noisy, x_t, self.cond_tokens(batch, x0.device)).float()
            losses[f"stage{t}"] = stage_loss(logits, x0, x_s, x_t, t, schedule)
            accuracies.append((logits.argmax(-1) == x0).float().mean())
        scalars = {"loss": torch.stack(list(losses.values())).mean(), "accuracy": torch.stack(accuracies).mean()}
        return scalars | (losses if len(losses) > 1 else {})

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Of each stage: images, their x_t, and each token's likeliest value given those before."""
        assert isinstance(model, Stages)
        x0, texts = self.examples(SHOWN, next(model.parameters()).device)
        cond, schedule, rows = self.condition_on(texts), Schedule(self.run.betas), []
        for index, t in enumerate(model.times):
            x_s = add_uniform_noise(x0, 1 - schedule.alphacum(t - 1), self.vocab_size)
            x_t = add_uniform_noise(x_s, schedule.betas[t - 1], self.vocab_size)
            rows += [x0, x_t, model(index, x_s, x_t, None if cond is None else cond.to(x0.device)).argmax(-1)]
        return grid(self.first_stage.decode(torch.cat(rows)), columns=len(x0))


def stage_loss(logits: Tensor, x0: Tensor, x_s: Tensor, x_t: Tensor, t: int, schedule: Schedule) -> Tensor:
    """Mean negative log-likelihood a token of x_s = x_{t-1}: logits [B, N, K], tokens [B, N].

    Before t = 1 its expectation over the posterior q(x_{t-1} | x_t, x_0), which has the same mean and less variance.
    """
    if t == 1:
        return F.cross_entropy(logits.flatten(0, 1), x_s.flatten())
    target = posterior(x_t, x0, t, schedule, logits.shape[-1])
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def stage_config(run: StageRun, t: int, schedule: Schedule, inputs: TokenTaskInputs) -> StageConfig:
    """Shapes: decoder-only at t = T, `run.kind` below."""
    first_stage, coarsest = inputs.first_stage.config, t == schedule.stages
    codes, tokens = first_stage.vocab_size, first_stage.tokens
    prefix, others = prefix_size(inputs.conditioner, inputs.text)
    vocabulary, positions = codes + others, 1 + prefix + tokens
    return StageConfig(
        kind="decoder_only" if coarsest else run.kind,
        t=t,
        vocab_size=codes,
        tokens=tokens,
        beta=schedule.betas[t - 1],
        decoder=run.shape.decoder(vocabulary, positions if coarsest else tokens, codes, cross=not coarsest),
        encoder=None if coarsest else run.shape.encoder(vocabulary, positions),
        cond_length=inputs.conditioner.length,
        cond_offset=codes,
        text=inputs.text,
    )


def train_stages(run: StageRun, folder: Path, data: Data | None = None) -> ImageBART:
    """Trains (or resumes) the stage `run.t`, or all, in a run's folder; writes a model there, maybe incomplete."""
    inputs, schedule, stages = TokenTaskInputs.of(run, folder, data), Schedule(run.betas), []
    initial: dict[int, Stage] = {}
    if run.init_from is not None:
        initial = {stage.config.t: stage for stage in load_networks(Path(run.init_from), cls=ImageBART).stages}
    for t in range(1, schedule.stages + 1) if run.t is None else [run.t]:
        stage = Stage(stage_config(run, t, schedule, inputs), schedule.stages)
        if run.init_from is not None:
            if t not in initial:
                raise InputError(f"{run.init_from} has no stage {t} to start from.")
            stage.load_state_dict(initial[t].state_dict())
        inputs.freeze_text_encoder(stage)
        stages.append(stage)
    task = StagesTask(Stages(stages), inputs.conditioner, inputs.first_stage, inputs.dataset, run)
    trained: Stages = train_network(task, chain(*map(token_tables, stages)), folder)
    model = ImageBART(task.first_stage, list(trained.stages), task.conditioner, schedule=schedule)
    model.save_pretrained(folder)
    return model
