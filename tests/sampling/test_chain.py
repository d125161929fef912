"""The chain from pure noise to x_0, of published stages and of the denoiser in any number of steps."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import weakref
from collections.abc import Iterator, Sequence

import pytest
import torch
from oracles import (
    all_sequences,
    binomial_z,
    chi_squared_p,
    doubted,
    joint_index,
    plain_draw,
    plain_reverse,
    teacher_forced,
)
from random_networks import engine_for, random_cond, random_denoiser, random_stage
from torch import Tensor

from imagebart.diffusion import Schedule
from imagebart.models.stages import build_stage
from imagebart.models.transformer import DecoderInput, Encode
from imagebart.sampling import speculative
from imagebart.sampling.logits import gumbel_noise
from imagebart.sampling.packed_linear import Cache, Network, PackedModel
from imagebart.sampling.sampler import ChainEvent, add_noise_rows, row_generators, run_chain, uniform_tokens
from imagebart.sampling.speculative import DraftLength, OneByOne
from imagebart.sampling.steps import Condition, DenoisingStep, StageStep, Step, denoising_steps
from imagebart.settings import SamplingSettings

NO_CONDITION = Condition(None, None)
K = 7


def published(tokens: int = 6, vocab_size: int = K, count: int = 3) -> list[StageStep]:
    """Residual and encoder-decoder stages above a decoder-only one."""
    schedule, steps = Schedule.geometric(count), []
    for t in range(1, count + 1):
        kind = "decoder_only" if t == count else ("residual", "encoder_decoder")[t % 2]
        template = random_stage(kind, tokens, vocab_size, cond_length=0, seed=t)  # type: ignore[arg-type]
        config = dataclasses.replace(template.config, t=t, beta=schedule.betas[t - 1])
        stage = build_stage(config, 3).double()
        stage.load_state_dict(template.state_dict())
        steps.append(StageStep(stage.eval().requires_grad_(False)))
    return steps


def denoised(tokens: int = 6, vocab_size: int = K, count: int = 3) -> list[DenoisingStep]:
    return denoising_steps(random_denoiser(tokens, vocab_size, cond_length=0), count)


CHAINS = {"stages": published, "denoiser": denoised}
every_chain = pytest.mark.parametrize("chain", CHAINS)


class PackedModels:
    """What draws each step, made once."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.made = [(step, engine_for(step)) for step in steps]

    def __call__(self, step: Step) -> PackedModel:
        return next(packed_model for other, packed_model in self.made if other is step)


def run(
    steps: Sequence[Step],
    start: Tensor,
    keep: Tensor | None = None,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    condition: Condition = NO_CONDITION,
    noise_level: Tensor | None = None,
) -> list[ChainEvent]:
    keep = torch.zeros_like(start, dtype=torch.bool) if keep is None else keep
    noise_level = doubted(keep) if noise_level is None else noise_level
    generators = row_generators(seed, len(start))
    settings = settings or SamplingSettings()
    return list(run_chain(steps, PackedModels(steps), start, noise_level, condition, settings, generators))


def begun(steps: Sequence[Step], keep: Tensor | None = None) -> Iterator[ChainEvent]:
    """A chain of one row that has not been asked for anything."""
    start = torch.randint(K, (1, 6))
    noise_level = torch.ones(1, 6) if keep is None else doubted(keep)
    return run_chain(
        steps, PackedModels(steps), start, noise_level, NO_CONDITION, SamplingSettings(), row_generators(0, 1)
    )


def count_forwards(steps: Sequence[StageStep]) -> list[int]:
    """The t of each decoder forward from the first event on; what packed_models time of their own comes before."""
    seen: list[int] = []
    for step in steps:
        config = step.stage.config
        step.stage.decoder.token_embedding.register_forward_pre_hook(lambda *_, t=config.t: seen.append(t))
    return seen


