"""Training a stage: p(x_{t-1} | x_t) on the tokens of a frozen first stage (ImageBART, section 3.2 and eq. 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.conditioning import ClassConditioner, Conditioner, NoConditioner, TextConditioner
from imagebart.diffusion import Schedule, diffuse, posterior, redraw
from imagebart.models.first_stage import FirstStage
from imagebart.models.published import Stage, StageConfig, build_stage
from imagebart.models.text_encoder import TextEncoder, TextEncoderConfig
from imagebart.models.transformer import TransformerConfig
from imagebart.sampling.chain import row_generators, run_chain, uniform_tokens
from imagebart.sampling.engine import engine_of
from imagebart.sampling.step_run import Condition
from imagebart.sampling.steps import StageStep
from imagebart.settings import SamplingSettings
from imagebart.training.config import DenoiserRun, StageRun, StageShape
from imagebart.training.data import ImageFolder, dataset_for, grid
from imagebart.training.first_stage import to_float
from imagebart.training.loop import Batch, Task, train
from imagebart.training.parts import load_first_stage, load_stage, read_text_encoder, save_stage

Predicts = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # x_{t-1}, x_t and conditioning tokens to logits


def stage_loss(
    logits: Tensor, x0: Tensor, x: Tensor, c: Tensor, t: int, schedule: Schedule, soft: bool
) -> Tensor:
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
    return redraw(x, rates, vocab_size)


class StageTask(Task):
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
        self.model: nn.Module = stage
        self.t, self.schedule, self.conditioner = stage.config.t, schedule, conditioner
        self.first_stage, self.dataset, self.run = first_stage, dataset, run
        self.vocab_size = first_stage.config.vocab_size

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        return self.loss_of(model, self.encode(batch["image"]), batch["text"])

    def loss_of(self, model: Predicts, x0: Tensor, texts: list[str]) -> dict[str, Tensor]:
        """The same of pictures' tokens, int64 [B, N], and their captions."""
        x = diffuse(x0, self.t - 1, self.schedule, self.vocab_size)
        c = redraw(x, self.schedule.betas[self.t - 1], self.vocab_size)
        seen = scrambled(x, self.run.scramble, self.vocab_size)
        logits = model(seen, c, self.condition(texts, x0.device)).float()
        loss = stage_loss(logits, x0, x, c, self.t, self.schedule, self.run.soft)
        return {"loss": loss, "accuracy": (logits.argmax(-1) == x0).float().mean()}

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 images -> tokens, by the frozen first stage."""
        self.first_stage.to(images.device)
        return self.first_stage.encode(to_float(images).to(memory_format=torch.channels_last))

    def condition(self, texts: list[str], device: torch.device) -> Tensor | None:
        """Conditioning tokens, absent for a share of the captions so that guidance works."""
        if self.conditioner.length == 0:
            return None
        cond = self.conditioner.encode(texts).tokens
        dropped = torch.rand(len(texts)) < self.run.drop
        return torch.where(dropped[:, None], self.conditioner.null(len(texts)), cond).to(device)

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """A coarsest stage: pictures of x_{t-1} drawn for 12 captions. Others: x_t above the draw from it."""
        length = len(self.dataset)  # type: ignore[arg-type]
        items = [self.dataset[i] for i in range(max(length - 12, 0), length)]
        device = next(model.parameters()).device
        x0 = self.encode(torch.stack([item["image"] for item in items]).to(device))
        generators = row_generators(0, len(x0))
        noise = uniform_tokens(x0.shape[1], self.vocab_size, generators).to(device)
        stay = torch.rand(x0.shape, generator=generators[0]).to(device) < self.schedule.alphacum(self.t)
        start = torch.where(stay, x0, noise)
        cond = None
        if self.conditioner.length:
            cond = self.conditioner.encode([item["text"] for item in items]).tokens.to(device)
        last = start
        doubt = torch.ones(start.shape, device=device)
        assert isinstance(model, Stage)
        step = StageStep(model)  # a chain of its own
        engine = engine_of("exact", *step.networks)
        settings = SamplingSettings()
        for event in run_chain([step], lambda _: engine, start, doubt, Condition(cond, None), settings, generators):
            last = event.tokens
        return grid(self.first_stage.decode(torch.cat([x0, start, last])), columns=len(x0))


def conditioner_for(run: StageRun | DenoiserRun, dataset: Dataset[Any]) -> Conditioner:
    """What the captions of a data set need: known words, classes, or nothing."""
    if run.conditioning == "none":
        return NoConditioner()
    if run.data == "avatars":
        if run.conditioning != "text":
            raise ValueError(f"conditioning is {run.conditioning!r}; avatars have captions, expected text or none")
        return avatar_conditioner(run.text_length)
    assert isinstance(dataset, ImageFolder)
    if run.conditioning == "class":
        return ClassConditioner(tuple(sorted(set(dataset.texts))), null_class=True)
    return TextConditioner.from_captions(dataset.texts, run.text_length)


def reader_for(
    run: StageRun | DenoiserRun, dataset: Dataset[Any]
) -> tuple[Conditioner, TextEncoder | None, TextEncoderConfig | None]:
    """What the captions need, and what reads them: a trained encoder with its shape, or the shape of a new one."""
    conditioner = conditioner_for(run, dataset)
    if run.text_from is not None:
        reader, conditioner = read_text_encoder(Path(run.text_from))
        return conditioner, reader, reader.config
    return conditioner, None, text_config(run.shape, conditioner) if conditioner.kind == "text" else None


def avatar_conditioner(length: int) -> TextConditioner:
    """The words of avatars' captions, and what is read in place of what the artwork lacks."""
    from imagebart.avatars.captions import all_words
    from imagebart.avatars.rewordings import rewording

    return TextConditioner.from_captions(all_words(), length, rewording())


