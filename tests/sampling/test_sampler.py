"""Where a chain starts, which steps it takes, and what is kept for the next one."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from oracles import binomial_z, doubted
from tiny_models import tiny_model, tiny_staged_model
from torch import Tensor

from imagebart import mmap_policy
from imagebart.diffusion import Schedule
from imagebart.models.imagebart import ImageBART
from imagebart.sampling.sampler import row_generators, uniform_tokens
from imagebart.sampling.steps import DenoisingStep, StageStep, denoising_steps
from imagebart.settings import SamplingSettings

K, N = 24, 64
DEFAULTS = SamplingSettings()


@pytest.fixture(scope="module")
def plain() -> ImageBART:
    return tiny_model("none", scales=3)


@pytest.fixture(scope="module")
def staged() -> ImageBART:
    return tiny_staged_model("none", stages=3)


def half_kept() -> Tensor:
    keep = torch.ones(N, dtype=torch.bool)
    keep[torch.randperm(N)[: N // 2]] = False
    return keep


# Steps


@pytest.mark.parametrize("scales", range(1, 9))
@pytest.mark.parametrize("noise_t", [1.0, 0.3])
def test_steps_lose_the_same_share_each(plain: ImageBART, scales: int, noise_t: float) -> None:
    """Rates fall from the first to 0, in equal parts: geometric betas, where that is noise alone."""
    assert plain.denoiser is not None
    steps = denoising_steps(plain.denoiser, scales, noise_t)
    assert [s.noise_t for s in steps] == pytest.approx([noise_t * t / scales for t in range(1, scales + 1)])
    assert [s.noise_s for s in steps] == [0, *(s.noise_t for s in steps[:-1])]
    if noise_t == 1:
        assert [s.beta for s in steps] == pytest.approx(Schedule.geometric(scales).betas)
    stay = 1.0
    for step in steps:
        stay *= 1 - step.beta
    assert stay == pytest.approx(1 - noise_t)


@pytest.mark.parametrize(("noise_t", "noise_s"), [(0.5, 0.5), (0.2, 0.4), (1.1, 0.5), (0.5, -0.1)])
def test_bad_rates_of_a_step_are_named(plain: ImageBART, noise_t: float, noise_s: float) -> None:
    assert plain.denoiser is not None
    with pytest.raises(
        ValueError, match=f"a step from noise {noise_t:g} to {noise_s:g}, expected 0 <= noise_s < noise_t"
    ):
        DenoisingStep(plain.denoiser, noise_t, noise_s)


def test_steps_are_those_asked_for(plain: ImageBART, staged: ImageBART) -> None:
    assert len(plain.sampler.steps(DEFAULTS)) == 3
    five = plain.sampler.steps(SamplingSettings(scales=5, start=2), 0.5)
    assert [s.noise_t for s in five if isinstance(s, DenoisingStep)] == pytest.approx([0.1, 0.2])
    for first in (1, 2, 3):
        steps = staged.sampler.steps(SamplingSettings(start=first))
        assert [s.stage for s in steps if isinstance(s, StageStep)] == list(staged.stages)[:first]


@pytest.mark.parametrize(("strength", "stage"), [(0.01, 1), (0.3, 1), (0.4, 2), (0.6, 2), (0.7, 3), (1.0, 3)])
def test_stages_begin_with_the_finest_that_expects_as_much_noise(
    plain: ImageBART, staged: ImageBART, strength: float, stage: int
) -> None:
    """Stages 1, 2, 3 expect a third, two thirds, all of the tokens redrawn; a denoiser's steps are scaled to it."""
    assert len(staged.sampler.steps(DEFAULTS, strength)) == stage
    assert len(staged.sampler.steps(SamplingSettings(start=1), strength)) == 1
    assert plain.sampler.steps(DEFAULTS, strength)[-1].noise_t == pytest.approx(strength)  # type: ignore[attr-defined]


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, float("nan")])
def test_bad_strength(plain: ImageBART, strength: float) -> None:
    known = torch.zeros(1, N, dtype=torch.long)
    with pytest.raises(ValueError, match="strength is .* expected over 0 and at most 1"):
        plain.sampler.start(1, DEFAULTS, known=known, strength=strength)


# Where the chain starts


