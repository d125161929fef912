"""Features in which pictures are compared: of the classifier trained on them, or of a model that is on the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from imagebart.errors import InputError

Features = Callable[[Tensor], Tensor]  # images float [B, 3, H, W] in [-1, 1] -> [B, F]
BATCH = 64


def local_features(name: str) -> Features:
    """The features of a model of `transformers`, timm's among them, that is on this machine; nothing is downloaded.

    Raises InputError where there is none of that name, or it gives no vector a picture.
    """
    from transformers import AutoImageProcessor, AutoModel

    try:
        processor: Any = AutoImageProcessor.from_pretrained(name, local_files_only=True)
        model = AutoModel.from_pretrained(name, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise InputError(f"There is no model {name} on this machine that tells features: {str(error)[:120]}") from error

    def features(images: Tensor) -> Tensor:
        pixels = ((images + 1) * 127.5).round().byte()
        output = model(**processor(images=list(pixels), return_tensors="pt"))
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            pooled = output.last_hidden_state.mean(1)
        return pooled.flatten(1)

    return lambda images: in_batches(features, images)


@torch.no_grad()
def in_batches(features: Features, images: Tensor) -> Tensor:
    """Features of many pictures, some at a time."""
    return torch.cat([features(part).float().cpu() for part in images.split(BATCH)])
