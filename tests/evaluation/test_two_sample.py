"""Networks that tell real pictures from made ones, on pictures of which it is known whether that can be done."""

import pytest
import torch
from torch import Tensor

from imagebart.evaluation.folder import Pairs, judged, two_sample_test


def noise(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def blurred(images: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(images, 3, 1, 1)


def test_blurred_pictures_are_told_and_others_of_the_same_kind_are_not() -> None:
    """Pictures are judged by a network that has not seen them: knowing them by heart is of no use."""
    real, state = noise(60, 0), torch.get_rng_state()
    told = two_sample_test(real, blurred(real), steps=30)
    assert told.value > 0.95 and told.low > 0.8
    alike = two_sample_test(noise(60, 3), noise(60, 103), steps=15)
    assert alike.low < 0.5 < alike.high
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="3 pictures"):
        two_sample_test(real[:3], real[:3])


def test_pairs_are_judged_whichever_stands_first_and_the_key_says_which() -> None:
    real = noise(60, 0)
    pairs = Pairs(real, real + 0.02 * noise(60, 2), blurred(real), seed=3)
    better, ours, theirs = judged(pairs, steps=40)
    assert better.value > 0.9 and better.low > 0.75
    assert ours.value > theirs.value and theirs.value < 0.1
    worse, *_ = judged(Pairs(real, pairs.theirs, pairs.ours, seed=3), steps=40)
    assert worse.value < 0.1
    key = pairs.key()
    assert len(key) == 40 and 10 <= list(key.values()).count("A") <= 30
    assert key != Pairs(real, real, real, seed=4).key()


def test_the_sheet_shows_each_pair_as_the_key_says() -> None:
    dark, grey, light = (torch.full((5, 3, 16, 16), value) for value in (-1.0, 0.0, 1.0))
    pairs = Pairs(grey, dark, light)
    page = pairs.sheet().convert("L")
    cell, row = 20, 20 + 14
    for number, place in pairs.key().items():
        y, x = divmod(int(number) - 1, 4)
        shown = [page.getpixel((cell * (3 * x + i) + 10, row * y + 10)) for i in range(3)]
        assert shown == ([0, 128, 255] if place == "A" else [255, 128, 0])
