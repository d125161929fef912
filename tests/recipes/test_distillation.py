"""Slots that stay like those of a reader before."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_conditioner
from torch import Tensor

from imagebart.avatars.claims import CaptionReader
from imagebart.models.text_encoder import TextEncoder
from imagebart.training.config import StageShape
from imagebart.training.token_task import text_config
from recipes.avatars.training import OFTEN, QueryTokenDistillation

GROUPS = (4, 3)  # two attributes of three and of two values
SHAPE = StageShape(width=32, heads=2, head_size=16, encoder_depth=1, query_tokens=3)
CLAIMS = torch.tensor([[True, False, False, False, False, True, False]])  # the first value, and the second


@pytest.fixture
def before() -> CaptionReader:
    """A reader that is sure of the first value of the first attribute, whatever it reads, and of nothing else."""
    torch.manual_seed(0)
    reader = CaptionReader(TextEncoder(text_config(SHAPE, tiny_conditioner("text"))), GROUPS)
    with torch.no_grad():
        for head in reader.heads:
            head.weight.zero_()  # type: ignore[operator]
            head.bias.zero_()  # type: ignore[operator]
        reader.heads[0].bias[0] = 9  # type: ignore[index]
    return reader


def words(*texts: str) -> Tensor:
    return tiny_conditioner("text").encode(texts).tokens


def test_slots_that_were_read_rightly_stay(before: CaptionReader) -> None:
    distillation = QueryTokenDistillation(before, [], GROUPS)
    read = words("round glasses")
    slots = before(read)[1]
    assert distillation.loss(slots, read, CLAIMS) == 0
    wrong, right = slots.clone(), slots.clone()
    wrong[:, 1] += 1
    right[:, 0] += 1
    assert distillation.loss(wrong, read, CLAIMS) == 0  # of this attribute there is nothing to stay like
    assert distillation.loss(right, read, CLAIMS).item() == pytest.approx(0.5)


def test_other_slots_become_what_is_usual_for_their_claims(before: CaptionReader) -> None:
    """The reader is sure of the first value, and wrong: where the third is claimed, only what was usual helps."""
    caption_batches = words("round glasses", "red hair", "red glasses", "hair")
    claims = CLAIMS.repeat(len(caption_batches), 1)
    assert len(caption_batches) >= OFTEN
    batches = [(caption_batches[:2], claims[:2]), (caption_batches[2:], claims[2:])]
    distillation = QueryTokenDistillation(before, batches, GROUPS)
    usual = before(caption_batches)[1][:, 0].mean(0)
    with torch.no_grad():
        before.heads[0].bias[0] = 0  # type: ignore[index] # no longer sure
    targets, known = distillation.targets(words("red", "round"), torch.cat([CLAIMS, ~CLAIMS]))
    assert known.tolist() == [[True, False], [False, False]]
    assert torch.allclose(targets[0, 0], usual, atol=1e-6)


def test_a_slot_that_was_read_rightly_stays_though_another_is_usual(before: CaptionReader) -> None:
    caption_batches = words("round glasses", "red hair", "red glasses", "hair")
    distillation = QueryTokenDistillation(before, [(caption_batches, CLAIMS.repeat(4, 1))], GROUPS)
    read = words("red")
    targets, known = distillation.targets(read, CLAIMS)
    assert known.tolist() == [[True, False]]
    assert torch.equal(targets[0, 0], before(read)[1][0, 0].float())
    assert not torch.allclose(targets[0, 0], distillation.usual[0][0], atol=1e-4)


def test_what_is_seldom_claimed_has_nothing_usual(before: CaptionReader) -> None:
    caption_batches = words("round glasses", "red hair")
    assert len(caption_batches) < OFTEN
    distillation = QueryTokenDistillation(before, [(caption_batches, CLAIMS.repeat(2, 1))], GROUPS)
    with torch.no_grad():
        before.heads[0].bias[0] = 0  # type: ignore[index]
    assert not distillation.targets(words("red"), CLAIMS)[1].any()


def test_what_is_claimed_just_often_enough_has_something_usual(before: CaptionReader) -> None:
    caption_batches = words("round glasses", "red hair", "hair")
    assert len(caption_batches) == OFTEN
    distillation = QueryTokenDistillation(before, [(caption_batches, CLAIMS.repeat(OFTEN, 1))], GROUPS)
    assert [len(part) for part in distillation.usual] == [1, 0]
