"""A denoiser that is given the tokens around the mask alone: the same as an image of those tokens, at their places."""

from __future__ import annotations

import pytest
import torch
from random_networks import chain_state, random_cond, random_denoiser
from tiny_models import tiny_model
from torch import Tensor

from imagebart.core.settings import SamplingSettings
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser, context_window
from imagebart.models.diffusion import gumbel_noise, row_generators
from imagebart.sampling.sampler import probabilities
from imagebart.sampling.steps import ChainEvent, KnownTokens, Step, sample_step

K, SIDE, COND = 7, 5, 2
N = SIDE**2


def plain_window(mask: Tensor, margin: int) -> list[tuple[int, int]]:
    """The places of a window in a square mask, by its definition."""
    spans = []
    for axis in (1, 0):
        held = [i for i, some in enumerate(mask.any(axis).tolist()) if some]
        length = min(held[-1] + 1 - held[0] + 2 * margin, len(mask))
        starts = [s for s in range(len(mask) - length + 1) if s <= held[0] and s + length > held[-1]]
        start = min(starts, key=lambda s: abs(s - (held[0] - margin)))
        spans.append(range(start, start + length))
    return [(y, x) for y in spans[0] for x in spans[1]]


def test_a_window_is_the_box_around_the_mask_and_a_margin() -> None:
    torch.manual_seed(0)
    masks = torch.rand(200, 9, 9) < torch.rand(200, 1, 1) ** 3
    masks[:, 4, 4] |= ~masks.flatten(1).any(1)
    for margin in (0, 1, 2, 20):
        for mask, window in zip(masks, context_window(masks.flatten(1), margin), strict=True):
            assert window.view(9, 9).nonzero().tolist() == [list(place) for place in plain_window(mask, margin)]


def test_without_a_mask_all_is_given() -> None:
    assert context_window(torch.zeros(2, 16, dtype=torch.bool), 1).all()


def denoiser_of(whole: Denoiser, places: Tensor) -> Denoiser:
    """A denoiser for images of these tokens alone, whose position embeddings are those of their places."""
    small = random_denoiser(len(places), K, COND)
    state = whole.state_dict()
    prefix = torch.arange(1 + COND)
    state["encoder.position_embedding"] = state["encoder.position_embedding"][torch.cat([prefix, places + 1 + COND])]
    # The decoder's position is that of the token which it predicts; the last one is never used.
    decoder = torch.cat([prefix, places[1:] + COND, torch.tensor([N + COND])])
    state["decoder.position_embedding"] = state["decoder.position_embedding"][decoder]
    small.load_state_dict(state)
    return small


@pytest.mark.parametrize("noise_s", [0.0, 0.4])
def test_a_step_equals_one_of_the_window_s_tokens_alone(noise_s: float) -> None:
    torch.manual_seed(1)
    denoiser, cond = random_denoiser(N, K, COND), random_cond(1)
    for number in range(8):
        mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        mask[1:3, number % 3 : number % 3 + 2] = torch.rand(2, 2) < 0.7
        mask[1, number % 3] = True
        levels = mask.flatten()[None].float()
        (places,) = context_window(levels > 0, 1).nonzero()[:, 1].view(1, -1)
        x, noise = torch.randint(K, (1, N)), gumbel_noise((N, K), row_generators([number]))
        settings, unconditional = SamplingSettings(guidance=1.5, top_p=0.9), torch.zeros(1, COND).long()
        found = []
        for own in (denoiser, denoiser_of(denoiser, places)):
            step = Step(own, 0.8, noise_s)
            at = slice(None) if own is denoiser else places
            state = chain_state([step], x[:, at], levels[:, at], cond, unconditional)
            state = state.crop(places[None]) if own is denoiser else state
            event = ChainEvent(tokens=state.x, stage=1, stages=1, resample_index=0, resamples=1)
            *_, last = sample_step(step, step.network.decoder, state, settings, noise[:, places], event)
            found.append(last.tokens)
        assert torch.equal(*found)


