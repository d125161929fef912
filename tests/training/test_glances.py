"""A denoiser that knew tokens alone begins to see pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from imagebart.models.denoiser import Denoiser
from imagebart.testing import tiny_model
from imagebart.training.glances import LOUD, begin_to_see

COLOURS = torch.tensor([[230, 40, 40], [40, 200, 60], [50, 60, 220], [240, 230, 80]], dtype=torch.uint8)


class Quarters(Dataset[dict[str, Any]]):
    """Pictures of four colours, a quarter each."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, Any]:
        quarters = COLOURS[torch.arange(4).roll(index)].view(2, 2, 3).permute(2, 0, 1)
        return {"image": quarters.repeat_interleave(16, 1).repeat_interleave(16, 2), "text": ""}


def part(colour: Tensor, kept: float) -> Tensor:
    return torch.cat([(colour.float() / 127.5 - 1) * kept, torch.tensor([kept])])


def test_a_part_of_a_colour_is_told_as_a_cell_that_is_all_of_it() -> None:
    """Louder by a factor, by the share that is kept; where nothing is, all but nothing is told. All else stays."""
    torch.manual_seed(0)
    model = tiny_model("none")
    assert model.denoiser is not None
    denoiser = Denoiser(replace(model.denoiser.config, glances=2))
    denoiser.load_state_dict({**denoiser.state_dict(), **model.denoiser.state_dict()})
    begin_to_see(denoiser, model.first_stage, Quarters())
    for name, tensor in model.denoiser.state_dict().items():
        assert torch.equal(denoiser.state_dict()[name], tensor)
    with torch.no_grad():
        pictures = (COLOURS.float() / 127.5 - 1)[:, :, None, None].expand(-1, -1, 12, 12)
        whole = model.first_stage.encode(pictures)[:, 4]  # of 3 x 3 cells
        assert len(set(whole.tolist())) > 1
        expected = LOUD * model.denoiser.encoder.token_embedding.weight[whole]
        for kept in (1.0, 0.6, 0.0):
            told = denoiser.glance(torch.stack([part(colour, kept) for colour in COLOURS]))
            assert (told - kept * expected).norm() < 0.25 * expected.norm(), kept
        halves = torch.cat([part(COLOURS[0], 1.0), part(COLOURS[1], 1.0)] * 2)
        assert (denoiser.glance(halves) - expected[:2].mean(0)).norm() < 0.25 * expected[0].norm()