@pytest.mark.parametrize("resamples", [1, 3])
@pytest.mark.parametrize("first", [3, 2, 1])
@every_chain
def test_events_come_in_order(chain: str, first: int, resamples: int) -> None:
    keep = torch.tensor([[True, False, False, True, False, True], [True, True, False, True, False, True]])
    start = torch.randint(K, (2, 6))
    events = run(CHAINS[chain]()[:first], start, keep, SamplingSettings(resamples=resamples))
    resamples_of = itertools.groupby(events, key=lambda e: (e.stage, e.resample_index))
    found = []
    for (stage, repeat), group in resamples_of:
        found.append((stage, repeat))
        *before, end = group
        if chain == "denoiser":  # its own drafts come first
            assert (before[0].nfe, before[0].position) == (0, 0)
            before = before[1:]
        assert [e.nfe for e in before] == list(range(1, len(before) + 1)) and end.nfe == len(before) + 1
        positions = [0] + [e.position for e in before] + [end.position]
        assert all(a < b for a, b in zip(positions, positions[1:], strict=False))
        assert end.position == end.total and end.done and not any(e.done for e in before)
        assert {(e.stages, e.resamples, e.total) for e in (*before, end)} == {(first, resamples, 3)}
    assert found == [(t, r) for t in range(first, 0, -1) for r in range(resamples)]


def test_an_event_for_every_forward() -> None:
    steps = published()
    packed_models = PackedModels(steps)
    seen = count_forwards(steps)
    keep, start = torch.tensor([[True, True, False, False, True, True]]), torch.randint(K, (1, 6))
    settings = SamplingSettings(resamples=2)
    events = list(run_chain(steps, packed_models, start, doubted(keep), NO_CONDITION, settings, row_generators(0, 1)))
    assert seen == [event.stage for event in events]
    assert all(1 <= event.nfe <= event.position <= 2 for event in events)


@every_chain
def test_what_is_drawn_stays_and_what_is_kept_never_changes(chain: str) -> None:
    """Of every event of a pass, the tokens up to its position are those that the pass ends with."""
    keep, start = torch.tensor([[False, True, False, False, False, True]]), torch.randint(K, (1, 6))
    drawn = [0, 2, 3, 4]
    for _, group in itertools.groupby(run(CHAINS[chain](), start, keep), key=lambda e: e.stage):
        *before, end = group
        for event in before:
            assert torch.equal(event.tokens[keep], start[keep])
            settled = drawn[: event.position]
            assert torch.equal(event.tokens[:, settled], end.tokens[:, settled])
    assert end.stage == 1 and end.done


def test_the_denoisers_drafts_are_shown_before_it_has_drawn_anything() -> None:
    """They are what its encoder alone would draw with the noise of the step."""
    step = CHAINS["denoiser"]()[-1]
    assert isinstance(step, DenoisingStep)
    start, noise_level = torch.randint(K, (3, 6)), torch.ones(3, 6)
    first = run([step], start)[0]
    logits = step.prepare(start, noise_level, None, None).drafts
    assert logits is not None
    noise = gumbel_noise((6, K), row_generators(0, 3))
    assert torch.equal(first.tokens, (step.reverse(logits, start, noise_level) + noise).argmax(-1))


@pytest.mark.parametrize("resamples", [1, 3])
@every_chain
def test_kept_tokens_are_kept_in_every_event(chain: str, resamples: int) -> None:
    torch.manual_seed(3)
    start, keep = torch.randint(K, (4, 6)), torch.rand(4, 6) < 0.5
    events = run(CHAINS[chain](), start, keep, SamplingSettings(resamples=resamples, temperature=5.0))
    assert events
    for event in events:
        assert torch.equal(event.tokens[keep], start[keep])
    # The others were drawn in earnest.
    assert not torch.equal(events[-1].tokens[~keep], start[~keep])


def test_nothing_to_draw_gives_no_events() -> None:
    steps = published()
    packed_models = PackedModels(steps)
    seen, start = count_forwards(steps), torch.randint(K, (2, 6))
    arguments = (torch.zeros(2, 6), NO_CONDITION, SamplingSettings(resamples=2), row_generators(0, 2))
    assert list(run_chain(steps, packed_models, start, *arguments)) == []
    assert seen == []


