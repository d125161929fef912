"""No mask is lost, and each stroke belongs to the image on which it began: what a run redraws is what was last shown.

A short form is part of every test run; `make load` does each thing thirty times on each of six machines and prints
how many went wrong, and at random two hundred; SEED=N does the same ones again.
"""

import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from fake_models import HeldPipeline
from page_object import PIPELINE, PageObject, Site, Windows, gradient_image, pixels, preset_mask, random_seed
from playwright.sync_api import expect

from imagebart.imaging.masks import PRESETS

pytestmark = pytest.mark.browser
FIRST, SECOND = "01-first.png", "02-second.png"
MIDDLE = (20, 20)
# So many times slower, milliseconds of latency, how often: a slow machine always, the others by `make load`.
MACHINES = [
    (4, 150, 1),
    *(pytest.param(rate, latency, 30, marks=pytest.mark.load) for rate in (1, 4, 8) for latency in (0, 150)),
]
# An example's file, and whether a mask is the one that was asked for on it.
Asked = tuple[str, Callable[[np.ndarray], bool]]


def rows_right(
    page: PageObject, pipeline: Any, rate: int, latency: int, attempts: list[tuple[str, Callable[[], None]]]
) -> None:
    """Each of these, by the name of its row; prints how many of a row went wrong."""
    page.slow_down(rate, latency)
    wrong = Counter({name: 0 for name, _ in attempts})
    for name, attempt in attempts:
        try:
            attempt()
        except AssertionError as error:
            wrong[name] += 1
            print(f"{name}: {error}")
            page.mouse.up()
            if isinstance(pipeline, HeldPipeline):
                pipeline.release()
            page.click("Cancel")
            page.expect_free()
    print(f"{rate}x, {latency} ms, of {len(attempts) // len(wrong)}:", dict(wrong))
    assert not wrong.total()


def rest(chance: random.Random) -> float:
    """Milliseconds that a hand rests: not at all, shortly, or longer than a question about the mask does."""
    return chance.choice([0.0, 150.0, chance.uniform(400, 900)])


def exactly(name: str, size: tuple[int, int]) -> Callable[[np.ndarray], bool]:
    return lambda got: np.array_equal(got, preset_mask(name, size))


def ready_mask(page: PageObject, chance: random.Random) -> Asked:
    name = chance.choice(PRESETS).capitalize()
    page.click(name, rest=rest(chance))
    return FIRST, exactly(name, (40, 40))


def example_and_ready_mask(page: PageObject, chance: random.Random) -> Asked:
    name = chance.choice(PRESETS).capitalize()
    page.click("Second", name, rest=rest(chance))
    return SECOND, exactly(name, (48, 40))


def two_ready_masks(page: PageObject, chance: random.Random) -> Asked:
    first, second = (name.capitalize() for name in chance.sample(PRESETS, 2))
    page.click(first, second, rest=rest(chance))
    return FIRST, exactly(second, (40, 40))


def ready_mask_and_stroke(page: PageObject, chance: random.Random) -> Asked:
    page.click("Left half", rest=rest(chance))
    page.drag((0.62, 0.5), (0.7, 0.5))
    return FIRST, lambda got: bool(got[:, :20].all() and got[20, 24:28].any() and not got[:5, 30:].any())


def attempt(page: PageObject, site: Site, row: Callable[[PageObject, random.Random], Asked], chance: Any) -> None:
    """From the first example, a row's actions and Edit. Raises AssertionError for what was lost."""
    page.click("First: a hat")
    before = len(PIPELINE.edits)
    name, right = row(page, chance)
    page.click("Edit")
    page.wait_until(lambda: len(PIPELINE.edits) > before)
    image, painted = (np.asarray(value) for value in PIPELINE.edits[-1])
    page.expect_review("finished")
    page.expect_finished()
    expect(page.locator(".sp")).to_have_attribute("data-shown", page.sent_value()["image"])
    assert len(PIPELINE.edits) == before + 1, "it was drawn more than once"
    assert np.array_equal(painted, page.mask()), "what was redrawn is not what is shown"
    assert right(painted), "what is shown is not the mask that was asked for"
    assert np.array_equal(image, pixels(site.examples / name)), "another image was edited"


@pytest.mark.parametrize(("rate", "latency", "times"), MACHINES)
def test_nothing_is_lost_however_fast_one_is(windows: Windows, site: Site, rate: int, latency: int, times: int) -> None:
    chance = random.Random(random_seed())
    rows = [ready_mask, example_and_ready_mask, two_ready_masks, ready_mask_and_stroke] * times
    chance.shuffle(rows)
    with windows.open(site.url) as page:
        attempts = [(row.__name__, lambda row=row: attempt(page, site, row, chance)) for row in rows]
        rows_right(page, site.pipeline, rate, latency, attempts)