def text_config(shape: StageShape, conditioner: Conditioner) -> TextEncoderConfig:
    """A text encoder as deep as the encoder of x_t, of the stage's width."""
    transformer = TransformerConfig(
        shape.width,
        shape.encoder_depth,
        shape.heads,
        conditioner.vocab_size + shape.slots,
        conditioner.length + shape.slots,
        shape.head_size,
        causal=False,
    )
    return TextEncoderConfig(transformer, shape.slots, shape.phrase)


def stage_config(
    run: StageRun,
    t: int,
    schedule: Schedule,
    vocab_size: int,
    tokens: int,
    conditioner: Conditioner,
    text: TextEncoderConfig | None,
) -> StageConfig:
    """Shapes: decoder-only at t = T, `run.kind` below. text: reads prompts; None for other conditioning tokens."""
    shape, coarsest = run.shape, t == schedule.stages
    prefix = text.slots if text is not None else conditioner.length
    vocab_in = vocab_size + (text.slots if text is not None else conditioner.vocab_size)
    decoder = TransformerConfig(
        shape.width,
        shape.depth,
        shape.heads,
        vocab_in,
        1 + prefix + tokens if coarsest else tokens,
        shape.head_size,
        vocab_size,
        cross=not coarsest,
    )
    encoder = TransformerConfig(
        shape.width, shape.encoder_depth, shape.heads, vocab_in, 1 + prefix + tokens, shape.head_size, causal=False
    )
    return StageConfig(
        kind="decoder_only" if coarsest else run.kind,
        t=t,
        vocab_size=vocab_size,
        tokens=tokens,
        beta=schedule.betas[t - 1],
        decoder=decoder,
        encoder=None if coarsest else encoder,
        cond_length=conditioner.length,
        cond_offset=vocab_size,
        text=text,
    )


def stage_tasks(run: StageRun, times: Sequence[int]) -> list[StageTask]:
    """Fresh stages for these t, each with the data and the frozen first stage that it is to be trained on."""
    first_stage = load_first_stage(Path(run.first_stage)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    schedule = Schedule(run.betas)
    dataset = dataset_for(run.data, first_stage.config.resolution)
    torch.manual_seed(run.loop.seed)
    shape = first_stage.config
    tokens = (shape.resolution // shape.downsampling) ** 2
    conditioner, reader, text = reader_for(run, dataset)
    tasks = []
    for t in times:
        config = stage_config(run, t, schedule, shape.vocab_size, tokens, conditioner, text)
        stage = build_stage(config, schedule.stages)
        if run.begin_from is not None:
            stage.load_state_dict(load_stage(Path(run.begin_from))[0].state_dict())
        if reader is not None:
            stage.text.load_state_dict(reader.state_dict())
            stage.text.requires_grad_(False)
        tasks.append(StageTask(stage, schedule, conditioner, first_stage, dataset, run))
    return tasks


def train_stage(run: StageRun, folder: Path) -> Stage:
    """Trains (or goes on training) the stage `run.t` in a run's folder and writes it there."""
    if run.t is None:
        raise ValueError("t is null, which trains all stages jointly; expected the number of one")
    (task,) = stage_tasks(run, [run.t])
    trained = train(task, run.loop, folder)
    assert isinstance(trained, Stage)
    save_stage(trained, task.schedule, task.conditioner, folder)
    return trained
