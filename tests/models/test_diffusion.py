"""Schedules, noise and steps back, against Bayes with the transition matrices written out; draws by chi-squared."""

import itertools
import math

import pytest
import torch
from oracles import chi_squared_p, log_likelihoods, plain_reverse, transition
from torch import Tensor

from imagebart.models import diffusion
from imagebart.models.diffusion import Schedule, add_uniform_noise, gumbel_noise, row_generators, uniform_tokens

K = 5
PUBLISHED = Schedule((0.0901, 0.1042, 0.1392, 0.266, 1.0))
every_schedule = pytest.mark.parametrize("schedule", [Schedule.geometric(1), Schedule.geometric(4), PUBLISHED])


def jump_matrix(schedule: Schedule, t: int) -> Tensor:
    """q(x_t | x_0): t steps multiplied."""
    product = torch.eye(K, dtype=torch.float64)
    for beta in schedule.betas[:t]:
        product = product @ transition(beta, K)
    return product


@every_schedule
def test_a_jump_is_the_product_of_steps(schedule: Schedule) -> None:
    for t in range(schedule.stages + 1):
        torch.testing.assert_close(jump_matrix(schedule, t), transition(1 - schedule.alphacum(t), K))


@pytest.mark.parametrize("stages", [1, 2, 10])
def test_the_geometric_schedule_loses_the_same_share_at_every_step(stages: int) -> None:
    shares = [Schedule.geometric(stages).alphacum(t) for t in range(stages + 1)]
    assert shares == pytest.approx([1 - t / stages for t in range(stages + 1)]) and shares[-1] == 0


def test_tokens_are_replaced_independently_each_with_its_probability() -> None:
    drawn = add_uniform_noise(torch.tensor([[0, 2]] * 20_000), torch.tensor([0.5, 0.2]), 3, row_generators([0])[0])
    expected = transition(0.5, 3)[0].outer(transition(0.2, 3)[2])
    assert chi_squared_p((drawn[:, 0] * 3 + drawn[:, 1]).bincount(minlength=9), expected.flatten()) > 1e-4


def test_noise_of_a_row_comes_from_its_own_generator_whose_seed_wraps_around() -> None:
    x = torch.randint(K, (3, 40))
    makers = (
        lambda rows, seeds: diffusion.add_noise_rows(x[rows], 0.5, K, row_generators(seeds)),
        lambda rows, seeds: gumbel_noise((4, K), row_generators(seeds)),
        lambda rows, seeds: uniform_tokens(40, K, row_generators(seeds)),
    )
    for make in makers:
        together = make(slice(None), range(8, 11))
        assert torch.equal(together[1:2], make(slice(1, 2), [9])) and not torch.equal(together[0], together[1])
    first, wrapped, below = (torch.rand(1, generator=g).item() for g in row_generators((0, 2**63, -1)))
    assert first == wrapped != below


def test_x_T_is_uniform_and_gumbel_noise_is_gumbel() -> None:
    tokens = uniform_tokens(20_000, K, row_generators([0]))[0]
    assert chi_squared_p(tokens.bincount(minlength=K), torch.full((K,), 1 / K)) > 1e-4
    deciles = torch.tensor([-math.log(-math.log(i / 10)) for i in range(1, 10)])
    counts = torch.bucketize(gumbel_noise((50_000,), row_generators([0]))[0], deciles).bincount(minlength=10)
    assert chi_squared_p(counts, torch.full((10,), 0.1)) > 1e-4


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.0])
def test_log_likelihood_over_every_pair(noise: float) -> None:
    tokens, levels = torch.tensor([[0, 1], [2, 3]]), [[noise, 0.3], [0.2, noise]]
    for noise_t, given in ((noise, [[noise] * 2] * 2), (torch.tensor(levels), levels)):  # of all, or each token's own
        expected = torch.stack([log_likelihoods(*row, 4) for row in zip(tokens.tolist(), given, strict=True)])
        torch.testing.assert_close(diffusion.log_likelihood(tokens, noise_t, 4), expected.float())


@every_schedule
def test_the_posterior_is_bayes_over_every_pair(schedule: Schedule) -> None:
    xt, x0 = torch.cartesian_prod(torch.arange(K), torch.arange(K)).T.view(2, K, K)
    for t in range(1, schedule.stages + 1):
        joint = jump_matrix(schedule, t - 1)[x0] * transition(schedule.betas[t - 1], K).T[xt]
        found = diffusion.posterior(xt, x0, t, schedule, K).double()
        torch.testing.assert_close(found, joint / joint.sum(-1, keepdim=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("noise_s", "noise_t"), [*itertools.combinations((0.0, 0.1, 0.25, 0.5, 0.9, 1.0), 2)])
def test_a_step_back_sums_over_x_0(noise_s: float, noise_t: float) -> None:
    for size in range(2, 8):
        p0 = torch.rand(size, size, dtype=torch.float64)
        p0[0, 1:] = 0  # x_0 is sure to be 0
        p0 /= p0.sum(-1, keepdim=True)
        rows = [plain_reverse(p0[c].tolist(), c, noise_t, noise_s) for c in range(size)]
        expected = torch.tensor(rows, dtype=torch.float64)
        for level in (noise_t, torch.full((size,), noise_t, dtype=torch.float64)):  # of all, or each token's own
            found = diffusion.reverse_step(p0, torch.arange(size), level, noise_s)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