def begin(page: PageObject) -> np.ndarray:
    """A stroke begins on the first example, which has no mask; the mask before."""
    page.click("First: a hat", "Clear mask")
    before = page.mask()
    page.begin_stroke(dx=15, dy=0)
    return before


def image_of(page: PageObject) -> np.ndarray:
    return pixels(Path(page.sent_value()["image"]))


def upload(page: PageObject, held: HeldPipeline, first: Path, other: Path) -> None:
    """An image of the same size arrives: it comes without a mask, and undo leads to the stroke on the old one."""
    begin(page)
    with page.expect_answer("open_image"):
        page.choose_file(other)
    page.mouse.move(*page.middle(30, 0))
    assert (image_of(page) == pixels(first)).all(), "it came before the stroke had ended"
    page.mouse.up()
    page.wait_until(lambda: bool((image_of(page) == pixels(other)).all()))
    assert not page.mask().any(), "the stroke on the old image is the mask of the new one"
    page.click("Undo")
    assert (image_of(page) == pixels(first)).all()
    assert page.mask()[MIDDLE]


def result(page: PageObject, held: HeldPipeline, first: Path, other: Path) -> None:
    """A result arrives: it is in the history, and the page says so; after a stroke that changes nothing it is shown."""
    for changes in (True, False):
        held.hold()
        held.results.clear()
        page.click("First: a hat", "Upper half" if changes else "Everything")
        before, runs = page.mask(), page.history()
        page.click("Edit")
        page.wait_until(lambda: held.running == 1)
        page.begin_stroke(dx=-30, dy=40)
        held.results.set()
        page.wait_until(lambda runs=runs: page.history() != runs)
        page.mouse.move(*page.middle(-30, 60))
        page.mouse.up()
        if changes:
            expect(page.note).to_contain_text("its result is in the history")
            page.expect_review("")
            assert (page.mask() >= before).all() and (page.mask() > before).any()
            page.runs.first.click()
        page.expect_review("finished")
        held.release()
        page.expect_free()


def undo_and_invert(page: PageObject, held: HeldPipeline, first: Path, other: Path) -> None:
    """Ctrl+Z ends the stroke and takes it back, I inverts it; until the pointer is lifted it paints nothing more."""
    before = begin(page)
    page.keyboard.press("Control+z")
    assert (page.mask() == before).all()
    page.mouse.move(*page.middle(60, 30))
    page.mouse.up()
    assert (page.mask() == before).all()
    page.keyboard.press("Control+Shift+Z")
    assert page.mask()[MIDDLE]
    begin(page)
    page.keyboard.press("i")
    inverted = page.mask()
    page.mouse.move(*page.middle(60, 30))
    page.mouse.up()
    assert (page.mask() == inverted).all() and not inverted[MIDDLE] and inverted[0, 0]
    page.keyboard.press("Control+z")
    assert (page.mask() == 255 - inverted).all()


def stroke_and_ready_mask(page: PageObject, held: HeldPipeline, first: Path, other: Path) -> None:
    """A ready mask ends the stroke, and is there alone."""
    begin(page)
    page.click("Lower half")
    page.mouse.up()
    assert (page.mask() == preset_mask("lower half", (40, 40))).all()


@pytest.mark.parametrize(("rate", "latency", "times"), MACHINES)
def test_a_stroke_belongs_to_the_image_it_began_on(
    windows: Windows, held_site: Site, held: HeldPipeline, tmp_path: Path, rate: int, latency: int, times: int
) -> None:
    first, other = held_site.examples / FIRST, tmp_path / "other.png"
    gradient_image((40, 40), 130).save(other)  # as large as the first example
    rows = [upload, result, undo_and_invert, stroke_and_ready_mask] * times
    with windows.open(held_site.url) as page:
        attempts = [(row.__name__, lambda row=row: row(page, held, first, other)) for row in rows]
        rows_right(page, held, rate, latency, attempts)


def test_a_model_that_comes_during_a_stroke_leaves_it_alone(wide: PageObject) -> None:
    """Its example would take the place of an image on which nothing was painted."""
    wide.begin_stroke(dx=200, dy=0)
    wide.pad(
        """imagebart.send("examples", { model: "animals", examples: [
            { ...pad.examples[1], caption: "Other", mask: "" }] })"""
    )
    wide.mouse.up()
    assert wide.mask()[20, 8]
    expect(wide.button("Other")).to_be_visible()
    expect(wide.image_size).to_have_text("40 × 40 pixels")


