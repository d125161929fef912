"""No mask is lost, and each stroke belongs to the image on which it began: what a run redraws is what was last shown.

A short form is part of every test run; `make load` does each thing thirty times on each of six machines and prints
how many went wrong, and at random two hundred; SEED=N does the same ones again.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from fake_models import HeldPipeline
from page_object import PIPELINE, PageObject, Site, Windows, gradient_image, pixels, preset_mask, random_seed
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


IN_HISTORY = "its result is in the history"
MIDDLE = (20, 20)


def begin(page: PageObject) -> np.ndarray:
    """A stroke begins on the first example, which has no mask; the mask before."""
    page.get_by_role("button", name="First").click()
    page.click("Clear mask")
    before = page.mask()
    page.begin_stroke(dx=15, dy=0)
    return before


def image_of(page: PageObject) -> np.ndarray:
    return pixels(Path(page.sent_value()["image"]))


def upload(page: PageObject, site: Site, held: HeldPipeline, other: Path) -> None:
    """An image of the same size arrives: it comes without a mask, and undo leads to the stroke on the old one."""
    begin(page)
    with page.expect_response(lambda response: "open_image" in (response.request.post_data or "")):
        page.get_by_label("Image to paint on", exact=True).set_input_files(other)
    page.mouse.move(*page.middle(30, 0))
    assert (image_of(page) == pixels(site.examples / "01-first.png")).all(), "it came before the stroke had ended"
    page.mouse.up()
    page.wait_until(lambda: bool((image_of(page) == pixels(other)).all()))
    assert not page.mask().any(), "the stroke on the old image is the mask of the new one"
    page.click("Undo")
    assert (image_of(page) == pixels(site.examples / "01-first.png")).all()
    assert page.mask()[MIDDLE]


def result(page: PageObject, site: Site, held: HeldPipeline, other: Path) -> None:
    """A result arrives: it is in the history, the page says so, and the stroke is the mask."""
    held.hold()
    held.results.clear()
    begin(page)
    page.mouse.up()
    first, runs = page.mask(), page.history()
    page.click("Edit")
    page.wait_until(lambda: held.running == 1)
    page.begin_stroke(dx=-30, dy=40)
    held.results.set()
    page.wait_until(lambda: page.history() != runs)
    page.mouse.move(*page.middle(-30, 60))
    page.mouse.up()
    expect(page.locator(".sp-note")).to_contain_text(IN_HISTORY)
    page.expect_review("")
    assert (page.mask() >= first).all() and (page.mask() > first).any()
    page.get_by_role("region", name="History").get_by_role("button").first.click()
    page.expect_review("finished")
    held.release()
    page.wait_for("!document.documentElement.dataset.runState")


def result_of_no_stroke(page: PageObject, site: Site, held: HeldPipeline, other: Path) -> None:
    """A result arrives during a stroke that changes nothing: it is shown when the stroke has ended."""
    held.hold()
    held.results.clear()
    page.get_by_role("button", name="First").click()
    page.click("Everything")
    runs = page.history()
    page.click("Edit")
    page.wait_until(lambda: held.running == 1)
    page.begin_stroke(dx=15, dy=0)
    held.results.set()
    page.wait_until(lambda: page.history() != runs)
    page.mouse.up()
    page.expect_review("finished")
    held.release()
    page.wait_for("!document.documentElement.dataset.runState")


def undo(page: PageObject, site: Site, held: HeldPipeline, other: Path) -> None:
    """Ctrl+Z ends the stroke and takes it back; what the pointer does until it is lifted paints nothing."""
    before = begin(page)
    page.keyboard.press("Control+z")
    assert (page.mask() == before).all()
    page.mouse.move(*page.middle(60, 30))
    page.mouse.up()
    assert (page.mask() == before).all()
    page.keyboard.press("Control+Shift+Z")
    assert page.mask()[MIDDLE]


def invert(page: PageObject, site: Site, held: HeldPipeline, other: Path) -> None:
    """I ends the stroke and inverts what it has painted."""
    begin(page)
    page.keyboard.press("i")
    inverted = page.mask()
    page.mouse.move(*page.middle(60, 30))
    page.mouse.up()
    assert (page.mask() == inverted).all() and not inverted[MIDDLE] and inverted[0, 0]
    page.keyboard.press("Control+z")
    assert (page.mask() == 255 - inverted).all()


def stroke_and_ready_mask(page: PageObject, site: Site, held: HeldPipeline, other: Path) -> None:
    """A ready mask ends the stroke, and is there alone."""
    begin(page)
    page.click("Lower half")
    page.mouse.up()
    assert (page.mask() == preset_mask("lower half", (40, 40))).all()


StrokeRow = Callable[[PageObject, Site, HeldPipeline, Path], None]
STROKE_ROWS: tuple[StrokeRow, ...] = (upload, result, result_of_no_stroke, undo, invert, stroke_and_ready_mask)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """An upload of the same size as the first example."""
    path = tmp_path / "other.png"
    gradient_image((40, 40), 130).save(path)
    return path


def stroke_table(
    windows: Windows, site: Site, held: HeldPipeline, other: Path, rate: int, latency: int, times: int
) -> Counter[str]:
    """Each row so many times; prints how many went wrong."""
    wrong: Counter[str] = Counter()
    with windows.open(site.url) as page:
        page.slow_down(rate, latency)
        for row in STROKE_ROWS * times:
            try:
                row(page, site, held, other)
            except AssertionError as error:
                wrong[row.__name__] += 1
                print(f"{row.__name__}: {error}")
                page.mouse.up()
                held.release()
                page.click("Cancel")
                page.wait_for("!document.documentElement.dataset.runState")
    print(f"{rate}x, {latency} ms:", ", ".join(f"{row.__name__} {wrong[row.__name__]}/{times}" for row in STROKE_ROWS))
    return wrong


@pytest.mark.parametrize(("rate", "latency"), [(1, 0), (4, LATENCY)])
def test_a_stroke_belongs_to_the_image_it_began_on(
    windows: Windows, held_site: Site, held: HeldPipeline, other: Path, rate: int, latency: int
) -> None:
    assert not stroke_table(windows, held_site, held, other, rate, latency, 1)


@pytest.mark.load
@pytest.mark.parametrize("latency", [0, LATENCY])
@pytest.mark.parametrize("rate", [1, 4, 8])
def test_a_stroke_belongs_to_the_image_it_began_on_thirty_times(
    windows: Windows, held_site: Site, held: HeldPipeline, other: Path, rate: int, latency: int
) -> None:
    assert not stroke_table(windows, held_site, held, other, rate, latency, 30)


def test_a_model_that_comes_during_a_stroke_leaves_it_alone(wide: PageObject) -> None:
    """Its example would take the place of an image on which nothing was painted."""
    wide.begin_stroke(dx=200, dy=0)
    wide.evaluate(
        """imagebart.send("examples", { model: "animals", examples: [
            { ...document.querySelector(".sp").sketchpad.examples[1], caption: "Other", mask: "" }] })"""
    )
    expect(wide.locator("#image-size")).to_have_text("40 × 40 pixels")
    wide.mouse.up()
    assert wide.mask()[20, 8]
    expect(wide.get_by_role("button", name="Other")).to_be_visible()
    expect(wide.locator("#image-size")).to_have_text("40 × 40 pixels")


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
