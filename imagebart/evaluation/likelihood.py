"""Whether a model uses words: how likely pictures are with their own caption, without one, and with another's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from imagebart.avatars.dataset import AvatarDataset
from imagebart.conditioning import Conditioner
from imagebart.diffusion import Schedule, diffuse, redraw
from imagebart.first_stage import FirstStage
from imagebart.models.published import Stage


@dataclass(frozen=True)
class WordGap:
    """Mean negative log-likelihood of a stage, nats a token of x_{t-1}, by what caption it was given."""

    t: int
    right: float
    without: float
    shuffled: float

    def __str__(self) -> str:
        losses = f"{self.right:.3f} right, {self.without:.3f} without, {self.shuffled:.3f} shuffled"
        gains = f"right words save {self.without - self.right:.3f}, wrong ones cost {self.shuffled - self.without:.3f}"
        return f"stage {self.t}: {losses}; {gains} nats a token"


@torch.no_grad()
def word_gap(
    stage: Stage,
    schedule: Schedule,
    conditioner: Conditioner,
    first_stage: FirstStage,
    count: int = 64,
    seed: int = 900_000,
    batch: int = 16,
) -> WordGap:
    """Measures a stage on `count` avatars (2 or more) of the series `seed`, the same noise for each caption.

    A stage that ignores its captions gives three equal numbers. Raises ValueError for a model without captions.
    """
    if conditioner.kind != "text":
        raise ValueError(f"the model's conditioning is {conditioner.kind!r}, expected text")
    if count < 2:
        raise ValueError(f"{count} avatars cannot swap captions, expected 2 or more")
    data = AvatarDataset(first_stage.config.resolution, length=count, seed=seed)
    items = [data[i] for i in range(count)]
    texts = [str(item["text"]) for item in items]
    cond = conditioner.encode(texts).tokens
    choices = {"right": cond, "without": conditioner.null(count), "shuffled": cond.roll(1, 0)}
    t, vocab_size = stage.config.t, first_stage.config.vocab_size
    generator = torch.Generator().manual_seed(seed)
    totals = dict.fromkeys(choices, 0.0)
    for rows in torch.arange(count).split(batch):
        images = torch.stack([_image(items[i]) for i in rows.tolist()])
        x0 = first_stage.encode(images)
        x = diffuse(x0, t - 1, schedule, vocab_size, generator)
        c = redraw(x, schedule.betas[t - 1], vocab_size, generator)
        for name, tokens in choices.items():
            logits = stage.logits(x, c, tokens[rows]).float()
            totals[name] += float(F.cross_entropy(logits.flatten(0, 1), x.flatten())) * len(rows) / count
    return WordGap(t, **totals)


def _image(item: dict[str, Tensor | str]) -> Tensor:
    image = item["image"]
    assert isinstance(image, Tensor)
    return image.float() / 127.5 - 1