def test_starts_from_noise_with_kept_tokens_put_in(plain: ImageBART, staged: ImageBART) -> None:
    known, keep = torch.zeros(40, N, dtype=torch.long), half_kept()
    for model in (plain, staged):
        begun = model.sampler.start(40, DEFAULTS, known=known, keep=keep, seed=0)
        assert (begun.x[:, keep] == 0).all() and torch.equal(begun.noise_level, doubted(keep).expand(40, -1))
        assert len(begun.generators) == 40 and len(begun.steps) == 3 and begun.total == 32
        assert abs(binomial_z(int((begun.x[:, ~keep] == 0).sum()), 40 * 32, 1 / K)) < 4
    assert (model.sampler.start(2, DEFAULTS, seed=0).noise_level == 1).all()


def test_tokens_to_draw_are_those_that_some_row_does_not_keep(plain: ImageBART) -> None:
    keep = torch.ones(2, N, dtype=torch.bool)
    keep[0, 3] = keep[1, 3] = keep[1, 7] = False
    begun = plain.sampler.start(2, DEFAULTS, known=torch.zeros(2, N, dtype=torch.long), keep=keep, seed=0)
    assert begun.total == 2


def test_given_start_is_taken(plain: ImageBART) -> None:
    x, known = torch.randint(K, (2, 1, N))
    keep = half_kept()
    assert torch.equal(plain.sampler.start(1, DEFAULTS, x).x, x)
    begun = plain.sampler.start(1, SamplingSettings(start=1), x, known, keep)
    assert torch.equal(begun.x, torch.where(keep, known, x))


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("which", ["plain", "staged"])
def test_later_start_diffuses_what_is_known(which: str, first: int, request: pytest.FixtureRequest) -> None:
    """x_t holds the known token with probability alphacum + (1 - alphacum) / K: within four deviations."""
    model = request.getfixturevalue(which)
    known = torch.randint(K, (40, N))
    begun = model.sampler.start(40, SamplingSettings(start=first), known=known, seed=0)
    assert len(begun.steps) == first
    alphacum = 1 - first / 3
    same = int((begun.x == known).sum())
    assert abs(binomial_z(same, 40 * N, alphacum + (1 - alphacum) / K)) < 4


