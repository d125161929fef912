"""A step, its drafts and their verification: the result of sampling one by one, in fewer passes."""

import itertools
import random
from collections.abc import Callable, Iterator
from unittest.mock import Mock, patch

import pytest
import torch
from oracles import (
    all_sequences,
    chi_squared_p,
    joint_index,
    noise_levels,
    plain_draw,
    plain_filter,
    plain_weights,
    teacher_forced,
)
from random_networks import STEPS, StepKind, chain_state, random_cond, random_step
from torch import Tensor

from imagebart.core.settings import SamplingSettings
from imagebart.models.diffusion import gumbel_noise, row_generators
from imagebart.sampling import steps as steps_module
from imagebart.sampling.steps import PASS_ROWS, ChainEvent, Step, StepRun, draft_length, filter_logits, sample_step

N, K = 6, 7
NOTHING = torch.zeros(2, N, dtype=torch.bool)
DraftLength = Callable[[int, list[bool], int], int]
OPTIONS = {
    "plain": SamplingSettings(),
    "greedy": SamplingSettings(top_k=1),
    "cold": SamplingSettings(temperature=0.3, guidance=2.5),
    "unconditional": SamplingSettings(top_p=0.7, guidance=0.0),
    "all": SamplingSettings(temperature=1.4, top_k=5, top_p=0.8, guidance=3.0),
}
every_step = pytest.mark.parametrize("kind", STEPS)


# Temperature and filters


def test_filters_equal_sorting_by_hand() -> None:
    choices = itertools.product((0.5, 1.0, 2.0), (None, 1, 3, 9, 50), (None, 1e-6, 0.4, 0.9, 1.0))
    for temperature, top_k, top_p in choices:
        settings = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p)
        logits = 2 * torch.randn(4, 3, 9, dtype=torch.float64)
        expected = [[plain_filter(row.tolist(), settings) for row in rows] for rows in logits]
        torch.testing.assert_close(filter_logits(logits, settings), torch.tensor(expected))


def test_top_p_keeps_no_more_than_it_takes_to_reach_it() -> None:
    kept = filter_logits(torch.zeros(2, 4), SamplingSettings(top_p=0.5)).isfinite()  # of quarters, exactly two
    assert kept.sum(-1).tolist() == [2, 2]


def test_the_coldest_temperature_of_large_logits_stays_a_number() -> None:
    found = filter_logits(torch.tensor([[1e4, 3e4, -3e4]]), SamplingSettings(temperature=0.01, top_p=0.9))
    assert found.argmax() == 1 and not found.isnan().any()


# Some positions at a time


@pytest.mark.parametrize(("cond_length", "query_tokens"), [(0, 0), (2, 0), (5, 3)])
@every_step
def test_drafts_predict_as_teacher_forcing(kind: StepKind, cond_length: int, query_tokens: int) -> None:
    """Rows at different positions, drafts that overlap what was seen, whatever stands after them."""
    rng, compared = random.Random(0), 0
    for trial in range(6):
        step = random_step(kind, cond_length=cond_length, seed=trial, query_tokens=query_tokens)
        x, c, cond = torch.randint(K, (3, N)), torch.randint(K, (3, N)), random_cond(3, cond_length)
        level = noise_levels(torch.rand(3, N) < 0.3)
        expected = teacher_forced(step, x, c, level, cond)
        run = StepRun(step, step.network.decoder, chain_state([step], c, level, cond))
        last, taken, rows = run.first + N, [0, 0, 0], [0, 1, 2]
        while min(taken) < last:
            length = rng.randint(1, last) if taken[0] else rng.randint(max(run.first, 1), last)
            begins = [min(rng.randint(max(0, t - 2), t), last - length) for t in taken]
            skip, fed = rng.randint(0, length - 1), x[rows].clone()
            for row, begin in enumerate(begins):
                end = max(begin + length - run.first - 1, 0)  # x from here on is not fed
                fed[row, end:] = torch.randint(K, (N - end,))
            found = run.logits(fed, begins, length, skip)
            predicted = run.predicted([begin + skip for begin in begins], length - skip)
            for (row, begin), offset in itertools.product(enumerate(begins), range(skip, length)):
                place = begin + offset - run.first
                if place >= 0:
                    assert predicted[row, offset - skip] == place
                if place >= 0 and level[rows[row], place]:
                    torch.testing.assert_close(found[row, offset - skip], expected[rows[row], place])
                    compared += 1
            taken = [max(t, b + length) for t, b in zip(taken, begins, strict=True)]
            if len(rows) == 3 and min(taken) > run.first:
                run.select(torch.tensor([2, 0]))
                rows, taken = [2, 0], [taken[2], taken[0]]
    assert compared > 6 * N


