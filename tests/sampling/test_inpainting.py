"""From a masked image to tokens, noise levels and color hints."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_model, tiny_staged_model
from torch import Tensor

from imagebart.evaluation.image_sampler import ImageSampler
from imagebart.imaging.files import denormalize, normalize, to_images
from imagebart.model import ImageBART
from imagebart.pipeline import Pipeline
from imagebart.sampling.inpainting import encode_color_hints, encode_masked, fill_nearest, mask_coverage


def random_boxes(batch: int, side: int) -> Tensor:
    """Painted boxes, bool [B, side, side]."""
    painted = torch.zeros(batch, side, side, dtype=torch.bool)
    for mask in painted:
        top, left = torch.randint(side - 4, (2,)).tolist()
        height, width = torch.randint(1, side // 2, (2,)).tolist()
        mask[top : top + height, left : left + width] = True
    return painted


def test_painted_pixels_take_the_color_of_a_nearest_kept_one() -> None:
    """By brute force over all kept pixels; the transform's distances are within a twentieth, so one as near will do."""
    pixels, painted = torch.rand(6, 3, 16, 16), random_boxes(6, 16)
    for before, after, mask in zip(pixels, fill_nearest(pixels, painted), painted, strict=True):
        kept = (~mask).nonzero()
        for y, x in mask.nonzero().tolist():
            distance = (kept - torch.tensor([y, x])).float().norm(dim=1)
            near = kept[distance <= distance.min() * 1.1 + 0.1].tolist()
            assert any(torch.equal(after[:, y, x], before[:, a, b]) for a, b in near)
        assert torch.equal(after[:, ~mask], before[:, ~mask])
    for all_or_nothing in (torch.ones_like(painted), torch.zeros_like(painted)):
        assert torch.equal(fill_nearest(pixels, all_or_nothing), pixels)


def test_mask_coverage_of_each_patch() -> None:
    painted = torch.zeros(1, 8, 8, dtype=torch.bool)
    painted[0, :4, :3] = True
    assert mask_coverage(painted, 4).tolist() == [[0.75, 0, 0, 0]]
    assert mask_coverage(painted, 16).tolist() == [[1, 0.5, 0, 0] * 2 + [0] * 8]


def enlarged(images: Tensor, times: int) -> Tensor:
    return images.repeat_interleave(times, 2).repeat_interleave(times, 3)


def flat_images(count: int) -> Tensor:
    """Images of 8 x 8 patches of 4 px, each in one color or in four, a quarter each: [count, 3, 32, 32]."""
    either = enlarged(torch.rand(count, 1, 8, 8) < 0.5, 2)
    colors = torch.where(either, enlarged(torch.rand(count, 3, 8, 8), 2), torch.rand(count, 3, 16, 16))
    return enlarged(colors, 2) * 2 - 1


def test_color_hints_are_the_tokens_of_flat_parts_where_these_differ() -> None:
    """Patch by patch, by hand: an image all of one color has its token everywhere."""
    first_stage = tiny_model("none", color_hint_grid=2).first_stage
    pixels, painted, several = flat_images(3), random_boxes(3, 32), 0
    pixels[:, :, 8, 8] = 1  # a spot makes its part no color's
    color_hints = encode_color_hints(first_stage, pixels, painted, 2)
    for b in range(3):
        for patch in range(64):
            tokens = set()
            for p in range(4):
                top, left = 4 * (patch // 8) + 2 * (p // 2), 4 * (patch % 8) + 2 * (p % 2)
                part = pixels[b, :, top : top + 2, left : left + 2]
                if painted[b, top : top + 2, left : left + 2].any() or (part - part[:, :1, :1]).abs().max() > 0.08:
                    continue
                whole = ((part[:, :1, :1] * 127.5).round() / 127.5).expand(-1, 32, 32)[None]
                tokens |= set(first_stage.encode(whole).flatten().tolist())
            several += len(tokens) > 1
            assert set(color_hints[b, patch].nonzero().flatten().tolist()) == (tokens if len(tokens) > 1 else set())
    assert several > 20
    other = torch.where(painted[:, None], flat_images(3), pixels)  # what is painted over is not told
    assert torch.equal(encode_color_hints(first_stage, other, painted, 2), color_hints)
    assert not encode_color_hints(first_stage, pixels, torch.ones_like(painted), 2).any()


def test_an_edit_uses_its_color_hints() -> None:
    """Page and evaluation show the same; a model that is told of no colors draws another image."""
    pixels, painted = normalize(denormalize(flat_images(1))), np.zeros((1, 32, 32), bool)
    (upload,) = to_images(pixels)
    painted[:, 10:26, 6:18] = True
    pipeline = Pipeline(tiny_model("text", color_hint_grid=2))
    model, settings = pipeline.model, pipeline.defaults
    for loud in (model.denoiser.color_hint_embedding, model.denoiser.align):  # type: ignore[union-attr]
        loud.weight *= 50
    *_, result = pipeline.edit(upload, Image.fromarray(painted[0]), "red hair", seed=3, exact=True)
    evaluated = ImageSampler(model, settings).edit(pixels, painted, ["red hair"], 3)
    assert np.array_equal(result.image, to_images(evaluated)[0])
    left = encode_masked(model, pixels, torch.from_numpy(painted))
    cond, found = model.conditioner.encode(["red hair"] * 16).tokens, []
    for known in (left, replace(left, color_hints=None)):
        state = model.sampler.prepare(16, settings, cond, known=known, seed=3)
        found.append([*model.sampler.stream(state, settings)][-1].tokens)
    assert not torch.equal(*found)


@pytest.mark.parametrize("model", [tiny_model("text"), tiny_staged_model()], ids=["denoiser", "stages"])
def test_models_without_partial_patches_keep_a_token_or_know_nothing_of_it(model: ImageBART) -> None:
    pixels, painted = torch.rand(3, 3, 32, 32) * 2 - 1, random_boxes(3, 32)
    found, masked = encode_masked(model, pixels, painted), mask_coverage(painted, model.tokens) > 0
    assert torch.equal(found.tokens, model.first_stage.encode(pixels)) and found.color_hints is None
    assert torch.equal(found.noise_level, masked.float()) and torch.equal(found.keep, ~masked)
    assert found.strength is found.original is None


def test_tokens_of_partial_patches_do_not_tell_what_was_painted_over() -> None:
    """Kept patches and those painted whole have the image's own tokens; the others' depend on what is kept alone."""
    model = tiny_model("text")
    model.denoiser.config = model.denoiser.config.replace(partial_patches=True)
    pixels, painted = torch.rand(3, 3, 32, 32) * 2 - 1, random_boxes(3, 32)
    other = torch.where(painted[:, None], torch.rand(3, 3, 32, 32) * 2 - 1, pixels)
    strength = torch.where(mask_coverage(painted, model.tokens) > 0, 0.6, 1.0)
    found, again = encode_masked(model, pixels, painted, strength), encode_masked(model, other, painted, strength)
    own, filled = model.first_stage.encode(pixels), model.first_stage.encode(fill_nearest(pixels, painted))
    cut = (found.noise_level > 0) & (found.noise_level < 1)  # type: ignore[operator]
    assert cut.any() and torch.equal(found.noise_level, mask_coverage(painted, model.tokens))
    assert torch.equal(found.tokens, torch.where(cut, filled, own))
    assert torch.equal(found.tokens[cut], again.tokens[cut])
    assert torch.equal(found.strength, strength) and torch.equal(found.original, own)
    assert encode_masked(model, pixels, painted, 1.6 - strength).original is None, "only what is kept is weaker"