@pytest.mark.parametrize("strength", [0.01, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("which", ["plain", "staged"])
def test_a_variation_starts_from_its_share_of_noise(
    which: str, strength: float, request: pytest.FixtureRequest
) -> None:
    """As much is redrawn as was asked for, row by row as alone; all of it at 1, where nothing need be known."""
    model = request.getfixturevalue(which)
    known = torch.randint(K, (40, N))
    arguments: dict[str, Any] = {"known": known, "strength": strength}
    x = model.sampler.start(40, DEFAULTS, seed=0, **arguments).x
    changed = int((x != known).sum())
    assert abs(binomial_z(changed, 40 * N, strength * (K - 1) / K)) < 4
    assert torch.equal(model.sampler.start(40, DEFAULTS, seed=0, **arguments).x, x)
    alone = model.sampler.start(1, DEFAULTS, known=known[1:2], strength=strength, seed=1).x
    assert torch.equal(alone, x[1:2])


def test_a_variation_can_keep_tokens_and_begin_later(plain: ImageBART) -> None:
    """At stage 1 of 3 from 0.9, a third of 0.9 is noise."""
    known, keep = torch.randint(K, (40, N)), half_kept()
    begun = plain.sampler.start(40, SamplingSettings(start=1), known=known, keep=keep, strength=0.9, seed=0)
    assert torch.equal(begun.x[:, keep], known[:, keep])
    changed = int((begun.x != known).sum())
    assert abs(binomial_z(changed, 40 * 32, 0.3 * (K - 1) / K)) < 4


def test_noise_of_a_variation_is_not_that_of_its_chain(plain: ImageBART) -> None:
    """Else the chain would draw tokens that depend on the noise it is given."""
    known = torch.zeros(2, N, dtype=torch.long)
    for seed in (0, 1, 2**32 - 1):
        begun = plain.sampler.start(2, DEFAULTS, known=known, strength=0.999999, seed=seed)
        chain = uniform_tokens(N, K, row_generators(seed, 2))
        assert int((begun.x == chain).sum()) < 20  # 5 of 128 by chance
        # What starts it has taken nothing from what draws it.
        fresh = [torch.rand(5, generator=g) for g in row_generators(seed, 2)]
        assert all(torch.equal(torch.rand(5, generator=g), f) for g, f in zip(begun.generators, fresh, strict=True))


def test_without_a_seed_starts_differ(plain: ImageBART) -> None:
    first, second = (plain.sampler.start(1, DEFAULTS).x for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("rows", [1, 2])
def test_colours_that_are_seen_are_taken_row_by_row_or_for_all(rows: int) -> None:
    model, color_hints = tiny_model("none", color_hint_grid=2), torch.rand(rows, N, K) < 0.3
    begun = model.sampler.start(
        2, DEFAULTS, known=torch.zeros(2, N, dtype=torch.long), keep=half_kept(), color_hints=color_hints
    )
    assert begun.color_hints is not None and torch.equal(begun.color_hints, color_hints.expand(2, -1, -1))


def test_colours_that_are_seen_have_to_fit(plain: ImageBART, staged: ImageBART) -> None:
    for model in (plain, staged):
        with pytest.raises(ValueError, match="color_hints was given, but this model takes none"):
            model.sampler.start(1, DEFAULTS, color_hints=torch.zeros(1, N, K, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"color_hints has shape \[1, 64, 4\], expected \[2, 64, 24\]"):
        tiny_model("none", color_hint_grid=2).sampler.start(
            2, DEFAULTS, color_hints=torch.zeros(1, N, 4, dtype=torch.bool)
        )


# Drawing


def test_steps_before_a_later_start_do_not_run(plain: ImageBART, staged: ImageBART) -> None:
    known = torch.randint(K, (1, N))
    for model in (plain, staged):
        events = model.stream(1, known=known, settings=SamplingSettings(start=2), seed=0)
        stages = [event.stage for event in events]
        assert stages == sorted(stages, reverse=True) and set(stages) == {2, 1}


def test_all_steps_of_a_denoiser_share_an_engine_and_stages_have_their_own() -> None:
    model, other = tiny_model("none"), tiny_staged_model("none")
    model.sampler.prepare()
    other.sampler.prepare()
    packed_models = [model.sampler.packed_model(step) for step in model.sampler.steps(SamplingSettings(scales=8))]
    assert (
        all(packed_model is packed_models[0] for packed_model in packed_models)
        and len(model.sampler.packed_models.made) == 1
    )
    assert len(other.sampler.packed_models.made) == 2
    assert model.sampler is model.sampler


def test_a_model_too_large_for_its_machine_draws_the_same_a_stage_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plenty, scarce = (tiny_staged_model("none", stages=3) for _ in range(2))
    plenty.sampler.prepare()
    expected = plenty.sample(1, seed=0)
    monkeypatch.setattr(mmap_policy, "available_memory", lambda: 0)
    scarce.sampler.prepare()
    assert len(plenty.sampler.packed_models.made) == 3 and scarce.sampler.packed_models.made == {}
    assert torch.equal(scarce.sample(1, seed=0), expected) and len(scarce.sampler.packed_models.made) == 1


@pytest.mark.parametrize("make", [tiny_model, tiny_staged_model])
def test_a_model_that_has_drawn_can_be_copied_and_pickled(make: Any) -> None:
    """The copy draws the same from weights of its own."""
    model = make("none")
    known, keep = torch.randint(K, (1, N)), torch.ones(N, dtype=torch.bool)
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


def test_each_scale_is_drawn_with_its_own_temperature_and_top_k() -> None:
    """Greedy at T and free below is what two runs give, one after the other."""
    model = tiny_staged_model("none", stages=2)
    start = torch.randint(model.vocab_size, (2, model.tokens))

    def drawn(settings: SamplingSettings, start: Tensor) -> Tensor:
        *_, last = model.stream(2, start=start, settings=settings, seed=3)
        return last.tokens

    def coarsest(settings: SamplingSettings) -> Tensor:
        return [e.tokens for e in model.stream(2, start=start, settings=settings, seed=3) if e.stage == 2][-1]

    assert torch.equal(coarsest(SamplingSettings(top_ks=(24, 1))), coarsest(SamplingSettings(top_k=1)))
    greedy, free = drawn(SamplingSettings(top_k=1), start), drawn(SamplingSettings(top_ks=(24, 1)), start)
    assert not torch.equal(greedy, free)
    cold = drawn(SamplingSettings(temperatures=(0.01, 0.01)), start)
    assert torch.equal(cold, drawn(SamplingSettings(temperature=0.01), start))
    with pytest.raises(ValueError, match="There are 3 top-ks; there must be one for each of 2 scales"):
        drawn(SamplingSettings(top_ks=(1, 1, 1)), start)