@every_step
def test_guidance_moves_away_from_the_absent_condition(kind: StepKind) -> None:
    """The double batch gives what two runs give, at every position and after rows have left."""
    step, level = random_step(kind), torch.ones(3, N)
    c, x, cond, unconditional = *torch.randint(K, (2, 3, N)), random_cond(3), torch.zeros(3, 2, dtype=torch.long)
    with_cond, without = (teacher_forced(step, x, c, level, given) for given in (cond, unconditional))
    for guidance in (0.0, 0.5, 3.0):
        run = StepRun(step, step.network.decoder, chain_state([step], c, level, cond, unconditional), guidance)
        expected = without + guidance * (with_cond - without)
        found = run.logits(x, [0, 0, 0], run.first + 3, run.first)
        torch.testing.assert_close(found.double(), expected[:, :3], rtol=1e-4, atol=1e-4)
        rest = torch.tensor([2, 0])
        run.select(rest)
        found = run.logits(x[rest], [run.first + 3] * 2, 3, 0)
        torch.testing.assert_close(found.double(), expected[rest, 3:], rtol=1e-4, atol=1e-4)


# Drafts


def noise_for(batch: int, seed: int = 0) -> Tensor:
    return gumbel_noise((N, K), row_generators(range(seed, seed + batch)))


def random_masks(batch: int) -> Iterator[Tensor]:
    """Nothing kept, all but the last, all but the first, one row only, and different rows."""
    nothing = torch.zeros(batch, N, dtype=torch.bool)
    yield nothing
    for drawn in (0, N - 1):
        yield (~nothing).index_fill(1, torch.tensor([drawn]), False)
    yield (~nothing).index_fill(0, torch.tensor([0]), False)
    for share in (0.2, 0.5, 0.8):
        yield torch.rand(batch, N) < share


def sampled(
    step: Step,
    c: Tensor,
    drafts: Tensor,
    keep: Tensor,
    noise: Tensor,
    settings: SamplingSettings = OPTIONS["plain"],
    cond: Tensor | None = None,
    unconditional: Tensor | None = None,
    length: DraftLength = draft_length,
) -> list[ChainEvent]:
    """The events of a step from x_t = c, with drafts of x_s."""
    absent = unconditional if settings.guidance != 1 else None
    state = chain_state([step], c, noise_levels(keep), cond, absent)
    event = ChainEvent(tokens=c, stage=1, stages=1, resample_index=0, resamples=1)
    with patch.object(steps_module, "draft_length", length):
        return list(sample_step(step, step.network.decoder, state, settings, noise, event, drafts))


def one_by_one(needed: int, unknown: list[bool], rows: int) -> int:
    """No drafts: a pass for every token sampled."""
    return needed


def all_at_once(needed: int, unknown: list[bool], rows: int) -> int:
    return 100


def of_any_length(seed: int) -> DraftLength:
    lengths = random.Random(seed)
    return lambda needed, unknown, rows: needed + lengths.randint(0, 6)


@pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS.keys())
@every_step
def test_drafts_change_nothing(kind: StepKind, settings: SamplingSettings) -> None:
    """In float64 under the same noise: token for token what one by one gives, computed naively, for every length,
    option and mask, rows with different masks included, and whatever the drafts are."""
    step, batch = random_step(kind), 3
    cond, unconditional = random_cond(batch), torch.zeros(batch, 2, dtype=torch.long)
    for number, keep in enumerate(random_masks(batch)):
        c, x = torch.randint(K, (2, batch, N))
        noise = noise_for(batch, number)
        expected = plain_draw(step, c, x, noise_levels(keep), cond, unconditional, settings, noise)
        for length in (one_by_one, of_any_length(number), draft_length):
            drafts = torch.where(keep, x, torch.randint(K, (batch, N)))
            given = drafts.clone()
            events = sampled(step, c, drafts, keep, noise, settings, cond, unconditional, length)
            assert torch.equal(events[-1].tokens, expected) and torch.equal(drafts, given)


@every_step
def test_drafts_save_passes(kind: StepKind) -> None:
    """Right drafts: one pass. Wrong ones everywhere: no more passes than tokens, and each draws the next token."""
    step, c, given = random_step(kind, cond_length=0), torch.randint(K, (1, N)), (NOTHING[:1], noise_for(1))
    result = sampled(step, c, c, *given, length=one_by_one)[-1].tokens
    assert [event.position for event in sampled(step, c, result, *given, length=all_at_once)] == [N]
    events = sampled(step, c, (result + 1) % K, *given, length=all_at_once)
    assert len(events) <= N and events[0].position == 1
    # One wrong token: its pass is right up to it and its own; after that, the last pass's predictions are drafts.
    drafts = result.clone()
    drafts[0, 2] = (drafts[0, 2] + 1) % K
    assert sampled(step, c, drafts, *given, length=all_at_once)[0].position == 3


def watched(step: Step) -> tuple[Mock, Mock]:
    """Counts the passes of a step's decoder, with their x_s, cache, begins and length, and of its encoder, if any."""
    decoder, encoder = step.network.decoder, step.network.encoder
    passes, encoded = Mock(wraps=decoder.decode), Mock(return_value=None)
    decoder.decode = passes  # type: ignore[method-assign]
    if encoder is not None:
        encoder.register_forward_pre_hook(lambda *_: encoded())
    return passes, encoded


def test_rows_advance_on_their_own_and_leave() -> None:
    """A row whose drafts are right is done in a pass; the batch then holds the other alone."""
    step, c, given = random_step("denoiser", cond_length=0), torch.randint(K, (2, N)), (NOTHING, noise_for(2))
    result = sampled(step, c, c, *given, length=one_by_one)[-1].tokens
    drafts, (passes, _) = torch.stack([(result[0] + 1) % K, result[1]]), watched(step)
    events = sampled(step, c, drafts, *given, length=all_at_once)
    assert torch.equal(events[-1].tokens, result)
    assert [len(call.args[0]) for call in passes.mock_calls] == [2] + [1] * (len(events) - 1) and len(events) > 1
    assert torch.equal(events[0].tokens[1], result[1]) and events[0].position == 1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@every_step
def test_without_drafts_there_is_a_pass_for_each_token(kind: StepKind, guidance: float) -> None:
    """Every position before the last unknown one is fed once, none after it; the encoder runs once."""
    step, cond, c = random_step(kind), random_cond(2), torch.randint(K, (2, N))
    prefix = 1 if kind in ("encoder_decoder", "residual") else 1 + 2
    (passes, encoded), settings = watched(step), SamplingSettings(guidance=guidance)
    for keep in (mask[:1].expand(2, N) for mask in (*random_masks(2), ~NOTHING)):
        unknown = (~keep[0]).nonzero().flatten().tolist()
        passes.reset_mock()
        encoded.reset_mock()
        events = sampled(step, c, c, keep, noise_for(2), settings, cond, cond, one_by_one)
        numbers = list(range(1, len(unknown) + 1))
        assert [(event.nfe, event.position, event.total) for event in events] == [(n, n, len(unknown)) for n in numbers]
        assert [len(call.args[0]) for call in passes.mock_calls] == [2 if guidance == 1 else 4] * len(unknown)
        assert sum(call.args[3] for call in passes.mock_calls) == (prefix + unknown[-1] if unknown else 0)
        assert encoded.call_count == (1 if unknown and step.network.encoder is not None else 0)


