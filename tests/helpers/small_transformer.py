"""Small transformers with weights large enough that every part matters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from imagebart.models.transformer import Transformer, TransformerConfig

SMALL = TransformerConfig(width=32, depth=2, heads=2, vocab_in=11, positions=40, head_size=16, vocab_out=9, cross=True)


def small(weights_of: torch.dtype = torch.float32) -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(SMALL).requires_grad_(False)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        parameter.copy_(parameter.to(weights_of))
    return transformer


BASE = TransformerConfig(width=8, depth=2, heads=2, vocab_in=11, positions=9, head_size=4)
CONFIGS = {
    "causal": BASE,
    "causal with biases": BASE.replace(attention_bias=True),
    "bidirectional": BASE.replace(causal=False),
    "unmasked prefix": BASE.replace(unmasked=4),
    "one unmasked": BASE.replace(unmasked=1),
    "cross-attending": BASE.replace(cross=True),
    "cross-attending, prefix": BASE.replace(cross=True, unmasked=3),
    "one head, wider than the model": BASE.replace(heads=1, head_size=16),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
CAUSAL = {name: config for name, config in CONFIGS.items() if config.causal}
every_causal_config = pytest.mark.parametrize("config", CAUSAL.values(), ids=CAUSAL.keys())


def build(config: TransformerConfig, seed: int = 0) -> Transformer:
    """A float64 transformer with large random weights everywhere, norms and biases included."""
    torch.manual_seed(seed)
    transformer = Transformer(config).double().requires_grad_(False)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return transformer


def context_of(config: TransformerConfig, batch: int) -> Tensor | None:
    return torch.randn(batch, 5, config.width, dtype=torch.float64) if config.cross else None
