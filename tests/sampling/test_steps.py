"""A step that is run a few positions at a time predicts what the network predicts for all positions at once."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from oracles import noise_levels, teacher_forced
from random_networks import CONDITIONS, STEPS, StepKind, chain_state, random_cond, random_step
from torch import Tensor

from imagebart.sampling.steps import Step, StepRun

every_step = pytest.mark.parametrize("kind", STEPS)


def run_of(step: Step, c: Tensor, level: Tensor, cond: Tensor | None, guidance: float = 1.0, **more: Any) -> StepRun:
    """A step from x_t = c."""
    return StepRun(step, step.network.decoder, chain_state([step], c, level, cond, **more), guidance)


def tokens(batch: int) -> Tensor:
    return torch.randint(7, (batch, 6))


@pytest.mark.parametrize(("cond_length", "query_tokens"), [(0, 0), (2, 0), (5, 3)])
@every_step
def test_drafts_predict_as_teacher_forcing(kind: StepKind, cond_length: int, query_tokens: int) -> None:
    """Rows at different steps, drafts that overlap what was seen, whatever stands after them."""
    rng, n, k, compared = random.Random(0), 6, 7, 0
    for trial in range(6):
        step = random_step(kind, cond_length=cond_length, seed=trial, query_tokens=query_tokens)
        x, c, cond = tokens(3), tokens(3), random_cond(3, cond_length)
        keep = torch.rand(3, n) < 0.3
        expected = teacher_forced(step, x, c, noise_levels(keep), cond)
        run = run_of(step, c, noise_levels(keep), cond)
        last = run.first + n
        taken = [0, 0, 0]
        rows = [0, 1, 2]
        while min(taken) < last:
            length = rng.randint(1, last) if taken[0] else rng.randint(max(run.first, 1), last)
            begins = [min(rng.randint(max(0, t - 2), t), last - length) for t in taken]
            skip = rng.randint(0, length - 1)
            fed = x[rows].clone()
            for row, begin in enumerate(begins):
                end = begin + length - run.first - 1  # x from here on is not fed
                fed[row, max(end, 0) :] = torch.randint(k, (n - max(end, 0),))
            found = run.logits(fed, begins, length, skip)
            predicted = run.predicted([begin + skip for begin in begins], length - skip)
            assert found.shape == (len(rows), length - skip, k)
            for row, begin in enumerate(begins):
                for offset in range(skip, length):
                    place = begin + offset - run.first
                    if place >= 0:
                        assert predicted[row, offset - skip] == place
                    if place >= 0 and not keep[rows[row], place]:
                        torch.testing.assert_close(found[row, offset - skip], expected[rows[row], place])
                        compared += 1
            taken = [max(t, b + length) for t, b in zip(taken, begins, strict=True)]
            if len(rows) == 3 and min(taken) > run.first:
                run.select(torch.tensor([2, 0]))
                rows, taken = [2, 0], [taken[2], taken[0]]
    assert compared > 6 * n


@every_step
def test_positions_may_be_run_again_with_other_tokens(kind: StepKind) -> None:
    step = random_step(kind)
    x, c, cond, keep = tokens(2), tokens(2), random_cond(2), torch.zeros(2, 6, dtype=torch.bool)
    run = run_of(step, c, noise_levels(keep), cond)
    run.logits(tokens(2), [0, 0], run.first + 6)  # drafts
    right = run.logits(x, [run.first, run.first], 6)
    torch.testing.assert_close(right, teacher_forced(step, x, c, noise_levels(keep), cond))


def test_the_denoiser_sees_noise_levels() -> None:
    """Whether a token is kept changes what is predicted everywhere; stages cannot know."""
    x, c, cond = tokens(1), tokens(1), random_cond(1)
    for kind in STEPS:
        step = random_step(kind)
        found = []
        for kept in (False, True):
            keep = torch.zeros(1, 6, dtype=torch.bool)
            keep[0, 5] = kept
            run = run_of(step, c, noise_levels(keep), cond)
            found.append(run.logits(x, [0], run.first + 6, run.first)[0, :5])
        differ = (found[0] - found[1]).abs().amax(-1) > 1e-9
        assert differ.all() if kind.startswith("denoiser") else not differ.any()


# Guidance


@every_step
def test_guidance_moves_away_from_the_absent_condition(kind: StepKind) -> None:
    """The double batch gives what two runs give, at every position and after rows have left."""
    step = random_step(kind)
    c, x, keep = tokens(3), tokens(3), torch.zeros(3, 6, dtype=torch.bool)
    cond, unconditional = random_cond(3), torch.zeros(3, 2, dtype=torch.long)
    with_cond, without = (teacher_forced(step, x, c, noise_levels(keep), given) for given in (cond, unconditional))
    for guidance in (0.0, 0.5, 3.0):
        run = run_of(step, c, noise_levels(keep), cond, guidance, unconditional=unconditional)
        assert run.guided and len(run.cache.prefix) == 6
        expected = without + guidance * (with_cond - without)
        found = run.logits(x, [0, 0, 0], run.first + 3, run.first)
        torch.testing.assert_close(found.double(), expected[:, :3], rtol=1e-4, atol=1e-4)
        rest = torch.tensor([2, 0])
        run.select(rest)
        found = run.logits(x[rest], [run.first + 3] * 2, 3, 0)
        torch.testing.assert_close(found.double(), expected[rest, 3:], rtol=1e-4, atol=1e-4)
        assert run.predicted([run.first + 3, run.first + 4], 2).tolist() == [[3, 4], [4, 5]]


def test_conditions_are_those_of_the_rows() -> None:
    x, level = tokens(3), torch.rand(3, 6)
    cond, unconditional = torch.randint(CONDITIONS, (3, 2)), torch.zeros(3, 2, dtype=torch.long)
    step = random_step("denoiser")
    found = chain_state([step], x, level, cond, unconditional)
    chosen = found.select(torch.tensor([2, 0]))
    for name in ("x", "noise_level"):
        assert torch.equal(getattr(chosen, name), getattr(found, name)[[2, 0]]), name
    assert chosen.cond is not None and torch.equal(chosen.cond, torch.cat([cond[[2, 0]], unconditional[:2]]))
    assert torch.equal(chosen.without_guidance().cond, cond[[2, 0]])  # type: ignore[arg-type]
