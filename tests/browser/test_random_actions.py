"""Random actions on the page; after each, the image and the mask are compared with what they should be.

A short form is part of every test run; `make load` does two hundred actions, and SEED=N the same ones again.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from page_object import PIPELINE, PageObject, Site, Windows, pixels, preset_mask, random_seed
from playwright.sync_api import expect

from imagebart.imaging.masks import PRESETS

pytestmark = pytest.mark.browser

IS_CANVAS = "([x, y]) => document.elementFromPoint(x, y).matches('.sp canvas')"


@dataclass
class Expected:
    """What should be on the sketchpad."""

    path: str
    mask: np.ndarray
    back: list[tuple[str, np.ndarray]] = field(default_factory=list)
    forward: list[tuple[str, np.ndarray]] = field(default_factory=list)
    result: str | None = None  # the file of a result that is looked at

    def become(self, path: str, painted: np.ndarray) -> None:
        if path != self.path or (painted != self.mask).any():
            self.back.append((self.path, self.mask))
            self.forward = []
        self.path, self.mask = path, painted

    def keep(self, size: tuple[int, int]) -> None:
        """Whoever paints on a result goes on from it."""
        if self.result is not None:
            self.back.append((self.path, self.mask))
            self.forward = []
            self.path, self.mask, self.result = self.result, np.zeros(size[::-1], np.uint8), None


class Person:
    """Does things at random, and knows what should come of them."""

    def __init__(self, page: PageObject, site: Site, chance: random.Random) -> None:
        self.page, self.site, self.chance = page, site, chance
        self.expected = Expected(page.sent_value()["image"], page.mask())

    def size(self) -> tuple[int, int]:
        return self.expected.mask.shape[1], self.expected.mask.shape[0]

    def ready_mask(self) -> None:
        name = self.chance.choice(PRESETS)
        self.expected.keep(self.size())
        self.expected.become(self.expected.path, preset_mask(name, self.size()))
        self.page.click(name.capitalize())

    def paint(self) -> None:
        """A rectangle from the middle of a pixel to the middle of another."""
        width, height = self.size()
        xs = sorted(self.chance.sample(range(width), 2))
        ys = sorted(self.chance.sample(range(height), 2))
        self.expected.keep(self.size())
        painted = self.expected.mask.copy()
        painted[ys[0] : ys[1] + 1, xs[0] : xs[1] + 1] = 255
        self.expected.become(self.expected.path, painted)
        self.page.press("Rectangle")
        view, (left, top, _, _) = self.page.view(), self.page.canvas_box()
        places = [
            (left + view["x"] + (x + 0.5) * view["scale"], top + view["y"] + (y + 0.5) * view["scale"])
            for x, y in zip(xs, ys, strict=True)
        ]
        corners = [*itertools.product(*zip(*places, strict=True))]
        # A rectangle is the same from each of its corners; on one may lie the knob that wipes a result away.
        first = next(corner for corner in corners if self.page.evaluate(IS_CANVAS, corner))
        self.page.mouse.move(*first)
        self.page.mouse.down()
        self.page.mouse.move(*corners[-1 - corners.index(first)], steps=3)
        self.page.mouse.up()

    def example(self) -> None:
        first = self.chance.random() < 0.5
        size = (40, 40) if first else (48, 40)
        self.page.click("First: a hat" if first else "Second")
        painted = preset_mask("centre", size) if first else np.zeros(size[::-1], np.uint8)
        self.expected.result = None
        # An image always comes as a change, also the one that is there.
        self.expected.back.append((self.expected.path, self.expected.mask))
        self.expected.forward = []
        self.expected.path, self.expected.mask = self.page.sent_value()["image"], painted
        name = "01-first.png" if first else "02-second.png"
        assert (pixels(Path(self.expected.path)) == pixels(self.site.examples / name)).all()

    def undo(self) -> None:
        self._walk("Control+z", self.expected.back, self.expected.forward)

    def redo(self) -> None:
        if self.expected.result is None:
            self._walk("Control+Shift+Z", self.expected.forward, self.expected.back)

    def _walk(self, key: str, take: list[tuple[str, np.ndarray]], put: list[tuple[str, np.ndarray]]) -> None:
        self.page.evaluate("document.activeElement.blur()")
        self.page.keyboard.press(key)
        if self.expected.result is not None:
            self.expected.result = None
        elif take:
            put.append((self.expected.path, self.expected.mask))
            self.expected.path, self.expected.mask = take.pop()

    def reload(self) -> None:
        self.page.reload()
        expect(self.page.locator(".sp")).to_have_attribute("data-shown", self.expected.path)
        self.expected = Expected(self.expected.path, self.expected.mask)

    def edit(self) -> None:
        if not self.expected.mask.any():
            return
        self.page.edit()
        image, painted = PIPELINE.edits[-1]
        assert (np.asarray(image) == pixels(Path(self.expected.path))).all()
        assert (np.asarray(painted) == self.expected.mask).all()
        self.expected.result = unquote(self.page.result_address().partition("/file=")[2])

    def cancel(self) -> None:
        if self.expected.result is None and self.expected.mask.any():
            self.page.click("Edit")
            self.page.keyboard.press("Escape")
            self.page.wait_for_function("!document.documentElement.dataset.runState")
            if "Cancelled" not in self.page.locator("#messages").inner_text():  # it was done before
                self.page.expect_review("finished")
                self.page.click("Discard")
            self.page.expect_review("")

    def act(self) -> None:
        acts = [self.ready_mask, self.paint, self.example, self.undo, self.redo, self.edit, self.reload, self.cancel]
        act = self.chance.choices(acts, [5, 5, 3, 4, 3, 2, 1, 1])[0]
        act()
        assert (self.page.mask() == self.expected.mask).all(), act.__name__
        assert self.page.sent_value()["image"] == self.expected.path, act.__name__


def wander(windows: Windows, site: Site, steps: int) -> None:
    chance = random.Random(random_seed())
    with windows.open(site.url) as page:
        page.wait_until_ready()
        person = Person(page, site, chance)
        for _ in range(steps):
            person.act()


def test_whatever_one_does_the_right_mask_is_there(windows: Windows, site: Site) -> None:
    wander(windows, site, 40)


@pytest.mark.load
def test_whatever_one_does_two_hundred_times(windows: Windows, site: Site) -> None:
    wander(windows, site, 200)
