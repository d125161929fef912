from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from oracles import (
    KINDS,
    all_sequences,
    chi_squared_p,
    joint_index,
    plain_decode,
    plain_filter,
    random_cond,
    random_stage,
)
from torch import Tensor

from imagebart.models.published import Kind, Stage
from imagebart.sampling.draft_length import OneByOne
from imagebart.sampling.speculative import Condition, Drawn, GuidedRun, decode_stage, draw, filter_logits, gumbel_noise
from imagebart.settings import SamplingSettings

OPTIONS = {
    "plain": SamplingSettings(),
    "top-k": SamplingSettings(top_k=3),
    "greedy": SamplingSettings(top_k=1),
    "top-p": SamplingSettings(top_p=0.7),
    "cold": SamplingSettings(temperature=0.3),
    "hot": SamplingSettings(temperature=3.0),
    "guidance": SamplingSettings(guidance=2.5),
    "unconditional": SamplingSettings(guidance=0.0),
    "all": SamplingSettings(temperature=1.4, top_k=5, top_p=0.8, guidance=3.0),
}
every_option = pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS.keys())
every_kind = pytest.mark.parametrize("kind", KINDS)
NO_CONDITION = Condition(None, None)


def generators(batch: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + b) for b in range(batch)]


def noise_for(stage: Stage, batch: int) -> Tensor:
    return gumbel_noise((stage.config.tokens, stage.config.vocab_size), generators(batch))


def random_masks(batch: int, tokens: int) -> Iterator[Tensor]:
    """Nothing kept, all but the last, all but the first, one row only, and different rows."""
    nothing = torch.zeros(batch, tokens, dtype=torch.bool)
    yield nothing
    for drawn in (0, tokens - 1):
        keep = ~nothing
        keep[:, drawn] = False
        yield keep
    keep = ~nothing
    keep[0] = False
    yield keep
    for share in (0.2, 0.5, 0.8):
        yield torch.rand(batch, tokens) < share


def last(events: Iterator[Drawn], otherwise: Tensor) -> Tensor:
    return ([otherwise] + [event.tokens for event in events])[-1]


class Fixed:
    """Always a number of steps more than needed."""

    def __init__(self, more: int) -> None:
        self.more = more

    def steps(self, needed: int, drafts: Iterable[bool]) -> int:
        return needed + self.more

    def learn(self, drawn: float) -> None:
        assert drawn >= 0


class Varying(Fixed):
    """Windows of any length, one after the other."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def steps(self, needed: int, drafts: Iterable[bool]) -> int:
        return needed + self.random.randint(0, 6)


class Forwards:
    """Counts a decoder's forwards and the tokens fed to it."""

    def __init__(self, stage: Stage) -> None:
        self.fed: list[tuple[int, int]] = []
        self.encoded = 0
        decoder = stage.prepared().decoder  # has timed forwards of its own
        forward = decoder.forward

        def counted(tokens: Tensor, *rest: Any) -> Tensor:
            self.fed.append((tokens.shape[0], tokens.shape[1]))
            return forward(tokens, *rest)

        decoder.forward = counted  # type: ignore[method-assign]
        if stage.config.encoder is not None:
            stage.encoder.register_forward_pre_hook(self._encoder)  # type: ignore[union-attr, operator]

    def _encoder(self, module: object, args: tuple[Tensor, ...]) -> None:
        self.encoded += 1


# Filters and draws


def test_filters_equal_sorting_by_hand() -> None:
    torch.manual_seed(1)
    choices = itertools.product((0.5, 1.0, 2.0), (None, 1, 3, 9, 50), (None, 1e-6, 0.4, 0.9, 1.0))
    for temperature, top_k, top_p in choices:
        settings = SamplingSettings(temperature, top_k, top_p)
        logits = 2 * torch.randn(4, 3, 9, dtype=torch.float64)
        found = filter_logits(logits, settings)
        assert found.shape == logits.shape and found.dtype == torch.float32
        expected = [[plain_filter(row.tolist(), settings) for row in rows] for rows in logits]
        torch.testing.assert_close(found, torch.tensor(expected))


def test_top_p_counts_only_what_top_k_left() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    found = filter_logits(logits, SamplingSettings(top_k=2, top_p=0.5))
    assert found.isfinite().tolist() == [True, False, False, False]
    found = filter_logits(logits, SamplingSettings(top_p=0.5))
    assert found.isfinite().tolist() == [True, True, False, False]


