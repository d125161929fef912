"""Which avatars the model may learn from: index to attributes, with some pairs of values kept for judging."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

from imagebart.avatars.attributes import Attributes, draw, generator

Pair = tuple[tuple[str, str], tuple[str, str]]


def _pairs() -> Iterator[Pair]:
    text = files("imagebart").joinpath("data", "avatar_held_out_pairs.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        first, second = (part.split("=") for part in line.split(", "))
        yield (first[0], first[1]), (second[0], second[1])


HELD_OUT_PAIRS = tuple(_pairs())
"""Pairs of (attribute, value) that no training picture shows together."""


def held_out(attributes: Attributes) -> bool:
    """Whether an avatar has a held-out pair."""
    values = attributes.as_dict()
    return any(all(values[name] == value for name, value in pair) for pair in HELD_OUT_PAIRS)


def sample(index: int, seed: int = 0, split: str = "train") -> Attributes:
    """Return the attributes of the avatar with this number: the same for the same index, seed and split.

    split: "train" draws again, for as long as it takes, where a held-out pair turns up; "all" does not.
    """
    if split not in ("train", "all"):
        raise ValueError(f"The split of avatars is 'train' or 'all', not {split!r}.")
    random = generator(index, seed, 0)
    attributes = draw(random)
    while split == "train" and held_out(attributes):
        attributes = draw(random)
    return attributes
