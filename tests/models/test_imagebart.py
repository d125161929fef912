from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from oracles import binomial_z
from torch import Tensor

from imagebart.conditioning import ClassConditioner
from imagebart.diffusion import Schedule
from imagebart.errors import InputError
from imagebart.models.imagebart import ImageBART
from imagebart.sampling.chain import ChainEvent, row_generators, uniform_tokens
from imagebart.settings import SamplingSettings
from imagebart.testing import tiny_model, tiny_stage_config

CONDITIONINGS = ("text", "class", "none")


@pytest.fixture(scope="module")
def plain() -> ImageBART:
    return tiny_model("none", scales=3)


@pytest.fixture(scope="module")
def text() -> ImageBART:
    return tiny_model("text")


def tokens_of(model: ImageBART, batch: int) -> Tensor:
    return torch.randint(model.vocab_size, (batch, model.tokens))


def all_but(model: ImageBART, drawn: int) -> Tensor:
    """Keeps all but a few tokens, so that runs are short."""
    keep = torch.ones(model.tokens, dtype=torch.bool)
    keep[torch.randperm(model.tokens)[:drawn]] = False
    return keep


# Building


def test_stages_and_schedule_must_agree(plain: ImageBART) -> None:
    with pytest.raises(ValueError, match="3 stages, but the schedule has 2 betas"):
        ImageBART(plain.first_stage, plain.stages, Schedule.geometric(2), plain.conditioner)


def test_stages_come_in_order(plain: ImageBART) -> None:
    stages = list(plain.stages)[::-1]
    with pytest.raises(ValueError, match="stage 1 was made for t = 3 and 24 codes, expected t = 1"):
        ImageBART(plain.first_stage, stages, plain.schedule, plain.conditioner)


def test_stages_must_speak_the_first_stages_codes(plain: ImageBART) -> None:
    other = tiny_model("none", scales=3)
    other.first_stage.config = dataclasses.replace(other.first_stage.config, codebook_size=30)
    with pytest.raises(ValueError, match="stage 1 was made for t = 1 and 24 codes, expected .* the first stage's 30"):
        ImageBART(other.first_stage, plain.stages, plain.schedule, plain.conditioner)


def test_a_model_is_for_use_not_training(plain: ImageBART) -> None:
    assert not plain.training and not any(p.requires_grad for p in plain.parameters())
    assert plain.stages[2].config.kind == "decoder_only"
    assert (plain.tokens, plain.vocab_size, plain.device) == (64, 24, torch.device("cpu"))


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_tiny_model_leaves_the_global_generator_alone(conditioning: Any) -> None:
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    first = tiny_model(conditioning)
    assert torch.equal(torch.rand(3), expected)
    again, other = tiny_model(conditioning), tiny_model(conditioning, seed=1)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(first.stages[0].decoder.position_embedding, other.stages[0].decoder.position_embedding)


def test_tiny_configs_follow_the_schedule(plain: ImageBART) -> None:
    for t, stage in enumerate(plain.stages, 1):
        config = tiny_stage_config(t, plain.schedule, 24, 64, plain.conditioner)
        assert stage.config == config and config.beta == plain.schedule.betas[t - 1]


# Sampling


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_sample_is_the_last_event_of_the_stream(conditioning: Any) -> None:
    model = tiny_model(conditioning)
    prompts: dict[str, list[str | int | None]] = {"text": ["red hair", None], "class": ["cat", 2], "none": [None, None]}
    cond = model.conditioner.encode(prompts[conditioning]).tokens
    known, keep = tokens_of(model, 2), all_but(model, 5)
    settings = SamplingSettings(temperature=0.9, top_k=12, top_p=0.95, passes=2)
    events = list(model.stream(2, cond, None, known, keep, settings, seed=4))
    found = model.sample(2, cond, None, known, keep, top_k=12, top_p=0.95, temperature=0.9, passes=2, seed=4)
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
    without = text.sample(1, text.conditioner.null(1), **arguments)
    assert torch.equal(without, text.sample(1, hair, guidance=0.0, **arguments))


def test_guidance_needs_an_absent_condition() -> None:
    model = tiny_model("class")
    cond = model.conditioner.encode(["cat"]).tokens
    with pytest.raises(InputError, match="not trained without a class"):
        model.sample(1, cond, guidance=2.0, seed=0)
    model.conditioner = ClassConditioner(("cat", "dog"), null_class=True)  # two classes and their absence
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
    assert torch.equal(plain.sample(2, known=known, keep=keep, passes=2, seed=0), known)


def test_one_mask_for_all_rows_and_one_for_each(plain: ImageBART) -> None:
    known, keep = tokens_of(plain, 2), all_but(plain, 4)
    together = plain.sample(2, known=known, keep=keep, seed=0)
    assert torch.equal(together, plain.sample(2, known=known, keep=keep.expand(2, -1), seed=0))
    other = torch.stack([keep, all_but(plain, 4)])
    each = plain.sample(2, known=known, keep=other, seed=0)
    assert torch.equal(each[0], together[0]) and torch.equal(each[other], known[other])


# Where the chain starts


def test_starts_from_noise_with_kept_tokens_put_in(plain: ImageBART) -> None:
    known, keep = torch.zeros(40, 64, dtype=torch.long), all_but(plain, 32)
    x, mask, generators = plain.starting_point(40, None, known, keep, SamplingSettings(), 0)
    assert (x[:, keep] == 0).all() and torch.equal(mask, keep.expand(40, -1)) and len(generators) == 40
    same = int((x[:, ~keep] == 0).sum())
    assert abs(binomial_z(same, 40 * 32, 1 / 24)) < 4


