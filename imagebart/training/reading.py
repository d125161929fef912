"""How well a text encoder reads what captions of avatars claim.

The picture's tokens teach words slowly: a colour named once moves a few of 256 tokens. What a caption claims is
known, so that a text encoder can learn it directly: each of its slots says of one attribute which values the caption
would be true of, or that it says nothing (`imagebart.avatars.claims`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from imagebart.avatars.claims import GROUPS


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


def reading_accuracy(readings: Tensor, claims: Tensor, groups: tuple[int, ...] = GROUPS) -> Tensor:
    """Share of the attributes spoken of whose likeliest value is claimed: shapes as in `reading_loss`."""
    said = torch.stack([~claimed[:, -1] for claimed in claims.split(groups, 1)], 1)
    return (_right(readings, claims, groups) & said).sum() / said.sum().clamp(min=1)
