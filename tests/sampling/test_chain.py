from __future__ import annotations

import dataclasses
import gc
import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from oracles import all_sequences, binomial_z, chi_squared_p, joint_index, random_stage
from torch import Tensor

from imagebart.diffusion import Schedule
from imagebart.models.published import Stage, build_stage
from imagebart.sampling.chain import ChainEvent, redraw_rows, row_generators, run_chain, uniform_tokens
from imagebart.sampling.network import Cache, Network
from imagebart.sampling.speculative import Condition, Drawn, decode_stage
from imagebart.settings import SamplingSettings

NO_CONDITION = Condition(None, None)
K = 7


def chain_stages(tokens: int = 6, vocab_size: int = K, count: int = 3) -> tuple[list[Stage], Schedule]:
    """Residual and aligned stages above a decoder-only one, in float64."""
    schedule = Schedule.geometric(count)
    stages = []
    for t in range(1, count + 1):
        kind = "decoder_only" if t == count else ("residual", "aligned")[t % 2]
        template = random_stage(kind, tokens, vocab_size, cond_length=0, seed=t)  # type: ignore[arg-type]
        config = dataclasses.replace(template.config, t=t, beta=schedule.betas[t - 1])
        stage = build_stage(config, 3).double()
        stage.load_state_dict(template.state_dict())
        stages.append(stage.eval().requires_grad_(False))
    return stages, schedule


def run(
    start: Tensor,
    keep: Tensor | None = None,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    stages: tuple[list[Stage], Schedule] | None = None,
) -> list[ChainEvent]:
    modules, schedule = stages or chain_stages(start.shape[1])
    keep = torch.zeros_like(start, dtype=torch.bool) if keep is None else keep
    generators = row_generators(seed, len(start))
    settings = settings or SamplingSettings()
    return list(run_chain(modules, schedule, start, keep, NO_CONDITION, settings, generators))


def count_forwards(stages: list[Stage]) -> list[int]:
    """The t of each decoder forward, as they happen."""
    seen: list[int] = []
    for stage in stages:
        stage.prepared()  # times forwards of its own
        stage.decoder.token_embedding.register_forward_pre_hook(lambda *_, t=stage.config.t: seen.append(t))
    return seen


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("first", [None, 3, 2, 1])
def test_events_come_in_order(first: int | None, passes: int) -> None:
    keep = torch.tensor([[True, False, False, True, False, True], [True, True, False, True, False, True]])
    start = torch.randint(K, (2, 6))
    events = run(start, keep, SamplingSettings(passes=passes, start=first))
    passes_of = itertools.groupby(events, key=lambda e: (e.stage, e.pass_index))
    found = []
    for (stage, repeat), group in passes_of:
        found.append((stage, repeat))
        *before, end = group
        assert [e.forwards for e in before] == list(range(1, len(before) + 1)) and end.forwards == len(before) + 1
        positions = [0] + [e.position for e in before] + [end.position]
        assert all(a < b for a, b in zip(positions, positions[1:], strict=False))
        assert end.position == end.total and end.done and not any(e.done for e in before)
        assert {(e.stages, e.passes, e.total) for e in (*before, end)} == {(3, passes, 3)}
    assert found == [(t, r) for t in range(first or 3, 0, -1) for r in range(passes)]


def test_an_event_for_every_forward() -> None:
    modules, schedule = chain_stages()
    seen = count_forwards(modules)
    keep = torch.tensor([[True, True, False, False, True, True]])
    settings = SamplingSettings(passes=2)
    events = run(torch.randint(K, (1, 6)), keep, settings, stages=(modules, schedule))
    assert seen == [event.stage for event in events]
    assert all(1 <= event.forwards <= event.position <= 2 for event in events)


def test_positions_not_drawn_yet_hold_x_t() -> None:
    start = torch.randint(K, (1, 6))
    events = run(start)
    state = start
    for event in events:
        i = event.position
        assert torch.equal(event.tokens[:, i:], state[:, i:])
        if event.done:
            state = event.tokens
    assert events[-1].stage == 1 and events[-1].done


@pytest.mark.parametrize("passes", [1, 3])
def test_kept_tokens_are_kept_in_every_event(passes: int) -> None:
    torch.manual_seed(3)
    start, keep = torch.randint(K, (4, 6)), torch.rand(4, 6) < 0.5
    events = run(start, keep, SamplingSettings(passes=passes, temperature=5.0))
    assert events
    for event in events:
        assert torch.equal(event.tokens[keep], start[keep])
    # The others were drawn in earnest.
    assert not torch.equal(events[-1].tokens[~keep], start[~keep])


def test_nothing_to_draw_gives_no_events() -> None:
    modules, schedule = chain_stages()
    seen = count_forwards(modules)
    start = torch.randint(K, (2, 6))
    assert run(start, torch.ones(2, 6, dtype=torch.bool), SamplingSettings(passes=2), stages=(modules, schedule)) == []
    assert seen == []


