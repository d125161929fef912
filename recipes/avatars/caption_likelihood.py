"""Whether a model uses captions: how likely images are with their own caption, without one, and with another's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from imagebart.diffusion import add_uniform_noise, diffuse
from imagebart.imaging.files import normalize
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser, DenoiserInput
from imagebart.models.stages import Stage
from recipes.avatars.dataset import AvatarDataset

Loss = Callable[[Tensor, Tensor, torch.Generator], float]  # of x_0 and conditioning tokens, with noise from a generator


@dataclass(frozen=True)
class CaptionLikelihood:
    """Mean negative log-likelihood, nats a token, by what caption was given."""

    name: str
    right: float
    without: float
    shuffled: float

    def __str__(self) -> str:
        losses = f"{self.right:.3f} right, {self.without:.3f} without, {self.shuffled:.3f} shuffled"
        gains = f"right words save {self.without - self.right:.3f}, wrong ones cost {self.shuffled - self.without:.3f}"
        return f"{self.name}: {losses}; {gains} nats a token"


@torch.no_grad()
def caption_likelihood(
    model: ImageBART, count: int = 64, seed: int = 900_000, batch: int = 16
) -> Iterator[CaptionLikelihood]:
    """Measures a model on `count` avatars (2 or more) of the series `seed`, with the same noise for each caption.

    Of stages, x_{t-1} given x_t; of a denoiser, x_0 from nothing, and from x_t of which half is noise. A network that
    ignores its captions gives three equal numbers. Raises ValueError for a model without captions.
    """
    conditioner, first_stage = model.conditioner, model.first_stage
    if conditioner.kind != "text":
        raise ValueError(f"the model's conditioning is {conditioner.kind!r}, expected text")
    if count < 2:
        raise ValueError(f"{count} avatars cannot swap captions, expected 2 or more")
    data = AvatarDataset(first_stage.config.resolution, length=count, seed=seed)
    items = [data[i] for i in range(count)]
    cond = conditioner.encode([item["text"] for item in items]).tokens
    choices = {"right": cond, "without": conditioner.unconditional(count), "shuffled": cond.roll(1, 0)}
    losses: dict[str, Loss]
    if model.denoiser is None:
        losses = {f"stage {t}": partial(_stage_loss, model, stage) for t, stage in enumerate(model.stages, 1)}
    else:
        levels = {"from nothing": 1.0, "from half of the tokens": 0.5}
        losses = {name: partial(_denoiser_loss, model.denoiser, level) for name, level in levels.items()}
    for name, loss in losses.items():
        generator = torch.Generator().manual_seed(seed)
        totals = dict.fromkeys(choices, 0.0)
        for rows in torch.arange(count).split(batch):
            x0 = first_stage.encode(normalize(torch.stack([items[i]["image"] for i in rows.tolist()])))
            state = generator.get_state()
            for choice, tokens in choices.items():
                generator.set_state(state)
                totals[choice] += loss(x0, tokens[rows], generator) * len(rows) / count
        yield CaptionLikelihood(name, **totals)


def _stage_loss(model: ImageBART, stage: Stage, x0: Tensor, cond: Tensor, generator: torch.Generator) -> float:
    t = stage.config.t
    x_s = diffuse(x0, t - 1, model.schedule, model.vocab_size, generator)
    x_t = add_uniform_noise(x_s, stage.config.beta, model.vocab_size, generator)
    return float(F.cross_entropy(stage.logits(x_s, x_t, cond).float().flatten(0, 1), x_s.flatten()))


def _denoiser_loss(denoiser: Denoiser, level: float, x0: Tensor, cond: Tensor, generator: torch.Generator) -> float:
    x_t, noise_t = add_uniform_noise(x0, level, denoiser.config.vocab_size, generator), torch.full(x0.shape, level)
    logits = denoiser.logits(x0, DenoiserInput(x_t, noise_t, torch.zeros_like(noise_t), cond)).float()
    return float(F.cross_entropy(logits.flatten(0, 1), x0.flatten()))