def test_given_start_is_taken(plain: ImageBART) -> None:
    start, known, keep = tokens_of(plain, 1), tokens_of(plain, 1), all_but(plain, 3)
    x, _, _ = plain.starting_point(1, start, None, None, SamplingSettings(), 0)
    assert torch.equal(x, start)
    x, _, _ = plain.starting_point(1, start, known, keep, SamplingSettings(start=1), 0)
    assert torch.equal(x, torch.where(keep, known, start))


@pytest.mark.parametrize("first", [1, 2])
def test_later_start_diffuses_what_is_known(plain: ImageBART, first: int) -> None:
    """x_t holds the known token with probability alphacum + (1 - alphacum) / K: within four deviations."""
    known = torch.randint(24, (40, 64))
    stream = plain.stream(40, known=known, settings=SamplingSettings(start=first), seed=0)
    event = next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert event.stage == first and event.stages == 3
    same = int((event.tokens[:, 1:] == known[:, 1:]).sum())
    alphacum = 1 - first / 3
    assert abs(binomial_z(same, 40 * 63, alphacum + (1 - alphacum) / 24)) < 4


def test_stages_before_a_later_start_do_not_run(plain: ImageBART) -> None:
    known = tokens_of(plain, 1)
    stages = [event.stage for event in plain.stream(1, known=known, settings=SamplingSettings(start=2), seed=0)]
    assert stages == sorted(stages, reverse=True) and set(stages) == {2, 1}


@pytest.mark.parametrize(("strength", "stage"), [(0.01, 1), (0.3, 1), (0.4, 2), (0.6, 2), (0.7, 3), (1.0, 3)])
def test_partly_diffused(plain: ImageBART, strength: float, stage: int) -> None:
    """Stages 1, 2, 3 expect a third, two thirds, all of the tokens redrawn."""
    known = torch.randint(24, (40, 64))
    x, first = plain.partly_diffused(known, strength, seed=0)
    assert first == stage
    changed = int((x != known).sum())
    assert abs(binomial_z(changed, 40 * 64, strength * 23 / 24)) < 4
    assert torch.equal(plain.partly_diffused(known, strength, seed=0)[0], x)
    assert torch.equal(plain.partly_diffused(known[1:2], strength, seed=1)[0], x[1:2])


def test_noise_of_a_variation_is_not_that_of_its_chain(plain: ImageBART) -> None:
    """Else the chain would draw tokens that depend on the noise it is given."""
    for seed in (0, 1, 2**32 - 1):
        noise, _ = plain.partly_diffused(torch.zeros(2, 64, dtype=torch.long), 1.0, seed)
        chain = uniform_tokens(64, 24, row_generators(seed, 2))
        assert int((noise == chain).sum()) < 20  # 5 of 128 by chance


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, float("nan")])
def test_bad_strength(plain: ImageBART, strength: float) -> None:
    with pytest.raises(ValueError, match="strength is .* expected over 0 and at most 1"):
        plain.partly_diffused(tokens_of(plain, 1), strength, seed=0)


# Errors


ZEROS = torch.zeros(2, 64, dtype=torch.long)
KEEP = torch.zeros(2, 64, dtype=torch.bool)
BAD: list[tuple[dict[str, Any], str]] = [
    ({"start": ZEROS[:1]}, r"start has shape \[1, 64\], expected \[2, 64\]"),
    ({"start": ZEROS[0]}, r"start has shape \[64\], expected \[2, 64\]"),
    ({"start": ZEROS.float()}, "start is of type torch.float32, expected torch.int64"),
    ({"start": ZEROS + 24}, "start has tokens from 24 to 24, expected 0 to 23"),
    ({"known": ZEROS[:, :5]}, r"known has shape \[2, 5\], expected \[2, 64\]"),
    ({"known": ZEROS - 1}, "known has tokens from -1 to -1, expected 0 to 23"),
    ({"known": ZEROS, "keep": KEEP[:, :5]}, r"keep has shape \[2, 5\], expected \[2, 64\] or \[64\]"),
    ({"known": ZEROS, "keep": KEEP[0, :5]}, r"keep has shape \[5\], expected"),
    ({"known": ZEROS, "keep": KEEP[:1]}, r"keep has shape \[1, 64\], expected"),
    ({"known": ZEROS, "keep": KEEP[:, :1]}, r"keep has shape \[2, 1\], expected"),
    ({"known": ZEROS, "keep": KEEP.long()}, "keep is of type torch.int64, expected torch.bool"),
    ({"keep": KEEP}, "keep was given without known"),
    ({"settings": SamplingSettings(start=1)}, "starting at stage 1 needs start or known tokens"),
    ({"settings": SamplingSettings(start=4), "known": ZEROS}, "start stage 4, expected 1 to 3"),
    ({"batch_size": 0}, "batch of 0, expected 1 or more"),
    ({"cond": ZEROS[:, :1]}, r"cond has shape \[2, 1\], expected \[2, 0\]"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments_raise_before_the_first_event(plain: ImageBART, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain.stream(**{"batch_size": 2, **arguments})


def test_bad_conditions_raise_before_the_first_event(text: ImageBART) -> None:
    length, size = text.conditioner.length, text.conditioner.vocab_size
    cond = text.conditioner.null(2)
    bad: list[tuple[Tensor | None, str]] = [
        (None, rf"cond has shape \[2, 0\], expected \[2, {length}\]"),
        (cond[:1], rf"cond has shape \[1, {length}\], expected \[2, {length}\]"),
        (cond[:, :3], rf"cond has shape \[2, 3\], expected \[2, {length}\]"),
        (cond + size, f"cond has tokens from {size} to {size}, expected 0 to {size - 1}"),
    ]
    for given, message in bad:
        for guidance in (1.0, 2.0):
            with pytest.raises(ValueError, match=message):
                text.stream(2, given, settings=SamplingSettings(guidance=guidance), seed=0)