def test_closing_stops_and_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = published()
    chain = begun(steps)
    seen = count_forwards(steps)
    caches: list[weakref.ref] = []
    new_cache = Network.new_cache

    def recorded(decoder: Network, batch: int) -> Cache:
        cache = new_cache(decoder, batch)
        caches.append(weakref.ref(cache))
        return cache

    monkeypatch.setattr(Network, "new_cache", recorded)
    while next(chain).stage == 3:
        pass
    assert seen[-2:] == [3, 2] and len(caches) == 2
    gc.disable()  # freed at once, not when the collector comes by
    try:
        assert caches[0]() is None, "the finished stage's cache is held"
        assert caches[-1]() is not None
        chain.close()  # type: ignore[attr-defined]
        assert caches[-1]() is None
    finally:
        gc.enable()
    assert list(chain) == [] and seen.count(2) == 1


def test_nothing_runs_before_it_is_asked_for() -> None:
    steps = published()
    chain = begun(steps)
    seen = count_forwards(steps)
    assert seen == []
    next(chain)
    assert seen == [3]


@every_chain
def test_no_gradients_are_kept_and_the_callers_mode_is_left_alone(chain: str) -> None:
    hidden: list[bool] = []
    steps = CHAINS[chain]()
    drawing = begun(steps)
    for step in steps:
        for network in (n for n in step.networks if n is not None):
            network.requires_grad_(True)
            network.norm.register_forward_hook(lambda _, args, out: hidden.append(out.requires_grad))
    for event in drawing:
        assert torch.is_grad_enabled() and not event.tokens.requires_grad
    assert hidden and not any(hidden)


@pytest.mark.parametrize("resamples", [1, 2])
@every_chain
def test_same_seed_same_result(chain: str, resamples: int) -> None:
    start, steps = torch.randint(K, (2, 6)), CHAINS[chain]()
    settings = SamplingSettings(resamples=resamples)
    results = [run(steps, start, None, settings, seed)[-1].tokens for seed in (5, 5, 6)]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


@every_chain
def test_rows_are_runs_of_their_own(chain: str) -> None:
    """Row b with seed s is the run with seed s + b, event by event where it draws, whatever the other rows keep."""
    torch.manual_seed(2)
    start, keep, steps = torch.randint(K, (3, 6)), torch.rand(3, 6) < 0.4, CHAINS[chain]()
    settings = SamplingSettings(resamples=2, top_k=4)
    together = run(steps, start, keep, settings, seed=10)
    for b in range(3):
        alone = run(steps, start[b : b + 1], keep[b : b + 1], settings, seed=10 + b)
        assert torch.equal(alone[-1].tokens[0], together[-1].tokens[b])
        ends = [e.tokens[b] for e in together if e.done]
        assert torch.equal(torch.stack(ends), torch.stack([e.tokens[0] for e in alone if e.done]))


