"""The transformer, whole and a few positions at a time, against a plain implementation; words that it learns."""

import random

import pytest
import torch
from oracles import plain_transformer
from random_networks import with_random_weights
from torch import Tensor

from imagebart.models.transformer import Cache, TextEncoder, Transformer, TransformerConfig, with_vocabulary
from imagebart.text.conditioners import TextConditioner
from imagebart.training.config import StageShape
from imagebart.training.token_task import text_config

BASE = TransformerConfig(width=8, depth=2, heads=2, vocab_in=11, positions=9, head_size=4)
CONFIGS = {
    "causal": BASE,
    "with biases": BASE.replace(attention_bias=True),
    "bidirectional": BASE.replace(causal=False),
    "unmasked prefix": BASE.replace(unmasked=4),
    "one unmasked": BASE.replace(unmasked=1),
    "cross-attending, prefix": BASE.replace(cross=True, unmasked=3),
    "one head, wider than the model": BASE.replace(heads=1, head_size=16, cross=True),
}


def context_of(config: TransformerConfig, batch: int) -> Tensor | None:
    return torch.randn(batch, 5, config.width, dtype=torch.float64) if config.cross else None


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_equals_a_plain_implementation(config: TransformerConfig) -> None:
    transformer = with_random_weights(Transformer(config))
    weights = transformer.state_dict()
    for length in (1, 4, config.positions):
        tokens, context = torch.randint(config.vocab_in, (2, length)), context_of(config, 2)
        added_embeds = torch.randn(2, length, config.width, dtype=torch.float64)
        cross_kv = None if context is None else transformer.cross_kv(context)
        for added in (None, added_embeds):
            found = transformer(tokens, added, cross_kv)
            for b in range(2):
                given = (None if part is None else part[b] for part in (context, added))
                expected = plain_transformer(weights, config, tokens[b], *given)
                torch.testing.assert_close(found[b], expected, rtol=1e-9, atol=1e-9)


CAUSAL = {name: config for name, config in CONFIGS.items() if config.causal}


@pytest.mark.parametrize("config", CAUSAL.values(), ids=CAUSAL.keys())
def test_any_chunks_equal_the_whole(config: TransformerConfig) -> None:
    """Rows at positions of their own; chunks may begin before the end of the last; then some rows leave."""
    transformer, rng = with_random_weights(Transformer(config)), random.Random(0)
    for _ in range(8):
        tokens, context = torch.randint(config.vocab_in, (3, config.positions)), context_of(config, 3)
        added_embeds = torch.randn(3, config.positions, config.width, dtype=torch.float64)
        cross_kv = None if context is None else transformer.cross_kv(context)
        expected = transformer(tokens, added_embeds, cross_kv)
        cache = Cache(tokens[:, :0], cross_kv, added_embeds)
        cache.allocate(transformer)
        rows, seen = [0, 1, 2], [0, 0, 0]
        while min(seen) < config.positions:
            # The first chunk holds the whole unmasked prefix.
            length = rng.randint(1 if max(seen) else max(config.unmasked, 1), config.positions)
            begins = [min(rng.randint(max(0, s - 2), s), config.positions - length) for s in seen]
            columns = torch.tensor(begins)[:, None] + torch.arange(length)
            x_s = torch.cat([tokens, tokens[:, :1]], 1)[rows]  # of which the last is not read
            found = transformer.decode(x_s, cache, begins, length)
            torch.testing.assert_close(found, expected[torch.tensor(rows)[:, None], columns], rtol=0, atol=1e-12)
            seen = [max(s, b + length) for s, b in zip(seen, begins, strict=True)]
            if len(rows) == 3:
                cache.select(torch.tensor([2, 0]))
                rows, seen = [2, 0], [seen[2], seen[0]]


def test_weights_begin_as_gpt_2s() -> None:
    """What is added to the residual stream is smaller."""
    config = BASE.replace(width=64, depth=4, vocab_in=100, positions=50, head_size=32, vocab_out=100, cross=True)
    transformer = Transformer(config).requires_grad_(False)
    for name, matrix in transformer.named_parameters():
        if matrix.ndim == 2:
            expected = 0.02 / 8**0.5 if name.endswith(("out.weight", "down.weight")) else 0.02
            assert float(matrix.square().mean().sqrt()) == pytest.approx(expected, rel=0.1), name


@pytest.mark.parametrize("more", [["zebra with a beret"], []])
def test_a_text_encoder_that_learns_words_reads_known_ones_as_before(more: list[str]) -> None:
    shape = StageShape(width=32, heads=2, head_size=16, encoder_depth=1, query_tokens=3)
    few = TextConditioner.from_captions(["red hair", "round glasses"], 8)
    many = TextConditioner.from_captions(["red hair", "round glasses", *more], 8)
    encoder = TextEncoder(text_config(shape, few))
    torch.nn.init.normal_(encoder.phrase.convolution.weight, std=0.1)
    grown = with_vocabulary(encoder, few.tokens, many.tokens)
    assert grown.config == text_config(shape, many)
    prompts = ["red glasses", "", "round hair hair red"]
    assert torch.equal(grown(many.encode(prompts).tokens), encoder(few.encode(prompts).tokens))
    for strange in more:
        words = many.encode([strange]).tokens
        assert not torch.equal(grown(words), grown(torch.zeros_like(words)))
