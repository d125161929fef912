"""Training the denoiser: x_0 from x_t at any noise rates, around any kept region (see `imagebart.models.denoiser`)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.conditioning import Conditioner
from imagebart.diffusion import redraw
from imagebart.masked import extended, painted_share
from imagebart.models.denoiser import Denoiser, DenoiserConfig
from imagebart.models.first_stage import FirstStage
from imagebart.models.text_encoder import TextEncoderConfig
from imagebart.models.transformer import TransformerConfig
from imagebart.training.config import DenoiserRun, StageShape
from imagebart.training.data import dataset_for, grid
from imagebart.training.first_stage import to_float
from imagebart.training.loop import Batch, Task, train
from imagebart.training.parts import load_denoiser, load_first_stage, save_denoiser
from imagebart.training.regions import Step, painted_regions
from imagebart.training.stages import reader_for

SHOWN = 12


class DenoiserTask(Task):
    """Pictures and captions to tokens; a region of them to noise; the network says what they were."""

    def __init__(
        self,
        denoiser: Denoiser,
        conditioner: Conditioner,
        first_stage: FirstStage,
        dataset: Dataset[Any],
        run: DenoiserRun,
    ) -> None:
        self.model: nn.Module = denoiser
        self.conditioner, self.first_stage, self.dataset, self.run = conditioner, first_stage, dataset, run
        self.vocab_size = first_stage.config.vocab_size

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        x0 = self.tokens(batch)
        doubt, seen = self.masked(batch, x0)
        step = Step.random(len(x0)).to(x0.device)
        rates, next_rates = torch.minimum(doubt, step.rate), torch.minimum(doubt, step.next_rate)
        unknown = doubt > step.next_rate
        observed = (doubt <= step.rate) & (doubt < 1)
        x = torch.where(unknown, redraw(x0, step.next_rate * unknown, self.vocab_size), seen)
        c = torch.where(observed, seen, redraw(x, step.beta * unknown, self.vocab_size))
        cond, slots = self.condition(accelerator.unwrap_model(model), batch["text"], x0.device)
        fed = redraw(x, self.scrambled(step) * unknown, self.vocab_size)
        logits, drafts = model(fed, c, rates, next_rates, cond, slots, unknown)
        target = x0[unknown]
        loss, draft_loss = (F.cross_entropy(part.float(), target) for part in (logits, drafts))
        right = (logits.argmax(-1) == target).float().mean()
        return {
            "loss": loss + self.run.drafts * draft_loss,
            "tokens": loss,
            "drafts": draft_loss,
            "accuracy": right,
        }

    def scrambled(self, step: Step) -> Tensor:
        """The share of tokens, row by row [B, 1], that are fed as noise though they are said to be right.

        Once a mouth has begun, the rest of it follows from its first token: a caption's word for it is needed once in
        256 tokens. Where the tokens before cannot be trusted, it is needed at each.
        """
        some = (torch.rand_like(step.rate) < self.run.scramble) & (step.next_rate == 0)
        return torch.rand_like(step.rate) * some

    def tokens(self, batch: Batch) -> Tensor:
        """The tokens of a batch, int64 [B, N]."""
        return self.encode(batch["image"])

    def masked(self, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Of each token the share of its cell that a mask paints, float [B, N], and what it leaves, int64 [B, N]."""
        images = batch["image"]
        painted = painted_regions(len(x0), math.isqrt(x0.shape[1]))
        enlarged = F.interpolate(painted[:, None].float(), images.shape[2:])[:, 0].bool()
        doubt = painted_share(painted, x0.shape[1]).to(x0.device)
        seen = self.encode(extended(images.cpu(), enlarged).to(images.device))
        return doubt, torch.where(doubt > 0, seen, x0)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 images -> tokens, by the frozen first stage."""
        self.first_stage.to(images.device)
        return self.first_stage.encode(to_float(images).to(memory_format=torch.channels_last))

    def condition(self, model: Any, texts: list[str], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Conditioning tokens and what is read in them; whole captions and single slots are left out for a share.

        Guidance compares with no caption; a pair of values that never occurs together is met by each of them alone.
        """
        if self.conditioner.length == 0:
            return None, None
        cond, null = self.conditioner.encode(texts).tokens, self.conditioner.null(len(texts))
        cond = torch.where(torch.rand(len(texts), 1) < self.run.drop, null, cond).to(device)
        if model.config.text is None:
            return cond, None
        slots, nothing = model.read(cond), model.read(null[:1].to(device))
        share = torch.rand(len(texts), 1) * (torch.rand(len(texts), 1) < self.run.drop_slots)
        dropped = (torch.rand(slots.shape[:2]) < share).to(device)
        return cond, torch.where(dropped[..., None], nothing, slots)

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Pictures, what is left of them at a rate of a half, and each token's likeliest value given those before."""
        assert isinstance(model, Denoiser)
        length = len(self.dataset)  # type: ignore[arg-type]
        items = [self.dataset[i] for i in range(max(length - SHOWN, 0), length)]
        x0 = self.encode(torch.stack([item["image"] for item in items]).to(model.device))
        rates = torch.full(x0.shape, 0.5, device=x0.device)
        c = redraw(x0, rates, self.vocab_size, torch.Generator(x0.device).manual_seed(0))
        cond = None
        if self.conditioner.length:
            cond = self.conditioner.encode([item["text"] for item in items]).tokens.to(x0.device)
        guess = model.logits(x0, c, rates, torch.zeros_like(rates), cond).argmax(-1)
        return grid(self.first_stage.decode(torch.cat([x0, c, guess])), columns=len(x0))


def denoiser_config(
    shape: StageShape, vocab_size: int, tokens: int, conditioner: Conditioner, text: TextEncoderConfig | None
) -> DenoiserConfig:
    """Shapes; text: what reads prompts, None for other conditioning tokens."""
    prefix, others = conditioner.length, conditioner.vocab_size
    if text is not None:
        prefix = others = text.slots
    encoder = TransformerConfig(
        shape.width,
        shape.encoder_depth,
        shape.heads,
        vocab_size + others + 1,
        1 + prefix + tokens,
        shape.head_size,
        causal=False,
    )
    decoder = replace(encoder, depth=shape.depth, vocab_out=vocab_size, causal=True, cross=True)
    return DenoiserConfig(vocab_size, tokens, decoder, encoder, conditioner.length, text)


def train_denoiser(run: DenoiserRun, folder: Path) -> Denoiser:
    """Trains (or goes on training) a denoiser in a run's folder and writes it there."""
    first_stage = load_first_stage(Path(run.first_stage)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shape = first_stage.config
    dataset = dataset_for(run.data, shape.resolution)
    torch.manual_seed(run.loop.seed)
    conditioner, reader, text = reader_for(run, dataset)
    tokens = (shape.resolution // shape.downsampling) ** 2
    config = denoiser_config(run.shape, shape.vocab_size, tokens, conditioner, text)
    denoiser = Denoiser(replace(config, knows_cut_cells=True))
    if run.begin_from is not None:
        begun, _ = load_denoiser(Path(run.begin_from))
        if reader is not None:
            begun.read_with(reader)  # it may know other words
        denoiser.load_state_dict(begun.state_dict())
    if reader is not None:
        denoiser.text.load_state_dict(reader.state_dict())
        denoiser.text.requires_grad_(False)
    trained = train(DenoiserTask(denoiser, conditioner, first_stage, dataset, run), run.loop, folder)
    assert isinstance(trained, Denoiser)
    save_denoiser(trained, conditioner, folder)
    return trained
