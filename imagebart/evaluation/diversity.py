"""How much pictures of one prompt differ in what it leaves open."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from imagebart.avatars.attributes import HAIR_TOPS, VALUES, WEIGHTS, Attributes
from imagebart.avatars.captions import Claims
from imagebart.evaluation.cases import PromptCase

OPEN = (
    PromptCase("a man", {}),
    PromptCase("a woman", {"facial_hair": frozenset({"none"})}),
    PromptCase("sunglasses", {"accessory": frozenset({"sunglasses", "white sunglasses"})}),
    PromptCase("red hair", {"hair_colour": frozenset({"red"}), "top": frozenset(HAIR_TOPS) - {"bald"}}),
    PromptCase("a hoodie", {"clothing": frozenset({"hoodie"})}),
    PromptCase("a beard", {"facial_hair": frozenset({"beard", "long beard"})}),
    PromptCase("a hat", {"top": frozenset({"hat", "beanie", "earflaps"})}),
    PromptCase("a blue background", {"background": frozenset({"blue"})}),
)
"""Prompts that leave most open."""


def entropy(values: Sequence[str | None]) -> float:
    """Shannon entropy in bits of the values' frequencies."""
    count = len(values)
    return -sum(n / count * math.log2(n / count) for n in Counter(values).values())


def free_entropy(avatars: Sequence[Attributes], claims: Claims) -> float:
    """The mean entropy, in bits, of the attributes that nothing is claimed of; not showing counts as a value.

    Few pictures give too small an entropy, so that it is compared only with that of as many others.
    """
    free = [name for name in VALUES if name not in claims]
    shown = [avatar.visible() for avatar in avatars]
    columns = [
        [avatar.as_dict()[name] if name in seen else None for avatar, seen in zip(avatars, shown, strict=True)]
        for name in free
    ]
    return sum(map(entropy, columns)) / len(free)


def draw_claimed(claims: Claims, random: np.random.Generator) -> Attributes:
    """Draws an avatar of which claims are true, its values as frequent among the allowed as among all avatars."""
    chosen = {}
    for name, values in VALUES.items():
        allowed = [value for value in values if value in claims.get(name, values)]
        weights = np.array([WEIGHTS.get((name, value), 1.0) for value in allowed])
        chosen[name] = allowed[random.choice(len(allowed), p=weights / weights.sum())]
    return Attributes(**chosen)
