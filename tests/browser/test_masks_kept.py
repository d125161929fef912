"""No mask is lost: what a run redraws is what was last shown, and that what was asked for; on slow machines and lines.

A short form is part of every test run; `make load` does each thing thirty times and two hundred random ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from driving import PIPELINE, WIDE, Site, canvas, edit, finished, mask, opened, pixels, press, ready, sent, until
from playwright.sync_api import Browser, Page, expect

from imagebart.imaging.masks import PRESETS, preset

pytestmark = pytest.mark.browser
LATENCY = 150  # milliseconds


@contextmanager
def slowed(chromium: Browser, site: Site, rate: int, latency: int) -> Iterator[Page]:
    """The page on a machine that is so many times slower, at the end of a slow line."""
    with opened(chromium, site.url, viewport=WIDE) as page:
        machine = page.context.new_cdp_session(page)
        machine.send("Emulation.setCPUThrottlingRate", {"rate": rate})
        machine.send("Network.enable")
        line = {"offline": False, "latency": latency, "downloadThroughput": -1, "uploadThroughput": -1}
        machine.send("Network.emulateNetworkConditions", line)
        yield page


def click(page: Page, *names: str) -> None:
    """Click buttons one right after the other, with no time for anything in between."""
    page.evaluate(
        """names => names.forEach((name) => [...document.querySelectorAll("button")]
            .find((button) => (button.getAttribute("aria-label") ?? button.textContent.trim()) === name).click())""",
        list(names),
    )


def redrawn_by_edit(page: Page, *before: str) -> tuple[np.ndarray, np.ndarray]:
    """The picture and the mask that the model gets when Edit is pressed right after other buttons."""
    asked = len(PIPELINE.edits)
    click(page, *before, "Edit")
    until(page, lambda: len(PIPELINE.edits) > asked)
    image, painted = PIPELINE.edits[-1]
    expect(page.locator(".sp")).to_have_attribute("data-review", "finished")
    finished(page)
    return np.asarray(image), np.asarray(painted)


def wanted(name: str, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(preset(name.lower(), size))


def ready_mask_and_edit(page: Page, site: Site, chance: random.Random) -> None:
    name = chance.choice(PRESETS).capitalize()
    _, got = redrawn_by_edit(page, name)
    assert (got == wanted(name, (40, 40))).all() and (mask(page) == got).all()


def example_and_ready_mask(page: Page, site: Site, chance: random.Random) -> None:
    name = chance.choice(PRESETS).capitalize()
    image, got = redrawn_by_edit(page, "Second", name)
    assert (image == pixels(site.examples / "02-second.png")).all()
    assert (got == wanted(name, (48, 40))).all() and (mask(page) == got).all()


def two_ready_masks(page: Page, site: Site, chance: random.Random) -> None:
    first, second = (name.capitalize() for name in chance.sample(PRESETS, 2))
    _, got = redrawn_by_edit(page, first, second)
    assert (got == wanted(second, (40, 40))).all() and (mask(page) == got).all()


def ready_mask_and_stroke(page: Page, site: Site, chance: random.Random) -> None:
    box = canvas(page).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5
    click(page, "Left half")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y)
    page.mouse.up()
    shown = mask(page)
    _, got = redrawn_by_edit(page)
    assert (got == shown).all() and got[:, :20].all() and got[20, 24:28].any() and not got[:5, 30:].any()


ROWS: tuple[Callable[[Page, Site, random.Random], None], ...] = (
    ready_mask_and_edit,
    example_and_ready_mask,
    two_ready_masks,
    ready_mask_and_stroke,
)


def table(chromium: Browser, site: Site, rate: int, latency: int, times: int, seed: int) -> None:
    """Each row so many times, in random order, each from the first example."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    rows = [row for row in ROWS for _ in range(times)]
    chance.shuffle(rows)
    with slowed(chromium, site, rate, latency) as page:
        for row in rows:
            click(page, "First: a hat")
            row(page, site, chance)


@pytest.mark.parametrize(("rate", "latency"), [(1, 0), (8, LATENCY)])
def test_nothing_is_lost_however_fast_one_is(chromium: Browser, site: Site, rate: int, latency: int) -> None:
    table(chromium, site, rate, latency, 1, random.randrange(10**6))


