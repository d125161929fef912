"""A model as its users sample from it: networks that fit each other, scales, conditions, seeds and masks."""

from typing import Any

import pytest
import torch
from tiny_models import tiny_model, tiny_staged_model
from torch import Tensor

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.model import ImageBART
from imagebart.models.diffusion import Schedule
from imagebart.models.imagebart import About
from imagebart.text.conditioners import ClassConditioner


@pytest.fixture(scope="module")
def plain() -> ImageBART:
    return tiny_model("none", scales=3)


@pytest.fixture(scope="module")
def staged() -> ImageBART:
    return tiny_staged_model("none", stages=3)


def tokens_of(model: ImageBART, batch: int) -> Tensor:
    return torch.randint(model.vocab_size, (batch, model.tokens))


def all_but(model: ImageBART, sampled: int) -> Tensor:
    """Keeps all but a few tokens, so that runs are short."""
    keep = torch.ones(model.tokens, dtype=torch.bool)
    keep[torch.randperm(model.tokens)[:sampled]] = False
    return keep


def test_networks_that_do_not_fit_are_named(staged: ImageBART, plain: ImageBART) -> None:
    def refused(message: str, first_stage: Any, network: Any, **more: Any) -> None:
        with pytest.raises(ValueError, match=message):
            ImageBART(first_stage, network, plain.conditioner, **more)

    own, other = staged.first_stage, tiny_model("none").first_stage
    other.config = other.config.replace(codebook_size=30)
    two, flat = Schedule.geometric(2), Schedule((0.5, 0.5, 1.0))
    refused(r"t = \[1, 2, 3\], expected ascending ones of 1 to 2", own, staged.stages, schedule=two)
    refused(r"stages are for t = \[3, 2, 1\], expected ascending ones", own, list(staged.stages)[::-1])
    refused("stage 1 has beta .* expected the schedule's 0.5", own, staged.stages, schedule=flat)
    refused("stage 1 was made for 24 codes, expected 30", other, staged.stages)
    refused("the denoiser was made for 24 codes, expected 30", other, plain.denoiser)
    refused("the denoiser has cond_length 1, expected the conditioner's 0", own, tiny_model("class").denoiser)
    refused("needs a first stage with encoder 'patch'", own, tiny_model("none", color_hint_grid=2).denoiser)
    with pytest.raises(ValueError, match="color_hint_grid is 3; .* a divisor of 4, the pixels along a patch"):
        tiny_model("none", color_hint_grid=3)


def test_a_model_is_for_use_not_training(plain: ImageBART, staged: ImageBART) -> None:
    for model in (plain, staged):
        assert not model.training and not any(p.requires_grad for p in model.parameters())
    for model in (tiny_model("text"), tiny_staged_model("text")):
        assert model.text is (model.denoiser or model.stages[0]).text


def test_a_denoiser_samples_in_any_number_of_steps(plain: ImageBART) -> None:
    known, keep = tokens_of(plain, 1), all_but(plain, 3)
    for scales in (None, 1, 2, 8):
        events = list(plain.stream(1, known=known, keep=keep, settings=SamplingSettings(scales=scales), seed=0))
        assert [event.stage for event in events if event.done] == list(range(scales or 3, 0, -1))
        assert {event.stages for event in events} == {scales or 3}
    bare = ImageBART(plain.first_stage, plain.denoiser, plain.conditioner, About())  # type: ignore[arg-type]
    assert bare.scales_of(None) == 2 and bare.schedule == Schedule.geometric(2)


def test_stages_have_as_many_steps_as_there_are(staged: ImageBART) -> None:
    assert staged.scales_of(None) == staged.scales_of(3) == 3
    for scales in (1, 4):
        with pytest.raises(InputError, match=f"scales is {scales}; this model was trained for 3"):
            staged.sample(1, scales=scales)


@pytest.mark.parametrize("make", [tiny_model, tiny_staged_model])
@pytest.mark.parametrize(
    ("conditioning", "prompts"), [("text", ["red hair", None]), ("class", ["cat", 2]), ("none", [None, None])]
)
def test_a_sample_is_the_last_event_of_the_stream(conditioning: Any, prompts: list[Any], make: Any) -> None:
    model = make(conditioning)
    cond = model.conditioner.encode(prompts).tokens
    known, keep = tokens_of(model, 2), all_but(model, 5)
    settings: dict[str, Any] = {"temperature": 0.9, "top_k": 12, "top_p": 0.95, "resamples": 2}
    events = list(model.stream(2, cond, None, known, keep, SamplingSettings(**settings), seed=4))
    found = model.sample(2, cond, None, known, keep, seed=4, **settings)
    assert torch.equal(found, events[-1].tokens) and sum(event.done for event in events) == 2 * 2
    assert torch.equal(found[:, keep], known[:, keep])
    assert model.first_stage.decode(found).shape == (2, 3, 32, 32)


def test_the_prompt_and_guidance_change_the_result() -> None:
    model = tiny_model("text")
    hair, hat = (model.conditioner.encode([prompt]).tokens for prompt in ("red hair", "a hat"))
    guided = model.sample(1, hair, guidance=100.0, seed=1)  # to a random model words mean little
    assert not torch.equal(model.sample(1, hair, seed=1), guided)
    assert not torch.equal(model.sample(1, hat, guidance=100.0, seed=1), guided)
    without = model.sample(1, model.conditioner.unconditional(1), seed=1)
    assert torch.equal(without, model.sample(1, hair, guidance=0.0, seed=1))


def test_guidance_needs_an_absent_condition() -> None:
    model = tiny_model("class")
    cond = model.conditioner.encode(["cat"]).tokens
    with pytest.raises(InputError, match="not trained without a class"):
        model.sample(1, cond, guidance=2.0, seed=0)
    model.conditioner = ClassConditioner(names=("cat", "dog"), null_class=True)  # two classes and their absence
    known, keep = tokens_of(model, 1), all_but(model, 1)
    assert model.sample(1, cond, known=known, keep=keep, guidance=2.0, seed=0).shape == (1, 64)


def test_seeds_decide_and_the_global_generator_is_left_alone(plain: ImageBART) -> None:
    known, keep = tokens_of(plain, 2), all_but(plain, 8)
    before = torch.random.get_rng_state()
    first, again, other = (plain.sample(2, known=known, keep=keep, seed=seed) for seed in (3, 3, 30))
    assert torch.equal(first, again) and not torch.equal(first, other)
    alone = plain.sample(1, known=known[1:], keep=keep, seed=4)  # row b of seed 3 is seed 3 + b
    assert torch.equal(alone[0], first[1])
    assert not torch.equal(*(plain.sample(2, known=known, keep=keep) for _ in range(2)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_mask_for_all_rows_and_one_for_each(plain: ImageBART) -> None:
    known, keep = tokens_of(plain, 2), all_but(plain, 4)
    together = plain.sample(2, known=known, keep=keep, seed=0)
    other = torch.stack([keep, all_but(plain, 4)])
    each = plain.sample(2, known=known, keep=other, seed=0)
    assert torch.equal(each[0], together[0]) and torch.equal(each[other], known[other])
    nothing = torch.ones(2, 64, dtype=torch.bool)
    assert torch.equal(plain.sample(2, known=known, keep=nothing, resamples=2, seed=0), known)
    with pytest.raises(ValueError, match="keep was given without known"):
        plain.sample(2, keep=keep)