def test_the_corrector_sees_the_window_s_tokens_alone() -> None:
    torch.manual_seed(2)
    denoiser, cond, x = random_denoiser(N, K, COND), random_cond(1), torch.randint(K, (1, N))
    levels = torch.zeros(1, N).index_fill(1, torch.tensor([6, 7, 12]), 1.0)
    (places,) = context_window(levels > 0, 0).nonzero()[:, 1].view(1, -1)
    step = Step(denoiser, 1.0, 0.0)
    state = chain_state([step], x, levels, cond).crop(places[None])
    chances = probabilities(denoiser, state, x[:, places], x[:, places])
    assert (chances[levels[:, places] == 0] == 1).all()
    small = Step(denoiser_of(denoiser, places), 1.0, 0.0)  # a window of 2 x 2: the same chessboard
    own = chain_state([small], x[:, places], levels[:, places], cond)
    expected = probabilities(denoiser_of(denoiser, places), own, x[:, places], x[:, places])
    torch.testing.assert_close(chances, expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def model() -> ImageBART:
    """What it samples depends on all that it is given."""
    made = tiny_model("text", scales=2)
    assert made.denoiser is not None
    torch.manual_seed(0)
    for parameter in made.denoiser.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(std=0.4)
    made.denoiser.config = made.denoiser.config.replace(context_margin=1)
    return made


SETTINGS = SamplingSettings(scales=2, corrector_steps=2, corrector_threshold=0.3)


def sampled(model: ImageBART, tokens: Tensor, keep: Tensor, seeds: list[int]) -> Tensor:
    cond = model.conditioner.encode(["red"] * len(tokens)).tokens
    known = KnownTokens(tokens, keep)
    state = model.sampler.prepare(len(tokens), SETTINGS, cond, known=known, seed=seeds)
    *_, last = model.sampler.stream(state, SETTINGS)
    return last.tokens


def corner(model: ImageBART, size: int) -> Tensor:
    """What is kept where a square in the first corner is masked: bool [1, N]."""
    side = int(model.tokens**0.5)
    keep = torch.ones(side, side, dtype=torch.bool)
    keep[:size, :size] = False
    return keep.flatten()[None]


def test_what_lies_beyond_the_window_changes_nothing(model: ImageBART) -> None:
    torch.manual_seed(3)
    keep = corner(model, 1)
    (window,) = context_window(~keep, 1)
    assert 0 < window.sum() < model.tokens
    one, other = torch.randint(model.vocab_size, (2, 1, model.tokens))
    seeds = list(range(20))
    first = sampled(model, one.expand(20, -1), keep.expand(20, -1), seeds)
    beyond = sampled(model, torch.where(window, one, other).expand(20, -1), keep.expand(20, -1), seeds)
    assert torch.equal(first[:, window], beyond[:, window])
    within = sampled(model, torch.where(window, other, one).expand(20, -1), keep.expand(20, -1), seeds)
    assert not torch.equal(first[:, ~keep[0]], within[:, ~keep[0]])


def test_images_with_windows_of_any_size_are_sampled_as_each_alone(model: ImageBART) -> None:
    torch.manual_seed(4)
    side = int(model.tokens**0.5)
    keeps = torch.cat([corner(model, size) for size in (1, 2, 1, side)])
    keeps[2] = keeps[2].flip(0)
    tokens = torch.randint(model.vocab_size, (4, model.tokens))
    together = sampled(model, tokens, keeps, [5, 6, 7, 8])
    assert torch.equal(together[keeps], tokens[keeps])
    for b in range(4):
        alone = sampled(model, tokens[b : b + 1], keeps[b : b + 1], [5 + b])
        assert torch.equal(together[b : b + 1], alone)


def test_a_mask_of_everything_is_as_without_a_window(model: ImageBART) -> None:
    assert model.denoiser is not None
    keep, tokens = corner(model, int(model.tokens**0.5)), torch.zeros(1, model.tokens, dtype=torch.long)
    windowed = sampled(model, tokens, keep, [9])
    model.denoiser.config, own = model.denoiser.config.replace(context_margin=None), model.denoiser.config
    assert torch.equal(sampled(model, tokens, keep, [9]), windowed)
    model.denoiser.config = own
