"""No mask is lost, and each stroke belongs to the image on which it began: what a run redraws is what was last shown.

A short form on a slow machine is part of every test run; `make load` does more of it on six machines. What is done at
random is done again by the SEED that it prints.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from fake_models import HeldPipeline
from page_object import PIPELINE, PageObject, Site, Windows, gradient_image, pixels, preset_mask, random_seed
from playwright.sync_api import expect

from imagebart.imaging.masks import PRESETS

pytestmark = pytest.mark.browser
FIRST, SECOND = "01-first.png", "02-second.png"
EXAMPLES = {FIRST: ("First: a hat", (40, 40)), SECOND: ("Second", (48, 40))}  # their buttons, their sizes
MIDDLE = (20, 20)
# So many times slower, milliseconds of latency, and whether that is much of what is done.
MACHINES = [
    (4, 150, False),
    *(pytest.param(rate, latency, True, marks=pytest.mark.load) for rate in (1, 4, 8) for latency in (0, 150)),
]
IS_CANVAS = "([x, y]) => document.elementFromPoint(x, y).matches('.sp canvas')"
Act = Callable[[], None]
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
    """Does things at random, in a hurry or not, and knows what should come of them."""

    def __init__(self, page: PageObject, site: Site, chance: random.Random) -> None:
        self.page, self.chance = page, chance
        self.expected = Expected(page.sent_value()["image"], page.mask())
        paths = page.pad("pad.examples.map(({ image }) => image.path)")
        self.paths = dict(zip(EXAMPLES, paths, strict=True))
        for name, path in self.paths.items():
            assert (pixels(Path(path)) == pixels(site.examples / name)).all()

    def rest(self) -> float:
        """Milliseconds that a hand rests: not at all, shortly, or longer than a question about the mask does."""
        return self.chance.choice([0.0, 150.0, self.chance.uniform(400, 900)])

    def ready_mask(self) -> None:
        name = self.chance.choice(PRESETS)
        self.expected.paint(preset_mask(name, self.expected.size))
        self.page.click(name.capitalize(), rest=self.rest())

    def paint(self) -> None:
        """A rectangle from the middle of a pixel to the middle of another."""
        (width, height), was = self.expected.size, self.expected.mask
        xs, ys = (sorted(self.chance.sample(range(length), 2)) for length in (width, height))
        painted = np.zeros_like(was) if self.expected.result else was.copy()
        painted[ys[0] : ys[1] + 1, xs[0] : xs[1] + 1] = 255
        self.expected.paint(painted)
        self.page.click("Rectangle")
        corners = [*itertools.product(((x + 0.5) / width for x in xs), ((y + 0.5) / height for y in ys))]
        # A rectangle is the same from each of its corners; on one may lie the knob that wipes a result away.
        first = next(corner for corner in corners if self.page.evaluate(IS_CANVAS, self.page.place(corner)))
        self.page.drag(first, corners[-1 - corners.index(first)])

    def example(self) -> None:
        """An image always comes as a change, also the one that is there."""
        name = self.chance.choice([*EXAMPLES])
        button, size = EXAMPLES[name]
        self.page.click(button, rest=self.rest())
        painted = preset_mask("centre", size) if name == FIRST else np.zeros(size[::-1], np.uint8)
        self.expected.become(self.paths[name], painted)

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
        self.page.expect_shown(self.expected.path)
        self.expected = Expected(self.expected.path, self.expected.mask)

    def edit(self) -> None:
        """Once, what was asked for last."""
        if not self.expected.mask.any():
            return
        before = len(PIPELINE.edits)
        self.page.click("Edit")
        self.page.wait_until(lambda: len(PIPELINE.edits) > before)
        self.page.expect_finished()
        (image, painted), *more = PIPELINE.edits[before:]
        assert not more, "it was drawn more than once"
        assert np.array_equal(image, pixels(Path(self.expected.path))), "another image was edited"
        assert np.array_equal(painted, self.expected.mask), "another mask was edited"
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

    def act(self) -> list[Act]:
        acts = [self.ready_mask, self.paint, self.example, self.undo, self.redo, self.edit, self.reload, self.cancel]
        chosen = self.chance.choices(acts, [5, 5, 3, 4, 3, 2, 1, 1])
        chosen[0]()
        return chosen

    def look(self, after: list[Act]) -> None:
        assert np.array_equal(self.page.mask(), self.expected.mask), after
        assert self.page.sent_value()["image"] == self.expected.path, after


@pytest.mark.parametrize(("rate", "latency", "much"), MACHINES)
def test_nothing_is_lost_however_fast_one_is(windows: Windows, site: Site, rate: int, latency: int, much: bool) -> None:
    with windows.open(site.url) as page:
        page.slow_down(rate, latency)
        person = Person(page, site, random.Random(random_seed()))
        rows = [
            [person.ready_mask],
            [person.example, person.ready_mask],
            [person.ready_mask, person.ready_mask],
            [person.ready_mask, person.paint],
        ]
        for row in rows * (20 if much else 1):
            for act in (*row, person.edit):  # with no look at the page, which takes its time, in between
                act()
            person.look(row)
        for _ in range(200 if much else 15):
            person.look(person.act())


def begin(page: PageObject) -> np.ndarray:
    """A stroke begins on the first example, which has no mask; the mask before."""
    page.click("First: a hat", "Clear mask")
    before = page.mask()
    page.begin_stroke(dx=15, dy=0)
    return before


def image_of(page: PageObject) -> np.ndarray:
    return pixels(Path(page.sent_value()["image"]))


def an_image_arrives(page: PageObject, first: Path, other: Path) -> None:
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


def a_result_arrives(page: PageObject, held: HeldPipeline) -> None:
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


def it_is_ended_by_keys(page: PageObject) -> None:
    """Ctrl+Z takes it back, I inverts it, a ready mask comes instead; until the pointer is lifted it paints no more."""
    before = begin(page)
    page.keyboard.press("Control+z")
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
    begin(page)
    page.click("Lower half")
    page.mouse.up()
    assert (page.mask() == preset_mask("lower half", (40, 40))).all()


@pytest.mark.parametrize(("rate", "latency", "much"), MACHINES)
def test_a_stroke_belongs_to_the_image_it_began_on(
    windows: Windows, held_site: Site, held: HeldPipeline, tmp_path: Path, rate: int, latency: int, much: bool
) -> None:
    first, other = held_site.examples / FIRST, tmp_path / "other.png"
    gradient_image((40, 40), 130).save(other)  # as large as the first example
    with windows.open(held_site.url) as page:
        page.slow_down(rate, latency)
        for _ in range(30 if much else 1):
            an_image_arrives(page, first, other)
            a_result_arrives(page, held)
            it_is_ended_by_keys(page)


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
