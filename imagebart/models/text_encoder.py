"""The text encoder of our own models: a prompt as a few query tokens that precede the image tokens.

So the decoder reads a few vectors in place of 77 words. It can be trained with captions alone, a hundred times faster
than with images (`recipes.avatars.training`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.core.settings import Length, Settings
from imagebart.models.transformer import Transformer, TransformerConfig


class TextEncoderConfig(Settings):
    """Shape of a text encoder."""

    transformer: TransformerConfig  # bidirectional, over [words..., query tokens...]; its vocabulary is these
    query_tokens: Length  # vectors of the output
    conv_width: Length  # words that the convolution sees


class CausalConv(nn.Module):
    """A convolution over each word and those before it: embeddings [B, P, width] -> [B, P, width], zero at first.

    Attention alone is slow to learn which color stands before which noun ("a red hat and a blue beard"): it got two
    colors in three right.
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
    """Words int64 [B, length] -> query tokens [B, query_tokens, width]."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config.transformer)
        self.phrase = CausalConv(config.transformer.width, config.conv_width)

    def forward(self, words: Tensor) -> Tensor:
        count, vocabulary = self.config.query_tokens, self.config.transformer.vocab_in
        queries = torch.arange(vocabulary - count, vocabulary, device=words.device).expand(len(words), -1)
        phrases = self.phrase(self.transformer.token_embedding(words))
        tokens = torch.cat([words, queries], 1)
        return self.transformer(tokens, added_embeds=F.pad(phrases, (0, 0, 0, count)))[:, -count:]


@torch.no_grad()
def with_vocabulary(encoder: TextEncoder, before: Sequence[int], after: Sequence[int]) -> TextEncoder:
    """A copy that reads the CLIP tokens `after` in place of `before`, with the embeddings of those in both.

    The i-th of them is its word i + 1, as in `TextConditioner`; word 0 is the absence of one.
    """
    config = encoder.config
    words = len(after) + 1
    grown = TextEncoder(config.replace(transformer=config.transformer.replace(vocab_in=words + config.query_tokens)))
    old, new = encoder.transformer.token_embedding.weight, grown.transformer.token_embedding.weight
    places = {token: index for index, token in enumerate(before, 1)}
    known = [(index, places[token]) for index, token in enumerate(after, 1) if token in places]
    to, source = (torch.tensor(column) for column in zip((0, 0), *known, strict=True))
    weight = new.clone()
    weight[to] = old[source]
    weight[words:] = old[len(before) + 1 :]
    grown.load_state_dict({**encoder.state_dict(), "transformer.token_embedding.weight": weight})
    return grown
