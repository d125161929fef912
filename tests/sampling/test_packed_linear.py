"""Linear maps with packed weights, and the networks of a step that sample with them."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import weakref

import pytest
import torch
from small_transformer import SMALL, small
from torch import nn

from imagebart.models.imagebart import MEMORY_SHARE, Precision
from imagebart.models.transformer import Transformer
from imagebart.sampling.packed_linear import (
    Kernel,
    PackedModel,
    PackedModels,
    bf16,
    fp16,
    fp32,
    kernels,
    multiplies_bfloat16,
    native,
    pack,
    swap_linear,
    use_threads,
)

# What is lost of a number of about 1: float16 keeps 11 bits of a weight, bfloat16 8 of all.
TOLERANCE = {native: 1e-5, fp32: 1e-5, fp16: 2e-3, bf16: 2e-2}
ALL: Precision = "rounded"


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 40])
def test_packed_matrices_multiply(rows: int) -> None:
    for linear in (nn.Linear(24, 40), nn.Linear(24, 40, bias=False)):
        exact = linear.requires_grad_(False).double()
        x = torch.randn(rows, 24)
        expected = exact(x.double())
        for kernel in kernels([linear.float()], ALL):
            torch.testing.assert_close(kernel(linear)(x).double(), expected, rtol=0, atol=TOLERANCE[kernel])


def test_a_row_does_not_depend_on_those_beside_it() -> None:
    """However large they are, and however many."""
    for width, out in ((64, 48), (256, 1024), (1024, 256)):
        linear = nn.Linear(width, out).requires_grad_(False)
        x = torch.randn(64, width) * torch.logspace(-3, 3, 64)[torch.randperm(64), None]
        for kernel in kernels([linear], ALL)[1:]:
            multiply = kernel(linear)
            whole = multiply(x)
            for rows in (4, 8, 12, 20, 32, 40):
                assert torch.equal(multiply(x[:rows]), whole[:rows]), (kernel, rows)


@pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor does not multiply bfloat16")
def test_a_picture_does_not_depend_on_those_beside_it() -> None:
    for rows in (40, 257, 271):
        multiply = bf16(nn.Linear(256, 1024).requires_grad_(False), rows)
        x = torch.randn(3 * rows, 256)
        whole = multiply(x)
        for one, part in zip(x.split(rows), whole.split(rows), strict=True):
            assert torch.equal(multiply(one), part), rows


def test_weights_are_rounded_only_if_it_is_allowed_or_changes_nothing() -> None:
    linear = nn.Linear(24, 40).requires_grad_(False)
    exact, some = (kernels([linear], precision) for precision in ("exact", "rounded"))
    assert not {fp16, bf16} & set(exact)
    assert fp16 in some and some[: len(exact)] == exact
    assert (bf16 in some) == multiplies_bfloat16()
    rounded = nn.Linear(24, 40).requires_grad_(False)
    rounded.weight.copy_(linear.weight.half())
    assert kernels([rounded], "exact") == [*exact, fp16]
    assert fp16 not in kernels([rounded, linear], "exact")
    assert kernels([linear.double()], ALL, torch.float64) == [native]
    assert kernels([rounded.bfloat16()], ALL, torch.bfloat16) == [native]


def test_packed_is_there() -> None:
    """The two-core demo depends on it: fails where a PyTorch without oneDNN or its operator is installed."""
    assert fp32 in kernels([nn.Linear(2, 2)], "exact")


# Networks


def encoder() -> Transformer:
    return Transformer(dataclasses.replace(SMALL, causal=False, cross=False, vocab_out=None)).requires_grad_(False)


def test_weights_have_the_same_order_at_every_start_and_threads_change_no_bit() -> None:
    """So the same seed draws the same picture, however busy the machine was when the model was loaded."""
    rounded = bf16 if multiplies_bfloat16() else fp16
    choices: tuple[tuple[Precision, Kernel], ...] = (("exact", fp32), ("rounded", rounded))
    for precision, expected in choices:
        transformer = small()
        assert all(pack(precision, transformer).kernel is expected for _ in range(3))
        packed = pack(precision, transformer)
        exact, kept = transformer.cross_kv(torch.randn(2, 5, 32)), packed.kv_like.dtype
        cross_kv = [(k.to(kept), v.to(kept)) for k, v in exact]
        for length in (4, 8, 40):
            tokens, outcomes = torch.randint(11, (2, length)), []
            for count in (1, 2, 3):
                with use_threads(count):
                    outcomes.append(packed.decoder(tokens, None, cross_kv, packed.new_cache(2), [0, 0]))
            assert torch.equal(outcomes[0], outcomes[1]) and torch.equal(outcomes[0], outcomes[2])


def test_an_encoder_is_rounded_only_where_that_is_allowed_and_fast() -> None:
    decoder, other = small(), encoder()
    assert pack("exact", decoder, other).encoder is None and not pack("exact", decoder, other).rounds
    rounded = pack("rounded", decoder, other)
    assert (rounded.encoder is not None) == rounded.rounds == multiplies_bfloat16()
    assert pack("rounded", decoder).encoder is None


def test_packed_models_follow_the_weights_and_the_precision() -> None:
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


def test_packed_models_are_those_of_their_networks_and_are_not_copied() -> None:
    packed_models, decoders = PackedModels(), (small(), small())
    first, second = (packed_models.get("exact", decoder) for decoder in decoders)
    assert first is not second and packed_models.get("exact", decoders[0]) is first
    for other in (copy.deepcopy(packed_models), pickle.loads(pickle.dumps(packed_models))):
        assert isinstance(other, PackedModels) and other.made == {}
    assert len(packed_models.made) == 2


def test_packed_models_that_have_no_room_go_before_another_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four fit. What is dropped is freed, and comes again as it was."""
    decoders, packed_models = [small() for _ in range(4)], PackedModels()
    size = 4 * sum(p.numel() for p in decoders[0].parameters())
    monkeypatch.setattr("imagebart.models.imagebart.available_memory", lambda: int(2.5 * size / MEMORY_SHARE))
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


