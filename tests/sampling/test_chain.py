"""The chain of small random networks, x_T to x_0, and its corrector: against plain computations."""

import gc
import itertools
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from oracles import plain_denoiser, plain_draw
from random_networks import chain_state, random_cond, random_denoiser, random_stage
from tiny_models import tiny_model
from torch import Tensor

from imagebart.core.settings import SamplingSettings
from imagebart.models.diffusion import Schedule, add_noise_rows, gumbel_noise, row_generators, uniform_tokens
from imagebart.models.transformer import Cache, Transformer
from imagebart.sampling import steps as steps_module
from imagebart.sampling.packed_linear import PackedNetwork
from imagebart.sampling.sampler import TOP_P, correct, sample_chain
from imagebart.sampling.steps import ChainEvent, ChainState, Step

DEFAULTS, K = SamplingSettings(), 7


def published() -> list[Step]:
    """A residual and an encoder-decoder stage, and a decoder-only one at T."""
    schedule, kinds, steps = Schedule.geometric(3), ("encoder_decoder", "residual", "decoder_only"), []
    for t, kind in enumerate(kinds, 1):
        stage = random_stage(kind, cond_length=0, seed=t)  # type: ignore[arg-type]
        stage.config = stage.config.replace(t=t, beta=schedule.betas[t - 1])
        steps.append(Step(stage, 1 - schedule.alphacum(t), 1 - schedule.alphacum(t - 1)))
    return steps


def denoised(count: int = 3, **more: int) -> list[Step]:
    """Steps of one denoiser that remove as much noise each."""
    denoiser = random_denoiser(**{"cond_length": 0, **more})
    return [Step(denoiser, t / count, (t - 1) / count) for t in range(1, count + 1)]


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
    level = more.pop("noise_level", None if keep is None else (~keep).float())
    return sample_chain(chain_state(steps, start, level, seed=seed, **more), PackedNetwork(), settings)


def ends(*given: Any, **more: Any) -> Tensor:
    """What each step and resample of a chain ends with, [S, B, N]."""
    return torch.stack([event.tokens for event in stream(*given, **more) if event.done])


@pytest.mark.parametrize("resamples", [1, 3])
@pytest.mark.parametrize("first", [3, 1])
@every_chain
def test_events_come_in_order_and_sampled_and_kept_tokens_stay(chain: str, first: int, resamples: int) -> None:
    keep = torch.tensor([[True, False, False, True, False, True], [True, True, False, True, False, True]])
    start, drawn = torch.randint(K, (2, 6)), [1, 2, 4]
    events = stream(CHAINS[chain]()[:first], start, keep, SamplingSettings(resamples=resamples))
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


def test_the_denoisers_drafts_are_the_first_event() -> None:
    """They are what its encoder alone predicts, with the noise of the step."""
    step, start = denoised()[-1], torch.randint(K, (3, 6))
    _, logits = step.prepare(chain_state([step], start))
    assert logits is not None
    drafts = (step.reverse(logits, start, torch.ones(3, 6)) + gumbel_noise((6, K), row_generators(range(3)))).argmax(-1)
    assert torch.equal(next(stream([step], start)).tokens, drafts)


