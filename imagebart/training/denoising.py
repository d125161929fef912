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

from imagebart.conditioning import Conditioner
from imagebart.diffusion import redraw
from imagebart.masked import extended, glance, painted_share
from imagebart.models.denoiser import Denoiser, DenoiserConfig, check_glances
from imagebart.models.first_stage import FirstStageConfig
from imagebart.models.text_encoder import TextEncoderConfig
from imagebart.training.alike import as_table, learn_alike
from imagebart.training.captioned import Given, TokensTask, before_pictures
from imagebart.training.config import DenoiserRun, StageShape
from imagebart.training.data import grid
from imagebart.training.first_stage import to_float
from imagebart.training.loop import Batch, train
from imagebart.training.parts import load_denoiser, save_denoiser
from imagebart.training.regions import Step, painted_regions

LOUD = 2.0  # a colour that a cell shares with others, over the embedding of one that it has for itself


class DenoiserTask(TokensTask[DenoiserRun]):
    """Pictures and captions to tokens; a region of them to noise; the network says what they were."""

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        x0 = self.tokens(batch)
        doubt, left, seen = self.masked(batch, x0)
        step = Step.random(len(x0)).to(x0.device)
        rates, next_rates = torch.minimum(doubt, step.rate), torch.minimum(doubt, step.next_rate)
        unknown = doubt > step.next_rate
        observed = (doubt <= step.rate) & (doubt < 1)
        x = torch.where(unknown, redraw(x0, step.next_rate * unknown, self.vocab_size), left)
        c = torch.where(observed, left, redraw(x, step.beta * unknown, self.vocab_size))
        cond, slots = self.condition(accelerator.unwrap_model(model), batch["text"], x0.device)
        fed = redraw(x, self.scrambled(step) * unknown, self.vocab_size)
        logits, drafts = model(fed, c, rates, next_rates, cond, slots, seen, unknown)
        target = x0[unknown]
        loss, draft_loss = (F.cross_entropy(part.float(), target) for part in (logits, drafts))
        right = (logits.argmax(-1) == target).float().mean()
        return {"loss": loss + self.run.drafts * draft_loss, "tokens": loss, "drafts": draft_loss, "accuracy": right}

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

    def masked(self, batch: Batch, x0: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of each token the share of its cell that a mask paints, float [B, N]; what it leaves of it, int64 [B, N]; and
        a glance at that, bool [B, N, K], if the denoiser takes one. Some pictures are not looked at.
        """
        images, tokens = batch["image"], x0.shape[1]
        pixels = to_float(images)
        painted = painted_regions(pixels.cpu(), math.isqrt(tokens))
        enlarged = F.interpolate(painted[:, None].float(), images.shape[2:])[:, 0].bool()
        doubt = painted_share(painted, tokens).to(x0.device)
        left = self.encode(extended(images.cpu(), enlarged).to(images.device))
        seen = None
        if self.run.glances:
            seen = glance(self.first_stage, pixels, enlarged.to(images.device), self.run.glances)
            seen = seen & (torch.rand(len(seen), 1, 1, device=seen.device) >= self.run.drop_glances)
        return doubt, torch.where(doubt > 0, left, x0), seen

    def condition(self, model: Any, texts: list[str], device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Conditioning tokens and what is read in them; whole captions and single slots are left out for a share.

        Guidance compares with no caption; a pair of values that never occurs together is met by each of them alone.
        """
        cond = self.told(texts, device)
        if cond is None or model.config.text is None:
            return cond, None
        slots, nothing = model.read(cond), model.read(self.conditioner.null(1).to(device))
        share = torch.rand(len(texts), 1) * (torch.rand(len(texts), 1) < self.run.drop_slots)
        dropped = (torch.rand(slots.shape[:2]) < share).to(device)
        return cond, torch.where(dropped[..., None], nothing, slots)

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Pictures, what is left of them at a rate of a half, and each token's likeliest value given those before."""
        assert isinstance(model, Denoiser)
        x0, cond = self.last(model.device)
        rates = torch.full(x0.shape, 0.5, device=x0.device)
        c = redraw(x0, rates, self.vocab_size, torch.Generator(x0.device).manual_seed(0))
        guess = model.logits(x0, c, rates, torch.zeros_like(rates), cond).argmax(-1)
        return grid(self.first_stage.decode(torch.cat([x0, c, guess])), columns=len(x0))


def denoiser_config(
    shape: StageShape, first_stage: FirstStageConfig, conditioner: Conditioner, text: TextEncoderConfig | None
) -> DenoiserConfig:
    """Shapes; text: what reads prompts, None for other conditioning tokens."""
    prefix, others = before_pictures(conditioner, text)
    codes, tokens = first_stage.vocab_size, first_stage.tokens
    vocabulary, positions = codes + others + 1, 1 + prefix + tokens
    decoder = shape.decoder(vocabulary, positions, codes, cross=True)
    return DenoiserConfig(codes, tokens, decoder, shape.encoder(vocabulary, positions), conditioner.length, text)


@torch.no_grad()
def begin_to_glance(denoiser: Denoiser) -> None:
    """Has a colour told as what the encoder knows already: a cell that is all of it, and louder."""
    table = denoiser.encoder.token_embedding.weight[: denoiser.config.vocab_size]
    denoiser.glance.weight.copy_(LOUD * table.T)


def train_denoiser(run: DenoiserRun, folder: Path) -> Denoiser:
    """Trains (or goes on training) a denoiser in a run's folder and writes it there."""
    given = Given.of(run)
    check_glances(run.glances, given.first_stage.config)
    config = denoiser_config(run.shape, given.first_stage.config, given.conditioner, given.text)
    denoiser = Denoiser(replace(config, knows_cut_cells=True, glances=run.glances))
    if run.begin_from is not None:
        begun, _ = load_denoiser(Path(run.begin_from))
        if given.reader is not None:
            begun.read_with(given.reader)  # it may know other words
        begins = run.glances > 0 and not begun.config.glances
        new = {"glance.weight": denoiser.glance.weight} if begins else {}
        denoiser.load_state_dict({**begun.state_dict(), **new})
        if begins:
            begin_to_glance(denoiser)
    given.take_reader(denoiser)
    embeddings = (denoiser.encoder.token_embedding, denoiser.decoder.token_embedding)
    learn_alike(embeddings, given.first_stage.quantize.codes().detach())
    task = DenoiserTask(denoiser, given.conditioner, given.first_stage, given.dataset, run)
    trained = train(task, run.loop, folder)
    assert isinstance(trained, Denoiser)
    as_table(trained)
    save_denoiser(trained, given.conditioner, folder)
    return trained
