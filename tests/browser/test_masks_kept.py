"""No mask is lost: what a run redraws is what was last shown, and that what was asked for; on slow machines and lines.

A short form is part of every test run; `make load` does each thing thirty times on each of six machines and prints
how many went wrong, and SEED=N the same ones again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from page_object import PIPELINE, PageObject, Site, Windows, pixels, preset_mask, random_seed
from playwright.sync_api import Page, expect

from imagebart.imaging.masks import PRESETS

pytestmark = pytest.mark.browser
LATENCY = 150  # milliseconds
FIRST, SECOND = "01-first.png", "02-second.png"


@dataclass(frozen=True)
class Asked:
    """What a person has asked for when Edit is pressed."""

    image: str  # the example's file
    right: Callable[[np.ndarray], bool]  # whether this is its mask


def rest(chance: random.Random) -> float:
    """Milliseconds that a hand rests: not at all, as in the issue's first three rows, or as in its last."""
    return chance.choice([0.0, 150.0, chance.uniform(400, 900)])


def exactly(name: str, size: tuple[int, int]) -> Callable[[np.ndarray], bool]:
    return lambda got: np.array_equal(got, preset_mask(name, size))


def ready_mask(page: PageObject, chance: random.Random) -> Asked:
    name = chance.choice(PRESETS).capitalize()
    page.click(name, rest=rest(chance))
    return Asked(FIRST, exactly(name, (40, 40)))


def example_and_ready_mask(page: PageObject, chance: random.Random) -> Asked:
    name = chance.choice(PRESETS).capitalize()
    page.click("Second", name, rest=rest(chance))
    return Asked(SECOND, exactly(name, (48, 40)))


def two_ready_masks(page: PageObject, chance: random.Random) -> Asked:
    first, second = (name.capitalize() for name in chance.sample(PRESETS, 2))
    page.click(first, second, rest=rest(chance))
    return Asked(FIRST, exactly(second, (40, 40)))


def ready_mask_and_stroke(page: PageObject, chance: random.Random) -> Asked:
    left, top, width, height = page.canvas_box()
    x, y = left + width * 0.6, top + height * 0.5
    page.click("Left half", rest=rest(chance))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y)
    page.mouse.up()
    return Asked(FIRST, lambda got: bool(got[:, :20].all() and got[20, 24:28].any() and not got[:5, 30:].any()))


Row = Callable[[Page, random.Random], Asked]
ROWS: tuple[Row, ...] = (ready_mask, example_and_ready_mask, two_ready_masks, ready_mask_and_stroke)


def attempt(page: PageObject, site: Site, row: Row, chance: random.Random) -> None:
    """From the first example, a row's actions and Edit. Raises AssertionError for what was lost."""
    page.click("First: a hat")
    before = len(PIPELINE.edits)
    asked = row(page, chance)
    page.click("Edit")
    page.wait_until(lambda: len(PIPELINE.edits) > before)
    image, painted = (np.asarray(value) for value in PIPELINE.edits[-1])
    page.expect_review("finished")
    page.expect_finished()
    expect(page.locator(".sp")).to_have_attribute("data-shown", page.sent_value()["image"])
    assert len(PIPELINE.edits) == before + 1, "it was drawn more than once"
    assert np.array_equal(painted, page.mask()), "what was redrawn is not what is shown"
    assert asked.right(painted), "what is shown is not the mask that was asked for"
    assert np.array_equal(image, pixels(site.examples / asked.image)), "another image was edited"


def table(windows: Windows, site: Site, rate: int, latency: int, times: int) -> None:
    """Each row so many times, in random order; prints how many went wrong."""
    chance = random.Random(random_seed())
    rows = [row for row in ROWS for _ in range(times)]
    chance.shuffle(rows)
    wrong: Counter[str] = Counter()
    with windows.open(site.url) as page:
        page.slow_down(rate, latency)
        for row in rows:
            try:
                attempt(page, site, row, chance)
            except AssertionError as error:
                wrong[row.__name__] += 1
                print(f"{row.__name__}: {error}")
    print(f"{rate}x, {latency} ms:", ", ".join(f"{row.__name__} {wrong[row.__name__]}/{times}" for row in ROWS))
    assert not wrong


@pytest.mark.parametrize(("rate", "latency"), [(1, 0), (4, LATENCY)])
def test_nothing_is_lost_however_fast_one_is(windows: Windows, site: Site, rate: int, latency: int) -> None:
    table(windows, site, rate, latency, 1)


@pytest.mark.load
@pytest.mark.parametrize("latency", [0, LATENCY])
@pytest.mark.parametrize("rate", [1, 4, 8])
def test_nothing_is_lost_thirty_times(windows: Windows, site: Site, rate: int, latency: int) -> None:
    table(windows, site, rate, latency, 30)
