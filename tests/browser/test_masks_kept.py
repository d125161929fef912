"""No mask is lost, and each stroke belongs to the image on which it began: what a run redraws is what was last shown.

A short form on a slow machine is part of every test run; `make load` does more of it on six machines. What is done at
random is done again by the SEED that it prints.
"""

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from fake_models import HeldPipeline
from page_object import PIPELINE, PageObject, Site, Windows, gradient_image, pixels, preset_mask
from playwright.sync_api import expect

from imagebart.imaging.masks import PRESETS

pytestmark = pytest.mark.browser
FIRST, SECOND = "01-first.png", "02-second.png"
EXAMPLES = {FIRST: ("First: a hat", (40, 40)), SECOND: ("Second", (48, 40))}  # their buttons, their sizes
# So many times slower, milliseconds of latency, and whether that is much of what is done.
MACHINES = [
    (4, 150, False),
    *(pytest.param(rate, latency, True, marks=pytest.mark.load) for rate in (1, 4, 8) for latency in (0, 150)),
]
IS_CANVAS = "([x, y]) => document.elementFromPoint(x, y).matches('.sp canvas')"


class Person:
    """Does things at random, in a hurry or not, and knows what should come of them."""

    def __init__(self, page: PageObject, site: Site, chance: random.Random) -> None:
        self.page, self.chance = page, chance
        paths = page.pad("pad.examples.map(({ image }) => image.path)")
        self.paths = dict(zip(EXAMPLES, paths, strict=True))
        for name, path in self.paths.items():
            assert (pixels(Path(path)) == pixels(site.examples / name)).all()
        self.start_with(str(page.image()), page.mask())

    def start_with(self, path: str, mask: np.ndarray) -> None:
        """What should be on the sketchpad, with nothing to undo; and no result is looked at."""
        self.path, self.mask, self.result = path, mask, ""
        self.back, self.forward = list[tuple[str, np.ndarray]](), list[tuple[str, np.ndarray]]()
        self.discarded = (0, "")  # how many steps there were before, and the result that redo shows again

    def expect_change(self, path: str, mask: np.ndarray) -> None:
        self.discarded = (0, "")
        self.back.append((self.path, self.mask))
        self.path, self.mask, self.result, self.forward = path, mask, "", []

    def expect_painted(self, mask: np.ndarray) -> None:
        """Whoever paints on a result goes on from it."""
        if self.result:
            self.expect_change(self.result, np.zeros_like(self.mask))
        if (mask != self.mask).any():
            self.expect_change(self.path, mask)

    @property
    def size(self) -> tuple[int, int]:
        return self.mask.shape[1], self.mask.shape[0]

    def rest(self) -> float:
        """Milliseconds that a hand rests: not at all, shortly, or longer than a question about the mask does."""
        return self.chance.choice([0.0, 150.0, self.chance.uniform(400, 900)])

    def ready_mask(self) -> None:
        name = self.chance.choice(PRESETS)
        self.expect_painted(preset_mask(name, self.size))
        self.page.click(name.capitalize(), rest=self.rest())

    def paint(self) -> None:
        """A rectangle between the middles of two pixels. Apart from an example's mask it replaces it."""
        width, height = self.size
        xs, ys = (sorted(self.chance.sample(range(length), 2)) for length in self.size)
        mask = np.zeros_like(self.mask) if self.result else self.mask.copy()
        near, (left, right), (top, bottom) = np.pad(mask, 1), xs, ys
        touched = (
            near[top : bottom + 3, left + 1 : right + 2].any() or near[top + 1 : bottom + 2, left : right + 3].any()
        )
        if not touched and self.path == self.paths[FIRST] and (mask == preset_mask("center", self.size)).all():
            mask[:] = 0
        mask[top : bottom + 1, left : right + 1] = 255
        self.expect_painted(mask)
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
        self.expect_change(self.paths[name], preset_mask("center", size) * (name == FIRST))

    def undo(self) -> None:
        self._walk("Control+z", self.back, self.forward)

    def redo(self) -> None:
        steps, result = self.discarded
        if self.result:
            return
        if result and steps == len(self.back):
            self._walk("Control+Shift+Z", [], [])
            self.result = result
        else:
            self._walk("Control+Shift+Z", self.forward, self.back)

    def _walk(self, key: str, take: list[tuple[str, np.ndarray]], put: list[tuple[str, np.ndarray]]) -> None:
        self.page.evaluate("document.activeElement.blur()")
        self.page.keyboard.press(key)
        if self.result:
            self.discarded, self.result = (len(self.back), self.result), ""
        elif take:
            put.append((self.path, self.mask))
            self.path, self.mask = take.pop()

    def reload(self) -> None:
        runs = self.page.history()
        self.page.reload()
        expect(self.page.locator(".sp")).to_have_attribute("data-shown", self.path)
        self.page.wait_until(lambda: self.page.history() == runs)
        self.start_with(self.path, self.mask)

    def edit(self) -> None:
        """Once, what was asked for last."""
        if not self.mask.any():
            return
        before, runs = len(PIPELINE.edits), self.page.history()
        self.page.click("Edit")
        self.page.wait_until(lambda: len(PIPELINE.edits) > before)
        self.page.expect_finished()
        (image, mask), *more = PIPELINE.edits[before:]
        assert not more, "it was drawn more than once"
        assert np.array_equal(image, pixels(Path(self.path))), "another image was edited"
        assert np.array_equal(mask, self.mask), "another mask was edited"
        self.page.wait_until(lambda: (self.result or "?") not in unquote(self.page.result_address()))  # a new one
        assert self.page.history()[1:] == runs[:11] != self.page.history(), "a result came that was cancelled"
        self.result = self.shown_result()

    def shown_result(self) -> str:
        return unquote(self.page.result_address().partition("/file=")[2])

    def cancel(self) -> None:
        """At any moment, also when it is too late: what the page says is so."""
        if self.result or not self.mask.any():
            return
        runs = self.page.history()
        self.page.click("Edit", rest=self.rest() / 2)
        self.page.keyboard.press("Escape")
        self.page.expect_free()
        came, said = self.page.history() != runs, "Cancelled" in self.page.messages.inner_text()
        assert came != said, f"a result came: {came}; the page says cancelled: {said}"
        self.page.expect_review("finished" if came else "")
        if came:
            self.discarded = len(self.back), self.shown_result()
            self.page.click("Discard")

    def act(self) -> list[Callable[[], None]]:
        acts = [self.ready_mask, self.paint, self.example, self.undo, self.redo, self.edit, self.reload, self.cancel]
        chosen = self.chance.choices(acts, [5, 5, 3, 4, 3, 2, 1, 2])
        chosen[0]()
        return chosen

    def look(self, after: list[Callable[[], None]]) -> None:
        assert np.array_equal(self.page.mask(), self.mask), after
        assert str(self.page.image()) == self.path, after


