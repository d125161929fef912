"""What captions claim, and a text encoder that learns to say it."""

import math

import pytest
import torch
from tiny_models import tiny_conditioner

from imagebart.avatars.attributes import VALUES
from imagebart.avatars.claims import GROUPS, CaptionReader, claims_vector
from imagebart.models.text_encoder import TextEncoder
from imagebart.training.config import StageShape
from imagebart.training.token_task import text_config
from recipes.avatars.dataset import caption
from recipes.avatars.training import reading_accuracy, reading_loss

SMALL = (4, 3)  # two attributes of three and of two values
SHAPE = StageShape(width=32, heads=2, head_size=16, encoder_depth=1, query_tokens=3)


def test_loss_asks_for_what_is_claimed_in_equal_parts() -> None:
    """By hand: two of three values are claimed of the first attribute, nothing is said of the second."""
    readings = torch.tensor([[1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0]])
    claims = torch.tensor([[True, True, False, False, False, False, True]])
    first = math.log(1 + math.e + math.exp(2) + math.exp(3)) - 0.5 * (1 + 2)
    second = math.log(math.exp(1) + math.exp(2) + math.exp(3)) - 3
    assert reading_loss(readings, claims, SMALL).item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_accuracy_counts_what_is_spoken_of_only() -> None:
    readings = torch.tensor([[1.0, 3.0, 2.0, 0.0, 1.0, 2.0, 3.0]])
    assert reading_accuracy(readings, torch.tensor([[False, True, True, False, False, False, True]]), SMALL) == 1
    assert reading_accuracy(readings, torch.tensor([[True, False, True, False, False, False, True]]), SMALL) == 0
    assert reading_accuracy(readings, torch.tensor([[True, True, False, False, True, False, False]]), SMALL) == 0.5
    assert reading_accuracy(readings, torch.tensor([[False, False, False, True, False, False, True]]), SMALL) == 0


def test_claims_are_those_of_the_caption() -> None:
    claims = caption(7).claims
    flags = dict(zip(VALUES, claims_vector(claims).split(GROUPS), strict=True))
    for name, values in VALUES.items():
        *allowed, silent = flags[name].tolist()
        assert {value for value, flag in zip(values, allowed, strict=True) if flag} == claims.get(name, frozenset())
        assert silent == (name not in claims)


def test_a_text_encoder_learns_to_read() -> None:
    torch.manual_seed(0)
    conditioner = tiny_conditioner("text")
    model = CaptionReader(TextEncoder(text_config(SHAPE, conditioner)), SMALL)
    words = conditioner.encode(["round glasses", "red hair"]).tokens
    claims = torch.tensor([[True, False, False, False, False, False, True], [0, 0, 1, 0, 0, 1, 0]]).bool()
    assert reading_loss(model(words)[0], claims, SMALL) > 0.5
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        reading_loss(model(words)[0], claims, SMALL).backward()
        optimizer.step()
    assert reading_loss(model(words)[0], claims, SMALL) < 0.1
    assert reading_accuracy(model(words)[0], claims, SMALL) == 1.0


def test_too_few_slots_are_refused() -> None:
    encoder = TextEncoder(text_config(SHAPE, tiny_conditioner("text")))
    with pytest.raises(ValueError, match="query_tokens is 3, expected 4, one an attribute"):
        CaptionReader(encoder, (2, 2, 2, 2))
