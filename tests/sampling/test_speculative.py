"""Drafts and their verification: the result of sampling one by one, in fewer passes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest
import torch
from oracles import all_sequences, chi_squared_p, joint_index, noise_levels, plain_draw, plain_weights, teacher_forced
from random_networks import STEPS, StepKind, chain_state, random_cond, random_step
from torch import Tensor

from imagebart.core.settings import SamplingSettings
from imagebart.models.diffusion import gumbel_noise, row_generators
from imagebart.models.transformer import Cache, Transformer
from imagebart.sampling import steps as steps_module
from imagebart.sampling.steps import PASS_ROWS, ChainEvent, Step, draft_length, sample_step

N, K = 6, 7
DraftLength = Callable[[int, list[bool], int], int]
OPTIONS = {
    "plain": SamplingSettings(),
    "greedy": SamplingSettings(top_k=1),
    "cold": SamplingSettings(temperature=0.3, guidance=2.5),
    "unconditional": SamplingSettings(top_p=0.7, guidance=0.0),
    "all": SamplingSettings(temperature=1.4, top_k=5, top_p=0.8, guidance=3.0),
}
every_option = pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS.keys())
every_step = pytest.mark.parametrize("kind", STEPS)


def noise_for(batch: int, seed: int = 0) -> Tensor:
    return gumbel_noise((N, K), row_generators(range(seed, seed + batch)))


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


def sampled(
    step: Step,
    c: Tensor,
    drafts: Tensor,
    level: Tensor,
    noise: Tensor,
    settings: SamplingSettings | None = None,
    cond: Tensor | None = None,
    unconditional: Tensor | None = None,
    length: DraftLength = draft_length,
) -> Iterator[ChainEvent]:
    """The events of a step from x_t = c, with drafts of x_s."""
    settings = settings or SamplingSettings()
    state = chain_state([step], c, level, cond, unconditional if settings.guidance != 1 else None)
    event = ChainEvent(tokens=c, stage=1, stages=1, resample_index=0, resamples=1)
    with patch.object(steps_module, "draft_length", length):
        yield from sample_step(step, step.network.decoder, state, settings, noise, event, drafts)


def last(events: Iterator[ChainEvent], otherwise: Tensor) -> Tensor:
    return ([otherwise] + [event.tokens for event in events])[-1]


def one_by_one(needed: int, unknown: list[bool], rows: int) -> int:
    """No drafts: a pass for every token sampled."""
    return needed


def fixed(more: int) -> DraftLength:
    """Always a number of positions more than needed."""
    return lambda needed, unknown, rows: needed + more


def varying(seed: int) -> DraftLength:
    """Drafts of any length, one after the other."""
    lengths = random.Random(seed)
    return lambda needed, unknown, rows: needed + lengths.randint(0, 6)


def encoder_of(step: Step) -> Transformer | None:
    return getattr(step.network, "encoder", None)


class Forwards:
    """Counts a decoder's nfe and the tokens fed to it."""

    def __init__(self, step: Step) -> None:
        self.fed: list[tuple[int, int]] = []
        self.encoded = 0
        decode = step.network.decoder.decode

        def counted(x_s: Tensor, cache: Cache, begins: list[int], length: int) -> Tensor:
            self.fed.append((len(x_s), length))
            return decode(x_s, cache, begins, length)

        step.network.decoder.decode = counted  # type: ignore[method-assign]
        encoder = encoder_of(step)
        if encoder is not None:
            encoder.register_forward_pre_hook(self._encoder)

    def _encoder(self, module: object, args: tuple[Tensor, ...]) -> None:
        self.encoded += 1


# One step


@every_option
@every_step
def test_drafts_change_nothing(kind: StepKind, settings: SamplingSettings) -> None:
    """In float64 under the same noise: token for token what one by one gives, computed naively, for every length,
    option and mask, rows with different masks included, and whatever the drafts are."""
    step, batch = random_step(kind), 3
    cond, unconditional = random_cond(batch), torch.zeros(batch, 2, dtype=torch.long)
    for keep in random_masks(batch, N):
        c, x = (torch.randint(K, (batch, N)) for _ in range(2))
        noise = noise_for(batch, seed=int(keep.sum()))
        expected = plain_draw(step, c, x, noise_levels(keep), cond, unconditional, settings, noise)
        for length in (one_by_one, varying(int(keep.sum())), draft_length):
            draft = torch.where(keep, x, torch.randint(K, (batch, N)))
            drawing = sampled(step, c, draft, noise_levels(keep), noise, settings, cond, unconditional, length)
            found = last(drawing, draft)
            assert torch.equal(found, expected)
            assert torch.equal(found[keep], x[keep])


