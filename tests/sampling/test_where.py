"""Where words belong: distances of two predictions, and the tokens that stand out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import TOKENS, tiny_model
from torch import Tensor

from imagebart.models.denoiser import DenoiserInput
from imagebart.sampling.mask_suggestion import AROUND, LEAST, distances, threshold

MODEL = tiny_model()
KNOWN = torch.randint(24, (1, TOKENS), generator=torch.Generator().manual_seed(1))


def words(prompt: str | None) -> Tensor:
    return MODEL.conditioner.encode([prompt]).tokens


def apart(asked: str | None, instead: str | None, seed: int = 0) -> Tensor:
    assert MODEL.denoiser is not None
    return distances(MODEL.denoiser, KNOWN, words(asked), words(instead), seed)


def test_the_same_words_are_no_distance_apart_and_others_are_both_ways() -> None:
    assert apart("red hair", "red hair").max() < 1e-3
    there = apart("red hair", "a hat")
    assert there.shape == (TOKENS,) and 0.01 < there.max() <= 1
    assert torch.allclose(there, apart("a hat", "red hair"), atol=1e-3)


def test_a_seed_repeats_and_another_draws_other_noise() -> None:
    assert torch.equal(apart("red hair", None, 3), apart("red hair", None, 3))
    assert not torch.allclose(apart("red hair", None, 3), apart("red hair", None, 4))


def test_words_that_move_one_code_s_logit_move_distances_by_so_much() -> None:
    """Two predictions that are known: uniform over all 24 codes, and over the first 12."""

    class Known(torch.nn.Module):
        config = MODEL.denoiser.config  # type: ignore[union-attr]

        def logits(self, x_s: Tensor, given: DenoiserInput) -> Tensor:
            assert (given.noise_t > 0).all() and torch.equal(x_s, given.x_t) and given.cond is not None
            half = torch.where(torch.arange(24) < 12, 0.0, -1e9)
            return torch.where(given.cond[:, :1, None] > 0, half, 0.0).expand(len(x_s), TOKENS, 24)

    found = distances(Known(), KNOWN, torch.ones(1, 2).long(), torch.zeros(1, 2).long())  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([(1 - 0.5**0.5) ** 0.5] * TOKENS, abs=1e-4)


def test_a_place_is_where_distances_and_those_beside_them_are_large() -> None:
    distance = torch.rand(9, 7, generator=torch.Generator().manual_seed(0)) * 2 * LEAST
    around = np.array([AROUND, 1, AROUND])
    weights = np.outer(around, around) / around.sum() ** 2
    padded = np.pad(distance.numpy(), 1, mode="edge")
    wanted = [[(padded[y : y + 3, x : x + 3] * weights).sum() > LEAST for x in range(7)] for y in range(9)]
    assert threshold(distance).tolist() == wanted
    assert 0 < np.mean(wanted) < 1


def test_everything_or_nothing_can_stand_out() -> None:
    assert threshold(torch.full((4, 4), LEAST + 0.01)).all()
    assert not threshold(torch.full((4, 4), LEAST - 0.01)).any()