def test_bidirectional_transformers_do_not_sample() -> None:
    with pytest.raises(ValueError, match="both directions"):
        pack("exact", Transformer(dataclasses.replace(SMALL, causal=False)))


def test_bfloat16() -> None:
    transformer = small().bfloat16()
    packed = pack("exact", transformer)
    cross_kv = transformer.cross_kv(torch.randn(1, 5, 32, dtype=torch.bfloat16))
    tokens = torch.randint(11, (1, 8))
    cache = packed.new_cache(1)
    parts = [packed.decoder(tokens[:, a : a + 2], None, cross_kv, cache, [a]) for a in range(0, 8, 2)]
    assert parts[0].dtype == torch.bfloat16
    torch.testing.assert_close(torch.cat(parts, 1), transformer(tokens, cross_kv=cross_kv), rtol=0.1, atol=0.1)


def test_half_weights_that_need_no_rounding_change_only_the_last_bits() -> None:
    transformer = small(torch.float16)
    cross_kv = transformer.cross_kv(torch.randn(2, 5, 32))
    tokens = torch.randint(11, (2, 40))
    expected = transformer.double()(tokens, cross_kv=[(k.double(), v.double()) for k, v in cross_kv])
    transformer.float()
    for kernel in kernels([m for m in transformer.modules() if isinstance(m, nn.Linear)], "exact"):
        packed = PackedModel(swap_linear(transformer, kernel), kernel)
        found = packed.decoder(tokens, None, cross_kv, packed.new_cache(2), [0, 0])
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_an_encoder_with_packed_weights() -> None:
    transformer = encoder()
    tokens, added_embeds = torch.randint(11, (2, 40)), torch.randn(2, 40, 32)
    expected = transformer(tokens, added_embeds)
    for kernel in kernels([m for m in transformer.modules() if isinstance(m, nn.Linear)], "rounded"):
        found = swap_linear(transformer, kernel)(tokens, added_embeds)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


def test_threads_are_given_back_and_chosen_by_what_a_pass_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), use_threads(3):
        assert torch.get_num_threads() == 3
        raise KeyError
    assert torch.get_num_threads() == before
    assert PackedModel(small(), native).seconds(1) > 0
    with use_threads(2):
        for both, chosen in ((0.8, 2), (0.95, 1), (1.2, 1)):
            monkeypatch.setattr(PackedModel, "seconds", lambda _, threads, both=both: both if threads == 2 else 1.0)
            assert pack("exact", small()).threads == chosen
