"""A model as its users sample from it: networks that fit, steps, where a chain starts, conditions, seeds and masks."""

import copy
import math
import pickle
from functools import partial
from typing import Any

import pytest
import torch
from oracles import binomial_z
from tiny_models import tiny_model, tiny_staged_model
from torch import Tensor

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.model import ImageBART
from imagebart.models.diffusion import Schedule, row_generators, uniform_tokens
from imagebart.models.imagebart import About
from imagebart.sampling.steps import KnownTokens
from imagebart.text.conditioners import ClassConditioner

CODES, TOKENS = 24, 64  # of tiny models
DEFAULTS = SamplingSettings()
MODELS = {"denoiser": tiny_model("none", scales=3), "stages": tiny_staged_model("none", stages=3)}
PLAIN, STAGED = MODELS.values()
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def tokens_of(batch: int) -> Tensor:
    return torch.randint(CODES, (batch, TOKENS))


def all_but(sampled: int) -> Tensor:
    """Keeps all but a few tokens, so that runs are short."""
    return torch.ones(TOKENS, dtype=torch.bool).index_fill(0, torch.randperm(TOKENS)[:sampled], False)


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


@every_model
def test_starts_from_noise_with_kept_tokens_put_in(model: ImageBART) -> None:
    known, keep = torch.zeros(40, TOKENS, dtype=torch.long), all_but(32)
    begun = model.sampler.prepare(40, DEFAULTS, known=KnownTokens(known, keep), seed=0)
    assert (begun.x[:, keep] == 0).all() and torch.equal(begun.noise_level, (~keep).float().expand(40, -1))
    assert len(begun.generators) == 40 and len(begun.steps) == 3 and begun.total == 32
    assert abs(binomial_z(int((begun.x[:, ~keep] == 0).sum()), 40 * 32, 1 / CODES)) < 4
    assert (model.sampler.prepare(2, DEFAULTS, seed=0).noise_level == 1).all()
    x, known = torch.randint(CODES, (2, 1, TOKENS))  # a start that is given
    assert torch.equal(model.sampler.prepare(1, DEFAULTS, start=x).x, x)
    begun = model.sampler.prepare(1, DEFAULTS, start=x, known=KnownTokens(known, keep))
    assert torch.equal(begun.x, torch.where(keep, known, x))


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("strength", [0.01, 0.3, 0.9])
@every_model
def test_a_variation_starts_from_its_share_of_noise(model: ImageBART, strength: float, kept: bool) -> None:
    """As much is replaced as was asked for, row by row as alone."""
    known, keep = tokens_of(40), all_but(32) if kept else torch.zeros(TOKENS, dtype=torch.bool)
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
def test_strengths_of_tokens_are_those_of_a_variation(model: ImageBART) -> None:
    """Bit for bit, where they are one everywhere; 1 is as none at all; stages take the largest for all."""
    known, keep = tokens_of(3), all_but(32)
    for strength in (0.25, 0.75):
        soft = KnownTokens(known, torch.zeros(TOKENS, dtype=torch.bool), strength=torch.full((TOKENS,), strength))
        assert torch.equal(last_of(model, soft), last_of(model, KnownTokens(known), strength))
    whole, one = KnownTokens(known, keep, strength=torch.ones(3, TOKENS)), KnownTokens(known, keep)
    assert torch.equal(last_of(model, whole), last_of(model, one))
    several = torch.where(keep, 0.9, 0.2).index_fill(0, (~keep).nonzero()[3], 0.5)
    found = last_of(model, KnownTokens(known, keep, strength=several))
    assert torch.equal(found, last_of(model, one, 0.5)) == (model is STAGED)


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_noise_of_a_variation_is_not_that_of_its_chain(seed: int) -> None:
    """Else the sampled tokens would depend on the noise that the chain starts from."""
    known = KnownTokens(torch.zeros(2, TOKENS, dtype=torch.long))
    begun = PLAIN.sampler.prepare(2, DEFAULTS, known=known, strength=0.999999, seed=seed)
    fresh = row_generators(range(seed, seed + 2))
    assert [g.get_state().tolist() for g in begun.generators] == [g.get_state().tolist() for g in fresh]
    assert int((begun.x == uniform_tokens(TOKENS, CODES, fresh)).sum()) < 20  # 5 of 128 by chance


@pytest.mark.parametrize("make", [tiny_model, tiny_staged_model])
def test_a_model_can_be_copied_and_pickled_after_sampling(make: Any) -> None:
    """The copy samples the same with weights of its own."""
    model = make("none")
    expected = model.sample(1, seed=0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.sample(1, seed=0), expected)
        for parameter in other.parameters():
            parameter.zero_()
        assert not torch.equal(other.sample(1, seed=0), expected)
    assert torch.equal(model.sample(1, seed=0), expected)


def test_a_stage_may_have_its_own_temperature_and_top_k() -> None:
    """Where a run says nothing; greedy at T alone is another image than greedy throughout."""
    model = tiny_staged_model("none", stages=2)
    drawn = partial(model.sample, 2, start=tokens_of(2), seed=3)
    greedy = drawn(top_k=1)
    for stage in model.stages[::-1]:
        assert not torch.equal(drawn(), greedy)
        stage.config = stage.config.replace(top_k=1)
    assert torch.equal(drawn(), greedy)
    cold = drawn(temperature=0.01, top_k=24)
    for stage in model.stages:
        stage.config = stage.config.replace(temperature=0.01, top_k=None)
    assert torch.equal(drawn(), cold)


