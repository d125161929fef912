from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from oracles import plain_transformer
from torch import Tensor

from imagebart.transformer import Transformer, TransformerConfig

BASE = TransformerConfig(width=8, depth=2, heads=2, vocab_in=11, positions=9, head_size=4)
CONFIGS = {
    "causal": BASE,
    "causal with biases": dataclasses.replace(BASE, attention_bias=True),
    "bidirectional": dataclasses.replace(BASE, causal=False),
    "unmasked prefix": dataclasses.replace(BASE, unmasked=4),
    "one unmasked": dataclasses.replace(BASE, unmasked=1),
    "cross-attending": dataclasses.replace(BASE, cross=True),
    "cross-attending, prefix": dataclasses.replace(BASE, cross=True, unmasked=3),
    "one head, wider than the model": dataclasses.replace(BASE, heads=1, head_size=16),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
causal = {name: config for name, config in CONFIGS.items() if config.causal}
every_causal_config = pytest.mark.parametrize("config", causal.values(), ids=causal.keys())


def build(config: TransformerConfig, seed: int = 0) -> Transformer:
    """A float64 transformer with large random weights everywhere, norms and biases included."""
    torch.manual_seed(seed)
    transformer = Transformer(config).double().requires_grad_(False)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return transformer


def context_of(config: TransformerConfig, batch: int) -> Tensor | None:
    return torch.randn(batch, 5, config.width, dtype=torch.float64) if config.cross else None


@every_config
def test_equals_a_plain_implementation(config: TransformerConfig) -> None:
    transformer = build(config)
    for length in (1, 4, config.positions):
        tokens = torch.randint(config.vocab_in, (2, length))
        context = context_of(config, 2)
        extra = torch.randn(2, length, config.width, dtype=torch.float64)
        memory = None if context is None else transformer.memory(context)
        for added in (None, extra):
            found = transformer(tokens, memory, None, added)
            assert found.shape == (2, length, config.width)
            for b in range(2):
                expected = plain_transformer(
                    transformer.state_dict(),
                    config,
                    tokens[b],
                    None if context is None else context[b],
                    None if added is None else added[b],
                )
                torch.testing.assert_close(found[b], expected, rtol=1e-9, atol=1e-9)


@every_causal_config
def test_cached_equals_uncached_in_any_chunks(config: TransformerConfig) -> None:
    transformer = build(config)
    rng = random.Random(0)
    for _ in range(8):
        tokens = torch.randint(config.vocab_in, (3, config.positions))
        extra = torch.randn(3, config.positions, config.width, dtype=torch.float64)
        context = context_of(config, 3)
        memory = None if context is None else transformer.memory(context)
        expected = transformer(tokens, memory, None, extra)
        cache = transformer.new_cache(3)
        # The first chunk holds the whole unmasked prefix; cuts are anywhere after it.
        first = rng.randint(max(config.unmasked, 1), config.positions)
        rest = range(first, config.positions)
        cuts = [0, first, *sorted(rng.sample(rest, rng.randint(0, len(rest)))), config.positions]
        chunks = [
            transformer(tokens[:, a:b], memory, cache, extra[:, a:b])
            for a, b in zip(cuts, cuts[1:], strict=False)
            if b > a
        ]
        assert cache.length == config.positions
        torch.testing.assert_close(torch.cat(chunks, 1), expected, rtol=0, atol=1e-12)


def test_cache_takes_memory_once_and_only_when_used() -> None:
    transformer = build(BASE)
    cache = transformer.new_cache(2)
    assert cache.memory is None
    transformer(torch.zeros(2, 3, dtype=torch.long), None, cache)
    memory = cache.memory
    assert memory is not None and memory.shape == (2, 2, 2, 2, 9, 4)
    transformer(torch.zeros(2, 6, dtype=torch.long), None, cache)
    assert cache.memory is memory


def test_half_precision_with_a_cache() -> None:
    transformer = build(BASE).bfloat16()
    cache = transformer.new_cache(1)
    for token in range(3):
        hidden = transformer(torch.tensor([[token]]), None, cache)
    whole = transformer(torch.arange(3)[None])
    assert hidden.dtype == torch.bfloat16
    torch.testing.assert_close(hidden[:, 0], whole[:, -1], rtol=0.1, atol=0.1)


def test_autocast_with_a_cache() -> None:
    transformer = build(BASE).float()
    whole = transformer(torch.arange(4)[None])
    with torch.autocast("cpu", torch.bfloat16):
        cache = transformer.new_cache(1)
        chunks = [transformer(torch.arange(4)[None, a:b], None, cache) for a, b in ((0, 1), (1, 3), (3, 4))]
    torch.testing.assert_close(torch.cat(chunks, 1).float(), whole, rtol=0.1, atol=0.2)


@every_causal_config
def test_later_tokens_change_nothing_earlier(config: TransformerConfig) -> None:
    transformer = build(config)
    tokens = torch.randint(config.vocab_in, (1, config.positions))
    context = context_of(config, 1)
    memory = None if context is None else transformer.memory(context)
    before = transformer(tokens, memory)
    for i in range(config.unmasked, config.positions):
        changed = tokens.clone()
        changed[0, i] = (changed[0, i] + 1) % config.vocab_in
        difference = (transformer(changed, memory) - before).abs().amax(-1)[0]
        assert (difference[:i] == 0).all()
        assert (difference[i:] > 0).all()


def test_bidirectional_tokens_change_everything() -> None:
    transformer = build(CONFIGS["bidirectional"])
    tokens = torch.zeros(1, 9, dtype=torch.long)
    changed = tokens.clone()
    changed[0, 8] = 1
    assert ((transformer(changed) - transformer(tokens)).abs().amax(-1) > 0).all()


def test_too_long() -> None:
    transformer = build(BASE)
    with pytest.raises(ValueError, match="sequence of 10 tokens, expected at most 9"):
        transformer(torch.zeros(1, 10, dtype=torch.long))
    cache = transformer.new_cache(1)
    transformer(torch.zeros(1, 9, dtype=torch.long), None, cache)
    with pytest.raises(ValueError, match="sequence of 10 tokens, expected at most 9"):
        transformer(torch.zeros(1, 1, dtype=torch.long), None, cache)


def test_an_unmasked_prefix_in_parts_is_refused() -> None:
    """Its first part could not have seen the second."""
    transformer = build(CONFIGS["unmasked prefix"])
    cache = transformer.new_cache(1)
    transformer(torch.zeros(1, 2, dtype=torch.long), None, cache)
    with pytest.raises(ValueError, match="4 unmasked tokens"):
        transformer(torch.zeros(1, 3, dtype=torch.long), None, cache)


def test_head_where_there_are_logits() -> None:
    assert build(BASE).head is None
    head = build(dataclasses.replace(BASE, vocab_out=7, head_bias=False)).head
    assert head is not None and head.weight.shape == (7, 8) and head.bias is None


def test_parameter_names_and_shapes() -> None:
    """Checkpoints are read by these."""
    config = dataclasses.replace(BASE, depth=1, cross=True, attention_bias=True, vocab_out=7)
    shapes = {name: tuple(value.shape) for name, value in Transformer(config).state_dict().items()}
    norms = {
        f"{name}.{part}": (8,)
        for name in ("blocks.0.attention.norm", "blocks.0.cross.norm", "blocks.0.feed_forward.norm", "norm")
        for part in ("weight", "bias")
    }
    assert shapes == norms | {
        "token_embedding.weight": (11, 8),
        "position_embedding": (9, 8),
        "blocks.0.attention.qkv.weight": (24, 8),
        "blocks.0.attention.qkv.bias": (24,),
        "blocks.0.attention.out.weight": (8, 8),
        "blocks.0.attention.out.bias": (8,),
        "blocks.0.cross.q.weight": (8, 8),
        "blocks.0.cross.q.bias": (8,),
        "blocks.0.cross.kv.weight": (16, 8),
        "blocks.0.cross.kv.bias": (16,),
        "blocks.0.cross.out.weight": (8, 8),
        "blocks.0.cross.out.bias": (8,),
        "blocks.0.feed_forward.up.weight": (32, 8),
        "blocks.0.feed_forward.up.bias": (32,),
        "blocks.0.feed_forward.down.weight": (8, 32),
        "blocks.0.feed_forward.down.bias": (8,),
        "head.weight": (7, 8),
        "head.bias": (7,),
    }


def test_initialisation() -> None:
    transformer = Transformer(TransformerConfig(64, 4, 2, 100, 50, 32, vocab_out=100, cross=True))
    assert all(p.isfinite().all() for p in transformer.parameters())
    std = {name: float(p.detach().std()) for name, p in transformer.named_parameters() if p.ndim == 2}
    for name, found in std.items():
        deep = name.endswith(("out.weight", "down.weight"))
        assert found == pytest.approx(0.02 / 8**0.5 if deep else 0.02, rel=0.1), name
