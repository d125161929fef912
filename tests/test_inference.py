from __future__ import annotations

import copy
import dataclasses
import pickle
import random

import pytest
import torch
from oracles import random_stage
from test_transformer import build, causal, context_of, every_causal_config
from torch import nn

from imagebart.inference import Decoder, Preparation, prepare, threads
from imagebart.matrices import (
    Packing,
    Precision,
    brain,
    half,
    int8,
    multiplies_bfloat16,
    packed,
    packings,
    plain,
)
from imagebart.transformer import Transformer, TransformerConfig

SMALL = TransformerConfig(width=32, depth=2, heads=2, vocab_in=11, positions=40, head_size=16, vocab_out=9, cross=True)


def small(weights_of: torch.dtype = torch.float32) -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(SMALL).requires_grad_(False)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        parameter.copy_(parameter.to(weights_of))
    return transformer


@every_causal_config
def test_any_chunks_equal_the_whole(config: TransformerConfig) -> None:
    """Rows at positions of their own; chunks may begin before the end of the last."""
    transformer = build(config)
    rng = random.Random(0)
    for _ in range(8):
        tokens = torch.randint(config.vocab_in, (3, config.positions))
        extra = torch.randn(3, config.positions, config.width, dtype=torch.float64)
        context = context_of(config, 3)
        memory = None if context is None else transformer.memory(context)
        expected = transformer(tokens, memory, extra)
        decoder = Decoder(transformer, plain)
        cache = decoder.new_cache(3)
        seen = [0, 0, 0]
        while min(seen) < config.positions:
            # The first chunk holds the whole unmasked prefix.
            length = rng.randint(1 if max(seen) else max(config.unmasked, 1), config.positions)
            begins = [min(rng.randint(max(0, s - 2), s), config.positions - length) for s in seen]
            columns = torch.tensor(begins)[:, None] + torch.arange(length)
            rows = torch.arange(3)[:, None]
            found = decoder.forward(tokens[rows, columns], begins, cache, memory, extra[rows, columns])
            torch.testing.assert_close(found, expected[rows, columns], rtol=0, atol=1e-12)
            seen = [max(s, b + length) for s, b in zip(seen, begins, strict=True)]


def test_cache_takes_memory_once_and_hands_on_rows() -> None:
    transformer = build(causal["causal"])
    decoder = Decoder(transformer, plain)
    tokens = torch.randint(11, (3, 9))
    cache = decoder.new_cache(3)
    memory = cache.keys
    assert memory.shape == (2, 3, 2, 16, 4)
    decoder.forward(tokens[:, :5], [0, 0, 0], cache)
    assert cache.keys is memory
    cache.select(torch.tensor([2, 0]))
    found = decoder.forward(tokens[[2, 0], 5:], [5, 5], cache)
    torch.testing.assert_close(found, transformer(tokens)[[2, 0], 5:])


def test_too_long() -> None:
    decoder = Decoder(build(causal["causal"]), plain)
    with pytest.raises(ValueError, match="sequence of 10 tokens, expected at most 9"):
        decoder.forward(torch.zeros(2, 3, dtype=torch.long), [2, 7], decoder.new_cache(2))


def test_bfloat16() -> None:
    transformer = small().bfloat16()
    decoder = prepare(transformer, "exact").decoder
    memory = transformer.memory(torch.randn(1, 5, 32, dtype=torch.bfloat16))
    tokens = torch.randint(11, (1, 8))
    cache = decoder.new_cache(1)
    parts = [decoder.forward(tokens[:, a : a + 2], [a], cache, memory) for a in range(0, 8, 2)]
    assert parts[0].dtype == torch.bfloat16
    torch.testing.assert_close(torch.cat(parts, 1), transformer(tokens, memory), rtol=0.1, atol=0.1)


# What is lost of a number of about 1: float16 keeps 11 bits of a weight, bfloat16 8 of all, int8 255 steps.
TOLERANCE = {plain: 1e-5, packed: 1e-5, half: 2e-3, brain: 2e-2, int8: 3e-2}
ALL: Precision = "int8"


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 40])
def test_packed_matrices_multiply(rows: int) -> None:
    for linear in (nn.Linear(24, 40), nn.Linear(24, 40, bias=False)):
        exact = linear.requires_grad_(False).double()
        x = torch.randn(rows, 24)
        expected = exact(x.double())
        for packing in packings([linear.float()], ALL):
            torch.testing.assert_close(packing(linear)(x).double(), expected, rtol=0, atol=TOLERANCE[packing])


