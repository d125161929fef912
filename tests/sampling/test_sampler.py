"""The chain: its steps, where it starts, and from there to x_0, of published stages and of the denoiser."""

from __future__ import annotations

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
from imagebart.models.denoiser import Denoiser, Stage
from imagebart.models.diffusion import Schedule, add_noise_rows, gumbel_noise, row_generators, uniform_tokens
from imagebart.models.transformer import Cache, Transformer
from imagebart.sampling import steps as steps_module
from imagebart.sampling.packed_linear import PackedDecoder
from imagebart.sampling.sampler import ChainEvent, sample_chain
from imagebart.sampling.steps import KnownTokens, Step

CODES, TOKENS = 24, 64  # of tiny models
DEFAULTS = SamplingSettings()


@pytest.fixture(scope="module")
def plain() -> ImageBART:
    return tiny_model("none", scales=3)


@pytest.fixture(scope="module")
def staged() -> ImageBART:
    return tiny_staged_model("none", stages=3)


def sample(model: ImageBART, known: KnownTokens, settings: SamplingSettings, seed: int) -> Tensor:
    """x_0 of a chain for each row of what is known."""
    state = model.sampler.prepare(len(known.tokens), settings, known=known, seed=seed)
    return [*model.sampler.stream(state, settings)][-1].tokens


