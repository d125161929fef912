"""A tiny random model that knows where hats go: with "hat" in the prompt, its tokens there are another one."""

from __future__ import annotations

import torch
from torch import Tensor

from imagebart.models.denoiser import DenoiserInput
from imagebart.models.imagebart import ImageBART
from imagebart.testing import tiny_model

HAT = torch.zeros(8, 8, dtype=torch.bool)
HAT[:3, 2:6] = True
"""The tokens of a hat."""


def hatted_model(scales: int = 2) -> ImageBART:
    model = tiny_model(scales=scales)
    denoiser, hat = model.denoiser, int(model.conditioner.encode(["hat"]).tokens[0, 0])
    assert denoiser is not None
    random = denoiser.logits

    def logits(x_s: Tensor, given: DenoiserInput) -> Tensor:
        assert given.cond is not None
        there = (given.cond == hat).any(1)[:, None, None] & HAT.flatten()[:, None]
        code = torch.arange(model.vocab_size) == 5
        return random(x_s, given) + 50.0 * (there & code)

    denoiser.logits = logits  # type: ignore[method-assign]
    return model
