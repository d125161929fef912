"""From a masked image to tokens, noise levels and color hints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_model, tiny_pipeline, tiny_staged_model
from torch import Tensor

from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.imaging.files import denormalize, normalize, to_images
from imagebart.model import ImageBART
from imagebart.pipeline import Pipeline
from imagebart.sampling.inpainting import encode_color_hints, encode_masked, fill_nearest, mask_coverage


def random_masks(batch: int, side: int, seed: int) -> Tensor:
    """Boxes, bool [B, side, side]."""
    generator = torch.Generator().manual_seed(seed)
    painted = torch.zeros(batch, side, side, dtype=torch.bool)
    for mask in painted:
        top, left = torch.randint(side - 4, (2,), generator=generator).tolist()
        height, width = torch.randint(1, side // 2, (2,), generator=generator).tolist()
        mask[top : top + height, left : left + width] = True
    return painted


def test_painted_pixels_take_the_colour_of_a_nearest_kept_one() -> None:
    """By brute force over all kept pixels; the transform's distances are within a twentieth, so one as near will do."""
    for seed in range(6):
        pixels, painted = torch.rand(1, 3, 16, 16), random_masks(1, 16, seed)
        result = fill_nearest(pixels, painted)[0]
        kept = (~painted[0]).nonzero()
        for y, x in painted[0].nonzero().tolist():
            distance = (kept - torch.tensor([y, x])).float().norm(dim=1)
            near = kept[distance <= distance.min() * 1.1 + 0.1]
            assert any(torch.equal(result[:, y, x], pixels[0, :, a, b]) for a, b in near.tolist())
        assert torch.equal(result[:, ~painted[0]], pixels[0][:, ~painted[0]])


@pytest.mark.parametrize("painted", [False, True])
def test_images_of_which_all_or_nothing_is_painted_stay(painted: bool) -> None:
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(fill_nearest(pixels, torch.full((2, 8, 8), painted)), pixels)


def test_mask_coverage_of_each_patch() -> None:
    painted = torch.zeros(1, 8, 8, dtype=torch.bool)
    painted[0, :4, :3] = True
    assert mask_coverage(painted, 4).tolist() == [[0.75, 0, 0, 0]]
    assert mask_coverage(painted, 16).tolist() == [[1, 0.5, 0, 0] * 2 + [0] * 8]