@pytest.mark.load
@pytest.mark.parametrize("latency", [0, LATENCY])
@pytest.mark.parametrize("rate", [1, 4, 8])
def test_nothing_is_lost_thirty_times(chromium: Browser, site: Site, rate: int, latency: int) -> None:
    table(chromium, site, rate, latency, 30, random.randrange(10**6))


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

    def __init__(self, page: Page, site: Site, chance: random.Random) -> None:
        self.page, self.site, self.chance = page, site, chance
        self.expected = Expected(sent(page)["picture"], mask(page))

    def size(self) -> tuple[int, int]:
        return self.expected.mask.shape[1], self.expected.mask.shape[0]

    def ready_mask(self) -> None:
        name = self.chance.choice(PRESETS)
        self.expected.keep(self.size())
        self.expected.become(self.expected.path, wanted(name, self.size()))
        click(self.page, name.capitalize())

    def paint(self) -> None:
        """A rectangle from the middle of a pixel to the middle of another."""
        width, height = self.size()
        xs = sorted(self.chance.sample(range(width), 2))
        ys = sorted(self.chance.sample(range(height), 2))
        self.expected.keep(self.size())
        painted = self.expected.mask.copy()
        painted[ys[0] : ys[1] + 1, xs[0] : xs[1] + 1] = 255
        self.expected.become(self.expected.path, painted)
        press(self.page, "Rectangle")
        view = self.page.evaluate("document.querySelector('.sp').sketchpad.canvas.view")
        box = canvas(self.page).bounding_box()
        assert box is not None
        places = [
            (box["x"] + view["x"] + (x + 0.5) * view["scale"], box["y"] + view["y"] + (y + 0.5) * view["scale"])
            for x, y in zip(xs, ys, strict=True)
        ]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        self.page.mouse.move(*places[1], steps=3)
        self.page.mouse.up()

    def example(self) -> None:
        first = self.chance.random() < 0.5
        size = (40, 40) if first else (48, 40)
        click(self.page, "First: a hat" if first else "Second")
        painted = wanted("centre", size) if first else np.zeros(size[::-1], np.uint8)
        self.expected.result = None
        # A picture always comes as a change, also the one that is there.
        self.expected.back.append((self.expected.path, self.expected.mask))
        self.expected.forward = []
        self.expected.path, self.expected.mask = sent(self.page)["picture"], painted
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
        edit(self.page)
        image, painted = PIPELINE.edits[-1]
        assert (np.asarray(image) == pixels(Path(self.expected.path))).all()
        assert (np.asarray(painted) == self.expected.mask).all()
        expect(self.page.locator(".sp")).to_have_attribute("data-review", "finished")
        self.expected.result = self.page.evaluate("document.querySelector('.sp').sketchpad.review.run.results[0].path")

    def cancel(self) -> None:
        if self.expected.result is None:
            click(self.page, "Edit", "Cancel")
            edit_again = self.page.get_by_role("button", name="Edit", exact=True)
            expect(edit_again).to_be_enabled()
            until(self.page, lambda: self.page.locator("#progress").inner_text() == "" or self.ended())
            if self.ended():
                click(self.page, "Discard")
            expect(self.page.locator(".sp")).to_have_attribute("data-review", "")

    def ended(self) -> bool:
        return "Done in" in self.page.locator("#progress").inner_text()

    def act(self) -> None:
        acts = [self.ready_mask, self.paint, self.example, self.undo, self.redo, self.edit, self.reload, self.cancel]
        act = self.chance.choices(acts, [5, 5, 3, 4, 3, 2, 1, 1])[0]
        act()
        assert (mask(self.page) == self.expected.mask).all(), act.__name__
        assert sent(self.page)["picture"] == self.expected.path, act.__name__


def wander(chromium: Browser, site: Site, steps: int, seed: int) -> None:
    print(f"seed {seed}")
    with opened(chromium, site.url, viewport=WIDE) as page:
        ready(page)
        person = Person(page, site, random.Random(seed))
        for _ in range(steps):
            person.act()


def test_whatever_one_does_the_right_mask_is_there(chromium: Browser, site: Site) -> None:
    wander(chromium, site, 40, random.randrange(10**6))


@pytest.mark.load
def test_whatever_one_does_two_hundred_times(chromium: Browser, site: Site) -> None:
    wander(chromium, site, 200, random.randrange(10**6))