def test_yielded_tokens_are_the_callers() -> None:
    """Overwriting them changes nothing."""
    step, c = random_step("residual", cond_length=0), torch.randint(K, (2, N))
    untouched = [event.tokens for event in sampled(step, c, c, NOTHING, noise_for(2))]
    begun, overwritten = ChainEvent(tokens=c, stage=1, stages=1, resample_index=0, resamples=1), []
    settings, state = OPTIONS["plain"], chain_state([step], c)
    for event in sample_step(step, step.network.decoder, state, settings, noise_for(2), begun, c):
        overwritten.append(event.tokens.clone())
        event.tokens.zero_()
    assert all(torch.equal(a, b) for a, b in zip(untouched, overwritten, strict=True))


# Exact enumeration


def exact_joint(step: Step, c: Tensor, x: Tensor, keep: Tensor, outcomes: Tensor, settings: SamplingSettings) -> Tensor:
    """Probability of each outcome: the product over drawn positions, 0 where a kept token differs."""
    size = len(outcomes)
    logits = teacher_forced(step, outcomes, c.expand(size, -1), noise_levels(keep).expand(size, -1), None)
    result = torch.ones(size, dtype=torch.float64)
    for index, outcome in enumerate(outcomes.tolist()):
        for i, token in enumerate(outcome):
            if keep[0, i]:
                result[index] *= token == int(x[0, i])
            else:
                result[index] *= plain_weights(step, logits[index, i].tolist(), int(c[0, i]), settings)[token]
    return result


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 2}, {"temperature": 1.5, "top_p": 0.8}], ids=str)
@every_step
def test_joint_of_a_step_by_enumeration(kind: StepKind, options: dict[str, float]) -> None:
    """Frequencies of all 81 outcomes, with drafts; chi-squared, a right sampler fails once in 10,000 seeds (fixed)."""
    k, n, draws, settings = 3, 4, 3000, SamplingSettings.parse(**options)
    step, outcomes = random_step(kind, n, k, cond_length=0), all_sequences(n, k)
    c, x = torch.tensor([[0, 2, 1, 1]]), torch.tensor([[0, 1, 0, 0]])
    for keep in (torch.zeros(1, n, dtype=torch.bool), torch.tensor([[False, True, False, False]])):
        probabilities = exact_joint(step, c, x, keep, outcomes, settings)
        assert float(probabilities.sum()) == pytest.approx(1)
        noise = gumbel_noise((draws, n, k), row_generators([3]))[0]
        rows = (part.expand(draws, n) for part in (c, x, keep))
        drawn = sampled(step, *rows, noise, settings)[-1].tokens
        assert chi_squared_p(joint_index(drawn, k).bincount(minlength=k**n), probabilities) > 1e-4


# How many drafts a pass verifies


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("known", [0, 1, 3])
def test_a_pass_has_as_many_drafts_as_make_a_number_of_rows(rows: int, known: int) -> None:
    """Known tokens after each unknown one take positions, but are not counted; eight drafts at least."""
    drafts = max(PASS_ROWS // rows, 8)
    positions = (known + 1) * (drafts - 1) + 1
    assert draft_length(1, ([True] + [False] * known) * 256, rows) == positions + positions % 2


@pytest.mark.parametrize(("left", "needed"), [(1, 1), (3, 1), (5, 20), (7, 101)])
def test_a_pass_ends_with_the_tokens_in_even_lengths_of_four_and_more(left: int, needed: int) -> None:
    length = draft_length(needed, [True] * left, 1)
    assert length % 2 == 0 and length >= 4
    assert needed - 1 + left <= length <= max(needed + left, 4)