def half_kept() -> Tensor:
    keep = torch.ones(TOKENS, dtype=torch.bool)
    keep[torch.randperm(TOKENS)[: TOKENS // 2]] = False
    return keep


# Steps


@pytest.mark.parametrize("scales", range(1, 9))
@pytest.mark.parametrize("noise_t", [1.0, 0.3])
def test_steps_lose_the_same_share_each(plain: ImageBART, scales: int, noise_t: float) -> None:
    """Rates fall from the first to 0, in equal parts: geometric betas, where that is noise alone."""
    steps = plain.sampler.steps(SamplingSettings(scales=scales), noise_t)
    assert [s.noise_t for s in steps] == pytest.approx([noise_t * t / scales for t in range(1, scales + 1)])
    assert [s.noise_s for s in steps] == [0, *(s.noise_t for s in steps[:-1])]
    if noise_t == 1:
        assert [s.beta for s in steps] == pytest.approx(Schedule.geometric(scales).betas)
    stay = 1.0
    for step in steps:
        stay *= 1 - step.beta
    assert stay == pytest.approx(1 - noise_t)


def test_steps_are_those_asked_for(plain: ImageBART, staged: ImageBART) -> None:
    assert len(plain.sampler.steps(DEFAULTS)) == 3
    five = plain.sampler.steps(SamplingSettings(scales=5), 0.5)
    assert [s.noise_t for s in five] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert [s.network for s in staged.sampler.steps(SamplingSettings())] == list(staged.stages)


@pytest.mark.parametrize(("strength", "stage"), [(0.01, 1), (0.3, 1), (0.4, 2), (0.6, 2), (0.7, 3), (1.0, 3)])
def test_stages_begin_with_the_finest_that_expects_as_much_noise(
    plain: ImageBART, staged: ImageBART, strength: float, stage: int
) -> None:
    """Stages 1, 2, 3 expect a third, two thirds, all of the tokens redrawn; a denoiser's steps are scaled to it."""
    assert len(staged.sampler.steps(DEFAULTS, strength)) == stage
    assert plain.sampler.steps(DEFAULTS, strength)[-1].noise_t == pytest.approx(strength)  # type: ignore[attr-defined]


# Where the chain starts


def test_starts_from_noise_with_kept_tokens_put_in(plain: ImageBART, staged: ImageBART) -> None:
    known, keep = torch.zeros(40, TOKENS, dtype=torch.long), half_kept()
    for model in (plain, staged):
        begun = model.sampler.prepare(40, DEFAULTS, known=KnownTokens(known, keep), seed=0)
        assert (begun.x[:, keep] == 0).all() and torch.equal(begun.noise_level, noise_levels(keep).expand(40, -1))
        assert len(begun.generators) == 40 and len(begun.steps) == 3 and begun.total == 32
        assert abs(binomial_z(int((begun.x[:, ~keep] == 0).sum()), 40 * 32, 1 / CODES)) < 4
    assert (model.sampler.prepare(2, DEFAULTS, seed=0).noise_level == 1).all()


def test_total_counts_the_tokens_that_some_row_does_not_keep(plain: ImageBART) -> None:
    keep = torch.ones(2, TOKENS, dtype=torch.bool)
    keep[0, 3] = keep[1, 3] = keep[1, 7] = False
    known = KnownTokens(torch.zeros(2, TOKENS, dtype=torch.long), keep)
    begun = plain.sampler.prepare(2, DEFAULTS, known=known, seed=0)
    assert begun.total == 2


def test_given_start_is_taken(plain: ImageBART) -> None:
    x, known = torch.randint(CODES, (2, 1, TOKENS))
    keep = half_kept()
    assert torch.equal(plain.sampler.prepare(1, DEFAULTS, start=x).x, x)
    begun = plain.sampler.prepare(1, DEFAULTS, start=x, known=KnownTokens(known, keep))
    assert torch.equal(begun.x, torch.where(keep, known, x))


@pytest.mark.parametrize("strength", [0.01, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("which", ["plain", "staged"])
def test_a_variation_starts_from_its_share_of_noise(
    which: str, strength: float, request: pytest.FixtureRequest
) -> None:
    """As much is redrawn as was asked for, row by row as alone; all of it at 1, where nothing need be known."""
    model = request.getfixturevalue(which)
    known = torch.randint(CODES, (40, TOKENS))
    arguments: dict[str, Any] = {"known": KnownTokens(known), "strength": strength}
    x = model.sampler.prepare(40, DEFAULTS, seed=0, **arguments).x
    changed = int((x != known).sum())
    assert abs(binomial_z(changed, 40 * TOKENS, strength * (CODES - 1) / CODES)) < 4
    assert torch.equal(model.sampler.prepare(40, DEFAULTS, seed=0, **arguments).x, x)
    alone = model.sampler.prepare(1, DEFAULTS, known=KnownTokens(known[1:2]), strength=strength, seed=1).x
    assert torch.equal(alone, x[1:2])


def test_a_variation_can_keep_tokens(plain: ImageBART) -> None:
    known, keep = torch.randint(CODES, (40, TOKENS)), half_kept()
    begun = plain.sampler.prepare(40, DEFAULTS, known=KnownTokens(known, keep), strength=0.3, seed=0)
    assert torch.equal(begun.x[:, keep], known[:, keep])
    changed = int((begun.x != known).sum())
    assert abs(binomial_z(changed, 40 * 32, 0.3 * (CODES - 1) / CODES)) < 4


def test_each_token_starts_from_its_own_strength(plain: ImageBART) -> None:
    """The share of tokens that becomes noise is each one's strength; of partial patches, the masked token's."""
    shape, keep = (400, TOKENS), torch.zeros(TOKENS, dtype=torch.bool)
    original, masked = torch.randint(12, shape), 12 + torch.randint(12, shape)
    keep[:8] = True
    strengths, noise_level = torch.zeros(TOKENS), torch.ones(TOKENS)
    strengths[8:] = torch.tensor([0.01, 0.3, 0.7, 1]).repeat(14)
    noise_level[36:] = 0.5  # patches of which a mask covers one half
    known = torch.where(noise_level < 1, masked, original)
    given = KnownTokens(known, keep, noise_level, strengths, original)
    state = plain.sampler.prepare(400, DEFAULTS, known=given, seed=3)
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
    alone = plain.sampler.prepare(1, DEFAULTS, known=alone, seed=4)
    assert torch.equal(alone.x, state.x[1:2])


@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
@pytest.mark.parametrize("which", ["plain", "staged"])
def test_one_strength_everywhere_is_a_variation(which: str, strength: float, request: pytest.FixtureRequest) -> None:
    """Bit for bit; strength 1 of what is not kept is that of no strengths at all."""
    model = request.getfixturevalue(which)
    known, nothing = torch.randint(CODES, (3, TOKENS)), torch.zeros(TOKENS, dtype=torch.bool)
    soft = KnownTokens(known, nothing, strength=torch.full((TOKENS,), strength))
    one = sample(model, soft, DEFAULTS, 5)
    *_, last = model.stream(3, known=known, settings=DEFAULTS, seed=5, strength=float(torch.tensor(strength)))
    assert torch.equal(one, last.tokens)
    keep = half_kept()
    given = (KnownTokens(known, keep, strength=torch.ones(3, TOKENS)), KnownTokens(known, keep))
    one, other = (sample(model, each, DEFAULTS, 5) for each in given)
    assert torch.equal(one, other)


def test_stages_take_the_largest_strength_for_all(staged: ImageBART) -> None:
    known, keep = torch.randint(CODES, (2, TOKENS)), half_kept()
    strengths = torch.where(keep, 0.9, 0.2)
    strengths[(~keep).nonzero()[3]] = 0.5
    state = staged.sampler.prepare(2, DEFAULTS, known=KnownTokens(known, keep, strength=strengths), seed=0)
    one = list(staged.sampler.stream(state, DEFAULTS))
    other = list(staged.stream(2, known=known, keep=keep, strength=0.5, seed=0))
    assert [(event.stage, event.tokens.tolist()) for event in one] == [(e.stage, e.tokens.tolist()) for e in other]


def test_noise_of_a_variation_is_not_that_of_its_chain(plain: ImageBART) -> None:
    """Else the sampled tokens would depend on the noise that the chain starts from."""
    known = torch.zeros(2, TOKENS, dtype=torch.long)
    for seed in (0, 1, 2**32 - 1):
        begun = plain.sampler.prepare(2, DEFAULTS, known=KnownTokens(known), strength=0.999999, seed=seed)
        chain = uniform_tokens(TOKENS, CODES, row_generators(range(seed, seed + 2)))
        assert int((begun.x == chain).sum()) < 20  # 5 of 128 by chance
        # The start has taken nothing from the chain's generators.
        fresh = [torch.rand(5, generator=g) for g in row_generators(range(seed, seed + 2))]
        assert all(torch.equal(torch.rand(5, generator=g), f) for g, f in zip(begun.generators, fresh, strict=True))


def test_without_a_seed_starts_differ(plain: ImageBART) -> None:
    first, second = (plain.sampler.prepare(1, DEFAULTS).x for _ in range(2))
    assert not torch.equal(first, second)


# Sampling


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
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(saved, weights_only=False)]
    for other in copies:
        assert other.sampler is not model.sampler and other.sampler.model is other
        assert torch.equal(other.sample(1, known=known, keep=keep, seed=0), expected)
        for parameter in other.parameters():
            parameter.zero_()
        changed = other.sample(1, known=known, keep=keep, seed=0)
        assert not torch.equal(changed, expected)
    assert torch.equal(model.sample(1, known=known, keep=keep, seed=0), expected)
    assert not any(name.startswith("_sampler") for name in model.state_dict())


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
        template = random_stage(kind, tokens, vocab_size, cond_length=0, seed=t)  # type: ignore[arg-type]
        config = template.config.replace(t=t, beta=schedule.betas[t - 1])
        stage = Stage(config, 3).double()
        stage.load_state_dict(template.state_dict())
        levels = (1 - schedule.alphacum(t), 1 - schedule.alphacum(t - 1))
        steps.append(Step(stage.eval().requires_grad_(False), *levels))
    return steps


def denoised(tokens: int = 6, vocab_size: int = K, count: int = 3) -> list[Step]:
    return denoising_steps(random_denoiser(tokens, vocab_size, cond_length=0), count)


CHAINS = {"stages": published, "denoiser": denoised}
every_chain = pytest.mark.parametrize("chain", CHAINS)


def run(
    steps: Sequence[Step],
    start: Tensor,
    keep: Tensor | None = None,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    **more: Any,
) -> list[ChainEvent]:
    """The events of a chain; more: as for `chain_state`."""
    level = more.pop("noise_level", None if keep is None else noise_levels(keep))
    state = chain_state(steps, start, level, seed=seed, **more)
    return list(sample_chain(state, PackedDecoder(), settings or SamplingSettings()))


def begun(steps: Sequence[Step]) -> Iterator[ChainEvent]:
    """A chain of one row that has not been asked for anything."""
    return sample_chain(chain_state(steps, torch.randint(K, (1, 6))), PackedDecoder(), SamplingSettings())


def count_forwards(steps: Sequence[Step]) -> list[int]:
    """The t of each decoder forward from the first event on; what packed time of their own comes before."""
    seen: list[int] = []
    for step in steps:
        assert isinstance(step.network, Stage)
        t = step.network.config.t
        step.network.decoder.token_embedding.register_forward_pre_hook(lambda *_, t=t: seen.append(t))
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
    seen = count_forwards(steps)
    keep, start = torch.tensor([[True, True, False, False, True, True]]), torch.randint(K, (1, 6))
    state = chain_state(steps, start, noise_levels(keep))
    events = list(sample_chain(state, PackedDecoder(), SamplingSettings(resamples=2)))
    assert seen == [event.stage for event in events]
    assert all(1 <= event.nfe <= event.position <= 2 for event in events)


@every_chain
def test_sampled_tokens_stay_and_kept_tokens_never_change(chain: str) -> None:
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


def test_the_denoisers_drafts_are_the_first_event() -> None:
    """They are what its encoder alone predicts, with the noise of the step."""
    step = CHAINS["denoiser"]()[-1]
    start, noise_level = torch.randint(K, (3, 6)), torch.ones(3, 6)
    first = run([step], start)[0]
    _, logits = step.prepare(chain_state([step], start))
    assert logits is not None
    noise = gumbel_noise((6, K), row_generators(range(3)))
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
    # The others were sampled.
    assert not torch.equal(events[-1].tokens[~keep], start[~keep])


def test_nothing_to_sample_gives_no_events() -> None:
    steps = published()
    seen, state = count_forwards(steps), chain_state(steps, torch.randint(K, (2, 6)), torch.zeros(2, 6))
    assert list(sample_chain(state, PackedDecoder(), SamplingSettings(resamples=2))) == []
    assert seen == []


def test_closing_stops_and_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = published()
    chain = begun(steps)
    seen = count_forwards(steps)
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
        for part in (part for part in step.network.modules() if isinstance(part, Transformer)):
            part.requires_grad_(True)
            part.norm.register_forward_hook(lambda _, args, out: hidden.append(out.requires_grad))
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


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("scales", [1, 2, 8])
def test_a_chain_of_the_denoiser_equals_the_plain_computation(
    scales: int, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token by token, in as many steps as wanted, whatever is verified at once; rows keep what they keep."""
    torch.manual_seed(scales)
    steps = denoising_steps(random_denoiser(color_hint_grid=2), scales)
    start, keep, cond = torch.randint(K, (2, 6)), torch.rand(2, 6) < 0.3, random_cond(2)
    color_hints = torch.rand(2, 6, K) < 0.3
    unconditional, settings = torch.zeros(2, 2, dtype=torch.long), SamplingSettings(guidance=guidance)
    generators, expected, x = row_generators(range(4, 6)), [], start
    for step in reversed(steps):
        x = plain_draw(
            step, x, x, noise_levels(keep), cond, unconditional, settings, gumbel_noise((6, K), generators), color_hints
        )
        expected.append(x)
    for more in (None, 0, 1, 3, 100):  # drafts that a pass verifies
        if more is not None:
            length = lambda needed, unknown, rows, more=more: needed + more  # noqa: E731
            monkeypatch.setattr(steps_module, "draft_length", length)
        events = run(steps, start, keep, settings, 4, cond=cond, unconditional=unconditional, color_hints=color_hints)
        assert torch.equal(torch.stack([e.tokens for e in events if e.done]), torch.stack(expected))


@pytest.mark.parametrize("resamples", [1, 3])
@pytest.mark.parametrize("scales", [1, 2, 8])
def test_a_token_with_a_noise_level_is_sampled_by_the_first_step_below_it(scales: int, resamples: int) -> None:
    """Until then it is the token of the start, at its own level: the plain chain."""
    torch.manual_seed(scales)
    steps = denoising_steps(random_denoiser(cond_length=0), scales)
    start, noise_level = torch.randint(K, (2, 6)), torch.tensor([[0, 0.1, 0.6, 1, 0.3, 1], [1, 0.9, 0.5, 0.25, 0, 0.7]])
    settings, generators, expected, x = SamplingSettings(resamples=resamples), row_generators(range(4, 6)), [], start
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
    draws = [torch.rand(1, generator=g).item() for g in row_generators((2**63 - 1, 2**63, -1, 0))]
    zero = torch.rand(1, generator=torch.Generator().manual_seed(0)).item()
    assert draws[1] == draws[3] == zero  # they wrap around


def test_x_T_is_uniform() -> None:
    """Chi-squared; a right sampler fails once in 10,000 seeds, and the seed is fixed."""
    x = uniform_tokens(2000, 5, row_generators(range(10)))
    assert x.shape == (10, 2000) and x.dtype == torch.long
    assert chi_squared_p(x.flatten().bincount(minlength=5), torch.full((5,), 0.2)) > 1e-4
    assert torch.equal(x[3], uniform_tokens(2000, 5, row_generators([3]))[0])


def test_rows_get_noise_from_their_own_generators() -> None:
    x = torch.randint(K, (3, 40))
    together = add_noise_rows(x, 0.5, K, row_generators(range(4, 7)))
    for b in range(3):
        assert torch.equal(together[b], add_noise_rows(x[b : b + 1], 0.5, K, row_generators([4 + b]))[0])


def test_resamples_add_less_and_less_noise() -> None:
    """Repeat r of n redraws (1 - r/n) beta_t of the last pass's tokens, kept ones never; within four deviations."""
    tokens, batch, resamples, vocab_size = 40, 60, 4, 5
    taken: list[Tensor] = []  # x_t of every pass
    steps = published(tokens, vocab_size, count=2)
    for step in steps:
        prepare = step.network.prepare
        step.network.prepare = lambda x_t, cond, prepare=prepare: taken.append(x_t) or prepare(x_t, cond)  # type: ignore
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
    if isinstance(step.network, Denoiser) and step.noise_s > 0:
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
    start = uniform_tokens(n, k, row_generators(range(draws)))
    drawn = run(steps, start, seed=draws)[-1].tokens
    assert chi_squared_p(joint_index(drawn, k).bincount(minlength=len(outcomes)), expected) > 1e-4


def test_kept_tokens_condition_the_others() -> None:
    """p(x_0 | kept) of the denoiser's two steps, told which token is kept: by enumeration, as above."""
    k, n, draws = 3, 3, 3000
    steps, outcomes = denoised(n, k, count=2), all_sequences(n, k)
    keep = torch.tensor([False, True, False])
    outcomes = outcomes[outcomes[:, 1] == 2]
    c, x = outcomes.repeat_interleave(9, 0), outcomes.repeat(9, 1)
    chances = []
    for step in steps:
        p0 = teacher_forced(step, x, c, noise_levels(keep).expand(81, n), None).softmax(-1).tolist()
        chance = [
            math.prod(plain_reverse(p0[row][i], int(c[row, i]), step.noise_t, step.noise_s)[x[row, i]] for i in (0, 2))
            for row in range(81)
        ]
        chances.append(torch.tensor(chance, dtype=torch.float64).reshape(9, 9))
    expected = chances[1].mean(0) @ chances[0]
    start = uniform_tokens(n, k, row_generators(range(draws)))
    start[:, 1] = 2
    drawn = run(steps, start, keep.expand(draws, n), seed=draws)[-1].tokens
    assert (drawn[:, 1] == 2).all()
    counts = (drawn[:, 0] * k + drawn[:, 2]).bincount(minlength=9)
    assert chi_squared_p(counts, expected) > 1e-4
