from __future__ import annotations

import random

import pytest
import torch
from oracles import plain_transformer
from small_transformer import BASE, CAUSAL, build, context_of, every_causal_config, every_config

from imagebart.models.transformer import Cache, Transformer, TransformerConfig, sinusoids


@every_config
def test_equals_a_plain_implementation(config: TransformerConfig) -> None:
    transformer = build(config)
    for length in (1, 4, config.positions):
        tokens = torch.randint(config.vocab_in, (2, length))
        context = context_of(config, 2)
        added_embeds = torch.randn(2, length, config.width, dtype=torch.float64)
        cross_kv = None if context is None else transformer.cross_kv(context)
        for added in (None, added_embeds):
            found = transformer(tokens, added, cross_kv)
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
def test_later_tokens_change_nothing_earlier(config: TransformerConfig) -> None:
    transformer = build(config)
    tokens = torch.randint(config.vocab_in, (1, config.positions))
    context = context_of(config, 1)
    cross_kv = None if context is None else transformer.cross_kv(context)
    before = transformer(tokens, cross_kv=cross_kv)
    for i in range(config.unmasked, config.positions):
        changed = tokens.clone()
        changed[0, i] = (changed[0, i] + 1) % config.vocab_in
        difference = (transformer(changed, cross_kv=cross_kv) - before).abs().amax(-1)[0]
        assert (difference[:i] == 0).all()
        assert (difference[i:] > 0).all()


def test_parameter_names_and_shapes() -> None:
    """Checkpoints are read by these."""
    config = BASE.replace(depth=1, cross=True, attention_bias=True, vocab_out=7)
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
    transformer = Transformer(
        TransformerConfig(
            width=64, depth=4, heads=2, vocab_in=100, positions=50, head_size=32, vocab_out=100, cross=True
        )
    )
    assert all(p.isfinite().all() for p in transformer.parameters())
    matrices = {name: p.detach() for name, p in transformer.named_parameters() if p.ndim == 2}
    for name, matrix in matrices.items():
        found = float(matrix.square().mean().sqrt())
        deep = name.endswith(("out.weight", "down.weight"))
        assert found == pytest.approx(0.02 / 8**0.5 if deep else 0.02, rel=0.1), name


def test_positions_begin_alike_at_equal_distances() -> None:
    """Products of two depend on their distance only, and are largest for a position and itself."""
    found = sinusoids(40, 16).double()
    products = found @ found.T
    for offset in (0, 1, 7):
        diagonal = products.diagonal(offset)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4)
    assert (products.diagonal(1) < products.diagonal(0)[0] - 0.1).all()
    transformer = Transformer(TransformerConfig(width=16, depth=1, heads=2, vocab_in=5, positions=40, head_size=8))
    assert torch.allclose(transformer.position_embedding / (0.02 * 2**0.5), found.float(), atol=1e-5)


@every_causal_config
def test_any_chunks_equal_the_whole(config: TransformerConfig) -> None:
    """Rows at positions of their own; chunks may begin before the end of the last."""
    transformer = build(config)
    rng = random.Random(0)
    for _ in range(8):
        tokens = torch.randint(config.vocab_in, (3, config.positions))
        added_embeds = torch.randn(3, config.positions, config.width, dtype=torch.float64)
        context = context_of(config, 3)
        cross_kv = None if context is None else transformer.cross_kv(context)
        expected = transformer(tokens, added_embeds, cross_kv)
        cache = Cache(tokens[:, :0], cross_kv, added_embeds)
        cache.allocate(transformer)
        x_s = torch.cat([tokens, tokens[:, :1]], 1)  # of which the last is not read
        seen = [0, 0, 0]
        while min(seen) < config.positions:
            # The first chunk holds the whole unmasked prefix.
            length = rng.randint(1 if max(seen) else max(config.unmasked, 1), config.positions)
            begins = [min(rng.randint(max(0, s - 2), s), config.positions - length) for s in seen]
            columns = torch.tensor(begins)[:, None] + torch.arange(length)
            found = transformer.decode(x_s, cache, begins, length)
            torch.testing.assert_close(found, expected[torch.arange(3)[:, None], columns], rtol=0, atol=1e-12)
            seen = [max(s, b + length) for s, b in zip(seen, begins, strict=True)]


def test_cache_takes_memory_once_and_hands_on_rows() -> None:
    transformer = build(CAUSAL["causal"])
    tokens = torch.randint(11, (3, 10))
    cache = Cache(tokens[:, :0])
    cache.allocate(transformer)
    kept = cache.kept
    assert kept is not None and kept.shape == (2, 2, 3, 2, 16, 4)
    transformer.decode(tokens, cache, [0, 0, 0], 5)
    assert cache.kept is kept
    cache.select(torch.tensor([2, 0]))
    found = transformer.decode(tokens[[2, 0]], cache, [5, 5], 4)
    torch.testing.assert_close(found, transformer(tokens[:, :9])[[2, 0], 5:])
