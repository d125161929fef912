"""What is done to logits before sampling: temperature, top-k, top-p, classifier-free guidance."""

from __future__ import annotations

import torch
from torch import Tensor

from imagebart.settings import SamplingSettings


def filter_logits(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Temperature, top-k and top-p: logits [..., K] -> float32 [..., K], excluded tokens at -inf."""
    logits = logits.float() / settings.temperature
    if settings.top_k is not None and settings.top_k < logits.shape[-1]:
        least = logits.topk(settings.top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if settings.top_p is not None and settings.top_p < 1:
        ordered, order = logits.softmax(-1).sort(descending=True)
        before = ordered.cumsum(-1) - ordered  # the likeliest token always stays
        excluded = (before >= settings.top_p).scatter(-1, order, before >= settings.top_p)
        logits = logits.masked_fill(excluded, -torch.inf)
    return logits


def guided(logits: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance: logits [2 B, S, K], with cond first -> uncond + guidance (cond - uncond), [B, S, K]."""
    with_cond, without = logits.float().chunk(2)
    return without + guidance * (with_cond - without)
