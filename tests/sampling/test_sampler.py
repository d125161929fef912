"""The chain: its steps, where it starts, and from there to x_0, of published stages and of the denoiser.

Draws are held to their distribution by chi-squared, or to four standard deviations; seeds are fixed.
"""

import copy
import gc
import io
import itertools
import math
import pickle
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from oracles import (
    all_sequences,
    binomial_z,
    chi_squared_p,
    joint_index,
    noise_levels,
    plain_draw,
    plain_reverse,
    teacher_forced,
)
from random_networks import chain_state, denoising_steps, random_cond, random_denoiser, random_stage
from tiny_models import tiny_model, tiny_staged_model
from torch import Tensor

from imagebart.core.settings import SamplingSettings
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser
from imagebart.models.diffusion import Schedule, add_noise_rows, gumbel_noise, row_generators, uniform_tokens
from imagebart.models.transformer import Cache, Transformer
from imagebart.sampling import steps as steps_module
from imagebart.sampling.packed_linear import PackedDecoder
from imagebart.sampling.sampler import sample_chain
from imagebart.sampling.steps import ChainEvent, KnownTokens, Step

CODES, TOKENS = 24, 64  # of tiny models
DEFAULTS = SamplingSettings()
MODELS = {"denoiser": tiny_model("none", scales=3), "stages": tiny_staged_model("none", stages=3)}
PLAIN, STAGED = MODELS.values()
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def half_kept() -> Tensor:
    return torch.ones(TOKENS, dtype=torch.bool).index_fill(0, torch.randperm(TOKENS)[: TOKENS // 2], False)


# Steps


@pytest.mark.parametrize("noise_t", [1.0, 0.3])
@pytest.mark.parametrize("scales", [1, 2, 8])
def test_steps_of_a_denoiser_lose_the_same_share_each(scales: int, noise_t: float) -> None:
    steps = PLAIN.sampler.steps(SamplingSettings(scales=scales), noise_t)
    assert [s.noise_t for s in steps] == pytest.approx([noise_t * t / scales for t in range(1, scales + 1)])
    assert [s.noise_s for s in steps] == [0, *(s.noise_t for s in steps[:-1])]
    assert math.prod(1 - step.beta for step in steps) == pytest.approx(1 - noise_t)


@pytest.mark.parametrize(("strength", "stage"), [(0.01, 1), (0.3, 1), (0.4, 2), (0.6, 2), (0.7, 3), (1.0, 3)])
def test_stages_begin_with_the_finest_that_expects_as_much_noise(strength: float, stage: int) -> None:
    """Stages 1, 2, 3 expect a third, two thirds, all of the tokens replaced."""
    steps = STAGED.sampler.steps(DEFAULTS, strength)
    assert [step.network for step in steps] == list(STAGED.stages)[:stage]
    assert [step.noise_t for step in steps] == pytest.approx([t / 3 for t in range(1, stage + 1)])
    assert [step.noise_s for step in steps] == pytest.approx([t / 3 for t in range(stage)])


# Where the chain starts


@every_model
def test_starts_from_noise_with_kept_tokens_put_in(model: ImageBART) -> None:
    known, keep = torch.zeros(40, TOKENS, dtype=torch.long), half_kept()
    begun = model.sampler.prepare(40, DEFAULTS, known=KnownTokens(known, keep), seed=0)
    assert (begun.x[:, keep] == 0).all() and torch.equal(begun.noise_level, noise_levels(keep).expand(40, -1))
    assert len(begun.generators) == 40 and len(begun.steps) == 3 and begun.total == 32
    assert abs(binomial_z(int((begun.x[:, ~keep] == 0).sum()), 40 * 32, 1 / CODES)) < 4
    assert (model.sampler.prepare(2, DEFAULTS, seed=0).noise_level == 1).all()
    x, known = torch.randint(CODES, (2, 1, TOKENS))  # a start that is given
    assert torch.equal(model.sampler.prepare(1, DEFAULTS, start=x).x, x)
    begun = model.sampler.prepare(1, DEFAULTS, start=x, known=KnownTokens(known, keep))
    assert torch.equal(begun.x, torch.where(keep, known, x))


def test_total_counts_the_tokens_that_some_row_does_not_keep() -> None:
    keep = torch.ones(2, TOKENS, dtype=torch.bool)
    keep[0, 3] = keep[1, 3] = keep[1, 7] = False
    known = KnownTokens(torch.zeros(2, TOKENS, dtype=torch.long), keep)
    assert PLAIN.sampler.prepare(2, DEFAULTS, known=known, seed=0).total == 2


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("strength", [0.01, 0.3, 0.9])
@every_model
def test_a_variation_starts_from_its_share_of_noise(model: ImageBART, strength: float, kept: bool) -> None:
    """As much is replaced as was asked for, row by row as alone."""
    known, keep = torch.randint(CODES, (40, TOKENS)), half_kept() if kept else torch.zeros(TOKENS, dtype=torch.bool)
    x = model.sampler.prepare(40, DEFAULTS, known=KnownTokens(known, keep), strength=strength, seed=0).x
    changed, drawn = int((x != known).sum()), 40 * int((~keep).sum())
    assert abs(binomial_z(changed, drawn, strength * (CODES - 1) / CODES)) < 4
    assert torch.equal(x[:, keep], known[:, keep])
    alone = model.sampler.prepare(1, DEFAULTS, known=KnownTokens(known[1:2], keep), strength=strength, seed=1).x
    assert torch.equal(alone, x[1:2])


def test_each_token_starts_from_its_own_strength() -> None:
    """The share of tokens that becomes noise is each one's strength; of partial patches, the masked token's."""
    shape, keep = (400, TOKENS), torch.zeros(TOKENS, dtype=torch.bool)
    original, masked = torch.randint(12, shape), 12 + torch.randint(12, shape)
    keep[:8] = True
    strengths, noise_level = torch.zeros(TOKENS), torch.ones(TOKENS)
    strengths[8:] = torch.tensor([0.01, 0.3, 0.7, 1]).repeat(14)
    noise_level[36:] = 0.5  # patches of which a mask covers one half
    known = torch.where(noise_level < 1, masked, original)
    given = KnownTokens(known, keep, noise_level, strengths, original)
    state = PLAIN.sampler.prepare(400, DEFAULTS, known=given, seed=3)
    assert torch.equal(state.x[:, keep], known[:, keep])
    assert torch.equal(state.noise_level, (noise_level * strengths * ~keep).expand(shape))
    for strength in (0.01, 0.3, 0.7, 1):
        whole, cut = ((strengths == strength) & (noise_level == level) for level in (1, 0.5))
        changed = int((state.x != original)[:, whole].sum())
        assert abs(binomial_z(changed, 400 * int(whole.sum()), strength * (CODES - 1) / CODES)) < 4
        assert torch.equal(state.x[:, cut] >= 12, state.x[:, cut] == masked[:, cut])
        share = int((state.x[:, cut] >= 12).sum())
        assert share == 400 * int(cut.sum()) if strength == 1 else abs(binomial_z(share, 400 * 7, strength)) < 4
    alone = KnownTokens(known[1:2], keep, noise_level, strengths, original[1:2])
    assert torch.equal(PLAIN.sampler.prepare(1, DEFAULTS, known=alone, seed=4).x, state.x[1:2])


def last_of(model: ImageBART, known: KnownTokens, strength: float = 1.0) -> Tensor:
    state = model.sampler.prepare(3, DEFAULTS, known=known, strength=strength, seed=5)
    return [*model.sampler.stream(state, DEFAULTS)][-1].tokens


@every_model
def test_one_strength_everywhere_is_a_variation(model: ImageBART) -> None:
    """Bit for bit; strength 1 of what is not kept is that of no strengths at all."""
    known, nothing, keep = torch.randint(CODES, (3, TOKENS)), torch.zeros(TOKENS, dtype=torch.bool), half_kept()
    for strength in (0.25, 0.75):
        soft = KnownTokens(known, nothing, strength=torch.full((TOKENS,), strength))
        assert torch.equal(last_of(model, soft), last_of(model, KnownTokens(known), strength))
    whole = KnownTokens(known, keep, strength=torch.ones(3, TOKENS))
    assert torch.equal(last_of(model, whole), last_of(model, KnownTokens(known, keep)))


def test_stages_take_the_largest_strength_for_all() -> None:
    known, keep = torch.randint(CODES, (3, TOKENS)), half_kept()
    strengths = torch.where(keep, 0.9, 0.2)
    strengths[(~keep).nonzero()[3]] = 0.5
    assert torch.equal(
        last_of(STAGED, KnownTokens(known, keep, strength=strengths)), last_of(STAGED, KnownTokens(known, keep), 0.5)
    )


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_noise_of_a_variation_is_not_that_of_its_chain(seed: int) -> None:
    """Else the sampled tokens would depend on the noise that the chain starts from."""
    known = KnownTokens(torch.zeros(2, TOKENS, dtype=torch.long))
    begun = PLAIN.sampler.prepare(2, DEFAULTS, known=known, strength=0.999999, seed=seed)
    fresh = row_generators(range(seed, seed + 2))
    assert [g.get_state().tolist() for g in begun.generators] == [g.get_state().tolist() for g in fresh]
    assert int((begun.x == uniform_tokens(TOKENS, CODES, fresh)).sum()) < 20  # 5 of 128 by chance


# A model that samples


@pytest.mark.parametrize("make", [tiny_model, tiny_staged_model])
def test_a_model_can_be_copied_and_pickled_after_sampling(make: Any) -> None:
    """The copy samples the same with weights of its own."""
    model = make("none")
    known, keep = torch.randint(CODES, (1, TOKENS)), torch.ones(TOKENS, dtype=torch.bool)
    keep[5:9] = False
    expected = model.sample(1, known=known, keep=keep, seed=0)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(saved, weights_only=False)):
        assert torch.equal(other.sample(1, known=known, keep=keep, seed=0), expected)
        for parameter in other.parameters():
            parameter.zero_()
        assert not torch.equal(other.sample(1, known=known, keep=keep, seed=0), expected)
    assert torch.equal(model.sample(1, known=known, keep=keep, seed=0), expected)


def test_a_stage_may_have_its_own_temperature_and_top_k() -> None:
    """Where a run says nothing; greedy at T alone is another image than greedy throughout."""
    model = tiny_staged_model("none", stages=2)
    start = torch.randint(model.vocab_size, (2, model.tokens))

    def drawn(**settings: Any) -> Tensor:
        return model.sample(2, start=start, seed=3, **settings)

    greedy = drawn(top_k=1)
    for stage in model.stages[::-1]:
        assert not torch.equal(drawn(), greedy)
        stage.config = stage.config.replace(top_k=1)
    assert torch.equal(drawn(), greedy)
    cold = drawn(temperature=0.01, top_k=24)
    for stage in model.stages:
        stage.config = stage.config.replace(temperature=0.01, top_k=None)
    assert torch.equal(drawn(), cold)


# The chain itself, of small random networks

K = 7


def published(tokens: int = 6, vocab_size: int = K, count: int = 3) -> list[Step]:
    """Residual and encoder-decoder stages above a decoder-only one."""
    schedule, steps = Schedule.geometric(count), []
    for t in range(1, count + 1):
        kind = "decoder_only" if t == count else ("residual", "encoder_decoder")[t % 2]
        stage = random_stage(kind, tokens, vocab_size, cond_length=0, seed=t)  # type: ignore[arg-type]
        stage.config = stage.config.replace(t=t, beta=schedule.betas[t - 1])
        steps.append(Step(stage, 1 - schedule.alphacum(t), 1 - schedule.alphacum(t - 1)))
    return steps


def denoised(tokens: int = 6, vocab_size: int = K, count: int = 3) -> list[Step]:
    return denoising_steps(random_denoiser(tokens, vocab_size, cond_length=0), count)


CHAINS = {"stages": published, "denoiser": denoised}
every_chain = pytest.mark.parametrize("chain", CHAINS)


def stream(
    steps: Sequence[Step],
    start: Tensor,
    keep: Tensor | None = None,
    settings: SamplingSettings = DEFAULTS,
    seed: int = 0,
    **more: Any,
) -> Iterator[ChainEvent]:
    """A chain; more: as for `chain_state`."""
    level = more.pop("noise_level", None if keep is None else noise_levels(keep))
    return sample_chain(chain_state(steps, start, level, seed=seed, **more), PackedDecoder(), settings)


def run(*given: Any, **more: Any) -> list[ChainEvent]:
    return list(stream(*given, **more))


def ends(events: Sequence[ChainEvent]) -> Tensor:
    """What each step and resample ends with, [S, B, N]."""
    return torch.stack([event.tokens for event in events if event.done])


def count_passes(steps: Sequence[Step]) -> list[int]:
    """The t of each pass of a stage's decoder from now on."""
    seen: list[int] = []
    for t, step in enumerate(steps, 1):
        embedding = step.network.decoder.token_embedding
        embedding.register_forward_pre_hook(lambda *_, t=t: seen.append(t))
    return seen


@pytest.mark.parametrize("resamples", [1, 3])
@pytest.mark.parametrize("first", [3, 1])
@every_chain
def test_events_come_in_order_and_sampled_and_kept_tokens_stay(chain: str, first: int, resamples: int) -> None:
    keep = torch.tensor([[True, False, False, True, False, True], [True, True, False, True, False, True]])
    start, drawn = torch.randint(K, (2, 6)), [1, 2, 4]
    events = run(CHAINS[chain]()[:first], start, keep, SamplingSettings(resamples=resamples))
    found = []
    for stage, group in itertools.groupby(events, key=lambda e: (e.stage, e.resample_index)):
        found.append(stage)
        *before, end = group
        if chain == "denoiser":  # its own drafts come first
            assert (before[0].nfe, before[0].position) == (0, 0)
            before = before[1:]
        assert [e.nfe for e in (*before, end)] == list(range(1, len(before) + 2))
        positions = [0, *(e.position for e in before), end.position]
        assert all(a < b for a, b in itertools.pairwise(positions))
        assert end.position == end.total and end.done and not any(e.done for e in before)
        assert {(e.stages, e.resamples, e.total) for e in (*before, end)} == {(first, resamples, 3)}
        for event in (*before, end):
            assert torch.equal(event.tokens[keep], start[keep])
            settled = drawn[: event.position]
            assert torch.equal(event.tokens[:, settled], end.tokens[:, settled])
    assert found == [(t, r) for t in range(first, 0, -1) for r in range(resamples)]


def test_an_event_for_every_pass_that_is_asked_for() -> None:
    steps, start = published(), torch.randint(K, (1, 6))
    packed, settings = PackedDecoder(), SamplingSettings(resamples=2)
    keep = torch.tensor([[True, True, False, False, True, True]])
    chain, seen = sample_chain(chain_state(steps, start, noise_levels(keep)), packed, settings), count_passes(steps)
    assert seen == []
    events = [next(chain)]
    assert seen == [3]
    events += chain
    assert seen == [event.stage for event in events]
    assert run(steps, start, torch.ones(1, 6, dtype=torch.bool), settings) == [] and len(seen) == len(events)


def test_the_denoisers_drafts_are_the_first_event() -> None:
    """They are what its encoder alone predicts, with the noise of the step."""
    step, start = denoised()[-1], torch.randint(K, (3, 6))
    _, logits = step.prepare(chain_state([step], start))
    assert logits is not None
    drafts = (step.reverse(logits, start, torch.ones(3, 6)) + gumbel_noise((6, K), row_generators(range(3)))).argmax(-1)
    assert torch.equal(next(stream([step], start)).tokens, drafts)


def test_closing_stops_and_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = published()
    chain, seen = stream(steps, torch.randint(K, (1, 6))), count_passes(steps)
    caches: list[weakref.ref] = []
    allocate = Cache.allocate

    def recorded(cache: Cache, decoder: Transformer) -> None:
        caches.append(weakref.ref(cache))
        allocate(cache, decoder)

    monkeypatch.setattr(Cache, "allocate", recorded)
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


@every_chain
def test_no_gradients_are_kept_and_the_callers_mode_is_left_alone(chain: str) -> None:
    hidden: list[bool] = []
    steps = CHAINS[chain]()
    for part in (part for step in steps for part in step.network.modules() if isinstance(part, Transformer)):
        part.requires_grad_(True)
        part.norm.register_forward_hook(lambda _, args, out: hidden.append(out.requires_grad))
    for event in stream(steps, torch.randint(K, (1, 6))):
        assert torch.is_grad_enabled() and not event.tokens.requires_grad
    assert hidden and not any(hidden)


@every_chain
def test_rows_are_runs_of_their_own(chain: str) -> None:
    """Row b with seed s is the run with seed s + b, event by event where it draws, whatever the other rows keep."""
    start, keep, steps = torch.randint(K, (3, 6)), torch.rand(3, 6) < 0.4, CHAINS[chain]()
    settings = SamplingSettings(resamples=2, top_k=4)
    together = ends(run(steps, start, keep, settings, seed=10))
    for b in range(3):
        alone = ends(run(steps, start[b : b + 1], keep[b : b + 1], settings, seed=10 + b))
        assert torch.equal(alone[:, 0], together[:, b])
    assert not torch.equal(ends(run(steps, start, keep, settings, seed=20)), together)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("scales", [1, 2, 8])
def test_a_chain_of_the_denoiser_equals_the_plain_computation(
    scales: int, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token by token, in as many steps as wanted, whatever is verified at once; rows keep what they keep."""
    steps, settings = denoising_steps(random_denoiser(color_hint_grid=2), scales), SamplingSettings(guidance=guidance)
    start, keep, cond = torch.randint(K, (2, 6)), torch.rand(2, 6) < 0.3, random_cond(2)
    color_hints, unconditional = torch.rand(2, 6, K) < 0.3, torch.zeros(2, 2, dtype=torch.long)
    generators, expected, x, level = row_generators(range(4, 6)), [], start, noise_levels(keep)
    for step in reversed(steps):
        noise = gumbel_noise((6, K), generators)
        x = plain_draw(step, x, x, level, cond, unconditional, settings, noise, color_hints)
        expected.append(x)
    more = {"cond": cond, "unconditional": unconditional, "color_hints": color_hints}
    assert torch.equal(ends(run(steps, start, keep, settings, 4, **more)), torch.stack(expected))
    for drafts in (0, 3, 100):  # that a pass verifies
        monkeypatch.setattr(steps_module, "draft_length", lambda needed, unknown, rows, drafts=drafts: needed + drafts)
        assert torch.equal(ends(run(steps, start, keep, settings, 4, **more)), torch.stack(expected))


@pytest.mark.parametrize("resamples", [1, 3])
@pytest.mark.parametrize("scales", [1, 2, 8])
def test_a_token_with_a_noise_level_is_sampled_by_the_first_step_below_it(scales: int, resamples: int) -> None:
    """Until then it is the token of the start, at its own level: the plain chain."""
    steps = denoising_steps(random_denoiser(cond_length=0), scales)
    start, level = torch.randint(K, (2, 6)), torch.tensor([[0, 0.1, 0.6, 1, 0.3, 1], [1, 0.9, 0.5, 0.25, 0, 0.7]])
    settings, generators, expected, x = SamplingSettings(resamples=resamples), row_generators(range(4, 6)), [], start
    for step, repeat in itertools.product(reversed(steps), range(resamples)):
        if repeat:
            x = add_noise_rows(x, (1 - repeat / resamples) * step.beta, K, generators)
        c = torch.where((level <= step.noise_t) & (level < 1), start, x)
        x = plain_draw(step, c, c, level, None, None, settings, gumbel_noise((6, K), generators))
        expected.append(x)
    assert torch.equal(ends(run(steps, start, None, settings, 4, noise_level=level)), torch.stack(expected))
    waiting = level <= steps[-1].noise_s
    assert torch.equal(expected[0][waiting], start[waiting]) and (x[level > 0] != start[level > 0]).any()


def test_resamples_add_less_and_less_noise() -> None:
    """Repeat r of n replaces (1 - r/n) beta_t of the last pass's tokens, kept ones never."""
    tokens, batch, resamples, vocab_size = 40, 60, 4, 5
    taken: list[Tensor] = []  # x_t of every pass
    steps = published(tokens, vocab_size, count=2)
    for step in steps:
        prepare = step.network.prepare
        step.network.prepare = lambda x_t, cond, prepare=prepare: taken.append(x_t) or prepare(x_t, cond)  # type: ignore
    keep = torch.zeros(batch, tokens, dtype=torch.bool)
    keep[:, 1::4] = True
    before = start = torch.randint(vocab_size, (batch, tokens))
    results = [event for event in run(steps, start, keep, SamplingSettings(resamples=resamples)) if event.done]
    for c, event in zip(taken, results, strict=True):
        changed = int((c != before)[~keep].sum())
        assert torch.equal(c[keep], start[keep])
        if event.resample_index:
            share = (1 - event.resample_index / resamples) / (3 - event.stage)  # beta_t is 1/2 and 1
            expected = share * (1 - 1 / vocab_size)  # a replaced token may come out the same
            assert abs(binomial_z(changed, int((~keep).sum()), expected)) < 4, event
        else:
            assert changed == 0  # a step takes x_t as it is
        before = event.tokens
    assert len(results) == 2 * resamples


def joint_of(step: Step, outcomes: Tensor, c: Tensor, level: Tensor) -> Tensor:
    """p(x_s = outcome | x_t = c) of the unknown tokens, for every outcome [M, N] and every c [C, N]: [C, M]."""
    size = len(outcomes)
    x, noisy = outcomes.repeat(len(c), 1), c.repeat_interleave(size, 0)
    p = teacher_forced(step, x, noisy, level.expand(x.shape), None).softmax(-1)
    if isinstance(step.network, Denoiser) and step.noise_s > 0:
        k = p.shape[-1]
        back = [
            [plain_reverse([float(j == x0) for j in range(k)], seen, step.noise_t, step.noise_s) for x0 in range(k)]
            for seen in range(k)
        ]
        p = torch.einsum("rnj,rnjk->rnk", p, torch.tensor(back, dtype=torch.float64)[noisy])
    return p.gather(-1, x[..., None])[:, level > 0].reshape(len(c), size, -1).prod(-1)


@pytest.mark.parametrize(("chain", "kept"), [("stages", False), ("denoiser", False), ("denoiser", True)])
def test_x_0_of_two_steps_by_enumeration(chain: str, kept: bool) -> None:
    """p(x_0), summed over every x_1 and x_2; given a token that is kept, of which the denoiser is told."""
    k, n, draws = 3, 3, 3000
    steps, outcomes, keep = CHAINS[chain](n, k, count=2), all_sequences(n, k), torch.zeros(n, dtype=torch.bool)
    start = uniform_tokens(n, k, row_generators(range(draws)))
    if kept:
        keep[1], start[:, 1] = True, 2
        outcomes = outcomes[outcomes[:, 1] == 2]
    coarse, fine = (joint_of(step, outcomes, outcomes, noise_levels(keep)) for step in reversed(steps))
    expected = coarse.mean(0) @ fine
    assert float(expected.sum()) == pytest.approx(1)
    counts = joint_index(run(steps, start, keep.expand(draws, n), seed=draws)[-1].tokens, k).bincount(minlength=k**n)
    assert counts.sum() == counts[joint_index(outcomes, k)].sum()
    assert chi_squared_p(counts[joint_index(outcomes, k)], expected) > 1e-4