def test_coldest_temperature_of_large_logits_stays_a_number() -> None:
    logits = torch.tensor([[1e4, 3e4, -3e4]])
    found = filter_logits(logits, SamplingSettings(temperature=0.01, top_p=0.9))
    assert found.argmax() == 1 and not found.isnan().any()


@pytest.mark.parametrize(
    "settings", [SamplingSettings(), SamplingSettings(2.0), SamplingSettings(1.0, 3), SamplingSettings(1.0, None, 0.8)]
)
def test_gumbel_max_draws_from_the_softmax(settings: SamplingSettings) -> None:
    """Chi-squared; a right sampler fails once in 10,000 seeds, and the seed is fixed."""
    logits = torch.tensor([2.0, 1.5, 0.3, 0.0, -1.0, -2.5])
    noise = gumbel_noise((20_000, 6), generators(1, seed=5))[0]
    drawn = draw(logits.expand(20_000, 6), noise, settings)
    weights = [math.exp(value) for value in plain_filter(logits.tolist(), settings)]
    assert chi_squared_p(drawn.bincount(minlength=6), torch.tensor(weights)) > 1e-4


def test_gumbel_noise_is_gumbel() -> None:
    """Counts between deciles of exp(-exp(-x))."""
    noise = gumbel_noise((50_000,), generators(1))[0]
    deciles = torch.tensor([-math.log(-math.log(i / 10)) for i in range(1, 10)])
    counts = torch.bucketize(noise, deciles).bincount(minlength=10)
    assert chi_squared_p(counts, torch.full((10,), 0.1)) > 1e-4


def test_noise_of_a_row_is_its_own() -> None:
    noise = gumbel_noise((4, 5), generators(3, seed=8))
    assert noise.shape == (3, 4, 5) and noise.isfinite().all()
    for b in range(3):
        assert torch.equal(noise[b : b + 1], gumbel_noise((4, 5), generators(1, seed=8 + b)))
    assert not torch.equal(noise[0], noise[1])


# One stage


@every_option
@every_kind
def test_drafts_change_nothing(kind: Kind, settings: SamplingSettings) -> None:
    """In float64 under the same noise: token for token what one by one gives, computed naively, for every window,
    option and mask, rows with different masks included, and whatever the drafts are."""
    stage = random_stage(kind)
    batch, n = 3, stage.config.tokens
    cond, null = random_cond(stage, batch), torch.zeros(batch, 2, dtype=torch.long)
    for keep in random_masks(batch, n):
        c, x = (torch.randint(stage.config.vocab_size, (batch, n)) for _ in range(2))
        noise = gumbel_noise((n, stage.config.vocab_size), generators(batch, seed=int(keep.sum())))
        expected = plain_decode(stage, c, x, keep, cond, null, settings, noise)
        for windows in (OneByOne(), Fixed(1), Varying(int(keep.sum())), Varying(int(keep.sum()) + 1), None):
            draft = torch.where(keep, x, torch.randint(stage.config.vocab_size, (batch, n)))
            found = last(decode_stage(stage, c, draft, keep, Condition(cond, null), settings, noise, windows), draft)
            assert torch.equal(found, expected)
            assert torch.equal(found[keep], x[keep])


@every_kind
def test_drafts_save_passes(kind: Kind) -> None:
    """Right drafts: one pass. Wrong ones everywhere: no more passes than tokens, and each draws the next token."""
    stage = random_stage(kind, cond_length=0)
    n, k = stage.config.tokens, stage.config.vocab_size
    c, keep = torch.randint(k, (1, n)), torch.zeros(1, n, dtype=torch.bool)
    arguments = (keep, NO_CONDITION, SamplingSettings(), noise_for(stage, 1))
    result = last(decode_stage(stage, c, c, *arguments, OneByOne()), c)
    assert [event.position for event in decode_stage(stage, c, result, *arguments, Fixed(100))] == [n]
    events = list(decode_stage(stage, c, (result + 1) % k, *arguments, Fixed(100)))
    assert len(events) <= n and events[0].position == 1
    # One wrong token: its pass is right up to it and its own; after that, the last pass's predictions are drafts.
    draft = result.clone()
    draft[0, 2] = (draft[0, 2] + 1) % k
    assert next(decode_stage(stage, c, draft, *arguments, Fixed(100))).position == 3


