from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import tiny_model, tiny_staged_model
from torch import Tensor

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser
from imagebart.models.diffusion import Schedule
from imagebart.models.imagebart import About
from imagebart.sampling.sampler import ChainEvent
from imagebart.text.conditioners import ClassConditioner

CONDITIONINGS = ("text", "class", "none")


@pytest.fixture(scope="module")
def plain() -> ImageBART:
    return tiny_model("none", scales=3)


@pytest.fixture(scope="module")
def staged() -> ImageBART:
    return tiny_staged_model("none", stages=3)


@pytest.fixture(scope="module")
def text() -> ImageBART:
    return tiny_model("text")


def tokens_of(model: ImageBART, batch: int) -> Tensor:
    return torch.randint(model.vocab_size, (batch, model.tokens))


def all_but(model: ImageBART, sampled: int) -> Tensor:
    """Keeps all but a few tokens, so that runs are short."""
    keep = torch.ones(model.tokens, dtype=torch.bool)
    keep[torch.randperm(model.tokens)[:sampled]] = False
    return keep


def test_parts_that_do_not_fit_are_named(staged: ImageBART, plain: ImageBART) -> None:
    def refused(message: str, first_stage: Any, network: Any, **more: Any) -> None:
        with pytest.raises(ValueError, match=message):
            ImageBART(first_stage, network, plain.conditioner, **more)

    own, other = staged.first_stage, tiny_model("none").first_stage
    other.config = other.config.replace(codebook_size=30)
    two = Schedule.geometric(2)
    refused(r"t = \[1, 2, 3\], expected ascending ones of 1 to 2", own, staged.stages, schedule=two)
    refused(r"stages are for t = \[3, 2, 1\], expected ascending ones", own, list(staged.stages)[::-1])
    refused("stage 1 was made for 24 codes, expected 30", other, staged.stages)
    refused("the denoiser was made for 24 codes, expected 30", other, plain.denoiser)
    refused("needs a first stage with encoder 'patch'", own, tiny_model("none", color_hint_grid=2).denoiser)
    with pytest.raises(ValueError, match="color_hint_grid is 3; .* a divisor of 4, the pixels along a patch"):
        tiny_model("none", color_hint_grid=3)


def test_a_model_is_for_use_not_training(plain: ImageBART, staged: ImageBART) -> None:
    for model in (plain, staged):
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        assert (model.tokens, model.vocab_size, model.device) == (64, 24, torch.device("cpu"))
        assert model.conditioner.length == 0 and model.text is None
    assert isinstance(plain.denoiser, Denoiser) and list(plain.stages) == []
    assert staged.denoiser is None
    assert [stage.config.kind for stage in staged.stages] == ["encoder_decoder", "encoder_decoder", "decoder_only"]


def test_the_text_encoder_is_the_networks() -> None:
    model, other = tiny_model("text"), tiny_staged_model("text")
    assert model.text is model.denoiser.text  # type: ignore[union-attr]
    assert other.text is other.stages[0].text


def test_scales_are_chosen_or_the_models_own(plain: ImageBART) -> None:
    assert [plain.scales_of(scales) for scales in (None, 1, 8)] == [3, 1, 8]
    assert plain.schedule == Schedule.geometric(3)
    assert plain.denoiser is not None
    bare = ImageBART(plain.first_stage, plain.denoiser, plain.conditioner, About())
    assert bare.scales_of(None) == 2 and bare.schedule == Schedule.geometric(2)


def test_stages_have_as_many_scales_as_there_are(staged: ImageBART) -> None:
    assert staged.scales_of(None) == staged.scales_of(3) == 3
    for scales in (1, 2, 4):
        with pytest.raises(ValueError, match=f"scales is {scales}; this model was trained for 3"):
            staged.scales_of(scales)
        with pytest.raises(ValueError, match=f"scales is {scales}; this model was trained for 3"):
            staged.sample(1, scales=scales)


@pytest.mark.parametrize("scales", [1, 2, 5, 8])
def test_a_denoiser_samples_in_any_number_of_steps(plain: ImageBART, scales: int) -> None:
    known, keep = tokens_of(plain, 1), all_but(plain, 3)
    settings = SamplingSettings(scales=scales)
    events = list(plain.stream(1, known=known, keep=keep, settings=settings, seed=0))
    assert [e.stage for e in events if e.done] == list(range(scales, 0, -1))
    assert {e.stages for e in events} == {scales}
    assert torch.equal(plain.sample(1, known=known, keep=keep, scales=scales, seed=0), events[-1].tokens)