@every_step
def test_drafts_save_passes(kind: StepKind) -> None:
    """Right drafts: one pass. Wrong ones everywhere: no more passes than tokens, and each draws the next token."""
    step = random_step(kind, cond_length=0)
    c, keep = torch.randint(K, (1, N)), torch.zeros(1, N, dtype=torch.bool)
    given = (noise_levels(keep), noise_for(1))
    result = last(sampled(step, c, c, *given, length=one_by_one), c)
    assert [event.position for event in sampled(step, c, result, *given, length=fixed(100))] == [N]
    events = list(sampled(step, c, (result + 1) % K, *given, length=fixed(100)))
    assert len(events) <= N and events[0].position == 1
    # One wrong token: its pass is right up to it and its own; after that, the last pass's predictions are drafts.
    draft = result.clone()
    draft[0, 2] = (draft[0, 2] + 1) % K
    assert next(sampled(step, c, draft, *given, length=fixed(100))).position == 3


def test_rows_advance_on_their_own_and_leave() -> None:
    """A row whose drafts are right is done in a pass; the batch then holds the other alone."""
    step, batch = random_step("denoiser", cond_length=0), 2
    c, keep = torch.randint(K, (batch, N)), torch.zeros(batch, N, dtype=torch.bool)
    given = (noise_levels(keep), noise_for(batch))
    result = last(sampled(step, c, c, *given, length=one_by_one), c)
    drafts = torch.stack([(result[0] + 1) % K, result[1]])
    nfe = Forwards(step)
    events = list(sampled(step, c, drafts, *given, length=fixed(100)))
    assert torch.equal(events[-1].tokens, result)
    assert [rows for rows, _ in nfe.fed] == [2] + [1] * (len(events) - 1) and len(events) > 1
    assert torch.equal(events[0].tokens[1], result[1]) and events[0].position == 1


@every_step
def test_without_drafts_there_is_a_pass_for_each_token(kind: StepKind) -> None:
    """One by one: one for each; none after the last; the encoder once."""
    for guidance in (1.0, 2.0):
        step, batch = random_step(kind), 2
        cond = random_cond(2)
        prefix = 1 if kind in ("encoder_decoder", "residual") else 1 + 2
        c = torch.randint(K, (batch, N))
        nfe, settings = Forwards(step), SamplingSettings(guidance=guidance)
        for mask in random_masks(batch, N):
            keep = mask[:1].expand(batch, N)
            unknown = [i for i in range(N) if not keep[:, i].all()]
            nfe.fed.clear()
            nfe.encoded = 0
            given = (noise_levels(keep), noise_for(batch), settings, cond, cond, one_by_one)
            drawn = list(sampled(step, c, c, *given))
            assert [event.nfe for event in drawn] == list(range(1, len(drawn) + 1))
            assert [event.total for event in drawn] == [len(unknown)] * len(drawn)
            assert [event.position for event in drawn] == list(range(1, len(drawn) + 1))
            assert len(drawn) == len(nfe.fed) == len(unknown)
            assert all(rows == (batch if guidance == 1 else 2 * batch) for rows, _ in nfe.fed)
            # Every position before the last unknown one is fed once, none after it.
            assert sum(length for _, length in nfe.fed) == (prefix + unknown[-1] if unknown else 0)
            assert nfe.encoded == (1 if unknown and encoder_of(step) is not None else 0)