def test_rows_advance_on_their_own_and_leave() -> None:
    """A row whose drafts are right is done in a pass; the batch then holds the other alone."""
    stage = random_stage("aligned", cond_length=0)
    n, k, batch = stage.config.tokens, stage.config.vocab_size, 2
    c, keep = torch.randint(k, (batch, n)), torch.zeros(batch, n, dtype=torch.bool)
    arguments = (keep, NO_CONDITION, SamplingSettings(), noise_for(stage, batch))
    result = last(decode_stage(stage, c, c, *arguments, OneByOne()), c)
    drafts = torch.stack([(result[0] + 1) % k, result[1]])
    forwards = Forwards(stage)
    events = list(decode_stage(stage, c, drafts, *arguments, Fixed(100)))
    assert torch.equal(events[-1].tokens, result)
    assert [rows for rows, _ in forwards.fed] == [2] + [1] * (len(events) - 1) and len(events) > 1
    assert torch.equal(events[0].tokens[1], result[1]) and events[0].position == 1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@every_kind
def test_as_many_forwards_as_tokens_to_draw(kind: Kind, guidance: float) -> None:
    """One by one: one for each; none after the last; the encoder once."""
    stage = random_stage(kind)
    n, batch = stage.config.tokens, 2
    cond = random_cond(stage, batch)
    condition = Condition(cond, cond)
    prefix = 1 + stage.config.cond_length if kind in ("decoder_only", "aligned") else 1
    c = torch.randint(stage.config.vocab_size, (batch, n))
    forwards = Forwards(stage)
    for mask in random_masks(batch, n):
        keep = mask[:1].expand(batch, n)
        unknown = [i for i in range(n) if not keep[:, i].all()]
        forwards.fed.clear()
        forwards.encoded = 0
        settings = SamplingSettings(guidance=guidance)
        drawn = list(decode_stage(stage, c, c, keep, condition, settings, noise_for(stage, batch), OneByOne()))
        assert [event.forwards for event in drawn] == list(range(1, len(drawn) + 1))
        assert [event.total for event in drawn] == [len(unknown)] * len(drawn)
        assert [event.position for event in drawn] == list(range(1, len(drawn) + 1))
        assert len(drawn) == len(forwards.fed) == len(unknown)
        assert all(rows == (batch if guidance == 1 else 2 * batch) for rows, _ in forwards.fed)
        if not unknown:
            assert forwards.encoded == 0
            continue
        # Every position before the last unknown one is fed once, none after it.
        assert sum(length for _, length in forwards.fed) == prefix + unknown[-1]
        assert forwards.encoded == (0 if kind == "decoder_only" else 1)


def test_tokens_appear_in_raster_order() -> None:
    stage = random_stage("aligned", cond_length=0)
    n, k = stage.config.tokens, stage.config.vocab_size
    keep = torch.tensor([[True, False, False, True, False, True]])
    x = torch.full((1, n), -1)  # no token: must never be fed
    x[keep] = 3
    c = torch.randint(k, (1, n))
    drawing = decode_stage(stage, c, x, keep, NO_CONDITION, SamplingSettings(), noise_for(stage, 1), OneByOne())
    snapshots = [event.tokens for event in drawing]
    known = [(snapshot[0] >= 0).tolist() for snapshot in snapshots]
    assert known == [
        [True, True, False, True, False, True],
        [True, True, True, True, False, True],
        [True, True, True, True, True, True],
    ]
    for earlier, later in zip(snapshots, snapshots[1:], strict=False):
        done = earlier >= 0
        assert torch.equal(earlier[done], later[done])
    assert torch.equal(x[keep], torch.full((3,), 3)) and (x[~keep] == -1).all()  # the input is left alone


def test_yielded_tokens_are_the_callers() -> None:
    """Scribbling over them changes nothing."""
    stage = random_stage("residual", cond_length=0)
    c = torch.randint(7, (2, 6))
    keep = torch.zeros(2, 6, dtype=torch.bool)
    arguments = (stage, c, c, keep, NO_CONDITION, SamplingSettings(), noise_for(stage, 2))
    untouched = [event.tokens for event in decode_stage(*arguments, OneByOne())]
    scribbled = []
    for event in decode_stage(*arguments, OneByOne()):
        scribbled.append(event.tokens.clone())
        event.tokens.zero_()
    assert all(torch.equal(a, b) for a, b in zip(untouched, scribbled, strict=True))


@every_kind
def test_nothing_to_draw_takes_no_forward(kind: Kind) -> None:
    stage = random_stage(kind, cond_length=0)
    forwards = Forwards(stage)
    c = torch.randint(7, (2, 6))
    keep = torch.ones(2, 6, dtype=torch.bool)
    assert list(decode_stage(stage, c, c, keep, NO_CONDITION, SamplingSettings(), noise_for(stage, 2))) == []
    assert forwards.fed == [] and forwards.encoded == 0