class Fixed:
    """Always a number of steps more than needed."""

    def __init__(self, more: int) -> None:
        self.more = more

    def steps(self, needed: int, drafts: object) -> int:
        return needed + self.more

    def learn(self, drawn: float) -> None:
        assert drawn >= 0


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("scales", [1, 2, 8])
def test_a_chain_of_the_denoiser_is_the_one_drawn_naively(
    scales: int, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token by token, in as many steps as wanted, whatever is verified at once; rows keep what they keep."""
    torch.manual_seed(scales)
    steps = denoising_steps(random_denoiser(color_hint_grid=2), scales)
    start, keep, cond = torch.randint(K, (2, 6)), torch.rand(2, 6) < 0.3, random_cond(2)
    color_hints = torch.rand(2, 6, K) < 0.3
    unconditional, settings = torch.zeros(2, 2, dtype=torch.long), SamplingSettings(guidance=guidance)
    generators, expected, x = row_generators(4, 2), [], start
    for step in reversed(steps):
        x = plain_draw(
            step, x, x, doubted(keep), cond, unconditional, settings, gumbel_noise((6, K), generators), color_hints
        )
        expected.append(x)
    lengths: list[DraftLength | None] = [None, OneByOne(), Fixed(1), Fixed(3), Fixed(100)]
    for draft_length in lengths:
        if draft_length is not None:
            monkeypatch.setattr(speculative, "Adaptive", lambda *_, draft_length=draft_length: draft_length)
        events = run(steps, start, keep, settings, 4, Condition(cond, unconditional, color_hints))
        assert torch.equal(torch.stack([e.tokens for e in events if e.done]), torch.stack(expected))


@pytest.mark.parametrize("resamples", [1, 3])
@pytest.mark.parametrize("scales", [1, 2, 8])
def test_doubted_tokens_wait_for_the_step_that_is_less_noisy(scales: int, resamples: int) -> None:
    """Each is seen at its own rate from the start, and drawn from the first step on that ends below it.

    The naive chain: x_t where r_t is less than the noise_level, else the token of the start; drawn where r_s is less.
    """
    torch.manual_seed(scales)
    steps = denoising_steps(random_denoiser(cond_length=0), scales)
    start, noise_level = torch.randint(K, (2, 6)), torch.tensor([[0, 0.1, 0.6, 1, 0.3, 1], [1, 0.9, 0.5, 0.25, 0, 0.7]])
    settings, generators, expected, x = SamplingSettings(resamples=resamples), row_generators(4, 2), [], start
    for step in reversed(steps):
        for repeat in range(resamples):
            if repeat:
                x = add_noise_rows(x, (1 - repeat / resamples) * step.beta, K, generators)
            c = torch.where((noise_level <= step.noise_t) & (noise_level < 1), start, x)
            x = plain_draw(step, c, c, noise_level, None, None, settings, gumbel_noise((6, K), generators))
            expected.append(x)
    events = run(steps, start, None, settings, 4, noise_level=noise_level)
    assert torch.equal(torch.stack([e.tokens for e in events if e.done]), torch.stack(expected))
    waiting = noise_level <= steps[-1].noise_s
    assert (
        torch.equal(expected[0][waiting], start[waiting])
        and (expected[-1][noise_level > 0] != start[noise_level > 0]).any()
    )


def test_row_generators_take_any_seed() -> None:
    draws = [torch.rand(1, generator=g).item() for g in row_generators(2**63 - 1, 2) + row_generators(-1, 2)]
    zero = torch.rand(1, generator=torch.Generator().manual_seed(0)).item()
    assert draws[1] == draws[3] == zero  # they wrap around


def test_x_T_is_uniform() -> None:
    """Chi-squared; a right sampler fails once in 10,000 seeds, and the seed is fixed."""
    x = uniform_tokens(2000, 5, row_generators(0, 10))
    assert x.shape == (10, 2000) and x.dtype == torch.long
    assert chi_squared_p(x.flatten().bincount(minlength=5), torch.full((5,), 0.2)) > 1e-4
    assert torch.equal(x[3], uniform_tokens(2000, 5, row_generators(3, 1))[0])


def test_redrawn_rows_follow_their_generators() -> None:
    x = torch.randint(K, (3, 40))
    together = add_noise_rows(x, 0.5, K, row_generators(4, 3))
    for b in range(3):
        assert torch.equal(together[b], add_noise_rows(x[b : b + 1], 0.5, K, row_generators(4 + b, 1))[0])


class Recorded(StageStep):
    """Takes note of x_t of every pass."""

    def __init__(self, step: StageStep, taken: list[Tensor]) -> None:
        super().__init__(step.stage)
        self.taken = taken

    def prepare(
        self,
        c: Tensor,
        noise_level: Tensor,
        cond: Tensor | None,
        encode: Encode | None,
        color_hints: Tensor | None = None,
    ) -> DecoderInput:
        self.taken.append(c)
        return super().prepare(c, noise_level, cond, encode, color_hints)


def test_repeats_redraw_a_falling_share() -> None:
    """Repeat r of n redraws (1 - r/n) beta_t of the last pass's tokens, kept ones never; within four deviations."""
    tokens, batch, resamples, vocab_size = 40, 60, 4, 5
    taken: list[Tensor] = []
    steps = [Recorded(step, taken) for step in published(tokens, vocab_size, count=2)]
    keep = torch.zeros(batch, tokens, dtype=torch.bool)
    keep[:, 1::4] = True
    start = torch.randint(vocab_size, (batch, tokens))
    results = [event for event in run(steps, start, keep, SamplingSettings(resamples=resamples)) if event.done]
    before = start
    assert len(taken) == len(results) == 2 * resamples
    for c, event in zip(taken, results, strict=True):
        changed = int((c != before)[~keep].sum())
        assert torch.equal(c[keep], start[keep])
        if event.resample_index:
            share = (1 - event.resample_index / resamples) / (3 - event.stage)  # beta_t is 1/2 and 1
            expected = share * (1 - 1 / vocab_size)  # a redrawn token may come out the same
            assert abs(binomial_z(changed, int((~keep).sum()), expected)) < 4, event
        else:
            assert changed == 0  # a step takes x_t as it is
        before = event.tokens


def joint_of(step: Step, outcomes: Tensor, c: Tensor) -> Tensor:
    """p(x_s = outcome | x_t = c) for every outcome [M, N] and every c [C, N]: [C, M]."""
    size, (_, n) = len(outcomes), c.shape
    x, noisy = outcomes.repeat(len(c), 1), c.repeat_interleave(size, 0)
    p = teacher_forced(step, x, noisy, torch.ones(x.shape), None).softmax(-1)
    if isinstance(step, DenoisingStep) and step.noise_s > 0:
        k = p.shape[-1]
        back = [
            [plain_reverse([float(j == x0) for j in range(k)], seen, step.noise_t, step.noise_s) for x0 in range(k)]
            for seen in range(k)
        ]
        p = torch.einsum("rnj,rnjk->rnk", p, torch.tensor(back, dtype=torch.float64)[noisy])
    return p.gather(-1, x[..., None]).reshape(len(c), size, n).prod(-1)


@every_chain
def test_x_0_of_two_steps_by_enumeration(chain: str) -> None:
    """p(x_0), summed over every x_1 and x_2; chi-squared, a right sampler fails once in 10,000 seeds (fixed)."""
    k, n, draws = 3, 3, 3000
    steps, outcomes = CHAINS[chain](n, k, count=2), all_sequences(n, k)
    expected = joint_of(steps[1], outcomes, outcomes).mean(0) @ joint_of(steps[0], outcomes, outcomes)
    assert float(expected.sum()) == pytest.approx(1)
    start = uniform_tokens(n, k, row_generators(0, draws))
    drawn = run(steps, start, seed=draws)[-1].tokens
    assert chi_squared_p(joint_index(drawn, k).bincount(minlength=len(outcomes)), expected) > 1e-4


def test_what_is_kept_conditions_what_is_drawn() -> None:
    """p(x_0 | kept) of the denoiser's two steps, told which token is kept: by enumeration, as above."""
    k, n, draws = 3, 3, 3000
    steps, outcomes = denoised(n, k, count=2), all_sequences(n, k)
    keep = torch.tensor([False, True, False])
    outcomes = outcomes[outcomes[:, 1] == 2]
    c, x = outcomes.repeat_interleave(9, 0), outcomes.repeat(9, 1)
    chances = []
    for step in steps:
        p0 = teacher_forced(step, x, c, doubted(keep).expand(81, n), None).softmax(-1).tolist()
        chance = [math.prod(
            plain_reverse(p0[row][i], int(c[row, i]), step.noise_t, step.noise_s)[x[row, i]] for i in (0, 2)
        ) for row in range(81)]  # fmt: skip
        chances.append(torch.tensor(chance, dtype=torch.float64).reshape(9, 9))
    expected = chances[1].mean(0) @ chances[0]
    start = uniform_tokens(n, k, row_generators(0, draws))
    start[:, 1] = 2
    drawn = run(steps, start, keep.expand(draws, n), seed=draws)[-1].tokens
    assert (drawn[:, 1] == 2).all()
    counts = (drawn[:, 0] * k + drawn[:, 2]).bincount(minlength=9)
    assert chi_squared_p(counts, expected) > 1e-4
