"""A small transformer with weights large enough that every part matters."""

from __future__ import annotations

import torch

from imagebart.models.transformer import Transformer, TransformerConfig

SMALL = TransformerConfig(width=32, depth=2, heads=2, vocab_in=11, positions=40, head_size=16, vocab_out=9, cross=True)


def small(weights_of: torch.dtype = torch.float32) -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(SMALL).requires_grad_(False)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        parameter.copy_(parameter.to(weights_of))
    return transformer
