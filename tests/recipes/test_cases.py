"""What a model is asked to do: prompts, edits, and prompts as people type them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import tiny_conditioner
from torch import Tensor, nn

from imagebart.text.conditioners import TextConditioner
from imagebart.worlds.attribute_classifier import GROUPS, CaptionReader
from imagebart.worlds.avatars import PLAIN, VALUES, Attributes
from recipes.avatars.captions import all_words
from recipes.avatars.cases import (
    EDITED,
    PromptCase,
    edit_case,
    found,
    held_out_prompt,
    plain_prompts,
    read_prompts,
    read_with,
    seen_prompt,
    share_within,
    summary,
    typed_prompts,
)
from recipes.avatars.dataset import HELD_OUT_PAIRS, held_out


def test_prompts_repeat_and_name_one_to_six_attributes() -> None:
    cases = [seen_prompt(i, 900_000) for i in range(60)]
    assert cases == [seen_prompt(i, 900_000) for i in range(60)]
    assert cases != [seen_prompt(i, 900_001) for i in range(60)]
    assert len({case.text for case in cases}) > 55
    assert all(case.claims for case in cases)


def test_every_held_out_pair_is_asked_for() -> None:
    for number, pair in enumerate(HELD_OUT_PAIRS):
        claims = held_out_prompt(number, 900_000).claims
        assert all(claims[name] == {value} for name, value in pair.items())


def test_edits_ask_for_something_new_within_their_mask() -> None:
    cases = [edit_case(i, 900_000, 64) for i in range(len(EDITED))]
    assert [case.attribute for case in cases] == list(EDITED)
    for case in cases:
        assert not all(found(case.before, case.prompt.claims).values())
        assert not held_out(case.before)
        assert case.attribute not in case.outside
        assert {EDITED[name] for name in case.prompt.claims} == {EDITED[case.attribute]}
        assert case.mask.shape == (64, 64)
        assert 0 < case.mask.mean() < 0.9
    eyes = next(case for case in cases if case.attribute == "eyebrows")
    assert {"background", "mouth", "clothing", "top"} & eyes.outside


def test_what_a_mask_holds_of_an_attribute() -> None:
    top = np.arange(64)[:, None].repeat(64, 1) < 32
    assert share_within(PLAIN, "clothing_color", ~top) == (1, 1)
    assert share_within(PLAIN, "eyebrows", top) == (1, 1)
    least, most = share_within(PLAIN, "skin", top)
    assert 0.2 < least <= most < 0.8
    assert share_within(PLAIN, "skin", ~top) == pytest.approx((1 - most, 1 - least))
    assert share_within(PLAIN, "hat_color", top) == (0, 0), "no hat, no pixels"


def test_only_what_shows_is_found() -> None:
    bald = replace(PLAIN, top="bald", hair_color="red")
    assert found(bald, {"hair_color": frozenset({"red"}), "top": frozenset({"bald", "buzz"})}) == {
        "hair_color": False,
        "top": True,
    }
    assert not found(PLAIN, {"mouth": frozenset({"sad"})})["mouth"]


def test_sixty_plain_prompts_in_words_that_captions_use() -> None:
    cases = plain_prompts()
    assert len({case.text for case in cases}) == len(cases) == 60
    conditioner = TextConditioner.from_captions(all_words())
    assert conditioner.encode([case.text for case in cases]).notes == []
    assert {name for case in cases for name in case.claims} >= set(VALUES) - {"facial_hair_color", "eyebrows"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no glasses", PLAIN),
        ("bald man with a beard", replace(PLAIN, top="bald", facial_hair="beard")),
        ("ginger", replace(PLAIN, hair_color="red")),
    ],
)
def test_plain_prompts_claim_what_they_say(text: str, shown: Attributes) -> None:
    claims = next(case for case in plain_prompts() if case.text == text).claims
    assert all(found(shown, claims).values())
    assert not all(found(replace(PLAIN, top="hat", accessory="glasses"), claims).values())


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
    first, second = read_prompts("a hat: top=hat, hat_color=red\nblue eyes:\n")
    hats = frozenset({"hat", "beanie", "earflaps"})
    assert first == PromptCase("a hat", {"top": hats, "hat_color": frozenset({"red"})})
    assert second == PromptCase("blue eyes", {})


def test_what_is_read_is_compared_with_what_is_claimed() -> None:
    (top, tops), (color, colors), *_ = VALUES.items()
    right = PromptCase("red hair", {top: frozenset(tops[:2])})
    wrong = PromptCase("a hat", {top: frozenset(tops[2:]), color: frozenset(colors[:1])})
    silent = PromptCase("", {})
    oracle: CaptionReader = Oracle()  # type: ignore[assignment]
    readings = read_with(oracle, tiny_conditioner("text"), [right, wrong, silent])
    assert readings[0].values == {top: tops[1], color: colors[0]}
    assert [(one.right, one.unasked) for one in readings] == [(1, 1), (1, 0), (0, 2)]
    line = "x: 2 of 3 claims read rightly, 2 of 3 prompts wholly, 3 attributes read unasked"
    assert summary("x", readings) == line
