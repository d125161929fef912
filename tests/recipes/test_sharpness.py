"""Gradients, edges and flat places, on pictures made by hand."""

import math

import pytest
import torch
from torch import Tensor

from recipes.avatars.evaluation import Sharpness, gradient


def picture(levels: Tensor) -> Tensor:
    """Grey levels [H, W] -> [1, 3, H, W] in [-1, 1]."""
    return (levels / 127.5 - 1).expand(1, 3, *levels.shape)


def test_a_gradient_is_that_of_the_slope_in_three_colours() -> None:
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    slope = gradient(picture(3 * x + 4 * y))
    assert slope.shape == (1, 4, 6)
    torch.testing.assert_close(slope, torch.full((1, 4, 6), 5 * math.sqrt(3)), rtol=0, atol=1e-3)
    red = torch.zeros(1, 3, 4, 4)
    red[:, 0, :, 2:] = 100 / 127.5  # a step between the second and the third column
    expected = torch.tensor([0.0, 100.0, 0.0]).expand(1, 3, 3)
    torch.testing.assert_close(gradient(red), expected, rtol=0, atol=1e-3)


def test_a_picture_is_as_crisp_and_clean_as_itself() -> None:
    step = torch.zeros(20, 20)
    step[:, 10:] = 200
    same = Sharpness.of(picture(step), picture(step))
    assert same.crispness() == 1 and same.cleanness() == 0


def test_an_edge_spread_over_four_pixels_has_a_quarter_of_the_gradient() -> None:
    step, ramp = torch.zeros(20, 20), torch.zeros(20, 20)
    step[:, 10:] = 200
    ramp[:, 8:] = torch.tensor([50.0, 100, 150, *[200] * 9])
    assert Sharpness.of(picture(step), picture(ramp)).crispness() == pytest.approx(0.25)
    moved = step.roll(1, 1)  # as crisp, but elsewhere
    moved[:, 0] = 0
    assert Sharpness.of(picture(step), picture(moved)).crispness() == 0


def test_only_what_is_flat_all_around_counts_as_flat() -> None:
    step = torch.zeros(20, 20)
    step[:, 10:] = 200
    stripes = step.clone()
    stripes[:, 1::2] += 2.0  # every pixel differs by two levels from the next
    rough = Sharpness.of(picture(step), picture(stripes))
    assert rough.cleanness() == pytest.approx(2 * math.sqrt(3), abs=1e-3)
    # The gradient at the step stands in column 9 of 19; three on either side are not flat.
    assert rough.flat_pixels.tolist() == [19 * (19 - 7)]


def test_pictures_are_weighed_by_their_edges() -> None:
    step, blurred = torch.zeros(20, 20), torch.zeros(20, 20)
    step[:, 10:] = 200
    blurred[:, 10:] = 100
    plain = torch.zeros(20, 20)
    originals = torch.cat([picture(step), picture(step), picture(plain)])
    both = Sharpness.of(originals, torch.cat([picture(step), picture(blurred), picture(plain)]))
    assert both.crispness() == pytest.approx(0.75)
    assert both.crispness(torch.tensor([1, 2])) == pytest.approx(0.5)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        Sharpness.of(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
    with pytest.raises(ValueError, match="2 pixels a side"):
        gradient(torch.zeros(1, 3, 1, 8))
