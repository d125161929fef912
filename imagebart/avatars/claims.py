"""What prompts claim, as the text encoder reads it: linear heads on its slots, one an attribute."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from imagebart.atomic_io import write_bytes
from imagebart.avatars.attributes import PLAIN, SHOWING, VALUES, Claims
from imagebart.models.text_encoder import TextEncoder
from imagebart.weights.folder import checked_header

HEADS = "heads.safetensors"
LEAST = 0.25  # of the likeliest value's probability, from which a value is claimed as well
GROUPS = tuple(len(values) + 1 for values in VALUES.values())  # the values of each attribute, and nothing said


def claims_vector(claims: Claims) -> Tensor:
    """Of each attribute the values that a caption would be true of, and whether it says nothing: bool [sum(GROUPS)]."""
    flags = []
    for name, values in VALUES.items():
        allowed = claims.get(name, frozenset())
        flags += [value in allowed for value in values] + [not allowed]
    return torch.tensor(flags)


def read_claims(readings: Tensor) -> Claims:
    """What a caption claims, by logits [sum(GROUPS)]: nothing of an attribute where that is likeliest, else its values.

    A head learns to share its probability evenly among the values that a caption would be true of. With this share
    of the likeliest value's as the least, all was read right of 368 in 400 captions; with a half of it, of 340.
    """
    claims: Claims = {}
    for (name, values), logits in zip(VALUES.items(), readings.split(GROUPS), strict=True):
        shares = logits.float().softmax(0)
        if int(shares.argmax()) < len(values):
            likely = (shares > LEAST * shares.max()).tolist()
            claims[name] = frozenset(value for value, said in zip(values, likely, strict=False) if said)
    return claims


def with_showing(claims: Claims) -> Claims:
    """Claims with what has to be so for them to show: of a colour of hair, no hat; of a print, a shirt to print on.

    What claims say themselves comes first: a hat and blonde hair stay a hat and blonde hair.
    """
    wider = dict(claims)
    for name in claims:
        for other, shown in _showing(name).items():
            wider[other] = (wider.get(other, shown) & shown) or wider[other]
    return wider


@cache
def _showing(name: str) -> Claims:
    """Of each attribute that can hide another, the values that do not hide this one."""
    base = replace(PLAIN, **SHOWING.get(name, {}))
    found: Claims = {}
    for other in ("top", "facial_hair", "accessory", "clothing"):
        shown = frozenset(v for v in VALUES[other] if name in replace(base, **{other: v}).visible())
        if other != name and len(shown) < len(VALUES[other]):
            found[other] = shown
    return found


class CaptionReader(nn.Module):
    """A text encoder with a linear head on each slot.

    [B, length] -> logits [B, sum(groups)] and slots [B, len(groups), width].
    """

    def __init__(self, encoder: TextEncoder, groups: tuple[int, ...] = GROUPS) -> None:
        super().__init__()
        if encoder.config.query_tokens < len(groups):
            raise ValueError(
                f"query_tokens is {encoder.config.query_tokens}, expected {len(groups)}, one an attribute, or more"
            )
        self.encoder = encoder
        self.heads = nn.ModuleList(nn.Linear(encoder.config.transformer.width, count) for count in groups)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        slots = self.encoder(words)[:, : len(self.heads)]
        return torch.cat([head(slot) for head, slot in zip(self.heads, slots.unbind(1), strict=True)], 1), slots


def save_heads(reader: CaptionReader, folder: Path) -> None:
    """Writes the heads beside their text encoder, for a run that teaches it more."""
    write_bytes(folder / HEADS, save(reader.heads.state_dict()))


def load_heads(reader: CaptionReader, folder: Path) -> None:
    """Takes the heads of a folder; raises ValueError where it has none."""
    if not (folder / HEADS).is_file():
        raise ValueError(f"{folder} has no {HEADS}; expected the folder of a captions run or a model")
    reader.heads.load_state_dict(load_file(checked_header(folder / HEADS)))