def test_closing_stops_and_frees(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = published()
    chain, seen = stream(steps, torch.randint(K, (1, 6))), list[int]()  # the t of each pass of a decoder
    for t, step in enumerate(steps, 1):
        step.network.decoder.token_embedding.register_forward_pre_hook(lambda *_, t=t: seen.append(t))
    caches: list[weakref.ref] = []
    allocate = Cache.allocate

    def recorded(cache: Cache, decoder: Transformer) -> None:
        caches.append(weakref.ref(cache))
        allocate(cache, decoder)

    monkeypatch.setattr(Cache, "allocate", recorded)
    assert seen == []
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
    together = ends(steps, start, keep, settings, seed=10)
    for b in range(3):
        alone = ends(steps, start[b : b + 1], keep[b : b + 1], settings, seed=10 + b)
        assert torch.equal(alone[:, 0], together[:, b])
    assert not torch.equal(ends(steps, start, keep, settings, seed=20), together)


@pytest.mark.parametrize(
    ("scales", "guidance", "resamples"), [(0, 1.0, 3), (1, 1.0, 3), (2, 2.5, 1), (2, 2.5, 3), (8, 1.0, 4)]
)
def test_equals_a_plain_chain(scales: int, guidance: float, resamples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is verified at once. A token is the start's until the first step below its noise level samples it."""
    steps = denoised(scales, cond_length=2, color_hint_grid=2) if scales else published()
    start, level = torch.randint(K, (2, 6)), torch.tensor([[0, 0.1, 0.6, 1, 0.3, 1], [1, 0.9, 0.5, 0.25, 0, 0.7]])
    level, cond = (level, random_cond(2)) if scales else (level.round(), None)
    color_hints, unconditional = torch.rand(2, 6, K) < 0.3, torch.zeros(2, 2, dtype=torch.long)
    settings, generators = SamplingSettings(guidance=guidance, resamples=resamples), row_generators(range(4, 6))
    expected, x = [], start
    for step, repeat in itertools.product(reversed(steps), range(resamples)):
        if repeat:
            x = add_noise_rows(x, (1 - repeat / resamples) * step.beta, K, generators)
        c, noise = torch.where((level <= step.noise_t) & (level < 1), start, x), gumbel_noise((6, K), generators)
        x = plain_draw(step, c, c, level, cond, unconditional, settings, noise, color_hints)
        expected.append(x)
    waiting = level <= steps[-1].noise_s
    assert torch.equal(expected[0][waiting], start[waiting]) and (x[level > 0] != start[level > 0]).any()
    more = {"noise_level": level, "cond": cond, "unconditional": unconditional, "color_hints": color_hints}
    for drafts in (None, 0, 3, 100):  # that a pass verifies
        if drafts is not None:
            length = lambda needed, unknown, rows, drafts=drafts: needed + drafts  # noqa: E731
            monkeypatch.setattr(steps_module, "draft_length", length)
        assert torch.equal(ends(steps, start, None, settings, 4, **more), torch.stack(expected))


# The corrector

SIDE, ROWS, STEPS = 4, 3, 3  # an even side, whose chessboard is no stripes
N = SIDE**2
CORRECTED = SamplingSettings(corrector_steps=STEPS, corrector_threshold=0.1, guidance=1.5, temperature=0.8)
CORRECTING = random_denoiser(N, K, color_hint_grid=2)
STEP = Step(CORRECTING, 1.0, 0.0)


def plainly_corrected(state: ChainState, color_hints: Tensor, x: Tensor, seed: int) -> Tensor:
    """Each probability computed by itself, in float64, and each token sampled by itself."""
    cond = state.without_guidance().cond
    assert cond is not None
    generators, levels, going = row_generators(range(seed, seed + ROWS)), state.noise_level, set(range(ROWS))
    for _ in range(STEPS):
        noise, uniform = gumbel_noise((N, K), generators), uniform_tokens(N, K, generators)
        noisy = torch.where(levels < 1, state.x, uniform)
        again = torch.zeros(ROWS, N, dtype=torch.bool)
        for b, i in [(b, i) for b in range(ROWS) for i in range(N) if levels[b, i] > 0 and b in going]:
            unknown = [(i // SIDE - j // SIDE + i % SIDE - j % SIDE) % 2 == 0 for j in range(N)]  # as on a chessboard
            x_t = [int(noisy[b, j] if unknown[j] and levels[b, j] > 0 else x[b, j]) for j in range(N)]
            noise_t = [float(levels[b, j]) if unknown[j] else 0.0 for j in range(N)]
            told = (cond[b].tolist(), color_hints[b].tolist())
            drafts = plain_denoiser(CORRECTING, x_t, x_t, noise_t, noise_t, *told)[1]
            again[b, i] = drafts[i].softmax(-1)[x[b, i]] < CORRECTED.corrector_threshold
        going = {b for b in going if again[b].any()}
        x_t, levels_t = torch.where(again, noisy, x), levels.where(again, 0.0)
        settings = CORRECTED.replace(guidance=1.0, top_p=TOP_P)
        x = plain_draw(STEP, x_t, x_t, levels_t, cond, None, settings, noise, color_hints)
    return x


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_plain_computation(seed: int) -> None:
    """With a condition, rows that keep different tokens, and tokens that a mask covers in part."""
    torch.manual_seed(seed)
    levels = torch.rand(ROWS, N).where(torch.rand(ROWS, N) < 0.3, (torch.rand(ROWS, N) < 0.7).float())
    start, color_hints, x = torch.randint(K, (ROWS, N)), torch.rand(ROWS, N, K) < 0.2, torch.randint(K, (ROWS, N))
    begun = x = torch.where(levels > 0, x, start)
    given = (random_cond(ROWS), torch.zeros(ROWS, 2).long(), color_hints, seed)
    end = ChainEvent(tokens=x, stage=1, stages=1, resample_index=0, resamples=1)
    for event in correct(chain_state([STEP], start, levels, *given), end, PackedNetwork(), CORRECTED):
        assert event.stage == 1 and 1 <= event.corrector_step <= STEPS
        x = event.tokens
    expected = plainly_corrected(chain_state([STEP], start, levels, *given), color_hints, begun, seed)
    assert torch.equal(x, expected) and not torch.equal(x, begun)


@pytest.mark.parametrize("resamples", [1, 2])
def test_a_models_chain_goes_on_with_the_corrector(resamples: int) -> None:
    """The events before are those of the chain alone; the others say which corrector step they belong to."""
    model = tiny_model("none", scales=2)
    model.denoiser.draft_head.weight.normal_(std=2)  # so that some tokens are unlikely
    settings = SamplingSettings(resamples=resamples)
    alone = list(model.stream(2, settings=settings, seed=4))
    both = list(model.stream(2, settings=settings.replace(corrector_steps=4), seed=4))
    for one, other in zip(alone, both, strict=False):
        assert torch.equal(one.tokens, other.tokens) and other.corrector_step == 0
    after = [event.corrector_step for event in both[len(alone) :]]
    assert after == sorted(after) and set(after) == set(range(1, 5))
    assert {(e.stage, e.stages, e.resample_index) for e in both[len(alone) :]} == {(1, 2, resamples - 1)}
