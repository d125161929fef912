"""Precision, recall and nearest pictures, on points whose answers are plain."""

import pytest
import torch

from imagebart.evaluation.metrics import inside, nearest


def test_points_inside_are_those_within_a_neighbours_reach() -> None:
    others = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]])
    points = torch.tensor([[1.5], [5.9], [6.1], [-3.1], [190.0]])
    # Third neighbours are 3, 2, 2, 3 and 99 away.
    assert inside(points, others).tolist() == [True, True, True, False, True]
    assert inside(torch.tensor([[6.1]]), others[:4]).tolist() == [False]


def test_too_few_to_compare_with() -> None:
    with pytest.raises(ValueError, match="over 3"):
        inside(torch.zeros(2, 1), torch.zeros(3, 1))


def test_the_nearest() -> None:
    distance, index = nearest(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [6.0, 8.0]]))
    assert distance[:, 0].tolist() == pytest.approx([1.0, 18**0.5]) and index.tolist() == [[0], [0]]
    line = torch.arange(5.0)[:, None]
    assert nearest(line[:2] + 0.1, line, 3)[1].tolist() == [[0, 1, 2], [1, 2, 0]]
    assert nearest(line, line[:2], 3)[1].shape == (5, 2)
