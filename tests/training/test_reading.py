"""Saying what a caption claims: loss, accuracy, and a stage that learns it."""

import math

import pytest
import torch

from imagebart.avatars.attributes import VALUES
from imagebart.avatars.dataset import AvatarDataset, caption, claims_vector
from imagebart.diffusion import Schedule
from imagebart.stage import build_stage
from imagebart.testing import tiny_conditioner, tiny_stage_config
from imagebart.training.reading import ReadingStage, reading_accuracy, reading_loss

GROUPS = (3, 2)


def test_loss_counts_what_is_spoken_of_only() -> None:
    """By hand: one caption allows two of three values and is silent on the rest, another claims nothing."""
    readings = torch.tensor([[1.0, 2.0, 3.0, 9.0, -9.0], [5.0, 0.0, 0.0, 1.0, 1.0]])
    claims = torch.tensor([[True, True, False, True, True], [True, True, True, True, True]])
    inside, whole = math.exp(1) + math.exp(2), math.exp(1) + math.exp(2) + math.exp(3)
    assert reading_loss(readings, claims, GROUPS).item() == pytest.approx(-math.log(inside / whole), abs=1e-6)
    assert reading_accuracy(readings, claims, GROUPS).item() == 0.0
    assert reading_accuracy(readings.flip(1), claims.flip(1), (2, 3)).item() == 0.0
    assert reading_accuracy(-readings, claims, GROUPS).item() == 1.0


def test_nothing_spoken_of_is_no_loss() -> None:
    silent = torch.ones(2, 5, dtype=torch.bool)
    assert reading_loss(torch.randn(2, 5), silent, GROUPS).item() == 0.0


def test_claims_are_those_of_the_caption() -> None:
    claims = caption(7).claims
    flags = dict(zip(VALUES, claims_vector(claims).split(list(AvatarDataset.claim_groups)), strict=True))
    for name, values in VALUES.items():
        allowed = {value for value, flag in zip(values, flags[name].tolist(), strict=True) if flag}
        assert allowed == set(claims.get(name, values))


def test_a_reading_stage_is_the_stage_and_learns_to_read() -> None:
    torch.manual_seed(0)
    conditioner = tiny_conditioner("text")
    stage = build_stage(tiny_stage_config(1, Schedule((1.0,)), 24, 64, conditioner), 1)
    model = ReadingStage(stage, GROUPS)
    x = torch.randint(24, (2, 64))
    cond = conditioner.encode(["round glasses", "red hair"]).tokens
    claims = torch.tensor([[True, False, False, True, True], [False, False, True, False, True]])
    logits, first = model(x, x, cond)
    assert torch.equal(logits, stage.logits(x, x, cond))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        reading_loss(model(x, x, cond)[1], claims, GROUPS).backward()
        optimizer.step()
    _, last = model(x, x, cond)
    assert reading_loss(last, claims, GROUPS) < 0.1 < reading_loss(first, claims, GROUPS)
    assert reading_accuracy(last, claims, GROUPS) == 1.0
    assert not torch.equal(logits, stage.logits(x, x, cond)), "the layers below the head have learned too"