@pytest.mark.parametrize(("rate", "latency", "much"), MACHINES)
def test_nothing_is_lost_however_fast_one_is(windows: Windows, site: Site, rate: int, latency: int, much: bool) -> None:
    with windows.open(site.url) as page:
        page.slow_down(rate, latency)
        seed = os.environ.get("SEED", str(random.randrange(10**6)))
        print(f"SEED={seed}")
        person = Person(page, site, random.Random(seed))
        rows = [[person.ready_mask], [person.example, person.ready_mask], [person.ready_mask, person.paint]]
        for row in rows * (20 if much else 1):
            for act in (*row, person.edit):  # with no look at the page, which takes its time, in between
                act()
            person.look(row)
        for _ in range(200 if much else 15):
            person.look(person.act())


def an_image_arrives(page: PageObject, first: Path, other: Path) -> None:
    """An image of the same size arrives: it comes without a mask, and undo leads to the stroke on the old one."""
    page.click("First: a hat", "Clear mask")
    page.begin_stroke(dx=15, dy=0)
    with page.expect_answer("open_image"):
        page.get_by_label("Image to paint on", exact=True).set_input_files(other)
    page.mouse.move(*page.middle(30, 0))
    assert (pixels(page.image()) == pixels(first)).all(), "it came before the stroke had ended"
    page.mouse.up()
    page.wait_until(lambda: bool((pixels(page.image()) == pixels(other)).all()))
    assert not page.mask().any(), "the stroke on the old image is the mask of the new one"
    page.click("Undo")
    assert (pixels(page.image()) == pixels(first)).all() and page.mask()[20, 20]


def a_result_arrives(page: PageObject, held: HeldPipeline) -> None:
    """A result arrives: it is in the history, and the page says so."""
    held.hold()
    held.results.clear()
    page.click("First: a hat", "Upper half")
    before, runs = page.mask(), page.history()
    page.click("Edit")
    page.wait_until(lambda: held.running == 1)
    page.begin_stroke(dx=-30, dy=40)
    held.results.set()
    page.wait_until(lambda: page.history() != runs)
    page.mouse.move(*page.middle(-30, 60))
    page.mouse.up()
    expect(page.note).to_contain_text("its result is in the history")
    page.expect_review("")
    assert (page.mask() >= before).all() and (page.mask() > before).any()
    page.runs.first.click()
    page.expect_review("finished")
    held.release()
    page.expect_free()


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