@every_kind
def test_rows_draw_as_they_would_alone(kind: Kind) -> None:
    stage = random_stage(kind)
    batch = 3
    cond = random_cond(stage, batch)
    assert cond is not None
    c = torch.randint(7, (batch, 6))
    keep = torch.rand(batch, 6) < 0.5
    noise = noise_for(stage, batch)
    settings = SamplingSettings(guidance=2.0)
    together = last(decode_stage(stage, c, c, keep, Condition(cond, cond.flip(0)), settings, noise), c)
    for b in range(batch):
        row = slice(b, b + 1)
        condition = Condition(cond[row], cond.flip(0)[row])
        alone = last(decode_stage(stage, c[row], c[row], keep[row], condition, settings, noise[row]), c[row])
        assert torch.equal(alone, together[row])


# Guidance


@every_kind
def test_guidance_moves_away_from_the_absent_condition(kind: Kind) -> None:
    stage = random_stage(kind)
    c, x = torch.randint(7, (2, 6)), torch.randint(7, (2, 6))
    cond, null = random_cond(stage, 2), torch.zeros(2, 2, dtype=torch.long)
    with_cond, without = stage.logits(x, c, cond)[:, 4], stage.logits(x, c, null)[:, 4]
    for guidance in (0.0, 0.5, 3.0):
        run = GuidedRun(stage, c, Condition(cond, null), guidance)
        found = run.logits(x, [0, 0], run.run.first + 5, run.run.first + 4)[:, 0]
        expected = without + guidance * (with_cond - without)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_guidance_needs_an_absent_condition() -> None:
    stage = random_stage("aligned")
    c = torch.randint(7, (1, 6))
    with pytest.raises(ValueError, match="guidance needs a model that was trained with its condition dropped"):
        GuidedRun(stage, c, Condition(random_cond(stage, 1), None), 2.0)


def test_guidance_without_a_condition_costs_nothing() -> None:
    """A model that takes no condition is not run twice."""
    stage = random_stage("aligned", cond_length=0)
    c = torch.randint(7, (1, 6))
    nothing = torch.zeros(1, 0, dtype=torch.long)
    for condition in (NO_CONDITION, Condition(nothing, nothing)):
        assert not GuidedRun(stage, c, condition, 2.0).guided


# Exact enumeration


@pytest.mark.parametrize("settings", [SamplingSettings(), SamplingSettings(0.7, 2), SamplingSettings(1.5, None, 0.8)])
@every_kind
def test_joint_of_a_stage_by_enumeration(kind: Kind, settings: SamplingSettings) -> None:
    """Frequencies of all 81 outcomes, with drafts; chi-squared, a right sampler fails once in 10,000 seeds (fixed)."""
    k, n, draws = 3, 4, 6000
    stage = random_stage(kind, n, k, cond_length=0)
    c = torch.tensor([[0, 2, 1, 1]])
    outcomes = all_sequences(n, k)
    keep_none = torch.zeros(1, n, dtype=torch.bool)
    for keep in (keep_none, torch.tensor([[False, True, False, False]])):
        x = torch.tensor([[0, 1, 0, 0]])
        probabilities = exact_joint(stage, c, x, keep, outcomes, settings)
        assert float(probabilities.sum()) == pytest.approx(1)
        noise = gumbel_noise((draws, n, k), generators(1, seed=3))[0]
        rows = (c.expand(draws, n), x.expand(draws, n), keep.expand(draws, n))
        drawn = last(decode_stage(stage, *rows, NO_CONDITION, settings, noise, Fixed(2)), x)
        counts = joint_index(drawn, k).bincount(minlength=k**n)
        assert chi_squared_p(counts, probabilities) > 1e-4


def exact_joint(
    stage: Stage, c: Tensor, x: Tensor, keep: Tensor, outcomes: Tensor, settings: SamplingSettings
) -> Tensor:
    """Probability of each outcome: the product over drawn positions, 0 where a kept token differs."""
    logits = stage.logits(outcomes, c.expand(len(outcomes), -1))
    result = torch.zeros(len(outcomes), dtype=torch.float64)
    for index, outcome in enumerate(outcomes.tolist()):
        probability = 1.0
        for i, token in enumerate(outcome):
            if keep[0, i]:
                probability *= token == int(x[0, i])
            else:
                weights = [math.exp(value) for value in plain_filter(logits[index, i].tolist(), settings)]
                probability *= weights[token] / sum(weights)
        result[index] = probability
    return result
