"""What captions of avatars claim, and how well a text encoder reads it.

The picture's tokens teach words slowly: a colour named once moves a few of 256 tokens. What a caption claims is
known, so that a text encoder can learn it directly: each of its slots says of one attribute which values the caption
would be true of, or that it says nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from imagebart.avatars.attributes import VALUES
from imagebart.avatars.captions import Claims
from imagebart.files import write_bytes
from imagebart.text_encoder import TextEncoder

HEADS = "heads.safetensors"
GROUPS = tuple(len(values) + 1 for values in VALUES.values())  # the values of each attribute, and nothing said


def claims_vector(claims: Claims) -> Tensor:
    """Of each attribute the values that a caption would be true of, and whether it says nothing: bool [sum(GROUPS)]."""
    flags = []
    for name, values in VALUES.items():
        allowed = claims.get(name, frozenset())
        flags += [value in allowed for value in values] + [not allowed]
    return torch.tensor(flags)


class CaptionReader(nn.Module):
    """A text encoder in training with a linear head on each slot.

    [B, length] -> logits [B, sum(groups)] and slots [B, len(groups), width].
    """

    def __init__(self, encoder: TextEncoder, groups: tuple[int, ...] = GROUPS) -> None:
        super().__init__()
        if encoder.config.slots < len(groups):
            raise ValueError(f"slots is {encoder.config.slots}, expected {len(groups)}, one an attribute, or more")
        self.encoder = encoder
        self.heads = nn.ModuleList(nn.Linear(encoder.config.transformer.width, count) for count in groups)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        slots = self.encoder(words)[:, : len(self.heads)]
        return torch.cat([head(slot) for head, slot in zip(self.heads, slots.unbind(1), strict=True)], 1), slots


def save_heads(reader: CaptionReader, folder: Path) -> None:
    """Writes the heads beside their text encoder, for a run that teaches it more."""
    write_bytes(folder / HEADS, save(reader.heads.state_dict()))


def load_heads(reader: CaptionReader, folder: Path) -> None:
    """Takes the heads of a run's folder; raises ValueError where it has none."""
    if not (folder / HEADS).is_file():
        raise ValueError(f"{folder} has no {HEADS}; expected the folder of a captions run")
    reader.heads.load_state_dict(load_file(folder / HEADS))


def reading_loss(readings: Tensor, claims: Tensor, groups: tuple[int, ...] = GROUPS) -> Tensor:
    """Mean cross-entropy of an attribute, each claimed value as likely: logits and bool [B, sum(groups)]."""
    losses = [
        F.cross_entropy(logits, claimed / claimed.sum(1, keepdim=True))
        for logits, claimed in zip(readings.float().split(groups, 1), claims.float().split(groups, 1), strict=True)
    ]
    return torch.stack(losses).mean()


def _right(readings: Tensor, claims: Tensor, groups: tuple[int, ...]) -> Tensor:
    """Whether what is likeliest of each attribute is claimed, or nothing is said as read: bool [B, len(groups)]."""
    parts = zip(readings.split(groups, 1), claims.split(groups, 1), strict=True)
    return torch.cat([claimed.gather(1, logits.argmax(1, keepdim=True)) for logits, claimed in parts], 1)


def slots_moved(
    slots: Tensor, before: CaptionReader, words: Tensor, claims: Tensor, groups: tuple[int, ...] = GROUPS
) -> Tensor:
    """Mean square by which slots [B, len(groups), width] differ from those of a reader before, where it was right."""
    with torch.no_grad():
        readings, old = before(words)
    right = _right(readings, claims, groups)[..., None]
    return ((slots.float() - old.float()).square() * right).mean()


def reading_accuracy(readings: Tensor, claims: Tensor, groups: tuple[int, ...] = GROUPS) -> Tensor:
    """Share of the attributes spoken of whose likeliest value is claimed: shapes as in `reading_loss`."""
    said = torch.stack([~claimed[:, -1] for claimed in claims.split(groups, 1)], 1)
    return (_right(readings, claims, groups) & said).sum() / said.sum().clamp(min=1)
