"""Training a stage: p(x_{t-1} | x_t) on the tokens of a frozen first stage (ImageBART, section 3.2 and eq. 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.conditioning import Conditioner
from imagebart.diffusion import Schedule, add_uniform_noise, diffuse, posterior
from imagebart.models.stages import Stage, StageConfig, build_stage
from imagebart.models.text_encoder import TextEncoderConfig
from imagebart.models.vqgan import FirstStage, FirstStageConfig
from imagebart.sampling.packed_linear import pack
from imagebart.sampling.sampler import row_generators, run_chain, uniform_tokens
from imagebart.sampling.steps import Condition, StageStep
from imagebart.settings import SamplingSettings
from imagebart.training.codebook_embedding import add_codebook_embedding, merge_codebook_embedding, token_tables
from imagebart.training.config import StageRun
from imagebart.training.data import grid
from imagebart.training.loop import Batch, Task, train
from imagebart.training.token_task import FOLDERS, DataSource, TokensTask, TokenTaskInputs, before_pictures
from imagebart.weights.folder import Part, load_part, save_part

Predicts = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # x_{t-1}, x_t and conditioning tokens to logits


def stage_loss(logits: Tensor, x0: Tensor, x: Tensor, c: Tensor, t: int, schedule: Schedule, soft: bool) -> Tensor:
    """Mean negative log-likelihood a token of x_{t-1}: logits [B, N, K], tokens [B, N].

    soft: the expectation over the posterior q(x_{t-1} | x_t, x_0) in place of the one x = x_{t-1} drawn from it,
    which has the same mean and less noise. At t = 1 the two are the same.
    """
    if t == 1 or not soft:
        return F.cross_entropy(logits.flatten(0, 1), x.flatten())
    target = posterior(c, x0, t, schedule, logits.shape[-1])
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def scrambled(x: Tensor, share: float, vocab_size: int) -> Tensor:
    """Tokens [B, N] of which some rows, a share, have some of their tokens redrawn: any part of them, row by row.

    Once a mouth has begun, the rest of it follows from its first token: a caption's word for it is needed once in 256
    tokens. Where the tokens before cannot be trusted, it is needed at each.
    """
    rates = torch.rand(len(x), 1, device=x.device) * (torch.rand(len(x), 1, device=x.device) < share)
    return add_uniform_noise(x, rates, vocab_size)


class StageTask(TokensTask[StageRun]):
    """One stage on images and captions: encode, diffuse to t - 1 and t, predict the step back."""

    def __init__(
        self,
        stage: Stage,
        schedule: Schedule,
        conditioner: Conditioner,
        first_stage: FirstStage,
        dataset: Dataset[Any],
        run: StageRun,
    ) -> None:
        super().__init__(stage, conditioner, first_stage, dataset, run)
        self.t, self.schedule = stage.config.t, schedule

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        return self.loss_of(model, self.encode(batch["image"]), batch["text"])

    def loss_of(self, model: Predicts, x0: Tensor, texts: list[str]) -> dict[str, Tensor]:
        """The same of pictures' tokens, int64 [B, N], and their captions."""
        x = diffuse(x0, self.t - 1, self.schedule, self.vocab_size)
        c = add_uniform_noise(x, self.schedule.betas[self.t - 1], self.vocab_size)
        seen = scrambled(x, self.run.decoder_corruption, self.vocab_size)
        logits = model(seen, c, self.told(texts, x0.device)).float()
        loss = stage_loss(logits, x0, x, c, self.t, self.schedule, self.run.soft)
        return {"loss": loss, "accuracy": (logits.argmax(-1) == x0).float().mean()}

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """A coarsest stage: pictures of x_{t-1} drawn for 12 captions. Others: x_t above the draw from it."""
        device = next(model.parameters()).device
        x0, cond = self.last(device)
        generators = row_generators(0, len(x0))
        noise = uniform_tokens(x0.shape[1], self.vocab_size, generators).to(device)
        stay = torch.rand(x0.shape, generator=generators[0]).to(device) < self.schedule.alphacum(self.t)
        start = torch.where(stay, x0, noise)
        last = start
        noise_level = torch.ones(start.shape, device=device)
        assert isinstance(model, Stage)
        step = StageStep(model)  # a chain of its own
        packed_model = pack("exact", *step.networks)
        settings = SamplingSettings()
        for event in run_chain(
            [step], lambda _: packed_model, start, noise_level, Condition(cond, None), settings, generators
        ):
            last = event.tokens
        return grid(self.first_stage.decode(torch.cat([x0, start, last])), columns=len(x0))