def flats(count: int, seed: int) -> Tensor:
    """Images of 8 x 8 cells of 4 px, each in one colour or in four, a quarter each: [count, 3, 32, 32]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator).repeat_interleave(2, 2).repeat_interleave(2, 3)
    fine = torch.rand(count, 3, 16, 16, generator=generator)
    either = (torch.rand(count, 1, 8, 8, generator=generator) < 0.5).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return torch.where(either, coarse, fine).repeat_interleave(2, 2).repeat_interleave(2, 3) * 2 - 1


def test_color_hints_are_the_tokens_of_flat_parts_where_these_differ() -> None:
    """Cell by cell, by hand: an image all of one colour has its token everywhere."""
    model = tiny_model("none", color_hint_grid=2)
    pixels, painted = flats(3, seed=1), random_masks(3, 32, seed=5)
    pixels[:, :, 8, 8] = 1  # a spot makes its part no colour's
    color_hints = encode_color_hints(model.first_stage, pixels, painted, 2)
    several = 0
    for b in range(3):
        for cell in range(64):
            tokens = set()
            for p in range(4):
                top, left = 4 * (cell // 8) + 2 * (p // 2), 4 * (cell % 8) + 2 * (p % 2)
                part = pixels[b, :, top : top + 2, left : left + 2]
                if painted[b, top : top + 2, left : left + 2].any() or (part - part[:, :1, :1]).abs().max() > 0.08:
                    continue
                whole = ((part[:, :1, :1] * 127.5).round() / 127.5).expand(-1, 32, 32)[None]
                tokens |= set(model.first_stage.encode(whole).flatten().tolist())
            several += len(tokens) > 1
            assert set(color_hints[b, cell].nonzero().flatten().tolist()) == (tokens if len(tokens) > 1 else set())
    assert several > 20 and color_hints.dtype == torch.bool


def test_color_hints_tell_nothing_of_what_is_painted() -> None:
    model = tiny_model("none", color_hint_grid=2)
    pixels, painted = flats(3, seed=1), random_masks(3, 32, seed=5)
    other = torch.where(painted[:, None], flats(3, seed=2), pixels)
    color_hints = encode_color_hints(model.first_stage, pixels, painted, 2)
    assert color_hints.any() and torch.equal(encode_color_hints(model.first_stage, other, painted, 2), color_hints)
    assert not encode_color_hints(model.first_stage, pixels, torch.ones_like(painted), 2).any()


def _with_partial_patches(model: ImageBART) -> None:
    """Says that it was trained with partial patches."""
    assert model.denoiser is not None
    model.denoiser.config = model.denoiser.config.replace(partial_patches=True)


@pytest.mark.parametrize("model", [tiny_model("text"), tiny_staged_model()])
def test_models_without_partial_patches_keep_a_token_or_know_nothing_of_it(model: ImageBART) -> None:
    pixels, painted = torch.rand(3, 3, 32, 32) * 2 - 1, random_masks(3, 32, seed=2)
    found = encode_masked(model, pixels, painted)
    with torch.no_grad():
        assert torch.equal(found.tokens, model.first_stage.encode(pixels))
    assert (
        torch.equal(found.noise_level, (mask_coverage(painted, model.tokens) > 0).float()) and found.color_hints is None
    )


def test_tokens_of_partial_patches_do_not_tell_what_was_painted_over() -> None:
    """Kept cells and those painted whole have the image's own tokens; the others' depend on what is kept alone."""
    model = tiny_model("text")
    _with_partial_patches(model)
    first_stage = model.first_stage
    pixels, painted = torch.rand(3, 3, 32, 32) * 2 - 1, random_masks(3, 32, seed=2)
    other = torch.where(painted[:, None], torch.rand(3, 3, 32, 32) * 2 - 1, pixels)
    found, again = encode_masked(model, pixels, painted), encode_masked(model, other, painted)
    tokens, noise_level = found.tokens, found.noise_level
    with torch.no_grad():
        own, filled = first_stage.encode(pixels), first_stage.encode(fill_nearest(pixels, painted))
    cut = (noise_level > 0) & (noise_level < 1)
    assert cut.any() and torch.equal(noise_level, mask_coverage(painted, tokens.shape[1]))
    assert torch.equal(tokens, torch.where(cut, filled, own))
    assert torch.equal(tokens[cut], again.tokens[cut]) and found.color_hints is None


def test_edits_tell_a_model_with_partial_patches_what_is_left_of_them() -> None:
    """A mask along cells leaves no noise, so that both models draw the same; one across them is another matter."""
    upload = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    knowing, other = tiny_pipeline("text"), tiny_pipeline("text")
    _with_partial_patches(knowing.model)
    for height in (16, 18):
        mask = Image.new("L", (32, 32))
        mask.paste(255, (0, 0, 32, height))
        ends = [
            np.asarray(list(each.edit(upload, mask, "red hair", seed=0, exact=True))[-1].image)
            for each in (knowing, other)
        ]
        assert np.array_equal(*ends) == (height == 16)
        assert np.array_equal(ends[0][height:], np.asarray(upload)[height:])


def test_an_edit_uses_its_color_hints() -> None:
    """Page and evaluation show the same; a model that is told of no colours draws another image."""
    pixels = normalize(denormalize(flats(1, seed=3)))
    (upload,) = to_images(pixels)
    painted = np.zeros((1, 32, 32), bool)
    painted[:, 10:26, 6:18] = True
    pipeline = Pipeline(tiny_model("text", color_hint_grid=2))
    for loud in (pipeline.model.denoiser.color_hint_embedding, pipeline.model.denoiser.align):  # type: ignore[union-attr]
        loud.weight *= 50
    result = list(pipeline.edit(upload, Image.fromarray(painted[0]), "red hair", seed=3, exact=True))[-1]
    evaluated = ImageSampler(pipeline.model, pipeline.defaults).edit(pixels, painted, ["red hair"], 3)
    assert np.array_equal(result.image, to_images(evaluated)[0])
    left = encode_masked(pipeline.model, pixels, torch.from_numpy(painted))
    expected = encode_color_hints(pipeline.model.first_stage, pixels, torch.from_numpy(painted), 2)
    assert left.color_hints is not None and torch.equal(left.color_hints, expected)
    cond = pipeline.model.conditioner.encode(["red hair"] * 16).tokens
    sampler, settings = pipeline.model.sampler, pipeline.defaults
    states = [
        sampler.prepare(16, settings, cond, known=known, seed=3) for known in (left, replace(left, color_hints=None))
    ]
    with_it, without = ([*sampler.stream(state, settings)][-1].tokens for state in states)
    assert not torch.equal(with_it, without)
