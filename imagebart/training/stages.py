"""Training a stage: p(x_{t-1} | x_t) on the tokens of a frozen first stage (ImageBART, section 3.2 and eq. 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.chain import row_generators, run_chain, uniform_tokens
from imagebart.conditioning import ClassConditioner, Conditioner, NoConditioner, TextConditioner
from imagebart.decoding import Condition
from imagebart.diffusion import Schedule, diffuse, posterior, redraw
from imagebart.first_stage import FirstStage
from imagebart.settings import SamplingSettings
from imagebart.stage import Stage, StageConfig, build_stage
from imagebart.training.config import StageRun, StageShape
from imagebart.training.data import ImageFolder, dataset_for, grid
from imagebart.training.first_stage import to_float
from imagebart.training.loop import Batch, train
from imagebart.training.parts import load_first_stage, load_stage, save_stage
from imagebart.training.reading import ReadingStage, load_head, reading_accuracy, reading_loss, save_head
from imagebart.transformer import TransformerConfig


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


class StageTask:
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
        self.groups: tuple[int, ...] = getattr(dataset, "claim_groups", ())
        if run.reading and not self.groups:
            raise ValueError(f"reading is {run.reading}; the captions of {run.data} do not say what they claim, use 0")
        self.model: nn.Module = ReadingStage(stage, self.groups) if run.reading else stage
        self.t, self.schedule, self.conditioner = run.t, schedule, conditioner
        self.first_stage, self.dataset, self.run = first_stage, dataset, run
        self.vocab_size = first_stage.config.vocab_size

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        x0 = self.encode(batch["image"])
        x = diffuse(x0, self.t - 1, self.schedule, self.vocab_size)
        c = redraw(x, self.schedule.betas[self.t - 1], self.vocab_size)
        cond = self.condition(batch["text"], x0.device)
        said: dict[str, Tensor] = {}
        reading = x0.new_zeros((), dtype=torch.float32)
        if self.run.reading:
            assert cond is not None
            logits, readings = model(x, c, cond)
            claims = batch["claims"] | (cond == 0).all(1, keepdim=True)  # a caption left out claims nothing
            reading = reading_loss(readings, claims, self.groups)
            said = {"reading": reading, "read": reading_accuracy(readings, claims, self.groups)}
        else:
            logits = model(x, c, cond)
        logits = logits.float()
        tokens = stage_loss(logits, x0, x, c, self.t, self.schedule, self.run.soft)
        accuracy = (logits.argmax(-1) == x0).float().mean()
        return {"loss": tokens + self.run.reading * reading, "tokens": tokens, "accuracy": accuracy, **said}

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

    def after_step(self, model: nn.Module, accelerator: Accelerator) -> None:
        """Nothing but gradients moves a stage."""

    def state(self) -> list[Any]:
        return []

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
        keep = torch.zeros_like(start, dtype=torch.bool)
        stage = bare_stage(model)
        settings = SamplingSettings()
        one = Schedule((1.0,))  # the stage as a chain of its own
        for event in run_chain([stage], one, start, keep, Condition(cond, None), settings, generators):
            last = event.tokens
        return grid(self.first_stage.decode(torch.cat([x0, start, last])), columns=len(x0))


def bare_stage(model: nn.Module) -> Stage:
    """A trained model's stage, without its reading head."""
    stage = model.stage if isinstance(model, ReadingStage) else model
    assert isinstance(stage, Stage)
    return stage


def conditioner_for(run: StageRun, dataset: Dataset[Any]) -> Conditioner:
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


def avatar_conditioner(length: int) -> TextConditioner:
    """The words of avatars' captions."""
    from imagebart.avatars.captions import all_words

    return TextConditioner.from_captions(all_words(), length)


def stage_config(
    shape: StageShape, t: int, schedule: Schedule, vocab_size: int, tokens: int, conditioner: Conditioner
) -> StageConfig:
    """Shapes: decoder-only at t = T, aligned below; text and image tokens have embeddings of their own."""
    positions = 1 + conditioner.length + tokens
    vocab_in = vocab_size + conditioner.vocab_size
    coarsest = t == schedule.stages
    decoder = TransformerConfig(
        shape.width, shape.depth, shape.heads, vocab_in, positions, shape.head_size, vocab_size, cross=not coarsest
    )
    encoder = TransformerConfig(
        shape.width, shape.encoder_depth, shape.heads, vocab_in, positions, shape.head_size, causal=False
    )
    return StageConfig(
        kind="decoder_only" if coarsest else "aligned",
        t=t,
        vocab_size=vocab_size,
        tokens=tokens,
        beta=schedule.betas[t - 1],
        decoder=decoder,
        encoder=None if coarsest else encoder,
        cond_length=conditioner.length,
        cond_offset=vocab_size,
        phrase=shape.phrase if conditioner.kind == "text" else 0,
    )


def begin_from(stage: Stage, other: Stage) -> None:
    """Starts a stage from another's weights: whatever fits, and the encoder from the other's decoder.

    An aligned stage that starts from a model of clean tokens knows at once what pictures look like; the encoder
    takes over its embeddings and first blocks. Trained from scratch it would learn this anew.
    """
    tensors = dict(other.state_dict())
    for name, tensor in other.decoder.state_dict().items():
        tensors.setdefault(f"encoder.{name}", tensor)
    own = stage.state_dict()
    fitting = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    missing = sorted(k for k in own if k.startswith("decoder.blocks.0.attention") and k not in fitting)
    if missing:
        raise ValueError(f"the stage to begin from has no {missing[0]} of shape {list(own[missing[0]].shape)}")
    stage.load_state_dict({**own, **fitting})


def train_stage(run: StageRun, folder: Path) -> Stage:
    """Trains (or goes on training) a stage in a run's folder and writes it there."""
    first_stage = load_first_stage(Path(run.first_stage)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    schedule = Schedule(run.betas)
    dataset = dataset_for(run.data, first_stage.config.resolution)
    conditioner = conditioner_for(run, dataset)
    torch.manual_seed(run.loop.seed)
    shape = first_stage.config
    tokens = (shape.resolution // shape.downsampling) ** 2
    config = stage_config(run.shape, run.t, schedule, shape.vocab_size, tokens, conditioner)
    stage = build_stage(config, schedule.stages)
    if run.begin_from is not None:
        begin_from(stage, load_stage(Path(run.begin_from))[0])
    task = StageTask(stage, schedule, conditioner, first_stage, dataset, run)
    if run.begin_from is not None and isinstance(task.model, ReadingStage):
        load_head(task.model, Path(run.begin_from))
    trained = train(task, run.loop, folder)
    save_stage(bare_stage(trained), schedule, conditioner, folder)
    if isinstance(trained, ReadingStage):
        save_head(trained, folder)
    return bare_stage(trained)
