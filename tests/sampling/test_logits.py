"""Temperature, filters, guidance, and the noise that draws."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from oracles import chi_squared_p, plain_filter

from imagebart.core.settings import SamplingSettings
from imagebart.models.diffusion import gumbel_noise, row_generators
from imagebart.sampling.steps import filter_logits, guided


def test_filters_equal_sorting_by_hand() -> None:
    torch.manual_seed(1)
    choices = itertools.product((0.5, 1.0, 2.0), (None, 1, 3, 9, 50), (None, 1e-6, 0.4, 0.9, 1.0))
    for temperature, top_k, top_p in choices:
        settings = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p)
        logits = 2 * torch.randn(4, 3, 9, dtype=torch.float64)
        found = filter_logits(logits, settings)
        assert found.shape == logits.shape and found.dtype == torch.float32
        expected = [[plain_filter(row.tolist(), settings) for row in rows] for rows in logits]
        torch.testing.assert_close(found, torch.tensor(expected))


def test_top_p_counts_only_what_top_k_left() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    found = filter_logits(logits, SamplingSettings(top_k=2, top_p=0.5))
    assert found.isfinite().tolist() == [True, False, False, False]
    found = filter_logits(logits, SamplingSettings(top_p=0.5))
    assert found.isfinite().tolist() == [True, True, False, False]


def test_coldest_temperature_of_large_logits_stays_a_number() -> None:
    logits = torch.tensor([[1e4, 3e4, -3e4]])
    found = filter_logits(logits, SamplingSettings(temperature=0.01, top_p=0.9))
    assert found.argmax() == 1 and not found.isnan().any()


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(),
        SamplingSettings(temperature=2.0),
        SamplingSettings(temperature=1.0, top_k=3),
        SamplingSettings(temperature=1.0, top_k=None, top_p=0.8),
    ],
)
def test_gumbel_max_draws_from_the_softmax(settings: SamplingSettings) -> None:
    """Chi-squared; a right sampler fails once in 10,000 seeds, and the seed is fixed."""
    logits = torch.tensor([2.0, 1.5, 0.3, 0.0, -1.0, -2.5])
    noise = gumbel_noise((20_000, 6), row_generators([5]))[0]
    drawn = (filter_logits(logits, settings) + noise).argmax(-1)
    weights = [math.exp(value) for value in plain_filter(logits.tolist(), settings)]
    assert chi_squared_p(drawn.bincount(minlength=6), torch.tensor(weights)) > 1e-4


def test_gumbel_noise_is_gumbel() -> None:
    """Counts between deciles of exp(-exp(-x))."""
    noise = gumbel_noise((50_000,), row_generators([0]))[0]
    deciles = torch.tensor([-math.log(-math.log(i / 10)) for i in range(1, 10)])
    counts = torch.bucketize(noise, deciles).bincount(minlength=10)
    assert chi_squared_p(counts, torch.full((10,), 0.1)) > 1e-4


def test_noise_of_a_row_is_its_own() -> None:
    noise = gumbel_noise((4, 5), row_generators(range(8, 11)))
    assert noise.shape == (3, 4, 5) and noise.isfinite().all()
    for b in range(3):
        assert torch.equal(noise[b : b + 1], gumbel_noise((4, 5), row_generators([8 + b])))
    assert not torch.equal(noise[0], noise[1])


def test_top_p_keeps_no_more_than_it_takes_to_reach_it() -> None:
    kept = filter_logits(torch.zeros(2, 4), SamplingSettings(top_p=0.5)).isfinite()  # of quarters, exactly two
    assert kept.sum(-1).tolist() == [2, 2]


def test_guidance_goes_from_the_absent_condition_through_the_given_one() -> None:
    with_cond, without = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    both = torch.cat([with_cond, without])
    for guidance, expected in ((0.0, without), (1.0, with_cond), (3.0, 3 * with_cond - 2 * without)):
        torch.testing.assert_close(guided(both, guidance), expected, rtol=1e-4, atol=1e-5)