def test_closing_stops_and_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    modules, schedule = chain_stages()
    seen = count_forwards(modules)
    caches: list[weakref.ref] = []
    new_cache = Network.new_cache

    def recorded(decoder: Network, batch: int) -> Cache:
        cache = new_cache(decoder, batch)
        caches.append(weakref.ref(cache))
        return cache

    monkeypatch.setattr(Network, "new_cache", recorded)
    start = torch.randint(K, (1, 6))
    keep = torch.zeros(1, 6, dtype=torch.bool)
    chain = run_chain(modules, schedule, start, keep, NO_CONDITION, SamplingSettings(), row_generators(0, 1))
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
    modules, schedule = chain_stages()
    seen = count_forwards(modules)
    keep = torch.zeros(1, 6, dtype=torch.bool)
    start = torch.randint(K, (1, 6))
    chain = run_chain(modules, schedule, start, keep, NO_CONDITION, SamplingSettings(), row_generators(0, 1))
    assert seen == []
    next(chain)
    assert seen == [3]


def test_no_gradients_are_kept_and_the_callers_mode_is_left_alone() -> None:
    modules, schedule = chain_stages()
    for stage in modules:
        stage.requires_grad_(True)
    keep = torch.zeros(1, 6, dtype=torch.bool)
    start = torch.randint(K, (1, 6))
    hidden: list[bool] = []
    for stage in modules:
        stage.decoder.register_forward_hook(lambda _, args, out: hidden.append(out.requires_grad))
    for _ in run_chain(modules, schedule, start, keep, NO_CONDITION, SamplingSettings(), row_generators(0, 1)):
        assert torch.is_grad_enabled()
    assert not any(hidden)


@pytest.mark.parametrize("passes", [1, 2])
def test_same_seed_same_result(passes: int) -> None:
    start = torch.randint(K, (2, 6))
    settings = SamplingSettings(passes=passes)
    results = [run(start, None, settings, seed)[-1].tokens for seed in (5, 5, 6)]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_rows_are_runs_of_their_own() -> None:
    """Row b with seed s is the run with seed s + b, event by event where it draws, whatever the other rows keep."""
    torch.manual_seed(2)
    start, keep = torch.randint(K, (3, 6)), torch.rand(3, 6) < 0.4
    settings = SamplingSettings(passes=2, top_k=4)
    together = run(start, keep, settings, seed=10)
    for b in range(3):
        alone = run(start[b : b + 1], keep[b : b + 1], settings, seed=10 + b)
        assert torch.equal(alone[-1].tokens[0], together[-1].tokens[b])
        ends = [e.tokens[b] for e in together if e.done]
        assert torch.equal(torch.stack(ends), torch.stack([e.tokens[0] for e in alone if e.done]))


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
    together = redraw_rows(x, 0.5, K, row_generators(4, 3))
    for b in range(3):
        assert torch.equal(together[b], redraw_rows(x[b : b + 1], 0.5, K, row_generators(4 + b, 1))[0])


def test_repeats_redraw_a_falling_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat r of n redraws (1 - r/n) beta_t of the last pass's tokens, kept ones never; within four deviations."""
    tokens, batch, passes, vocab_size = 40, 60, 4, 5
    stages = chain_stages(tokens, vocab_size, count=2)
    keep = torch.zeros(batch, tokens, dtype=torch.bool)
    keep[:, 1::4] = True
    start = torch.randint(vocab_size, (batch, tokens))
    taken: list[Tensor] = []  # x_t of every pass

    def recorded(stage: Stage, c: Tensor, *others: Any) -> Iterator[Drawn]:
        taken.append(c)
        return decode_stage(stage, c, *others)

    monkeypatch.setattr("imagebart.sampling.chain.decode_stage", recorded)
    results = [event for event in run(start, keep, SamplingSettings(passes=passes), stages=stages) if event.done]
    before = start
    assert len(taken) == len(results) == 2 * passes
    for c, event in zip(taken, results, strict=True):
        changed = int((c != before)[~keep].sum())
        assert torch.equal(c[keep], start[keep])
        if event.pass_index:
            share = (1 - event.pass_index / passes) * stages[1].betas[event.stage - 1]
            expected = share * (1 - 1 / vocab_size)  # a redrawn token may come out the same
            assert abs(binomial_z(changed, int((~keep).sum()), expected)) < 4, event
        else:
            assert changed == 0  # a stage takes x_t as it is
        before = event.tokens


def test_x_0_of_two_stages_by_enumeration() -> None:
    """p(x_0), summed over every x_1; chi-squared, a right sampler fails once in 10,000 seeds (fixed)."""
    k, n, draws = 3, 3, 6000
    stages, schedule = chain_stages(n, k, count=2)
    outcomes = all_sequences(n, k)
    size = len(outcomes)

    def joint(stage: Stage, c: Tensor) -> Tensor:
        """p(. = outcome | c) for every outcome."""
        log_p = stage.logits(outcomes, c.expand(size, n)).log_softmax(-1)
        return log_p.gather(-1, outcomes[..., None]).sum((1, 2)).exp()

    first = joint(stages[1], outcomes[0])  # the decoder-only stage ignores x_2
    expected = sum(p * joint(stages[0], x1) for p, x1 in zip(first, outcomes, strict=True))
    assert isinstance(expected, Tensor) and float(expected.sum()) == pytest.approx(1)
    start = uniform_tokens(n, k, row_generators(0, draws))
    drawn = run(start, seed=1000, stages=(stages, schedule))[-1].tokens
    assert chi_squared_p(joint_index(drawn, k).bincount(minlength=size), expected) > 1e-4


@pytest.mark.parametrize("first", [4, 9])
def test_stages_that_are_not_there(first: int) -> None:
    with pytest.raises(ValueError, match=f"the chain starts at stage {first}, expected 1 to 3"):
        run(torch.zeros(1, 6, dtype=torch.long), settings=SamplingSettings(start=first))
