"""Masks and noise levels of the denoiser's training."""

import torch
import torch.nn.functional as F
from oracles import binomial_z

from imagebart.training import masks


def test_a_share_of_masks_is_the_whole_image() -> None:
    """Half planes, strokes and boxes never cover it all, but boxes together may, and what is all but nothing does."""
    shapes = masks.random_masks(2000, 16)
    assert shapes.shape == (2000, 256) and shapes.any(1).all(), "none is empty"
    whole = int(shapes.all(1).sum())
    assert binomial_z(whole, 2000, masks.P_EVERYTHING) > -4
    assert binomial_z(whole, 2000, masks.P_EVERYTHING + 0.03) < 4


def test_masks_are_shapes_and_their_inverses() -> None:
    """The middle of an image is known as often as its corners are; every token is known and unknown at times.

    Of four masks three are as often inverted as not, and one leaves next to nothing: 5 in 8 are unknown.
    """
    drawn = masks.random_masks(4000, 16)
    parts = drawn[~drawn.all(1)].float().view(-1, 16, 16)
    assert 0.1 < parts.mean((1, 2)).quantile(0.2) < 0.5 < parts.mean((1, 2)).quantile(0.6) < 0.95
    shares = parts.mean(0)
    assert shares.min() > 0.5 and shares.max() < 0.75


def test_a_small_patch_is_all_that_is_kept_of_a_color() -> None:
    """Of a red and of a blue half, one is masked but for a small box, mostly in the patches that both share."""
    halves = torch.full((400, 3, 64, 64), -1.0)
    halves[:, 0, :, :30], halves[:, 2, :, 30:] = 1.0, 1.0
    drawn = masks.keep_color_patches(halves, 32)
    colors = torch.stack([drawn[:, :, :15].float().mean((1, 2)), drawn[:, :, 15:].float().mean((1, 2))], 1)
    kept = 1 - colors.amax(1)
    assert kept.max() <= 8 * 8 / (32 * 15) and 0.5 < (kept > 0).float().mean() < 0.9
    assert 100 < int((colors[:, 0] > colors[:, 1]).sum()) < 300, "either half"
    assert 0 < colors.amin(1).quantile(0.5) < 0.25 and colors.amin(1).max() > 0.3, "a margin, or one more shape"
    red = ~drawn[(colors[:, 0] > colors[:, 1]) & (colors[:, 0] < 1), :, :15]
    assert 0 < red[:, :, :12].flatten(1).any(1).float().mean() < 0.3, "patches of one color are seldom kept"


def test_an_image_of_one_color_is_masked_but_for_a_patch_at_times() -> None:
    kept = (~masks.keep_color_patches(torch.zeros(200, 3, 32, 32), 32)).flatten(1).sum(1)
    assert kept.max() <= 64 and abs(binomial_z(int((kept == 0).sum()), 200, masks.P_MIXED_COLORS)) < 4


def test_painted_masks_cut_patches() -> None:
    drawn = masks.painted_masks(torch.rand(100, 3, 64, 64) * 2 - 1, 16)
    assert (
        drawn.shape == (100, 16 * masks.PARTS_PER_PATCH, 16 * masks.PARTS_PER_PATCH) and drawn.flatten(1).any(1).all()
    )
    shares = F.avg_pool2d(drawn[:, None].float(), masks.PARTS_PER_PATCH)
    assert ((shares > 0) & (shares < 1)).flatten(1).any(1).float().mean() > 0.3


def test_brush_strokes_are_one_piece_wherever_they_are() -> None:
    """Grown from one of its tokens within itself, a stroke is reached whole; strokes bend, so that few are boxes."""
    boxes = 0
    for _ in range(200):
        stroke = masks.brush_stroke(16)
        reached = torch.zeros_like(stroke).view(-1).scatter(0, stroke.flatten().int().argmax()[None], True).view(16, 16)
        for _ in range(256):
            near = F.max_pool2d(reached[None, None].float(), 3, 1, 1)[0, 0] > 0
            reached, before = near & stroke, reached
            if torch.equal(reached, before):
                break
        assert stroke.any() and torch.equal(reached, stroke)
        boxes += int(stroke.any(1).sum() * stroke.any(0).sum() == stroke.sum())
    assert boxes < 40


def test_noise_levels_fall_and_have_their_shares() -> None:
    """Half of the steps begin at pure noise, two thirds end at x_0; within four deviations."""
    noise_t, noise_s = masks.random_noise_levels(4000)
    assert noise_t.shape == noise_s.shape == (4000, 1)
    assert (
        (noise_s >= 0).all()
        and (noise_s < noise_t).all()
        and (noise_t <= 1).all()
        and (noise_t >= masks.MIN_NOISE).all()
    )
    assert abs(binomial_z(int((noise_t == 1).sum()), 4000, masks.P_FULL_NOISE)) < 4
    assert abs(binomial_z(int((noise_s == 0).sum()), 4000, masks.P_TO_X0)) < 4
    both = int(((noise_t == 1) & (noise_s == 0)).sum())
    assert abs(binomial_z(both, 4000, masks.P_FULL_NOISE * masks.P_TO_X0)) < 4
    others = noise_t[noise_t < 1]
    assert abs(others.mean() - (1 + masks.MIN_NOISE) / 2) < 4 * (1 - masks.MIN_NOISE) / 12**0.5 / len(others) ** 0.5
    shares = (noise_s / noise_t)[noise_s > 0]
    assert abs(shares.mean() - 0.5) < 4 / 12**0.5 / len(shares) ** 0.5
