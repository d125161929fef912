from __future__ import annotations

import pytest
import torch
from oracles import chi_squared_p, log_q
from torch import Tensor

from imagebart.models.diffusion import Schedule, add_uniform_noise, log_likelihood, posterior

K = 5
SCHEDULES = {
    "geometric 1": Schedule.geometric(1),
    "geometric 4": Schedule.geometric(4),
    "custom": Schedule((0.0901, 0.1042, 0.1392, 0.266, 1.0)),
    "of three": Schedule((0.152, 0.2311, 1.0)),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def step_matrix(beta: float) -> Tensor:
    """Entry [i, j] is q(x_t = j | x_{t-1} = i), written out."""
    rows = [[beta / K + (1 - beta) * (i == j) for j in range(K)] for i in range(K)]
    return torch.tensor(rows, dtype=torch.float64)


def jump_matrix(schedule: Schedule, t: int) -> Tensor:
    """q(x_t | x_0): t steps multiplied."""
    product = torch.eye(K, dtype=torch.float64)
    for beta in schedule.betas[:t]:
        product = product @ step_matrix(beta)
    return product


@every_schedule
def test_posterior_is_bayes_over_every_pair(schedule: Schedule, float64: None) -> None:
    for t in range(1, schedule.stages + 1):
        step, before = step_matrix(schedule.betas[t - 1]), jump_matrix(schedule, t - 1)
        for xt in range(K):
            for x0 in range(K):
                joint = torch.stack([before[x0, middle] * step[middle, xt] for middle in range(K)])
                found = posterior(torch.tensor([xt]), torch.tensor([x0]), t, schedule, K)
                assert found.dtype == torch.float64
                torch.testing.assert_close(found[0], joint / joint.sum(), rtol=1e-12, atol=1e-14)


@every_schedule
def test_posterior_times_jump_is_the_joint(schedule: Schedule, float64: None) -> None:
    """Summed over x_t, q(x_{t-1} | x_t, x_0) q(x_t | x_0) gives q(x_{t-1} | x_0) back."""
    for t in range(1, schedule.stages + 1):
        for x0 in range(K):
            given = posterior(torch.arange(K), torch.full((K,), x0), t, schedule, K)
            mixed = (jump_matrix(schedule, t)[x0, :, None] * given).sum(0)
            torch.testing.assert_close(mixed, jump_matrix(schedule, t - 1)[x0])


def test_posterior_keeps_leading_dimensions() -> None:
    schedule = Schedule.geometric(3)
    xt, x0 = torch.randint(K, (2, 4)), torch.randint(K, (2, 4))
    found = posterior(xt, x0, 2, schedule, K)
    assert found.shape == (2, 4, K)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 4))
    torch.testing.assert_close(found[1, 3], posterior(xt[1, 3], x0[1, 3], 2, schedule, K))


@every_schedule
def test_jump_is_the_product_of_steps(schedule: Schedule) -> None:
    for t in range(schedule.stages + 1):
        survive = schedule.alphacum(t)
        expected = survive * torch.eye(K, dtype=torch.float64) + (1 - survive) / K
        torch.testing.assert_close(jump_matrix(schedule, t), expected)


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_drawn_jumps_have_the_jumps_probabilities(t: int) -> None:
    """Chi-squared; a right sampler fails once in 10,000 seeds, and the seed is fixed."""
    schedule = Schedule.geometric(4)
    for x0 in (0, K - 1):
        noise, generator = 1 - schedule.alphacum(t), torch.Generator().manual_seed(t)
        drawn = add_uniform_noise(torch.full((20_000,), x0), noise, K, generator)
        assert chi_squared_p(drawn.bincount(minlength=K), jump_matrix(schedule, t)[x0]) > 1e-4


def test_steps_drawn_one_by_one_have_the_jumps_probabilities() -> None:
    schedule = Schedule((0.2, 0.5, 1.0))
    generator = torch.Generator().manual_seed(7)
    x = torch.full((20_000,), 2)
    for t in (1, 2):
        x = add_uniform_noise(x, schedule.betas[t - 1], K, generator)
        assert chi_squared_p(x.bincount(minlength=K), jump_matrix(schedule, t)[2]) > 1e-4


def test_redraw_takes_tokens_independently() -> None:
    """Whether a token is redrawn says nothing of its neighbour."""
    drawn = add_uniform_noise(torch.zeros(20_000, 2, dtype=torch.long), 0.5, 2, torch.Generator().manual_seed(0))
    pairs = (drawn[:, 0] * 2 + drawn[:, 1]).bincount(minlength=4)
    one = torch.tensor([0.75, 0.25])
    assert chi_squared_p(pairs, one.outer(one).flatten()) > 1e-4


def test_redraw_with_probability_zero_and_one() -> None:
    x = torch.randint(1000, (50,))
    assert torch.equal(add_uniform_noise(x, 0.0, 1000), x)
    assert (add_uniform_noise(x, 1.0, 1000) == x).sum() < 5
    assert add_uniform_noise(x.reshape(5, 10), 1.0, 3).shape == (5, 10)


def test_generators_fix_the_draws() -> None:
    x = torch.randint(K, (100,))
    first, again, other = (add_uniform_noise(x, 0.7, K, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_geometric_schedule_loses_the_same_share_at_every_step() -> None:
    for stages in (1, 2, 4, 10):
        schedule = Schedule.geometric(stages)
        assert schedule.stages == stages
        assert schedule.betas == tuple(1 / (stages - t + 1) for t in range(1, stages + 1))
        shares = [schedule.alphacum(t) for t in range(stages + 1)]
        assert shares == pytest.approx([1 - t / stages for t in range(stages + 1)])
        assert shares[-1] == 0


def test_what_survives_is_the_product_of_what_stays() -> None:
    betas = (0.0901, 0.1042, 0.1392, 0.266, 1.0)
    alphacum = [1.0]
    for beta in betas:
        alphacum.append(alphacum[-1] * (1 - beta))
    assert [Schedule(betas).alphacum(t) for t in range(6)] == pytest.approx(alphacum)


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
def test_log_likelihood_over_every_pair(beta: float) -> None:
    found = log_likelihood(torch.arange(4).reshape(2, 2), beta, 4)
    assert found.shape == (2, 2, 4)
    expected = [[log_q(k, c, beta, 4) for k in range(4)] for c in range(4)]
    torch.testing.assert_close(found.reshape(4, 4), torch.tensor(expected))
    # As a function of x_t, the likelihood is a distribution.
    torch.testing.assert_close(found.reshape(4, 4).exp().sum(0), torch.ones(4))