def test_a_row_does_not_depend_on_those_beside_it() -> None:
    """However large they are, and however many."""
    for width, out in ((64, 48), (256, 1024), (1024, 256)):
        linear = nn.Linear(width, out).requires_grad_(False)
        x = torch.randn(64, width) * torch.logspace(-3, 3, 64)[torch.randperm(64), None]
        for packing in packings([linear], ALL)[1:]:
            multiply = packing(linear)
            whole = multiply(x)
            for rows in (4, 8, 12, 20, 32, 40):
                assert torch.equal(multiply(x[:rows]), whole[:rows]), (packing, rows)


def test_weights_are_rounded_only_if_it_is_allowed_or_changes_nothing() -> None:
    linear = nn.Linear(24, 40).requires_grad_(False)
    exact, some, every = (packings([linear], precision) for precision in ("exact", "rounded", "int8"))
    assert not {half, brain, int8} & set(exact)
    assert half in some and int8 not in some and every == [*some, int8]
    assert (brain in some) == multiplies_bfloat16()
    rounded = nn.Linear(24, 40).requires_grad_(False)
    rounded.weight.copy_(linear.weight.half())
    assert packings([rounded], "exact") == [*exact, half]
    assert half not in packings([rounded, linear], "exact")
    assert packings([linear.double()], ALL) == [plain]
    assert packings([rounded.bfloat16()], ALL) == [plain]


def test_half_weights_that_need_no_rounding_change_only_the_last_bits() -> None:
    transformer = small(torch.float16)
    memory = transformer.memory(torch.randn(2, 5, 32))
    tokens = torch.randint(11, (2, 40))
    expected = transformer.double()(tokens, [(k.double(), v.double()) for k, v in memory])
    transformer.float()
    for packing in packings([m for m in transformer.modules() if isinstance(m, nn.Linear)], "exact"):
        decoder = Decoder(transformer, packing)
        found = decoder.forward(tokens, [0, 0], decoder.new_cache(2), memory)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_weights_have_the_same_order_at_every_start_and_threads_change_no_bit() -> None:
    """So the same seed draws the same picture, however busy the machine was when the model was loaded."""
    rounded = brain if multiplies_bfloat16() else half
    choices: tuple[tuple[Precision, Packing], ...] = (("exact", packed), ("rounded", rounded), ("int8", int8))
    for precision, expected in choices:
        transformer = small()
        assert all(prepare(transformer, precision).packing is expected for _ in range(3))
        decoder, memory = Decoder(transformer, expected), transformer.memory(torch.randn(2, 5, 32))
        for length in (4, 8, 40):
            tokens, outcomes = torch.randint(11, (2, length)), []
            for count in (1, 2, 3):
                with threads(count):
                    outcomes.append(decoder.forward(tokens, [0, 0], decoder.new_cache(2), memory))
            assert torch.equal(outcomes[0], outcomes[1]) and torch.equal(outcomes[0], outcomes[2])


def test_preparation_follows_the_weights_and_is_not_copied() -> None:
    transformer, preparation = small(), Preparation()
    made = preparation.get(transformer, "exact")
    assert preparation.get(transformer, "exact") is made
    transformer.head.weight.mul_(2)  # type: ignore[union-attr]
    again = preparation.get(transformer, "exact")
    assert again is not made
    hidden = torch.randn(3, 32)
    assert again.decoder.head is not None
    torch.testing.assert_close(again.decoder.head(hidden), transformer.head(hidden))  # type: ignore[misc]
    transformer.load_state_dict({k: v.clone() for k, v in transformer.state_dict().items()}, assign=True)
    assert preparation.get(transformer, "exact") is not again
    for other in (copy.deepcopy(preparation), pickle.loads(pickle.dumps(preparation))):
        assert other.made is None
    stage = random_stage("aligned")
    stage.preparation.get(stage.decoder, "exact")
    assert copy.deepcopy(stage).preparation.made is None
    assert "preparation" not in str(stage.state_dict().keys())


def test_costs_are_positive_and_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    prepared = prepare(small(), "exact")
    assert prepared.cost.fixed > 0 and prepared.cost.row >= 0 and 1 <= prepared.threads <= before
    with pytest.raises(KeyError), threads(3):
        assert torch.get_num_threads() == 3
        raise KeyError
    assert torch.get_num_threads() == before


def test_bidirectional_transformers_do_not_draw() -> None:
    with pytest.raises(ValueError, match="both directions"):
        prepare(Transformer(dataclasses.replace(SMALL, causal=False)), "exact")


def test_packed_is_there() -> None:
    """The two-core demo depends on it: fails where a PyTorch without oneDNN or its operator is installed."""
    assert packed in packings([nn.Linear(2, 2)], "exact")
