"""A model at work on many pictures at once: float images [B, 3, H, W] in [-1, 1], rounded to whole pixel values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from imagebart.evaluation.metrics import Measure
from imagebart.imaging.blending import blend
from imagebart.imaging.files import denormalize, normalize, to_images, to_tensor
from imagebart.inpainting import MaskedTokens, encode_masked
from imagebart.models.imagebart import ImageBART
from imagebart.models.vqgan import FirstStage
from imagebart.settings import SamplingSettings


@dataclass(frozen=True)
class Artist:
    """A model with the settings it draws with. Row i of a call draws as a run of its own with seed + i would."""

    model: ImageBART
    settings: SamplingSettings
    batch: int = 32
    drawn: Callable[[int], object] = lambda count: None  # told after each batch how many pictures it had

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.model.first_stage.config.resolution

    def generate(self, prompts: Sequence[str | None], seed: int) -> Tensor:
        """A picture for each prompt; None for a model that takes none or is not to be told."""
        return self._all(len(prompts), lambda rows: self._draw([prompts[i] for i in rows], seed + rows.start))

    def edit(self, images: Tensor, masks: np.ndarray, prompts: Sequence[str | None], seed: int) -> Tensor:
        """Images with what masks, bool [B, H, W], paint redrawn, as `Pipeline.edit` without a feather does it.

        Cells that are painted anywhere are drawn anew; only painted pixels are taken over.
        """
        painted = torch.from_numpy(masks)

        def work(rows: range) -> Tensor:
            part = slice(rows.start, rows.stop)
            left = encode_masked(self.model, images[part], painted[part])
            drawn = self._draw([prompts[i] for i in rows], seed + rows.start, left)
            return _joined(drawn, images[part], masks[part])

        return self._all(len(images), work)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images through the first stage: encoded and decoded."""
        first_stage = self.model.first_stage
        return self._all(len(images), lambda rows: through_tokens(first_stage, images[rows.start : rows.stop]))

    def _all(self, count: int, work: Callable[[range], Tensor]) -> Tensor:
        parts = []
        for start in range(0, count, self.batch):
            rows = range(start, min(start + self.batch, count))
            parts.append(work(rows))
            self.drawn(len(rows))
        return torch.cat(parts)

    @torch.no_grad()
    def _draw(self, prompts: list[str | None], seed: int, left: MaskedTokens | None = None) -> Tensor:
        conditioner = self.model.conditioner
        cond = conditioner.encode(prompts).tokens if conditioner.length else None
        settings = self.settings
        if cond is None or settings.guidance == 1 or torch.equal(cond, conditioner.unconditional(len(prompts))):
            settings = replace(settings, guidance=1.0)  # nothing to guide towards
        around = {} if left is None else left.known(len(prompts))
        *_, last = self.model.stream(len(prompts), cond, settings=settings, seed=seed, **around)
        return decoded(self.model.first_stage, last.tokens)


def _joined(drawn: Tensor, before: Tensor, masks: np.ndarray) -> Tensor:
    """What is drawn where masks paint, joined to what was there before elsewhere."""
    squares = zip(to_images(drawn), to_images(before), masks, strict=True)
    whole = torch.cat([to_tensor(blend(*square)) for square in squares])
    return torch.where(torch.from_numpy(masks)[:, None], whole, before)


def through_tokens(first_stage: FirstStage, images: Tensor) -> Tensor:
    """Images encoded and decoded."""
    return decoded(first_stage, encoded(first_stage, images))


@torch.no_grad()
def encoded(first_stage: FirstStage, images: Tensor) -> Tensor:
    """Images as tokens, where the first stage is."""
    return first_stage.encode(images.to(next(first_stage.parameters()).device))


@torch.no_grad()
def decoded(first_stage: FirstStage, tokens: Tensor) -> Tensor:
    """Tokens as images of whole pixel values."""
    pixels = first_stage.decode(tokens).float().cpu()
    return normalize(denormalize(pixels))


# The model that others stand beside: one that draws from left to right, as VQGAN's transformer does.


BASELINE = "left to right"


def left_to_right(artist: Artist) -> Artist:
    """The baseline. Raises ValueError for a model that sees what follows."""
    kinds = [stage.config.kind for stage in artist.model.stages]
    if kinds != ["decoder_only"]:
        raise ValueError(f"the baseline has stages of kind {kinds}, expected one decoder_only")
    return artist


def weights_that_draw(artist: Artist) -> Measure:
    """How large a model is; what encodes, decodes and reads prompts is the same for all, and draws nothing."""
    named = artist.model.named_parameters()
    counted = [w.numel() for name, w in named if not name.startswith("first_stage.") and ".text." not in name]
    millions = sum(counted) / 1e6
    return Measure("weights that draw, millions", millions, millions, millions, 0)