def test_tokens_appear_in_raster_order() -> None:
    step = random_step("denoiser", cond_length=0)
    keep = torch.tensor([[True, False, False, True, False, True]])
    x = torch.full((1, N), -1)  # no token: must never be fed
    x[keep] = 3
    c = torch.randint(K, (1, N))
    events = sampled(step, c, x, noise_levels(keep), noise_for(1), length=one_by_one)
    snapshots = [event.tokens for event in events]
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
    """Overwriting them changes nothing."""
    step = random_step("residual", cond_length=0)
    c, keep = torch.randint(K, (2, N)), torch.zeros(2, N, dtype=torch.bool)
    given = (step, c, c, noise_levels(keep), noise_for(2))
    untouched = [event.tokens for event in sampled(*given, length=one_by_one)]
    overwritten = []
    for event in sampled(*given, length=one_by_one):
        overwritten.append(event.tokens.clone())
        event.tokens.zero_()
    assert all(torch.equal(a, b) for a, b in zip(untouched, overwritten, strict=True))


@every_step
def test_nothing_to_sample_takes_no_pass(kind: StepKind) -> None:
    step = random_step(kind, cond_length=0)
    nfe = Forwards(step)
    c, keep = torch.randint(K, (2, N)), torch.ones(2, N, dtype=torch.bool)
    assert list(sampled(step, c, c, noise_levels(keep), noise_for(2))) == []
    assert nfe.fed == [] and nfe.encoded == 0


@every_step
def test_rows_are_sampled_as_they_would_be_alone(kind: StepKind) -> None:
    step, batch = random_step(kind), 3
    cond = random_cond(3)
    assert cond is not None
    c, keep = torch.randint(K, (batch, N)), torch.rand(batch, N) < 0.5
    noise, settings = noise_for(batch), SamplingSettings(guidance=2.0)
    together = last(sampled(step, c, c, noise_levels(keep), noise, settings, cond, cond.flip(0)), c)
    for b in range(batch):
        row = slice(b, b + 1)
        given = (noise_levels(keep[row]), noise[row], settings, cond[row], cond.flip(0)[row])
        alone = last(sampled(step, c[row], c[row], *given), c[row])
        assert torch.equal(alone, together[row])


# Exact enumeration


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(),
        SamplingSettings(temperature=0.7, top_k=2),
        SamplingSettings(temperature=1.5, top_k=None, top_p=0.8),
    ],
)
@every_step
def test_joint_of_a_step_by_enumeration(kind: StepKind, settings: SamplingSettings) -> None:
    """Frequencies of all 81 outcomes, with drafts; chi-squared, a right sampler fails once in 10,000 seeds (fixed)."""
    k, n, draws = 3, 4, 3000
    step = random_step(kind, n, k, cond_length=0)
    outcomes = all_sequences(n, k)
    c, x = torch.tensor([[0, 2, 1, 1]]), torch.tensor([[0, 1, 0, 0]])
    for keep in (torch.zeros(1, n, dtype=torch.bool), torch.tensor([[False, True, False, False]])):
        probabilities = exact_joint(step, c, x, keep, outcomes, settings)
        assert float(probabilities.sum()) == pytest.approx(1)
        noise = gumbel_noise((draws, n, k), row_generators([3]))[0]
        rows = (c.expand(draws, n), x.expand(draws, n), noise_levels(keep).expand(draws, n))
        drawn = last(sampled(step, *rows, noise, settings, length=fixed(2)), x)
        counts = joint_index(drawn, k).bincount(minlength=k**n)
        assert chi_squared_p(counts, probabilities) > 1e-4


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


# How many drafts a pass verifies


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("known", [0, 1, 3])
def test_a_pass_has_as_many_drafts_as_make_a_number_of_rows(rows: int, known: int) -> None:
    """Known tokens after each unknown one take positions, but are not counted; eight drafts at least."""
    drafts = max(PASS_ROWS // rows, 8)
    positions = (known + 1) * (drafts - 1) + 1
    assert draft_length(1, ([True] + [False] * known) * 256, rows) == positions + positions % 2


@pytest.mark.parametrize(("left", "needed"), [(1, 1), (3, 1), (5, 20), (7, 101)])
def test_ends_with_the_tokens_in_even_lengths_of_four_and_more(left: int, needed: int) -> None:
    length = draft_length(needed, [True] * left, 1)
    assert length % 2 == 0 and length >= 4
    assert needed - 1 + left <= length <= max(needed + left, 4)