@pytest.mark.parametrize("make", [tiny_model, tiny_staged_model])
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_sample_is_the_last_event_of_the_stream(conditioning: Any, make: Any) -> None:
    model = make(conditioning)
    prompts: dict[str, list[str | int | None]] = {"text": ["red hair", None], "class": ["cat", 2], "none": [None, None]}
    cond = model.conditioner.encode(prompts[conditioning]).tokens
    known, keep = tokens_of(model, 2), all_but(model, 5)
    settings = SamplingSettings(temperature=0.9, top_k=12, top_p=0.95, resamples=2)
    events = list(model.stream(2, cond, None, known, keep, settings, seed=4))
    found = model.sample(2, cond, None, known, keep, top_k=12, top_p=0.95, temperature=0.9, resamples=2, seed=4)
    assert torch.equal(found, events[-1].tokens)
    assert isinstance(events[0], ChainEvent) and sum(event.done for event in events) == 2 * 2
    assert found.shape == (2, 64) and found.dtype == torch.long
    assert torch.equal(found[:, keep], known[:, keep])
    images = model.first_stage.decode(found)
    assert images.shape == (2, 3, 32, 32)


def test_the_prompt_and_guidance_change_the_result(text: ImageBART) -> None:
    hair, hat = (text.conditioner.encode([prompt]).tokens for prompt in ("red hair", "a hat"))
    arguments: dict[str, Any] = {"seed": 1}
    plain = text.sample(1, hair, **arguments)
    guided = text.sample(1, hair, guidance=100.0, **arguments)  # to a random model words mean little
    assert not torch.equal(plain, guided)
    assert not torch.equal(guided, text.sample(1, hat, guidance=100.0, **arguments))
    without = text.sample(1, text.conditioner.unconditional(1), **arguments)
    assert torch.equal(without, text.sample(1, hair, guidance=0.0, **arguments))


def test_guidance_needs_an_absent_condition() -> None:
    model = tiny_model("class")
    cond = model.conditioner.encode(["cat"]).tokens
    with pytest.raises(InputError, match="not trained without a class"):
        model.sample(1, cond, guidance=2.0, seed=0)
    model.conditioner = ClassConditioner(names=("cat", "dog"), null_class=True)  # two classes and their absence
    known, keep = tokens_of(model, 1), all_but(model, 1)
    assert model.sample(1, cond, known=known, keep=keep, guidance=2.0, seed=0).shape == (1, 64)


def test_seeds(plain: ImageBART) -> None:
    known, keep = tokens_of(plain, 2), all_but(plain, 8)
    arguments: dict[str, Any] = {"known": known, "keep": keep}
    first, again, other = (plain.sample(2, seed=seed, **arguments) for seed in (3, 3, 30))
    assert torch.equal(first, again) and not torch.equal(first, other)
    random = [plain.sample(2, **arguments) for _ in range(2)]
    assert not torch.equal(*random)
    alone = plain.sample(1, known=known[1:], keep=keep, seed=4)  # row b of seed 3 is seed 3 + b
    assert torch.equal(alone[0], first[1])


def test_sampling_leaves_the_global_generator_alone(plain: ImageBART) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    known, keep = torch.zeros(1, 64, dtype=torch.long), torch.ones(64, dtype=torch.bool)
    keep[3] = False
    plain.sample(1, known=known, keep=keep, seed=0)
    plain.sample(1, known=known, keep=keep)
    assert torch.equal(torch.rand(3), expected)


def test_nothing_masked_returns_what_is_known(plain: ImageBART) -> None:
    known = tokens_of(plain, 2)
    keep = torch.ones(2, 64, dtype=torch.bool)
    assert list(plain.stream(2, known=known, keep=keep, seed=0)) == []
    assert torch.equal(plain.sample(2, known=known, keep=keep, resamples=2, seed=0), known)


def test_one_mask_for_all_rows_and_one_for_each(plain: ImageBART) -> None:
    known, keep = tokens_of(plain, 2), all_but(plain, 4)
    together = plain.sample(2, known=known, keep=keep, seed=0)
    assert torch.equal(together, plain.sample(2, known=known, keep=keep.expand(2, -1), seed=0))
    other = torch.stack([keep, all_but(plain, 4)])
    each = plain.sample(2, known=known, keep=other, seed=0)
    assert torch.equal(each[0], together[0]) and torch.equal(each[other], known[other])
