"""What a pass costs, and on how many threads."""

from __future__ import annotations

import pytest
import torch
from small_transformer import small

from imagebart.sampling.packed_linear import Cost, Network, PackedModel, calibrate, fp32, pack, threads, trial


def test_costs_are_positive_and_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    costs = calibrate(Network(small(), fp32), block=6)
    assert set(costs) == {1, before}
    assert all(cost.fixed > 0 and cost.row >= 0 and cost.block == 6 for cost in costs.values())
    with pytest.raises(KeyError), threads(3):
        assert torch.get_num_threads() == 3
        raise KeyError
    assert torch.get_num_threads() == before


def test_what_is_timed_is_a_pass_over_the_last_positions() -> None:
    """All, where there are fewer."""
    for tokens, rows in ((8, 8), (100, 40)):
        assert trial(Network(small(), fp32), tokens)().shape == (rows, 9)


def test_many_rows_are_worth_more_threads_than_few() -> None:
    packed_model = PackedModel(Network(small(), fp32), {1: Cost(1.0, 0.1), 2: Cost(1.0, 0.08)}, fp32)
    assert [packed_model.threads(rows) for rows in (1, 9, 11, 100)] == [1, 1, 2, 2]
    assert packed_model.seconds(9) == pytest.approx(1.9) and packed_model.seconds(100) == pytest.approx(9.0)


def test_rows_cost_what_their_blocks_cost() -> None:
    cost = Cost(2.0, 0.5, block=6)
    assert [cost.seconds(rows) for rows in (1, 6, 7, 12, 13)] == [5, 5, 8, 8, 11]
    assert {cost.block for cost in pack("exact", small(torch.float16)).costs.values()} == {6}
    assert {cost.block for cost in pack("exact", small()).costs.values()} == {1}