def test_networks_that_do_not_fit_are_named() -> None:
    def refused(message: str, first_stage: Any, network: Any, **more: Any) -> None:
        with pytest.raises(ValueError, match=message):
            ImageBART(first_stage, network, PLAIN.conditioner, **more)

    own, other, flat = STAGED.first_stage, tiny_model("none").first_stage, Schedule((0.5, 0.5, 1.0))
    other.config = other.config.replace(codebook_size=30)
    refused(r"stages are for t = \[3, 2, 1\], expected ascending ones", own, list(STAGED.stages)[::-1])
    refused("stage 1 has beta .* expected the schedule's 0.5", own, STAGED.stages, schedule=flat)
    refused("the denoiser was made for 24 codes, expected 30", other, PLAIN.denoiser)
    refused("the denoiser has cond_length 1, expected the conditioner's 0", own, tiny_model("class").denoiser)
    refused("needs a first stage with encoder 'patch'", own, tiny_model("none", color_hint_grid=2).denoiser)
    with pytest.raises(ValueError, match="color_hint_grid is 3; .* a divisor of 4, the pixels along a patch"):
        tiny_model("none", color_hint_grid=3)


def test_a_denoiser_samples_in_any_number_of_steps() -> None:
    known, keep = tokens_of(1), all_but(3)
    for scales in (None, 1, 2, 8):
        events = list(PLAIN.stream(1, known=known, keep=keep, settings=SamplingSettings(scales=scales), seed=0))
        assert [event.stage for event in events if event.done] == list(range(scales or 3, 0, -1))
        assert {event.stages for event in events} == {scales or 3}
    bare = ImageBART(PLAIN.first_stage, PLAIN.denoiser, PLAIN.conditioner, About())  # type: ignore[arg-type]
    assert bare.scales_of(None) == 2 and bare.schedule == Schedule.geometric(2)


def test_stages_have_as_many_steps_as_there_are_and_no_corrector() -> None:
    assert STAGED.scales_of(None) == STAGED.scales_of(3) == 3
    for scales in (1, 4):
        with pytest.raises(InputError, match=f"scales is {scales}; this model was trained for 3"):
            STAGED.sample(1, scales=scales)
    with pytest.raises(InputError, match="has no corrector"):
        STAGED.sample(1, corrector_steps=1)


@pytest.mark.parametrize("make", [tiny_model, tiny_staged_model])
@pytest.mark.parametrize(
    ("conditioning", "prompts"), [("text", ["red hair", None]), ("class", ["cat", 2]), ("none", [None, None])]
)
def test_a_sample_is_the_last_event_of_the_stream(conditioning: Any, prompts: list[Any], make: Any) -> None:
    model = make(conditioning)
    cond = model.conditioner.encode(prompts).tokens
    known, keep = tokens_of(2), all_but(5)
    settings: dict[str, Any] = {"temperature": 0.9, "top_k": 12, "top_p": 0.95, "resamples": 2}
    events = list(model.stream(2, cond, None, known, keep, SamplingSettings(**settings), seed=4))
    found = model.sample(2, cond, None, known, keep, seed=4, **settings)
    assert torch.equal(found, events[-1].tokens) and sum(event.done for event in events) == 2 * 2
    assert torch.equal(found[:, keep], known[:, keep])
    assert model.first_stage.decode(found).shape == (2, 3, 32, 32)


def test_the_prompt_and_guidance_change_the_result() -> None:
    """Guidance needs an absent condition."""
    model = tiny_model("text")
    hair, hat, absent = model.conditioner.encode(["red hair", "a hat", None]).tokens.split(1)
    guided = model.sample(1, hair, guidance=100.0, seed=1)  # to a random model words mean little
    assert not torch.equal(model.sample(1, hair, seed=1), guided)
    assert not torch.equal(model.sample(1, hat, guidance=100.0, seed=1), guided)
    assert torch.equal(model.sample(1, absent, seed=1), model.sample(1, hair, guidance=0.0, seed=1))
    model = tiny_model("class")
    with pytest.raises(InputError, match="not trained without a class"):
        model.sample(1, torch.tensor([[0]]), guidance=2.0, seed=0)
    model.conditioner = ClassConditioner(names=("cat", "dog"), null_class=True)  # two classes and their absence
    assert model.sample(1, torch.tensor([[0]]), guidance=2.0, seed=0).shape == (1, 64)


def test_seeds_decide_and_the_global_generator_is_left_alone() -> None:
    known, keep = tokens_of(2), all_but(8)
    before = torch.random.get_rng_state()
    first, again, other = (PLAIN.sample(2, known=known, keep=keep, seed=seed) for seed in (3, 3, 30))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(*(PLAIN.sample(2, known=known, keep=keep) for _ in range(2)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_mask_for_all_rows_and_one_for_each() -> None:
    known, keep = tokens_of(2), all_but(4)
    together = PLAIN.sample(2, known=known, keep=keep, seed=0)
    other = torch.stack([keep, all_but(4)])
    each = PLAIN.sample(2, known=known, keep=other, seed=0)
    assert torch.equal(each[0], together[0]) and torch.equal(each[other], known[other])
    total = PLAIN.sampler.prepare(2, DEFAULTS, known=KnownTokens(known, other), seed=0).total
    assert total == int((~other).any(0).sum()) > 4, "those that some row does not keep"
    nothing = torch.ones(2, 64, dtype=torch.bool)
    assert torch.equal(PLAIN.sample(2, known=known, keep=nothing, resamples=2, seed=0), known)
    with pytest.raises(ValueError, match="keep was given without known"):
        PLAIN.sample(2, keep=keep)
