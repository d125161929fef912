"""Holes, classical fillings, and jumps over a hole's edge."""

import numpy as np
import pytest
import torch

from imagebart.evaluation.folder import CLASSICAL, HOLES, edge_distance, inpainted


def test_holes_have_their_areas() -> None:
    assert {name: hole(32).mean() for name, hole in HOLES.items()} == {"centre box": 0.25, "lower half": 0.5}


@pytest.mark.parametrize("way", CLASSICAL.values())
def test_only_the_hole_is_filled_and_plain_colours_go_on(way: int) -> None:
    images = torch.full((2, 3, 32, 32), 0.6)
    hole = HOLES["centre box"](32)
    spoilt = torch.where(torch.from_numpy(hole), torch.tensor(-1.0), images)
    filled = inpainted(spoilt, hole, way)
    error = (filled - images).abs()
    assert error.max() < 0.05  # Telea's is a few levels of 255
    assert error[..., ~torch.from_numpy(hole)].max() < 1 / 255


def test_jumps_are_counted_at_the_edge_alone() -> None:
    hole = HOLES["lower half"](8)
    images = torch.zeros(1, 3, 8, 8)
    images[..., 4:, :] = 0.4
    images[..., 7, :] = -1  # inside the hole
    assert edge_distance(images, hole).tolist() == pytest.approx([0.4 * 127.5])
    with pytest.raises(ValueError, match="no edge"):
        edge_distance(images, np.zeros((8, 8), bool))
