"""The denoiser on tokens that were made before, and what it is told of cells that masks cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from tiny_models import tiny_first_stage
from torch.utils.data import default_collate

from imagebart.models.denoiser import Denoiser
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import DenoiserRun, LoopConfig, StageShape
from imagebart.training.data import PIXELS, ImageStore, StoreIndex, stored_side, write_index
from imagebart.training.denoiser import TokenDataset, TokenDatasetTask, conditioner_of, encode_store, new_denoiser

COUNT, VIEWS = 8, 2
SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=3)


def task(folder: Path, encoder: Literal["convolutions", "patch"]) -> TokenDatasetTask:
    torch.manual_seed(0)
    first_stage = FirstStage(replace(tiny_first_stage(), encoder=encoder)).eval()
    nothing = ("",) * COUNT
    names = tuple(map(str, range(COUNT)))
    pictures = StoreIndex(32, "none", names, nothing, (False,) * COUNT, ({},) * COUNT)
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, stored_side(32), stored_side(32), 3), np.uint8)
    (folder / PIXELS).write_bytes(pixels.tobytes())
    write_index(folder, pictures)
    store = ImageStore(folder)
    encode_store(store, first_stage, VIEWS, folder, lambda _: None)
    tokens = TokenDataset(folder, store, range(COUNT))
    conditioner = conditioner_of("none", [])
    run = DenoiserRun(data="", first_stage="", loop=LoopConfig(steps=1), conditioning="none")
    return TokenDatasetTask(
        new_denoiser(first_stage, SHAPE, conditioner), conditioner, first_stage, tokens, tokens, run
    )


@pytest.mark.parametrize("encoder", ["convolutions", "patch"])
def test_cut_cells_are_known_where_each_cell_is_seen_alone(
    tmp_path: Path, encoder: Literal["convolutions", "patch"]
) -> None:
    """Elsewhere their tokens would betray what was painted over."""
    work = task(tmp_path, encoder)
    batch = default_collate([work.dataset[i] for i in range(COUNT * VIEWS)])
    x0 = work.tokens(batch)
    assert torch.equal(work.encode(batch["image"]), x0), "tokens and pictures are of the same view"
    noise_level, left, color_hints = work.masked(batch, x0)
    cut = (noise_level > 0) & (noise_level < 1)
    assert color_hints is None and torch.equal(left[noise_level == 0], x0[noise_level == 0])
    assert isinstance(work.model, Denoiser)
    assert bool(cut.any()) == (encoder == "patch") == work.model.config.partial_patches
    if encoder == "patch":
        assert 0 < float((left != x0)[cut].float().mean()) < 1, "some of what is left looks like what was there"