def stage_config(
    run: StageRun,
    t: int,
    schedule: Schedule,
    first_stage: FirstStageConfig,
    conditioner: Conditioner,
    text: TextEncoderConfig | None,
) -> StageConfig:
    """Shapes: decoder-only at t = T, `run.kind` below. text: reads prompts; None for other conditioning tokens."""
    codes, tokens, coarsest = first_stage.vocab_size, first_stage.tokens, t == schedule.stages
    prefix, others = before_pictures(conditioner, text)
    vocabulary, positions = codes + others, 1 + prefix + tokens
    return StageConfig(
        kind="decoder_only" if coarsest else run.kind,
        t=t,
        vocab_size=codes,
        tokens=tokens,
        beta=schedule.betas[t - 1],
        decoder=run.shape.decoder(vocabulary, positions if coarsest else tokens, codes, cross=not coarsest),
        encoder=None if coarsest else run.shape.encoder(vocabulary, positions),
        cond_length=conditioner.length,
        cond_offset=codes,
        text=text,
    )


def stage_tasks(run: StageRun, times: Sequence[int], source: DataSource = FOLDERS) -> list[StageTask]:
    """Fresh stages for these t, each with the data and the frozen first stage that it is to be trained on."""
    given, schedule, tasks = TokenTaskInputs.of(run, source), Schedule(run.betas), []
    for t in times:
        config = stage_config(run, t, schedule, given.first_stage.config, given.conditioner, given.text)
        stage = build_stage(config, schedule.stages)
        if run.init_from is not None:
            stage.load_state_dict(load_part(Path(run.init_from), Stage).module.state_dict())
        given.take_reader(stage)
        add_codebook_embedding(token_tables(stage), given.first_stage.quantize.codes().detach())
        tasks.append(StageTask(stage, schedule, given.conditioner, given.first_stage, given.dataset, run))
    return tasks


def train_stage(run: StageRun, folder: Path, source: DataSource = FOLDERS) -> Stage:
    """Trains (or goes on training) the stage `run.t` in a run's folder and writes it there."""
    if run.t is None:
        raise ValueError("t is unconditional, which trains all stages jointly; expected the number of one")
    (task,) = stage_tasks(run, [run.t], source)
    trained = train(task, run.loop, folder)
    assert isinstance(trained, Stage)
    merge_codebook_embedding(trained)
    save_part(Part(trained, task.conditioner, task.schedule), folder)
    return trained


# Training all stages of a schedule at once, as the original's joint configuration for FFHQ does.
#
# Each step noises the same pictures for every t; the loss is the mean of the stages' (the bound of ImageBART, eq. 6,
# has
# their sum). Stages share no weights, so that each learns what it would alone; what is shared is the pictures' way to
# tokens, one learning rate, and one checkpoint to go on from.


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


def train_stages(run: StageRun, folder: Path, source: DataSource = FOLDERS) -> list[Stage]:
    """Trains (or goes on training) all stages in a run's folder, and writes them to its folders stage1, stage2, ..."""
    tasks = stage_tasks(run, range(1, len(run.betas) + 1), source)
    trained = train(JointTask(tasks), run.loop, folder)
    assert isinstance(trained, Stages)
    merge_codebook_embedding(trained)
    stages = []
    for task, stage in zip(tasks, trained.stages, strict=True):
        assert isinstance(stage, Stage)
        save_part(Part(stage, task.conditioner, task.schedule), folder / f"stage{task.t}")
        stages.append(stage)
    return stages
