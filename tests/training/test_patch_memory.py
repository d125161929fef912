"""What a first stage remembers of patches, beside least squares by a solver and a world whose patches recur."""

from __future__ import annotations

import torch
from tiny_models import tiny_first_stage
from torch import Tensor

from imagebart.imaging.files import normalize
from imagebart.models.vqgan import FirstStage, psnr
from imagebart.training.patch_memory import PRIOR, fit_patch_memory

F = 8  # pixels of a patch
CONFIG = tiny_first_stage(
    resolution=4 * F, pixel_unshuffle=F, multipliers=(1,), encoder="patch", codebook_size=4,
    pair_rows=20, pair_dim=6, pair_bytes=4,
)  # fmt: skip


def first_stage(**changes: int) -> FirstStage:
    torch.manual_seed(0)
    model = FirstStage(CONFIG.replace(**changes)).eval().requires_grad_(False)
    torch.nn.init.normal_(model.quantize.embedding.weight, std=0.1)
    return model


def images(count: int) -> list[Tensor]:
    """Grids of six patterns, each one of two that may follow the one to its left; there are fewer codes."""
    patterns = torch.randint(256, (6, 3, F, F), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    columns = [torch.randint(6, (count, 4))]
    for _ in range(3):
        columns.append((2 * columns[-1] + torch.randint(2, (count, 4))) % 6)
    chosen = torch.stack(columns, 2)
    return [patterns[one].permute(2, 0, 3, 1, 4).reshape(3, 4 * F, 4 * F) for one in chosen]


def test_values_are_those_of_least_squares() -> None:
    """The error beside that of the same sums, solved in float64."""
    model, seen = first_stage(), images(450)
    fit_patch_memory(model, seen)
    memory = model.memory
    assert memory is not None
    shown = normalize(torch.stack(seen))
    tokens = model.encode(shown).view(-1, 4, 4)
    patches = shown.view(-1, 3, 4, F, 4, F).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3 * F * F)
    columns = [torch.unique(key.flatten(), return_inverse=True) for key in memory.keys(tokens)]
    design = torch.cat([torch.nn.functional.one_hot(index, len(keys)) for keys, index in columns], 1).double()
    left = patches.double() - memory.mean - memory.own.double()[tokens.flatten()] @ memory.patterns.double()
    solved = torch.linalg.solve(design.T @ design + PRIOR * torch.eye(design.shape[1]), design.T @ left)
    best = (left - design @ solved).square().sum()
    assert best < 0.9 * left.square().sum()  # pairs say something
    own = (memory(tokens) @ memory.patterns + memory.mean).flatten(0, 2)
    assert (patches - own).square().sum() < 1.05 * best


def test_neighbors_say_which_patch_a_token_stands_for() -> None:
    """Two patches that take turns have one token; the one to its left tells them apart."""
    patterns = torch.randint(256, (4, 3, F, F), dtype=torch.uint8)
    patterns[3] = patterns[2] - patterns[2] // 3 + patterns[3] // 3
    model = first_stage()
    model.quantize.embedding.weight.data.copy_(torch.randn(4, 8) * 5)
    with torch.no_grad():  # a code for each of the first two, and one that the others share
        latents = model.latents(normalize(patterns))[:, 0, 0]
        model.quantize.embedding.weight[:3] = torch.stack([latents[0], latents[1], latents[2:].mean(0)])
        model.quantize.embedding.weight[3:] = 1e3
    rows = torch.tensor([[0, 2, 0, 2], [1, 3, 1, 3]])
    seen = [patterns[rows[torch.randint(2, (4,))]].permute(2, 0, 3, 1, 4).reshape(3, 4 * F, 4 * F) for _ in range(500)]
    assert len(model.encode(normalize(torch.stack(seen))).unique()) == 3
    fit_patch_memory(model, seen)
    shown = normalize(torch.stack(seen[:20]))
    assert float(psnr(shown, model.decode(model.encode(shown))).min()) > 35
    assert model.memory is not None
    model.memory.values.zero_()
    assert float(psnr(shown, model.decode(model.encode(shown))).max()) < 27
