"""Networks with their weights in the order that draws fastest."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import weakref

import pytest
import torch
from small_transformer import SMALL, small

from imagebart import mmap_policy
from imagebart.models.transformer import Transformer
from imagebart.sampling.packed_linear import (
    Kernel,
    Network,
    PackedModels,
    Precision,
    bf16,
    fp16,
    fp32,
    multiplies_bfloat16,
    pack,
    threads,
)


def encoder() -> Transformer:
    return Transformer(dataclasses.replace(SMALL, causal=False, cross=False, vocab_out=None)).requires_grad_(False)


def test_weights_have_the_same_order_at_every_start_and_threads_change_no_bit() -> None:
    """So the same seed draws the same picture, however busy the machine was when the model was loaded."""
    rounded = bf16 if multiplies_bfloat16() else fp16
    choices: tuple[tuple[Precision, Kernel], ...] = (("exact", fp32), ("rounded", rounded))
    for precision, expected in choices:
        transformer = small()
        assert all(pack(precision, transformer).kernel is expected for _ in range(3))
        network = Network(transformer, expected)
        exact, kept = transformer.cross_kv(torch.randn(2, 5, 32)), network.kept.dtype
        memory = [(k.to(kept), v.to(kept)) for k, v in exact]
        for length in (4, 8, 40):
            tokens, outcomes = torch.randint(11, (2, length)), []
            for count in (1, 2, 3):
                with threads(count):
                    outcomes.append(network.forward(tokens, [0, 0], network.new_cache(2), memory))
            assert torch.equal(outcomes[0], outcomes[1]) and torch.equal(outcomes[0], outcomes[2])


def test_an_encoder_is_rounded_only_where_that_is_allowed_and_fast() -> None:
    decoder, other = small(), encoder()
    assert pack("exact", decoder, other).encoder is None and not pack("exact", decoder, other).rounds
    rounded = pack("rounded", decoder, other)
    assert (rounded.encoder is not None) == rounded.rounds == multiplies_bfloat16()
    assert pack("rounded", decoder).encoder is None


def test_engines_follow_the_weights_and_the_precision() -> None:
    decoder, other, packed_models = small(), encoder(), PackedModels()
    made = packed_models.get("exact", decoder, other)
    assert packed_models.get("exact", decoder, other) is made
    decoder.head.weight.mul_(2)  # type: ignore[union-attr]
    again = packed_models.get("exact", decoder, other)
    assert again is not made
    hidden = torch.randn(3, 32)
    assert again.decoder.head is not None
    torch.testing.assert_close(again.decoder.head(hidden), decoder.head(hidden))  # type: ignore[misc]
    other.norm.weight.add_(1)  # of the encoder alone
    third = packed_models.get("exact", decoder, other)
    assert third is not again
    decoder.load_state_dict({k: v.clone() for k, v in decoder.state_dict().items()}, assign=True)
    assert packed_models.get("exact", decoder, other) is not third
    if multiplies_bfloat16():
        assert packed_models.get("rounded", decoder, other).kernel is bf16
    assert len(packed_models.made) == 1  # what is out of date is not kept


def test_engines_are_those_of_their_networks_and_are_not_copied() -> None:
    packed_models, decoders = PackedModels(), (small(), small())
    first, second = (packed_models.get("exact", decoder) for decoder in decoders)
    assert first is not second and packed_models.get("exact", decoders[0]) is first
    for other in (copy.deepcopy(packed_models), pickle.loads(pickle.dumps(packed_models))):
        assert isinstance(other, PackedModels) and other.made == {}
    assert len(packed_models.made) == 2


def test_engines_that_have_no_room_go_before_another_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four fit. What is dropped is freed, and comes again as it was."""
    decoders, packed_models = [small() for _ in range(4)], PackedModels()
    size = 4 * sum(p.numel() for p in decoders[0].parameters())
    monkeypatch.setattr(mmap_policy, "available_memory", lambda: int(2.5 * size / mmap_policy.SHARE))
    first = weakref.ref(packed_models.get("exact", decoders[0]))
    assert packed_models.has_room("exact", decoders[1])
    packed_models.get("exact", decoders[1])
    assert first() is not None and not packed_models.has_room("exact", decoders[2])
    packed_models.get("exact", decoders[2])
    gc.collect()
    assert first() is None and list(packed_models.made) == [decoders[2]]
    hidden = torch.randn(3, 32)
    again = packed_models.get("exact", decoders[0])
    assert again.decoder.head is not None
    torch.testing.assert_close(again.decoder.head(hidden), decoders[0].head(hidden))  # type: ignore[misc]


def test_bidirectional_transformers_do_not_draw() -> None:
    with pytest.raises(ValueError, match="both directions"):
        pack("exact", Transformer(dataclasses.replace(SMALL, causal=False)))
