"""The corrector: it samples unlikely tokens again, as a plain computation does, and changes nothing else."""

import pytest
import torch
from oracles import noise_levels, plain_denoiser, plain_draw
from random_networks import chain_state, random_cond, random_denoiser
from tiny_models import tiny_model, tiny_staged_model
from torch import Tensor

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.models.denoiser import mask_sides
from imagebart.models.diffusion import gumbel_noise, row_generators, uniform_tokens
from imagebart.sampling.sampler import TOP_P, correct, probabilities
from imagebart.sampling.steps import ChainEvent, ChainState, Step, sample_step

K, SIDE, ROWS, STEPS = 7, 3, 3, 3
N = SIDE**2
SETTINGS = SamplingSettings(corrector_steps=STEPS, corrector_threshold=0.1, guidance=1.5, temperature=0.8)
DENOISER = random_denoiser(N, K, color_hint_grid=2)
STEP = Step(DENOISER, 1.0, 0.0)


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
            drafts = plain_denoiser(DENOISER, x_t, x_t, noise_t, noise_t, *told)[1]
            again[b, i] = drafts[i].softmax(-1)[x[b, i]] < SETTINGS.corrector_threshold
        going = {b for b in going if again[b].any()}
        x_t, levels_t = torch.where(again, noisy, x), levels.where(again, 0.0)
        settings = SETTINGS.replace(guidance=1.0, top_p=TOP_P)
        x = plain_draw(STEP, x_t, x_t, levels_t, cond, None, settings, noise, color_hints)
    return x


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_plain_computation(seed: int) -> None:
    """With a condition, rows that keep different tokens, and tokens that a mask covers in part."""
    torch.manual_seed(seed)
    levels = torch.rand(ROWS, N).where(torch.rand(ROWS, N) < 0.3, noise_levels(torch.rand(ROWS, N) < 0.3))
    start, color_hints, x = torch.randint(K, (ROWS, N)), torch.rand(ROWS, N, K) < 0.2, torch.randint(K, (ROWS, N))
    begun = x = torch.where(levels > 0, x, start)
    given = (random_cond(ROWS), torch.zeros(ROWS, 2).long(), color_hints, seed)
    end = ChainEvent(tokens=x, stage=1, stages=1, resample_index=0, resamples=1)
    for event in correct(chain_state([STEP], start, levels, *given), end, lambda decoder: decoder, SETTINGS):
        assert event.stage == 1 and 1 <= event.corrector_step <= STEPS
        x = event.tokens
    expected = plainly_corrected(chain_state([STEP], start, levels, *given), color_hints, begun, seed)
    assert torch.equal(x, expected) and not torch.equal(x, begun)


@pytest.mark.parametrize("resamples", [1, 2])
def test_a_models_chain_goes_on_with_the_corrector(resamples: int) -> None:
    """The events before are those of the chain alone; the others say which corrector step they belong to."""
    model = tiny_model("none", scales=2)
    assert model.denoiser is not None
    model.denoiser.draft_head.weight.normal_(std=2)  # so that some tokens are unlikely
    settings = SamplingSettings(resamples=resamples)
    alone = list(model.stream(2, settings=settings, seed=4))
    both = list(model.stream(2, settings=settings.replace(corrector_steps=4), seed=4))
    for one, other in zip(alone, both, strict=False):
        assert torch.equal(one.tokens, other.tokens) and other.corrector_step == 0
    after = [event.corrector_step for event in both[len(alone) :]]
    assert after == sorted(after) and set(after) == set(range(1, 5))
    assert {(e.stage, e.stages, e.resample_index) for e in both[len(alone) :]} == {(1, 2, resamples - 1)}


def test_stages_have_no_corrector() -> None:
    with pytest.raises(InputError, match="has no corrector"):
        tiny_staged_model("none", stages=2).sample(1, seed=0, corrector_steps=1)


def test_a_denoiser_that_knows_the_sides_of_masks_keeps_them() -> None:
    """In the chain and in the corrector, whose passes have other unknown tokens than the mask."""
    denoiser = random_denoiser(N, K, cond_length=0, mask_sides=True)
    step, levels, x = Step(denoiser, 1.0, 0.0), noise_levels(torch.rand(ROWS, N) < 0.4), torch.randint(K, (ROWS, N))
    state, noise = chain_state([step], x, levels), gumbel_noise((N, K), row_generators(range(7, 7 + ROWS)))
    event = ChainEvent(tokens=x, stage=1, stages=1, resample_index=0, resamples=1)
    *_, last = sample_step(step, step.network.decoder, state, SamplingSettings(), noise, event)
    assert torch.equal(last.tokens, plain_draw(step, x, x, levels, None, None, SamplingSettings(), noise))
    chances, place = probabilities(denoiser, state, x, x), torch.arange(N)
    hints = denoiser.embed_hints(None, mask_sides(levels > 0))
    for color in range(2):
        unknown = ((place // SIDE + place % SIDE) % 2 == color) & (levels > 0)
        p = denoiser.draft_logits(x, levels.where(unknown, 0.0), hint_embeds=hints).softmax(-1)
        expected = p.gather(-1, x[..., None])[..., 0]
        torch.testing.assert_close(chances[unknown].double(), expected[unknown].double(), rtol=0, atol=1e-6)
