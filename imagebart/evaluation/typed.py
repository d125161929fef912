"""Prompts as people type them who have not read what the model knows, and what each claims.

Written down before the words in them were taught. The first half may be looked at when words are added, the second
is for reporting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from imagebart.avatars.attributes import VALUES
from imagebart.avatars.claims import GROUPS, CaptionReader
from imagebart.conditioning import Conditioner
from imagebart.evaluation.cases import PromptCase
from imagebart.evaluation.plain import prompts_file, read_prompts

Half = Literal["seen", "held"]


def typed_prompts(half: Half) -> list[PromptCase]:
    """The prompts of a half, in a fixed order.

    A colour that the artwork lacks claims the nearest that it has; without claims, nothing said can be drawn.
    """
    return read_prompts(prompts_file(f"typed_{half}"))


@dataclass(frozen=True)
class Heard:
    """What a text encoder reads in one prompt: the likeliest value of each attribute that it takes to be spoken of."""

    case: PromptCase
    values: dict[str, str]

    @property
    def right(self) -> int:
        """Claims that are read as they are meant."""
        return sum(self.values.get(name) in allowed for name, allowed in self.case.claims.items())

    @property
    def unasked(self) -> int:
        """Attributes that are read though the prompt claims nothing of them."""
        return len(self.values.keys() - self.case.claims.keys())


@torch.no_grad()
def hear(reader: CaptionReader, conditioner: Conditioner, cases: Sequence[PromptCase]) -> list[Heard]:
    """Reads prompts by the slots of a text encoder, without drawing: a second for hundreds."""
    readings, _ = reader.eval()(conditioner.encode([case.text for case in cases]).tokens)
    heard = []
    for case, row in zip(cases, readings, strict=True):
        likeliest = [int(part.argmax()) for part in row.split(GROUPS)]
        spoken = zip(VALUES.items(), likeliest, strict=True)
        heard.append(Heard(case, {name: values[i] for (name, values), i in spoken if i < len(values)}))
    return heard


def heard_line(name: str, heard: Sequence[Heard]) -> str:
    """Sums, for people."""
    claims, right = sum(len(one.case.claims) for one in heard), sum(one.right for one in heard)
    whole = sum(one.right == len(one.case.claims) for one in heard)
    unasked = sum(one.unasked for one in heard)
    return (
        f"{name}: {right} of {claims} claims read rightly, {whole} of {len(heard)} prompts wholly, "
        f"{unasked} attributes read unasked"
    )
