"""A step, its drafts and their verification: the result of sampling one by one, in fewer passes."""

import itertools
import random
from collections.abc import Iterator, Sequence
from unittest.mock import Mock, patch

import pytest
import torch
from oracles import chi_squared_p, plain_draw, plain_filter, plain_weights, teacher_forced
from random_networks import STEPS, StepKind, chain_state, random_cond, random_step, sampled
from torch import Tensor

from imagebart.core.settings import SamplingSettings
from imagebart.models.diffusion import gumbel_noise, row_generators
from imagebart.sampling import steps as steps_module
from imagebart.sampling.steps import PASS_ROWS, ChainEvent, Step, StepRun, draft_length, filter_logits

N, K = 6, 7
NOTHING = torch.zeros(2, N, dtype=torch.bool)
OPTIONS = {
    "plain": SamplingSettings(),
    "greedy": SamplingSettings(top_k=1),
    "cold": SamplingSettings(temperature=0.3, guidance=2.5),
    "unconditional": SamplingSettings(top_p=0.7, guidance=0.0),
    "all": SamplingSettings(temperature=1.4, top_k=5, top_p=0.8, guidance=3.0),
}
every_step = pytest.mark.parametrize("kind", STEPS)


def test_filters_equal_sorting_by_hand() -> None:
    choices = itertools.product((0.5, 1.0, 2.0), (None, 1, 3, 9, 50), (None, 1e-6, 0.4, 0.9, 1.0))
    for temperature, top_k, top_p in choices:
        settings = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p)
        logits = 2 * torch.randn(4, 3, 9, dtype=torch.float64)
        expected = [[plain_filter(row.tolist(), settings) for row in rows] for rows in logits]
        torch.testing.assert_close(filter_logits(logits, settings), torch.tensor(expected))


def test_top_p_keeps_no_more_than_it_needs_and_large_logits_stay_numbers() -> None:
    kept = filter_logits(torch.zeros(2, 4), SamplingSettings(top_p=0.5)).isfinite()  # of quarters, exactly two
    assert kept.sum(-1).tolist() == [2, 2]
    found = filter_logits(torch.tensor([[1e4, 3e4, -3e4]]), SamplingSettings(temperature=0.01, top_p=0.9))
    assert found.argmax() == 1 and not found.isnan().any()


@pytest.mark.parametrize(("cond_length", "query_tokens"), [(0, 0), (2, 0), (5, 3)])
@pytest.mark.parametrize("guidance", [1.0, 0.0, 0.5, 3.0])
@every_step
def test_equals_teacher_forcing(kind: StepKind, guidance: float, cond_length: int, query_tokens: int) -> None:
    """Two tokens a pass, of rows at different places, of which one leaves; with guidance, two runs' logits combined."""
    step = random_step(kind, cond_length=cond_length, query_tokens=query_tokens)
    x, c, cond = torch.randint(K, (3, N)), torch.randint(K, (3, N)), random_cond(3, cond_length)
    level, unconditional = (torch.rand(3, N) < 0.7).float(), None
    expected = teacher_forced(step, x, c, level, cond)
    if guidance != 1 and cond is not None:
        unconditional = torch.zeros_like(cond)
        without = teacher_forced(step, x, c, level, unconditional)
        expected = without + guidance * (expected - without)
    run = StepRun(step, chain_state([step], c, level, cond, unconditional), guidance)
    # Rows, the first token that a pass predicts of each, and the positions before it that are computed, too.
    for rows, places, skip in (([0, 1, 2], [0, 0, 0], run.first), ([0, 1, 2], [1, 2, 2], 1), ([2, 0], [4, 3], 0)):
        if len(rows) == 2:
            run.select(torch.tensor(rows))
        at, begins = torch.tensor(places)[:, None] + torch.arange(2), [run.first + place - skip for place in places]
        fed = torch.where(torch.arange(N) > at[:, :1], torch.randint(K, (len(rows), N)), x[rows])
        assert torch.equal(run.predicted([begin + skip for begin in begins], 2), at)
        found, there = run.logits(fed, begins, skip + 2, skip).double(), (torch.tensor(rows)[:, None], at)
        wanted, tolerance = level[there] > 0, 1e-7 if unconditional is None else 1e-4  # guidance is in float32
        torch.testing.assert_close(found[wanted], expected[there][wanted], rtol=tolerance, atol=tolerance)


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


ONE_BY_ONE, AT_ONCE = [0], [100]  # drafts that a pass verifies


def drawn(
    step: Step,
    c: Tensor,
    drafts: Tensor,
    keep: Tensor,
    noise: Tensor,
    verified: Sequence[int] = (),
    settings: SamplingSettings = OPTIONS["plain"],
    cond: Tensor | None = None,
    unconditional: Tensor | None = None,
) -> list[ChainEvent]:
    """The events of a step from x_t = c, with drafts of x_s, of which passes verify so many in turn; (): their own."""
    absent, counts = unconditional if settings.guidance != 1 else None, itertools.cycle(verified)
    length = (lambda needed, unknown, rows: needed + next(counts)) if verified else draft_length
    with patch.object(steps_module, "draft_length", length):
        return [*sampled(chain_state([step], c, (~keep).float(), cond, absent), settings, noise, drafts)]


@pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS.keys())
@every_step
def test_drafts_change_nothing(kind: StepKind, settings: SamplingSettings) -> None:
    """In float64 under the same noise: token for token what one by one gives, for every length, option and mask."""
    step, batch = random_step(kind), 3
    cond, unconditional = random_cond(batch), torch.zeros(batch, 2, dtype=torch.long)
    for number, keep in enumerate(random_masks(batch)):
        (c, x), noise = torch.randint(K, (2, batch, N)), noise_for(batch, number)
        expected = plain_draw(step, c, x, (~keep).float(), cond, unconditional, settings, noise)
        for verified in (ONE_BY_ONE, random.Random(number).choices(range(7), k=20), ()):
            drafts = torch.where(keep, x, torch.randint(K, (batch, N)))
            given = drafts.clone()
            events = drawn(step, c, drafts, keep, noise, verified, settings, cond, unconditional)
            assert torch.equal(events[-1].tokens, expected) and torch.equal(drafts, given)


@every_step
def test_drafts_save_passes(kind: StepKind) -> None:
    """Right drafts: one pass. Wrong ones everywhere: no more passes than tokens, and each draws the next token."""
    step, c, given = random_step(kind, cond_length=0), torch.randint(K, (1, N)), (NOTHING[:1], noise_for(1))
    result = drawn(step, c, c, *given, ONE_BY_ONE)[-1].tokens
    assert [event.position for event in drawn(step, c, result, *given, AT_ONCE)] == [N]
    events = drawn(step, c, (result + 1) % K, *given, AT_ONCE)
    assert len(events) <= N and events[0].position == 1
    # One wrong token: its pass is right up to it and its own; after that, the last pass's predictions are drafts.
    drafts = result.clone()
    drafts[0, 2] = (drafts[0, 2] + 1) % K
    assert drawn(step, c, drafts, *given, AT_ONCE)[0].position == 3


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
    result = drawn(step, c, c, *given, ONE_BY_ONE)[-1].tokens
    drafts, (passes, _) = torch.stack([(result[0] + 1) % K, result[1]]), watched(step)
    events = drawn(step, c, drafts, *given, AT_ONCE)
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
        events = drawn(step, c, c, keep, noise_for(2), ONE_BY_ONE, settings, cond, cond)
        numbers = list(range(1, len(unknown) + 1))
        assert [(event.nfe, event.position, event.total) for event in events] == [(n, n, len(unknown)) for n in numbers]
        assert [len(call.args[0]) for call in passes.mock_calls] == [2 if guidance == 1 else 4] * len(unknown)
        assert sum(call.args[3] for call in passes.mock_calls) == (prefix + unknown[-1] if unknown else 0)
        assert encoded.call_count == (1 if unknown and step.network.encoder is not None else 0)


def exact_joint(step: Step, c: Tensor, keep: Tensor, outcomes: Tensor, settings: SamplingSettings) -> Tensor:
    """p(x_s = outcome | x_t = c) for every outcome [M, N], 0 where a token that is kept, bool [N], differs."""
    logits = teacher_forced(step, outcomes, c.expand(outcomes.shape), (~keep).float().expand(outcomes.shape), None)
    result = (outcomes == c)[:, keep].all(1).double()
    for index, outcome in enumerate(outcomes.tolist()):
        for i in (~keep).nonzero().flatten().tolist():
            result[index] *= plain_weights(step, logits[index, i].tolist(), int(c[i]), settings)[outcome[i]]
    return result


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 2}, {"temperature": 1.5, "top_p": 0.8}], ids=str)
@every_step
def test_joint_of_a_step_by_enumeration(kind: StepKind, options: dict[str, float]) -> None:
    """Frequencies of all 81 outcomes, with drafts; chi-squared, a right sampler fails once in 10,000 seeds (fixed)."""
    k, n, draws, settings = 3, 4, 3000, SamplingSettings.parse(**options)
    step, outcomes = random_step(kind, n, k, cond_length=0), torch.cartesian_prod(*[torch.arange(k)] * n)
    c, noise = torch.tensor([0, 2, 1, 1]), gumbel_noise((draws, n, k), row_generators([3]))[0]
    for keep in (torch.zeros(n, dtype=torch.bool), torch.tensor([False, True, False, False])):
        probabilities = exact_joint(step, c, keep, outcomes, settings)
        assert float(probabilities.sum()) == pytest.approx(1)
        rows = (part.expand(draws, n) for part in (c, c, keep))
        found = drawn(step, *rows, noise, settings=settings)[-1].tokens
        place = (found * k ** torch.arange(n - 1, -1, -1)).sum(1)  # among the outcomes
        assert chi_squared_p(place.bincount(minlength=k**n), probabilities) > 1e-4


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("known", [0, 1, 3])
def test_a_pass_has_as_many_drafts_as_make_a_number_of_rows(rows: int, known: int) -> None:
    """At least eight, or all that are left. Known tokens take positions, but do not count; lengths are even, over 3."""
    for left, needed in itertools.product((1, 3, 5, 256), (1, 2, 20, 101)):
        drafts = min(max(PASS_ROWS // rows, 8), left)
        positions = needed + (known + 1) * (drafts - 1)
        unknown = ([True] + [False] * known) * left
        assert draft_length(needed, unknown, rows) == max(positions + positions % 2, 4)