IS_CANVAS = "([x, y]) => document.elementFromPoint(x, y).matches('.sp canvas')"
Step = tuple[str, np.ndarray]  # an image's file, and its mask


@dataclass
class Expected:
    """What should be on the sketchpad."""

    path: str
    mask: np.ndarray
    back: list[Step] = field(default_factory=list)
    forward: list[Step] = field(default_factory=list)
    result: str | None = None  # the file of a result that is looked at

    @property
    def size(self) -> tuple[int, int]:
        return self.mask.shape[1], self.mask.shape[0]

    def become(self, path: str, painted: np.ndarray) -> None:
        self.back.append((self.path, self.mask))
        self.forward = []
        self.path, self.mask, self.result = path, painted, None

    def paint(self, painted: np.ndarray) -> None:
        """Whoever paints on a result goes on from it."""
        if self.result is not None:
            self.become(self.result, np.zeros_like(self.mask))
        if (painted != self.mask).any():
            self.become(self.path, painted)


class Person:
    """Does things at random, and knows what should come of them."""

    def __init__(self, page: PageObject, site: Site, chance: random.Random) -> None:
        self.page, self.site, self.chance = page, site, chance
        self.expected = Expected(page.sent_value()["image"], page.mask())

    def ready_mask(self) -> None:
        name = self.chance.choice(PRESETS)
        self.expected.paint(preset_mask(name, self.expected.size))
        self.page.click(name.capitalize())

    def paint(self) -> None:
        """A rectangle from the middle of a pixel to the middle of another."""
        xs, ys = (sorted(self.chance.sample(range(length), 2)) for length in self.expected.size)
        painted = np.zeros_like(self.expected.mask) if self.expected.result else self.expected.mask.copy()
        painted[ys[0] : ys[1] + 1, xs[0] : xs[1] + 1] = 255
        width, height = self.expected.size
        self.expected.paint(painted)
        self.page.press("Rectangle")
        corners = [*itertools.product(((x + 0.5) / width for x in xs), ((y + 0.5) / height for y in ys))]
        # A rectangle is the same from each of its corners; on one may lie the knob that wipes a result away.
        first = next(corner for corner in corners if self.page.evaluate(IS_CANVAS, self.page.place(corner)))
        self.page.drag(first, corners[-1 - corners.index(first)])

    def example(self) -> None:
        """An image always comes as a change, also the one that is there."""
        name, button, size = self.chance.choice([(FIRST, "First: a hat", (40, 40)), (SECOND, "Second", (48, 40))])
        self.page.click(button)
        painted = preset_mask("centre", size) if name == FIRST else np.zeros(size[::-1], np.uint8)
        self.expected.become(self.page.sent_value()["image"], painted)
        assert (pixels(Path(self.expected.path)) == pixels(self.site.examples / name)).all()

    def undo(self) -> None:
        self._walk("Control+z", self.expected.back, self.expected.forward)

    def redo(self) -> None:
        if self.expected.result is None:
            self._walk("Control+Shift+Z", self.expected.forward, self.expected.back)

    def _walk(self, key: str, take: list[Step], put: list[Step]) -> None:
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
        if self.expected.mask.any():
            self.page.edit()
            image, painted = PIPELINE.edits[-1]
            assert (np.asarray(image) == pixels(Path(self.expected.path))).all()
            assert (np.asarray(painted) == self.expected.mask).all()
            self.expected.result = unquote(self.page.result_address().partition("/file=")[2])

    def cancel(self) -> None:
        if self.expected.result is None and self.expected.mask.any():
            self.page.click("Edit")
            self.page.keyboard.press("Escape")
            self.page.expect_free()
            if "Cancelled" not in self.page.messages.inner_text():  # it was done before
                self.page.expect_review("finished")
                self.page.click("Discard")
            self.page.expect_review("")

    def act(self) -> None:
        acts = [self.ready_mask, self.paint, self.example, self.undo, self.redo, self.edit, self.reload, self.cancel]
        act = self.chance.choices(acts, [5, 5, 3, 4, 3, 2, 1, 1])[0]
        act()
        assert (self.page.mask() == self.expected.mask).all(), act.__name__
        assert self.page.sent_value()["image"] == self.expected.path, act.__name__


@pytest.mark.parametrize("times", [40, pytest.param(200, marks=pytest.mark.load)])
def test_whatever_one_does_the_right_mask_is_there(windows: Windows, site: Site, times: int) -> None:
    chance = random.Random(random_seed())
    with windows.open(site.url) as page:
        person = Person(page, site, chance)
        for _ in range(times):
            person.act()
