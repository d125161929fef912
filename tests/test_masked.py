"""What a mask leaves of a picture, as tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from imagebart.evaluation.drawing import Artist
from imagebart.masked import extended, glance, known, painted_share
from imagebart.models.imagebart import ImageBART
from imagebart.pipeline import Pipeline
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


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_glance_is_the_mean_of_what_is_kept_and_how_much_that_is(parts: int) -> None:
    """Part by part, by hand: painted pixels count as 0 and tell nothing."""
    pixels, painted = torch.rand(2, 3, 32, 32) * 2 - 1, random_masks(2, 32, seed=5)
    seen = glance(pixels, painted, 16, parts)
    assert seen.shape == (2, 16, 4 * parts**2)
    size = 8 // parts
    for b in range(2):
        for cell in range(16):
            rows = seen[b, cell].view(parts, parts, 4)
            for p in range(parts):
                for q in range(parts):
                    top, left = 8 * (cell // 4) + size * p, 8 * (cell % 4) + size * q
                    kept = ~painted[b, top : top + size, left : left + size]
                    part = pixels[b, :, top : top + size, left : left + size]
                    torch.testing.assert_close(rows[p, q, :3], (part * kept).mean((1, 2)))
                    assert rows[p, q, 3] == kept.float().mean()
    other = torch.where(painted[:, None], torch.rand(2, 3, 32, 32), pixels)
    assert torch.equal(glance(other, painted, 16, parts), seen)


def _learn(model: ImageBART) -> None:
    """Says that it was trained with cut cells."""
    assert model.denoiser is not None
    model.denoiser.config = replace(model.denoiser.config, knows_cut_cells=True)


@pytest.mark.parametrize("model", [tiny_model("text"), tiny_staged_model()])
def test_models_that_do_not_know_cut_cells_keep_a_token_or_know_nothing_of_it(model: ImageBART) -> None:
    pixels, painted = torch.rand(3, 3, 32, 32) * 2 - 1, random_masks(3, 32, seed=2)
    found = known(model, pixels, painted)
    with torch.no_grad():
        assert torch.equal(found.tokens, model.first_stage.encode(pixels))
    assert torch.equal(found.doubt, (painted_share(painted, model.tokens) > 0).float()) and found.seen is None


def test_tokens_of_cut_cells_do_not_tell_what_was_painted_over() -> None:
    """Kept cells and those painted whole have the picture's own tokens; the others' depend on what is kept alone."""
    model = tiny_model("text")
    _learn(model)
    first_stage = model.first_stage
    pixels, painted = torch.rand(3, 3, 32, 32) * 2 - 1, random_masks(3, 32, seed=2)
    other = torch.where(painted[:, None], torch.rand(3, 3, 32, 32) * 2 - 1, pixels)
    found, again = known(model, pixels, painted), known(model, other, painted)
    tokens, doubt = found.tokens, found.doubt
    with torch.no_grad():
        own, filled = first_stage.encode(pixels), first_stage.encode(extended(pixels, painted))
    cut = (doubt > 0) & (doubt < 1)
    assert cut.any() and torch.equal(doubt, painted_share(painted, tokens.shape[1]))
    assert torch.equal(tokens, torch.where(cut, filled, own))
    assert torch.equal(tokens[cut], again.tokens[cut]) and found.seen is None


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


def test_an_edit_is_drawn_by_what_is_seen_of_kept_pixels() -> None:
    """Page and evaluation show the same; a model that is shown nothing else of a picture draws another."""
    upload = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    pixels = torch.from_numpy(upload).permute(2, 0, 1)[None].float() / 127.5 - 1
    painted = np.zeros((1, 32, 32), bool)
    painted[:, 10:26, 6:18] = True
    pipeline = Pipeline(tiny_model("text", glances=2))
    for loud in (pipeline.model.denoiser.glance.map, pipeline.model.denoiser.align):  # type: ignore[union-attr]
        loud.weight *= 10
    result = list(pipeline.edit(Image.fromarray(upload), Image.fromarray(painted[0]), "red hair", seed=3))[-1]
    evaluated = Artist(pipeline.model, pipeline.defaults).edit(pixels, painted, ["red hair"], 3)
    assert np.array_equal(np.asarray(result.image), (evaluated[0].permute(1, 2, 0) * 127.5 + 127.5).round().byte())
    left = known(pipeline.model, pixels, torch.from_numpy(painted))
    assert left.seen is not None and torch.equal(left.seen, glance(pixels, torch.from_numpy(painted), 64, 2))
    cond = pipeline.model.conditioner.encode(["red hair"]).tokens
    around = {"known": left.tokens, "keep": left.doubt == 0, "doubt": left.doubt, "settings": pipeline.defaults}
    with_it, without = (
        [*pipeline.model.stream(1, cond, seed=3, seen=seen, **around)][-1].tokens for seen in (left.seen, None)
    )
    assert not torch.equal(with_it, without)
