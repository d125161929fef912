from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch
from oracles import random_stage
from small_transformer import SMALL, small

from imagebart.models.transformer import Transformer
from imagebart.sampling.calibration import Cost, Preparation, Prepared, prepare, threads
from imagebart.sampling.kernels import Packing, Precision, brain, half, int8, multiplies_bfloat16, packed
from imagebart.sampling.network import Network


def test_weights_have_the_same_order_at_every_start_and_threads_change_no_bit() -> None:
    """So the same seed draws the same picture, however busy the machine was when the model was loaded."""
    rounded = brain if multiplies_bfloat16() else half
    choices: tuple[tuple[Precision, Packing], ...] = (("exact", packed), ("rounded", rounded), ("int8", int8))
    for precision, expected in choices:
        transformer = small()
        assert all(prepare(precision, transformer).packing is expected for _ in range(3))
        network = Network(transformer, expected)
        exact, kept = transformer.memory(torch.randn(2, 5, 32)), network.kept.dtype
        memory = [(k.to(kept), v.to(kept)) for k, v in exact]
        for length in (4, 8, 40):
            tokens, outcomes = torch.randint(11, (2, length)), []
            for count in (1, 2, 3):
                with threads(count):
                    outcomes.append(network.forward(tokens, [0, 0], network.new_cache(2), memory))
            assert torch.equal(outcomes[0], outcomes[1]) and torch.equal(outcomes[0], outcomes[2])


def test_preparation_follows_the_weights_and_is_not_copied() -> None:
    transformer, preparation = small(), Preparation()
    made = preparation.get("exact", transformer)
    assert preparation.get("exact", transformer) is made
    transformer.head.weight.mul_(2)  # type: ignore[union-attr]
    again = preparation.get("exact", transformer)
    assert again is not made
    hidden = torch.randn(3, 32)
    assert again.decoder.head is not None
    torch.testing.assert_close(again.decoder.head(hidden), transformer.head(hidden))  # type: ignore[misc]
    transformer.load_state_dict({k: v.clone() for k, v in transformer.state_dict().items()}, assign=True)
    assert preparation.get("exact", transformer) is not again
    for other in (copy.deepcopy(preparation), pickle.loads(pickle.dumps(preparation))):
        assert other.made is None
    stage = random_stage("aligned")
    stage.prepared()
    assert copy.deepcopy(stage).preparation.made is None
    assert "preparation" not in str(stage.state_dict().keys())


def test_costs_are_positive_and_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    prepared = prepare("exact", small())
    assert set(prepared.costs) == {1, before}
    assert all(cost.fixed > 0 and cost.row >= 0 for cost in prepared.costs.values())
    with pytest.raises(KeyError), threads(3):
        assert torch.get_num_threads() == 3
        raise KeyError
    assert torch.get_num_threads() == before


def test_bidirectional_transformers_do_not_draw() -> None:
    with pytest.raises(ValueError, match="both directions"):
        prepare("exact", Transformer(dataclasses.replace(SMALL, causal=False)))


def test_many_rows_are_worth_more_threads_than_few() -> None:
    network = Network(small(), packed)
    prepared = Prepared(network, {1: Cost(1.0, 0.1), 2: Cost(1.0, 0.08)}, packed)
    assert [prepared.threads(rows) for rows in (1, 9, 11, 100)] == [1, 1, 2, 2]
    assert prepared.seconds(9) == pytest.approx(1.9) and prepared.seconds(100) == pytest.approx(9.0)


def test_rows_cost_what_their_blocks_cost() -> None:
    cost = Cost(2.0, 0.5, block=6)
    assert [cost.seconds(rows) for rows in (1, 6, 7, 12, 13)] == [5, 5, 8, 8, 11]
    assert {cost.block for cost in prepare("exact", small(torch.float16)).costs.values()} == {6}
    assert {cost.block for cost in prepare("exact", small()).costs.values()} == {1}
