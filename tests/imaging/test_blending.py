"""What is drawn meets what is kept, as a system of equations solved whole says it."""

import math

import numpy as np
import pytest
from PIL import Image

from imagebart.imaging.blending import DIFFERENT, REACH, SAME, blend, continue_flat_colors, membrane

SIDE = 48


def paint(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    painted = np.zeros((SIDE, SIDE), bool)
    for top, left, bottom, right in boxes:
        painted[top:bottom, left:right] = True
    return painted


MASKS = {
    "center": paint((12, 12, 36, 36)),
    "half": paint((24, 0, 48, 48)),
    "corner and sliver": paint((0, 30, 9, 48), (20, 5, 21, 40)),
}


def blended(generated: np.ndarray, before: np.ndarray, painted: np.ndarray) -> np.ndarray:
    return np.asarray(blend(Image.fromarray(generated), Image.fromarray(before), painted)).astype(int)


def gray(level: int) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), level, np.uint8)


def solved(missed: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """The same equations as one linear system in float64."""
    places = {tuple(place): i for i, place in enumerate(np.argwhere(painted))}
    share = 2 / (1 + math.cosh(1 / REACH)) / 4
    left, right = np.eye(len(places)), np.zeros((len(places), missed.shape[2]))
    for (y, x), i in places.items():
        for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            near = (min(max(y + dy, 0), SIDE - 1), min(max(x + dx, 0), SIDE - 1))
            if near in places:
                left[i, places[near]] -= share
            else:
                right[i] += share * missed[near]
    result = missed.astype(np.float64)
    result[painted] = np.linalg.solve(left, right)
    return result


@pytest.mark.parametrize("mask", MASKS)
def test_carries_on_as_the_equations_say(mask: str) -> None:
    missed = np.random.default_rng(0).normal(0, 20, (SIDE, SIDE, 3)).astype(np.float32)
    got, exact = membrane(missed, MASKS[mask]), solved(missed, MASKS[mask])
    assert np.abs(got - exact).max() < 0.1  # levels: they are rounded to whole ones
    assert np.array_equal(got[~MASKS[mask]], missed[~MASKS[mask]])


def test_e_times_less_is_left_after_the_reach() -> None:
    missed = np.full((SIDE, SIDE, 1), 100, np.float32)
    got = membrane(missed, MASKS["half"])[24:, 20, 0]
    assert got[8] / got[0] == pytest.approx(math.exp(-1), rel=0.03)


def test_only_what_is_kept_is_looked_at() -> None:
    rng, painted = np.random.default_rng(1), MASKS["center"]
    drawn, before = rng.integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    other = np.where(painted[..., None], 255 - before, before)
    assert np.array_equal(blended(drawn, before, painted), blended(drawn, other, painted))
    assert np.array_equal(blended(drawn, before, np.ones_like(painted)), drawn)
    assert np.array_equal(blended(drawn, before, np.zeros_like(painted)), before)


def test_a_difference_in_color_fades_without_a_step() -> None:
    """Kept gray of about 100, generated as 80 all over: no two neighbors are more than a few levels apart."""
    grain = np.random.default_rng(5).integers(100, 102, (SIDE, SIDE, 3)).astype(np.uint8)
    whole = blended(gray(80), grain, MASKS["center"])
    assert max(np.abs(np.diff(whole, axis=axis)).max() for axis in (0, 1)) <= 4
    assert whole[24, 24, 0] < 95


def test_other_content_ends_at_the_edge_and_a_shift_in_color_does_not() -> None:
    """Left: a white ground becomes blue, which stays as generated. Right: a ground is 12 levels off, and meets."""
    before, generated = gray(255), gray(255)
    generated[8:40, 8:24] = (60, 90, 200)
    before[:, 24:], generated[:, 24:] = 100, 88
    whole = blended(generated, before, MASKS["center"])
    assert (np.abs(whole[12:36, 12:16] - (60, 90, 200)) <= 4).all()
    assert (np.abs(whole[12:36, 30:36] - 100) <= 4).all()
    assert np.array_equal(whole[~MASKS["center"]], before[~MASKS["center"]])
    assert blended(gray(50), gray(100), MASKS["center"])[12, 24, 0] > 90, "what is darker all over is no other content"


def flood(image: np.ndarray, painted: np.ndarray, color: np.ndarray) -> set[tuple[int, int]]:
    """Painted pixels that are connected to kept pixels of a color by pixels nearly of it, one by one."""
    queue = [tuple(place) for place in np.argwhere(~painted & (image == color).all(2))]
    found = set(queue)
    while queue:
        y, x = queue.pop()
        for place in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            inside = place not in found and min(place) >= 0 and max(place) < SIDE and painted[place]
            if inside and np.abs(image[place].astype(int) - color).max() < DIFFERENT:
                found.add(place)
                queue.append(place)
    return {place for place in found if painted[place]}


@pytest.mark.parametrize("mask", MASKS)
def test_flat_colors_go_on_where_they_are_connected(mask: str) -> None:
    rng, painted, color = np.random.default_rng(3), MASKS[mask], np.array((200, 120, 40))
    noise = rng.integers(-20, 21, (SIDE, SIDE, 1)) * (rng.random((SIDE, SIDE, 1)) < 0.7)
    image = np.where(painted[..., None], color + noise, color).astype(np.uint8)
    whole, connected = continue_flat_colors(image, painted).astype(int), flood(image, painted, color)
    before, after = np.abs(image.astype(int) - color).max(2), np.abs(whole - color).max(2)
    inside = np.zeros_like(painted)
    inside[tuple(zip(*connected, strict=True))] = True
    assert inside[painted & (before == 0)].any()
    assert (after[inside & (before <= SAME)] == 0).all()
    assert (after <= before).all()
    assert np.array_equal(whole[~inside], image[~inside])  # what is not connected, other content, what is kept
    offs = [off for off in range(DIFFERENT) if (inside & (before == off)).any()]
    left = [after[inside & (before == off)].mean() for off in offs]
    slopes = np.diff(left) / np.diff(offs)
    assert (slopes >= 0).all()
    assert max(slopes) <= 4  # a soft shadow gets no edge


def test_a_photograph_has_no_flat_colors() -> None:
    image = np.random.default_rng(4).integers(100, 103, (SIDE, SIDE, 3)).astype(np.uint8)
    assert np.array_equal(continue_flat_colors(image, MASKS["center"]), image)
