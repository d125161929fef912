"""Prompts as people type them, and what a text encoder reads in them."""

from __future__ import annotations

import torch
from tiny_models import tiny_conditioner
from torch import Tensor, nn

from imagebart.avatars.attributes import VALUES
from imagebart.avatars.claims import GROUPS, CaptionReader
from recipes.avatars.cases import PromptCase, plain_prompts, read_prompts, read_with, summary, typed_prompts


class Oracle(nn.Module):
    """Reads the second value of the first attribute, the first of the second, and silence of the others."""

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        parts = [torch.zeros(len(words), count) for count in GROUPS]
        for part, place in zip(parts, [1, 0] + [-1] * (len(GROUPS) - 2), strict=True):
            part[:, place] = 1
        return torch.cat(parts, 1), torch.zeros(0)


def test_the_halves_are_large_and_apart() -> None:
    halves = [{case.text for case in typed_prompts(half)} for half in ("seen", "held")]  # type: ignore[arg-type]
    assert all(len(half) >= 60 for half in halves)
    assert not halves[0] & halves[1] and not halves[1] & {case.text for case in plain_prompts()}


def test_prompts_with_and_without_claims() -> None:
    first, second = read_prompts("a hat: top=hat, hat_colour=red\nblue eyes:\n")
    hats = frozenset({"hat", "beanie", "earflaps"})
    assert first == PromptCase("a hat", {"top": hats, "hat_colour": frozenset({"red"})})
    assert second == PromptCase("blue eyes", {})


def test_what_is_read_is_compared_with_what_is_claimed() -> None:
    (top, tops), (colour, colours), *_ = VALUES.items()
    right = PromptCase("red hair", {top: frozenset(tops[:2])})
    wrong = PromptCase("a hat", {top: frozenset(tops[2:]), colour: frozenset(colours[:1])})
    silent = PromptCase("", {})
    oracle: CaptionReader = Oracle()  # type: ignore[assignment]
    readings = read_with(oracle, tiny_conditioner("text"), [right, wrong, silent])
    assert readings[0].values == {top: tops[1], colour: colours[0]}
    assert [(one.right, one.unasked) for one in readings] == [(1, 1), (1, 0), (0, 2)]
    line = "x: 2 of 3 claims read rightly, 2 of 3 prompts wholly, 3 attributes read unasked"
    assert summary("x", readings) == line
