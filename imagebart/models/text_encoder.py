"""The text encoder of our own stages: what a prompt says, in a few vectors that stand before the picture.

Picture tokens find in one of a few slots what they would have to look for among 77 words, and the decoder reads 77
words no more. It can learn to read from captions alone, a hundred times faster than from pictures
(`imagebart.training.text`).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.config import Length
from imagebart.models.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class TextEncoderConfig:
    """Shape of a text encoder."""

    transformer: TransformerConfig  # bidirectional, over [words..., slots...]; its vocabulary is words and slots
    query_tokens: Length  # vectors that it gives
    conv_width: Length  # words that are read together before attention sees them


class CausalConv(nn.Module):
    """Each word with those before it: embeddings [B, P, width] -> [B, P, width]; nothing at first.

    A causal convolution, as attention is slow to learn which colour stands before which noun ("a red hat and a blue
    beard"): of words in a bag, it learnt to read the colours of two things in three.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.convolution = nn.Conv1d(width, width, length)
        nn.init.zeros_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(F.pad(x.transpose(1, 2), (self.length - 1, 0))).transpose(1, 2)


class TextEncoder(nn.Module):
    """Words int64 [B, length] -> slots [B, slots, width]."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config.transformer)
        self.phrase = CausalConv(config.transformer.width, config.conv_width)

    def forward(self, words: Tensor) -> Tensor:
        slots, vocabulary = self.config.query_tokens, self.config.transformer.vocab_in
        queries = torch.arange(vocabulary - slots, vocabulary, device=words.device).expand(len(words), -1)
        phrases = self.phrase(self.transformer.token_embedding(words))
        tokens = torch.cat([words, queries], 1)
        return self.transformer(tokens, added_embeds=F.pad(phrases, (0, 0, 0, slots)))[:, -slots:]


def replacement(own: TextEncoderConfig | None, encoder: TextEncoder) -> TextEncoder:
    """A copy of a text encoder, to be used in place of another; raises ValueError where its slots do not fit.

    It may know other words.
    """
    other = encoder.config
    if own is None or replace(own, transformer=replace(own.transformer, vocab_in=other.transformer.vocab_in)) != other:
        raise ValueError(f"the text encoder is {other}, expected the shape of the network's own, {own}")
    return deepcopy(encoder)


@torch.no_grad()
def with_vocabulary(encoder: TextEncoder, before: Sequence[int], after: Sequence[int]) -> TextEncoder:
    """A copy that reads the CLIP tokens `after` in place of `before`: what it knew of those in both, it still knows.

    The i-th of them is its word i + 1, as in `TextConditioner`; word 0 is the absence of one.
    """
    config = encoder.config
    words = len(after) + 1
    grown = TextEncoder(replace(config, transformer=replace(config.transformer, vocab_in=words + config.query_tokens)))
    old, new = encoder.transformer.token_embedding.weight, grown.transformer.token_embedding.weight
    places = {token: index for index, token in enumerate(before, 1)}
    known = [(index, places[token]) for index, token in enumerate(after, 1) if token in places]
    to, source = (torch.tensor(column) for column in zip((0, 0), *known, strict=True))
    weight = new.clone()  # tokens that it did not know begin as any do
    weight[to] = old[source]
    weight[words:] = old[len(before) + 1 :]
    grown.load_state_dict({**encoder.state_dict(), "transformer.token_embedding.weight": weight})
    return grown
