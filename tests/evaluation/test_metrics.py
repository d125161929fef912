"""Intervals, the two-sample test and the sampler of images, against tables, simulations and the pipeline."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_model

from imagebart.core.settings import SamplingSettings
from imagebart.evaluation.folder import spread
from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.evaluation.metrics import mean_of, median_of, share_of, two_sample_test, wilson
from imagebart.imaging.files import to_images
from imagebart.models.vqgan import psnr
from imagebart.pipeline import Pipeline

SETTINGS = SamplingSettings(guidance=2.0, top_k=5)
PROMPTS = ["a hat", "red hair", "round glasses"]


def test_wilson_bounds_are_the_shares_that_the_score_test_just_allows() -> None:
    for right, trials in ((56, 70), (1, 9), (0, 10)):
        interval = wilson(right / trials, trials)
        for bound in {interval.low, interval.high} - {0.0}:
            score = (right / trials - bound) / math.sqrt(bound * (1 - bound) / trials)
            assert abs(score) == pytest.approx(1.959964, rel=1e-5)
        assert interval.low <= right / trials <= interval.high
    assert wilson(0, 10).low == 0


@pytest.mark.parametrize("correlated", [False, True])
def test_shares_hold_the_truth_about_95_times_in_100(correlated: bool) -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        asked = random.integers(1, 7, 60)
        chance = random.beta(1.6, 0.4, 60) if correlated else np.full(60, 0.8)
        interval = share_of(random.binomial(asked, chance).tolist(), asked.tolist())
        held += interval.low <= 0.8 <= interval.high
    assert 920 <= held <= 985


def test_images_without_answers_do_not_count_and_few_have_the_variance_of_a_sample() -> None:
    assert share_of([1, 0, 2], [2, 0, 2]) == share_of([1, 2], [2, 2])
    assert share_of([2, 3], [2, 3]) == wilson(1, 2)
    assert share_of([1, 0, 1, 1]) == share_of([1, 0, 1, 1], [1, 1, 1, 1])
    with pytest.raises(ValueError, match="nothing was asked"):
        share_of([0], [0])
    # By hand: 2, 0 and 1 right of 2 each; spread 2, variance 3 / 2 * 2 / 36, so 3 trials in place of 6.
    assert share_of([2, 0, 1], [2, 2, 2]) == pytest.approx(wilson(0.5, 3))


def test_a_mean_has_the_normal_interval() -> None:
    interval = mean_of([1.0, 2.0, 3.0, 6.0])
    assert interval.value == 3 and interval.low == 6 - interval.high
    assert interval.high - 3 == pytest.approx(1.959964 * math.sqrt(14 / 3) / 2)


def test_the_median_lies_between_the_order_statistics_of_the_sign_test() -> None:
    """Ranks from tables of the sign test; samples in which it is missed are as rare as is said."""
    for count, rank in ((6, 1), (10, 2), (20, 6), (100, 40)):
        interval = median_of(list(range(1, count + 1)))
        assert (interval.low, interval.high) == (rank, count + 1 - rank)
        assert interval.value == (count + 1) / 2
    samples = np.random.default_rng(0).exponential(size=(2000, 25))
    held = [(found := median_of(row.tolist())).low <= math.log(2) <= found.high for row in samples]
    assert 0.95 <= np.mean(held) < 0.98
    with pytest.raises(ValueError, match="at least 6"):
        median_of([1.0] * 5)


def test_psnr_of_a_known_error() -> None:
    x = torch.zeros(2, 3, 12, 12)
    y = torch.stack([x[0] + 0.2, x[0] - 2.0])
    # 0.2 of a range of 2 is a tenth: 20 dB; the whole range: 0 dB.
    assert psnr(x, y).tolist() == pytest.approx([20.0, 0.0])


def test_blurred_images_are_told_and_others_of_the_same_kind_are_not() -> None:
    """A network is tested on images that it has not seen: memorizing them is of no use."""

    def noise(count: int, seed: int) -> torch.Tensor:
        return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    real, state = noise(60, 0), torch.get_rng_state()
    blurred = two_sample_test(real, torch.nn.functional.avg_pool2d(real, 3, 1, 1), steps=30)
    assert blurred.value > 0.95 and blurred.low > 0.8
    alike = two_sample_test(noise(60, 3), noise(60, 103), steps=15)
    assert alike.low < 0.5 < alike.high
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="3 images"):
        two_sample_test(real[:3], real[:3])


@pytest.mark.parametrize(("count", "most"), [(362, 100), (6718, 2000), (7, 7), (7, 3), (1, 5), (0, 5)])
def test_the_measured_images_are_spread_evenly(count: int, most: int) -> None:
    chosen = spread(list(range(count)), most)
    assert len(chosen) == min(most, count)
    steps = np.diff([*chosen, *([count] if chosen else [])])
    assert set(steps) <= {count // max(1, len(chosen)), -(-count // max(1, len(chosen)))}


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline(tiny_model())


def difference(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def test_images_sampled_in_batches_are_the_pipelines(pipe: Pipeline) -> None:
    images = to_images(ImageSampler(pipe.model, SETTINGS, batch=2).generate(PROMPTS, seed=5))
    for i, (prompt, image) in enumerate(zip(PROMPTS, images, strict=True)):
        *_, last = pipe.generate(prompt, seed=5 + i, settings=SETTINGS)
        assert difference(last.image, image) <= 1
    unguided = ImageSampler(pipe.model, SamplingSettings(top_k=5)).generate([None, None], seed=3)
    assert torch.equal(ImageSampler(pipe.model, SETTINGS).generate([None, None], seed=3), unguided)


def test_edited_images_are_the_pipelines(pipe: Pipeline) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    masks = np.zeros((3, 32, 32), bool)
    masks[:2, 9:14, 6:27], masks[2, 20:] = True, True
    edited = to_images(ImageSampler(pipe.model, SETTINGS, batch=2).edit(images, masks, PROMPTS, seed=9))
    for i, prompt in enumerate(PROMPTS):
        mask = Image.fromarray((masks[i] * 255).astype(np.uint8))
        *_, last = pipe.edit(Image.fromarray(pixels[i]), mask, prompt, seed=9 + i, settings=SETTINGS, exact=True)
        assert difference(last.image, edited[i]) <= 1
        changed = np.asarray(edited[i]) != pixels[i]
        assert changed[masks[i]].any() and not changed[~masks[i]].any()


def test_reconstructions_are_the_first_stages(pipe: Pipeline) -> None:
    images, first = torch.rand(3, 3, 32, 32) * 2 - 1, pipe.model.first_stage
    expected = first.decode(first.encode(images)).clamp(-1, 1)
    assert torch.allclose(ImageSampler(pipe.model, SETTINGS, batch=2).reconstruct(images), expected, atol=1 / 127)
