"""What a mask leaves of a picture, as tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from imagebart.masked import extended, known_tokens, painted_share
from imagebart.models.imagebart import ImageBART
from imagebart.testing import tiny_model, tiny_pipeline, tiny_staged_model


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
        result = extended(pixels, painted)[0]
        kept = (~painted[0]).nonzero()
        for y, x in painted[0].nonzero().tolist():
            distance = (kept - torch.tensor([y, x])).float().norm(dim=1)
            near = kept[distance <= distance.min() * 1.1 + 0.1]
            assert any(torch.equal(result[:, y, x], pixels[0, :, a, b]) for a, b in near.tolist())
        assert torch.equal(result[:, ~painted[0]], pixels[0][:, ~painted[0]])


@pytest.mark.parametrize("painted", [False, True])
def test_pictures_of_which_all_or_nothing_is_painted_stay(painted: bool) -> None:
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(extended(pixels, torch.full((2, 8, 8), painted)), pixels)


def test_share_of_each_cell() -> None:
    painted = torch.zeros(1, 8, 8, dtype=torch.bool)
    painted[0, :4, :3] = True
    assert painted_share(painted, 4).tolist() == [[0.75, 0, 0, 0]]
    assert painted_share(painted, 16).tolist() == [[1, 0.5, 0, 0] * 2 + [0] * 8]


def _learn(model: ImageBART) -> None:
    """Says that it was trained with cut cells."""
    assert model.denoiser is not None
    model.denoiser.config = replace(model.denoiser.config, knows_cut_cells=True)


@pytest.mark.parametrize("model", [tiny_model("text"), tiny_staged_model()])
def test_models_that_do_not_know_cut_cells_keep_a_token_or_know_nothing_of_it(model: ImageBART) -> None:
    pixels, painted = torch.rand(3, 3, 32, 32) * 2 - 1, random_masks(3, 32, seed=2)
    tokens, doubt = known_tokens(model, pixels, painted)
    with torch.no_grad():
        assert torch.equal(tokens, model.first_stage.encode(pixels))
    assert torch.equal(doubt, (painted_share(painted, tokens.shape[1]) > 0).float())


def test_tokens_of_cut_cells_do_not_tell_what_was_painted_over() -> None:
    """Kept cells and those painted whole have the picture's own tokens; the others' depend on what is kept alone."""
    model = tiny_model("text")
    _learn(model)
    first_stage = model.first_stage
    pixels, painted = torch.rand(3, 3, 32, 32) * 2 - 1, random_masks(3, 32, seed=2)
    other = torch.where(painted[:, None], torch.rand(3, 3, 32, 32) * 2 - 1, pixels)
    tokens, doubt = known_tokens(model, pixels, painted)
    again, _ = known_tokens(model, other, painted)
    with torch.no_grad():
        own, filled = first_stage.encode(pixels), first_stage.encode(extended(pixels, painted))
    cut = (doubt > 0) & (doubt < 1)
    assert cut.any() and torch.equal(doubt, painted_share(painted, tokens.shape[1]))
    assert torch.equal(tokens, torch.where(cut, filled, own))
    assert torch.equal(tokens[cut], again[cut])


def test_edits_tell_a_model_that_knows_cut_cells_what_is_left_of_them() -> None:
    """A mask along cells leaves no doubt, so that both models draw the same; one across them is another matter."""
    upload = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    knowing, other = tiny_pipeline("text"), tiny_pipeline("text")
    _learn(knowing.model)
    for height in (16, 18):
        mask = Image.new("L", (32, 32))
        mask.paste(255, (0, 0, 32, height))
        ends = [np.asarray(list(each.edit(upload, mask, "red hair", seed=0))[-1].image) for each in (knowing, other)]
        assert np.array_equal(*ends) == (height == 16)
        assert np.array_equal(ends[0][height:], np.asarray(upload)[height:])
