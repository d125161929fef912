"""Linear maps with packed weights, and the decoders that sample with them."""

import copy
import pickle

import pytest
import torch
from torch import nn

from imagebart.models.transformer import Cache, Transformer, TransformerConfig
from imagebart.sampling.packed_linear import PackedNetwork, best_kernel, fp16, fp32, threads_for

TOLERANCE = {fp32: 1e-5, fp16: 2e-3}  # float16 keeps 11 bits of a weight
SMALL = TransformerConfig(width=32, depth=2, heads=2, vocab_in=11, positions=40, head_size=16, vocab_out=9, cross=True)


def small(stored: torch.dtype = torch.float32) -> Transformer:
    """A decoder in float32, with weights that are numbers of a shorter type as well."""
    torch.manual_seed(0)
    transformer = Transformer(SMALL).requires_grad_(False)
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, std=0.3)
        parameter.copy_(parameter.to(stored))
    return transformer


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 40])
def test_packed_matrices_multiply(rows: int) -> None:
    for linear in (nn.Linear(24, 40), nn.Linear(24, 40, bias=False)):
        exact = linear.requires_grad_(False).double()
        x = torch.randn(rows, 24)
        expected = exact(x.double())
        for kernel, tolerance in TOLERANCE.items():
            torch.testing.assert_close(kernel(linear.float())(x).double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kernel", [fp32, fp16])
def test_a_row_does_not_depend_on_those_beside_it(kernel: type) -> None:
    """However large they are, and however many."""
    for width, out in ((64, 48), (256, 1024), (1024, 256)):
        multiply = kernel(nn.Linear(width, out).requires_grad_(False))
        x = torch.randn(64, width) * torch.logspace(-3, 3, 64)[torch.randperm(64), None]
        whole = multiply(x)
        for rows in (4, 8, 12, 20, 32, 40):
            assert torch.equal(multiply(x[:rows]), whole[:rows]), rows


def test_a_kernel_changes_no_weight() -> None:
    """The two-core demo depends on fp32: this fails where a PyTorch without oneDNN or its operator is installed."""
    assert best_kernel(small()) is fp32
    assert best_kernel(small(torch.float16)) is fp16
    mixed = small(torch.float16)
    mixed.get_parameter("blocks.0.attention.out.weight").mul_(1.0001)
    assert best_kernel(mixed) is fp32
    for other in (small().double(), small().bfloat16()):
        assert best_kernel(other) is None and PackedNetwork()(other) is other


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_a_packed_decoder_gives_the_same_at_any_number_of_threads(stored: torch.dtype) -> None:
    transformer, threads = small(stored), torch.get_num_threads()
    packed, cross_kv = PackedNetwork()(transformer), transformer.cross_kv(torch.randn(2, 5, 32))
    assert packed is not transformer
    for length in (5, 17):
        tokens, outcomes = torch.randint(11, (2, length)), []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            cache = Cache(tokens[:, :1], cross_kv)
            cache.allocate(packed)
            begins = range(0, length - 1, 2)  # two tokens at a time
            outcomes.append(torch.cat([packed.decode(tokens[:, 1:], cache, [b] * 2, 2) for b in begins], 1))
        torch.set_num_threads(threads)
        assert torch.equal(outcomes[0], outcomes[1]) and torch.equal(outcomes[0], outcomes[2])
        expected = transformer(tokens[:, :-1], cross_kv=cross_kv)
        torch.testing.assert_close(outcomes[0], expected, rtol=1e-4, atol=1e-4)


def test_a_decoder_is_packed_once_and_again_when_its_weights_have_changed() -> None:
    decoder, packed, hidden = small(), PackedNetwork(), torch.randn(3, 32)
    made = packed(decoder)
    assert packed(decoder) is made
    assert {*map(id, made.parameters())} < {*map(id, decoder.parameters())}, "parameters are shared"
    decoder.get_parameter("head.weight").mul_(2)
    again = packed(decoder)
    assert again is not made
    torch.testing.assert_close(again.head(hidden), decoder.head(hidden))
    decoder.load_state_dict({k: v.clone() for k, v in decoder.state_dict().items()}, assign=True)
    assert packed(decoder) is not again
    for other in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert vars(other) == vars(PackedNetwork()), "nothing is copied"


def test_threads_are_given_back() -> None:
    threads = torch.get_num_threads()
    with pytest.raises(KeyError), threads_for(small()):
        assert torch.get_num_threads() in (1, threads)
        raise KeyError
    assert torch.get_num_threads() == threads
