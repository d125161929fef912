from __future__ import annotations

import dataclasses
import random

import pytest
import torch
from small_transformer import CAUSAL, SMALL, build, context_of, every_causal_config, small
from torch import nn

from imagebart.models.transformer import Transformer, TransformerConfig
from imagebart.sampling.packed_linear import Network, attend, bf16, kernels, multiplies_bfloat16, native, pack


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
        decoder = Network(transformer, native)
        cache = decoder.new_cache(3)
        seen = [0, 0, 0]
        while min(seen) < config.positions:
            # The first chunk holds the whole unmasked prefix.
            length = rng.randint(1 if max(seen) else max(config.unmasked, 1), config.positions)
            begins = [min(rng.randint(max(0, s - 2), s), config.positions - length) for s in seen]
            columns = torch.tensor(begins)[:, None] + torch.arange(length)
            rows = torch.arange(3)[:, None]
            found = decoder.forward(tokens[rows, columns], begins, cache, cross_kv, added_embeds[rows, columns])
            torch.testing.assert_close(found, expected[rows, columns], rtol=0, atol=1e-12)
            seen = [max(s, b + length) for s, b in zip(seen, begins, strict=True)]


def test_cache_takes_memory_once_and_hands_on_rows() -> None:
    transformer = build(CAUSAL["causal"])
    decoder = Network(transformer, native)
    tokens = torch.randint(11, (3, 9))
    cache = decoder.new_cache(3)
    cross_kv = cache.kept
    assert cross_kv.shape == (2, 2, 3, 2, 16, 4)
    decoder.forward(tokens[:, :5], [0, 0, 0], cache)
    assert cache.kept is cross_kv
    cache.select(torch.tensor([2, 0]))
    found = decoder.forward(tokens[[2, 0], 5:], [5, 5], cache)
    torch.testing.assert_close(found, transformer(tokens)[[2, 0], 5:])


def test_too_long() -> None:
    decoder = Network(build(CAUSAL["causal"]), native)
    with pytest.raises(ValueError, match="sequence of 10 tokens, expected at most 9"):
        decoder.forward(torch.zeros(2, 3, dtype=torch.long), [2, 7], decoder.new_cache(2))


def test_bfloat16() -> None:
    transformer = small().bfloat16()
    decoder = pack("exact", transformer).decoder
    cross_kv = transformer.cross_kv(torch.randn(1, 5, 32, dtype=torch.bfloat16))
    tokens = torch.randint(11, (1, 8))
    cache = decoder.new_cache(1)
    parts = [decoder.forward(tokens[:, a : a + 2], [a], cache, cross_kv) for a in range(0, 8, 2)]
    assert parts[0].dtype == torch.bfloat16
    torch.testing.assert_close(torch.cat(parts, 1), transformer(tokens, cross_kv=cross_kv), rtol=0.1, atol=0.1)


def test_half_weights_that_need_no_rounding_change_only_the_last_bits() -> None:
    transformer = small(torch.float16)
    cross_kv = transformer.cross_kv(torch.randn(2, 5, 32))
    tokens = torch.randint(11, (2, 40))
    expected = transformer.double()(tokens, cross_kv=[(k.double(), v.double()) for k, v in cross_kv])
    transformer.float()
    for kernel in kernels([m for m in transformer.modules() if isinstance(m, nn.Linear)], "exact"):
        decoder = Network(transformer, kernel)
        found = decoder.forward(tokens, [0, 0], decoder.new_cache(2), cross_kv)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention(dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(2, 3, length, 8).to(dtype) for length in (5, 7, 7))
    mask = torch.zeros(2, 1, 5, 7, dtype=dtype).masked_fill_(torch.rand(2, 1, 5, 7) < 0.4, -torch.inf)
    mask[..., 0] = 0
    tolerance = 1e-6 if dtype == torch.float32 else 3e-2
    for given in (None, mask):
        scores = q.double() @ k.double().transpose(2, 3) / 8**0.5
        weights = (scores if given is None else scores + given.double()).softmax(-1)
        found = attend(q, k, v, given)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), weights @ v.double(), rtol=0, atol=tolerance)


def test_a_query_in_bfloat16_does_not_depend_on_those_beside_it() -> None:
    for heads, size in ((4, 64), (16, 50)):
        q, k, v = (torch.randn(2, heads, length, size).bfloat16() for length in (64, 272, 272))
        mask = torch.zeros(2, 1, 64, 272).masked_fill_(torch.rand(2, 1, 64, 272) < 0.4, -torch.inf).bfloat16()
        whole, masked = attend(q, k, v), attend(q, k, v, mask)
        for rows in (4, 6, 8, 24):
            assert torch.equal(attend(q[:, :, :rows], k, v), whole[:, :, :rows]), (heads, rows)
            assert torch.equal(attend(q[:, :, :rows], k, v, mask[:, :, :rows]), masked[:, :, :rows]), (heads, rows)


def test_a_network_that_sees_in_both_directions() -> None:
    config = dataclasses.replace(SMALL, causal=False, cross=False, vocab_out=None)
    transformer = Transformer(config).requires_grad_(False).double()
    tokens, added_embeds = torch.randint(11, (2, 40)), torch.randn(2, 40, 32, dtype=torch.float64)
    network = Network(transformer, native)
    found = network.forward(tokens, [0, 0], network.new_cache(2), added_embeds=added_embeds)
    torch.testing.assert_close(found, transformer(tokens, added_embeds=added_embeds), rtol=0, atol=1e-12)
    if multiplies_bfloat16():
        network = Network(transformer.float(), bf16)
        found = network.forward(tokens, [0, 0], network.new_cache(2), added_embeds=added_embeds.float())
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, transformer(tokens, added_embeds=added_embeds.float()), rtol=0, atol=0.05)
