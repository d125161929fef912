"""Steps back, from what is believed of x_0: against Bayes with the transition matrices written out."""

from __future__ import annotations

import itertools

import pytest
import torch
from oracles import plain_reverse, transition

from imagebart.models.diffusion import Schedule, posterior, reverse_step

RATES = (0.0, 0.1, 0.25, 0.5, 0.9, 1.0)
PAIRS = [(noise_t, noise_s) for noise_s, noise_t in itertools.combinations(RATES, 2)]


@pytest.mark.parametrize(("noise_t", "noise_s"), PAIRS)
def test_reverse_step_sums_over_x_0(noise_t: float, noise_s: float) -> None:
    for size in range(2, 8):
        p0 = torch.rand(size, size, dtype=torch.float64)
        p0[0, 1:] = 0  # x_0 is sure to be 0
        p0 /= p0.sum(-1, keepdim=True)
        found = reverse_step(p0, torch.arange(size), noise_t, noise_s)
        assert found.dtype == torch.float64
        for c in range(size):
            expected = torch.tensor(plain_reverse(p0[c].tolist(), c, noise_t, noise_s), dtype=torch.float64)
            torch.testing.assert_close(found[c], expected, rtol=1e-12, atol=1e-14)


def test_a_step_of_a_schedule_is_its_posterior() -> None:
    """Where x_0 is known for sure."""
    schedule, size = Schedule((0.2, 0.5, 1.0)), 5
    c, x0 = torch.cartesian_prod(torch.arange(size), torch.arange(size)).T
    p0 = torch.nn.functional.one_hot(x0, size).double()
    for t in (1, 2, 3):
        found = reverse_step(p0, c, 1 - schedule.alphacum(t), 1 - schedule.alphacum(t - 1))
        torch.testing.assert_close(found, posterior(c, x0, t, schedule, size).double(), rtol=1e-6, atol=1e-6)


def test_leading_dimensions_are_kept() -> None:
    p0, c = torch.rand(2, 3, 4, dtype=torch.float64).softmax(-1), torch.randint(4, (2, 3))
    found = reverse_step(p0, c, 0.8, 0.3)
    assert found.shape == (2, 3, 4)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 3, dtype=torch.float64))
    torch.testing.assert_close(found[1, 2], reverse_step(p0[1, 2], c[1, 2], 0.8, 0.3))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_chain_of_true_posteriors_gives_the_data_back(steps: int) -> None:
    """x_t is distributed as diffusion says at every step, and x_0 as the data are: exactly, by products of matrices."""
    size = 5
    data = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0], dtype=torch.float64)
    noise_t = [t / steps for t in range(steps + 1)]
    marginal = torch.full((size,), 1 / size, dtype=torch.float64)
    for t in range(steps, 0, -1):
        joint = data[:, None] * transition(noise_t[t], size)  # [x_0, x_t]
        p0 = (joint / joint.sum(0)).T  # of x_0, for every x_t
        marginal = marginal @ reverse_step(p0, torch.arange(size), noise_t[t], noise_t[t - 1])
        torch.testing.assert_close(marginal, data @ transition(noise_t[t - 1], size), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(marginal, data, rtol=1e-12, atol=1e-15)
