"""Many images from one model: float [B, 3, H, W] in [-1, 1], rounded to whole pixel values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imagebart.core.settings import SamplingSettings
from imagebart.imaging.blending import blend
from imagebart.imaging.files import denormalize, normalize, to_images, to_tensor
from imagebart.model import ImageBART
from imagebart.sampling.inpainting import KnownTokens, encode_masked


@dataclass(frozen=True)
class ImageSampler:
    """A model with its sampling settings. Row i of a call is sampled as a run of its own with seed + i would be."""

    model: ImageBART
    settings: SamplingSettings
    batch: int = 32

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.model.first_stage.config.resolution

    def generate(self, prompts: Sequence[str | None], seed: int) -> Tensor:
        """An image for each prompt; None for a model that takes none, or for no condition."""
        return self._batches(len(prompts), lambda rows: self._sample(prompts[rows], seed + rows.start))

    def edit(self, images: Tensor, masks: np.ndarray, prompts: Sequence[str | None], seed: int) -> Tensor:
        """Images with what is True in masks, bool [B, H, W], regenerated, as by `Pipeline.edit` without a feather."""

        def work(rows: slice) -> Tensor:
            before, painted = images[rows], torch.from_numpy(masks[rows])
            sampled = self._sample(prompts[rows], seed + rows.start, encode_masked(self.model, before, painted))
            squares = zip(to_images(sampled), to_images(before), masks[rows], strict=True)
            blended = torch.cat([to_tensor(blend(*square)) for square in squares])
            return torch.where(painted[:, None], blended, before)

        return self._batches(len(images), work)

    def reconstruct(self, images: Tensor) -> Tensor:
        first_stage = self.model.first_stage
        device = next(first_stage.parameters()).device
        return self._batches(len(images), lambda rows: self._decode(first_stage.encode(images[rows].to(device))))

    @torch.no_grad()
    def _batches(self, count: int, work: Callable[[slice], Tensor]) -> Tensor:
        return torch.cat([work(slice(i, min(i + self.batch, count))) for i in range(0, count, self.batch)])

    def _sample(self, prompts: Sequence[str | None], seed: int, known: KnownTokens | None = None) -> Tensor:
        cond, settings = self.model.condition(self.model.conditioner.encode(prompts).tokens, self.settings)
        state = self.model.sampler.prepare(len(prompts), settings, cond, known=known, seed=seed)
        *_, last = self.model.sampler.stream(state, settings)
        return self._decode(last.tokens)

    def _decode(self, tokens: Tensor) -> Tensor:
        return normalize(denormalize(self.model.first_stage.decode(tokens).float().cpu()))
