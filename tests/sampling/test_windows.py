"""A denoiser that is given the tokens around the mask alone: the same as an image of those tokens, at their places."""

import pytest
import torch
from random_networks import chain_state, random_cond, random_denoiser, sampled, with_random_weights
from tiny_models import tiny_model
from torch import Tensor

from imagebart.core.settings import SamplingSettings
from imagebart.models.denoiser import Denoiser, context_window
from imagebart.models.diffusion import gumbel_noise, row_generators
from imagebart.sampling.sampler import probabilities
from imagebart.sampling.steps import KnownTokens, Step

K, SIDE, COND = 7, 5, 2
N = SIDE**2
DENOISER = random_denoiser(N, K, COND)


def plain_window(mask: Tensor, margin: int) -> list[list[int]]:
    """The places of a window in a square mask, by its definition."""
    spans = []
    for axis in (1, 0):
        held = [i for i, some in enumerate(mask.any(axis).tolist()) if some]
        length = min(held[-1] + 1 - held[0] + 2 * margin, len(mask))
        starts = [s for s in range(len(mask) - length + 1) if s <= held[0] and s + length > held[-1]]
        start = min(starts, key=lambda s: abs(s - (held[0] - margin)))
        spans.append(range(start, start + length))
    return [[y, x] for y in spans[0] for x in spans[1]]


def test_a_window_is_the_box_around_the_mask_and_a_margin() -> None:
    masks = torch.rand(200, 9, 9) < torch.rand(200, 1, 1) ** 3
    masks[:, 4, 4] |= ~masks.flatten(1).any(1)
    for margin in (0, 1, 2, 20):
        for mask, window in zip(masks, context_window(masks.flatten(1), margin), strict=True):
            assert window.view(9, 9).nonzero().tolist() == plain_window(mask, margin)
    assert context_window(torch.zeros(2, 16, dtype=torch.bool), 1).all()


def denoiser_of(places: Tensor) -> Denoiser:
    """A denoiser for images of these tokens alone, whose position embeddings are those of their places."""
    small, state, prefix = random_denoiser(len(places), K, COND), DENOISER.state_dict(), torch.arange(1 + COND)
    # The decoder's position is that of the token which it predicts; the last one is never used.
    predicted = torch.cat([places[1:] + COND, torch.tensor([N + COND])])
    for network, rows in (("encoder", places + 1 + COND), ("decoder", predicted)):
        name = f"{network}.position_embedding"
        state[name] = state[name][torch.cat([prefix, rows])]
    small.load_state_dict(state)
    return small


@pytest.mark.parametrize("noise_s", [0.0, 0.4])
def test_a_step_equals_one_of_the_windows_tokens_alone(noise_s: float) -> None:
    cond = random_cond(1)
    for number in range(8):
        mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        mask[1:3, number % 3 : number % 3 + 2] = torch.rand(2, 2) < 0.7
        mask[1, number % 3] = True
        levels = mask.flatten()[None].float()
        (places,) = context_window(levels > 0, 1).nonzero()[:, 1].view(1, -1)
        x, noise = torch.randint(K, (1, N)), gumbel_noise((N, K), row_generators([number]))
        settings, unconditional = SamplingSettings(guidance=1.5, top_p=0.9), torch.zeros(1, COND).long()
        found = []
        for network, at in ((DENOISER, torch.arange(N)), (denoiser_of(places), places)):
            state = chain_state([Step(network, 0.8, noise_s)], x[:, at], levels[:, at], cond, unconditional)
            state = state.crop(places[None]) if network is DENOISER else state
            found.append([*sampled(state, settings, noise[:, places])][-1].tokens)
        assert torch.equal(*found)


def test_the_corrector_sees_the_windows_tokens_alone() -> None:
    cond, x, levels = random_cond(1), torch.randint(K, (1, N)), torch.zeros(1, N)
    levels[0, [6, 7, 12]] = 1.0  # a window of 2 x 2: the same chessboard as that of the tokens alone
    (places,) = context_window(levels > 0, 0).nonzero()[:, 1].view(1, -1)
    state = chain_state([Step(DENOISER, 1.0, 0.0)], x, levels, cond).crop(places[None])
    chances = probabilities(DENOISER, state, x[:, places], x[:, places])
    assert (chances[levels[:, places] == 0] == 1).all()
    small = denoiser_of(places)
    own = chain_state([Step(small, 1.0, 0.0)], x[:, places], levels[:, places], cond)
    expected = probabilities(small, own, x[:, places], x[:, places])
    torch.testing.assert_close(chances, expected, rtol=0, atol=1e-6)


def test_images_are_sampled_from_their_windows_alone_whatever_their_sizes() -> None:
    model = tiny_model("text")
    settings = SamplingSettings(scales=2, corrector_steps=2, corrector_threshold=0.3, temperature=3)
    assert model.denoiser is not None
    with_random_weights(model.denoiser).float()  # so that what it samples depends on all that it is given
    model.denoiser.config = model.denoiser.config.replace(context_margin=1)

    def drawn(tokens: Tensor, keep: Tensor, seeds: list[int]) -> Tensor:
        cond = model.conditioner.encode(["red"] * len(tokens)).tokens
        state = model.sampler.prepare(len(tokens), settings, cond, known=KnownTokens(tokens, keep), seed=seeds)
        return [*model.sampler.stream(state, settings)][-1].tokens

    keeps, seeds = torch.ones(20, 8, 8, dtype=torch.bool), list(range(20))
    for keep, size in zip(keeps, [1, 2, 1, 8] * 5, strict=True):
        keep[:size, :size] = False
    keeps = keeps.flatten(1)
    keeps[2] = keeps[2].flip(0)
    tokens, others = torch.randint(model.vocab_size, (2, 20, 64))
    together, window = drawn(tokens, keeps, seeds), context_window(~keeps, 1)
    assert torch.equal(together[keeps], tokens[keeps])
    assert torch.equal(drawn(torch.where(window, tokens, others), keeps, seeds)[window], together[window])
    assert not torch.equal(drawn(torch.where(window, others, tokens), keeps, seeds)[~keeps], together[~keeps])
    for b in range(4):
        assert torch.equal(drawn(tokens[b : b + 1], keeps[b : b + 1], [b]), together[b : b + 1])
