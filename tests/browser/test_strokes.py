"""What comes while the pointer is down: an upload, a result, a model, keys. A stroke belongs to the image it began on.

A short form is part of every test run; `make load` does each thing thirty times on each of six machines and prints
how many went wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_models import HeldPipeline
from page_object import PageObject, Site, Windows, gradient_image, pixels, preset_mask
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
LATENCY = 150  # milliseconds
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


def ready_mask(page: PageObject, site: Site, held: HeldPipeline, other: Path) -> None:
    """A ready mask ends the stroke, and is there alone."""
    begin(page)
    page.click("Lower half")
    page.mouse.up()
    assert (page.mask() == preset_mask("lower half", (40, 40))).all()


Row = Callable[[PageObject, Site, HeldPipeline, Path], None]
ROWS: tuple[Row, ...] = (upload, result, result_of_no_stroke, undo, invert, ready_mask)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """An upload of the same size as the first example."""
    path = tmp_path / "other.png"
    gradient_image((40, 40), 130).save(path)
    return path


def table(
    windows: Windows, site: Site, held: HeldPipeline, other: Path, rate: int, latency: int, times: int
) -> Counter[str]:
    """Each row so many times; prints how many went wrong."""
    wrong: Counter[str] = Counter()
    with windows.open(site.url) as page:
        page.slow_down(rate, latency)
        for row in ROWS * times:
            try:
                row(page, site, held, other)
            except AssertionError as error:
                wrong[row.__name__] += 1
                print(f"{row.__name__}: {error}")
                page.mouse.up()
                held.release()
                page.click("Cancel")
                page.wait_for("!document.documentElement.dataset.runState")
    print(f"{rate}x, {latency} ms:", ", ".join(f"{row.__name__} {wrong[row.__name__]}/{times}" for row in ROWS))
    return wrong


@pytest.mark.parametrize(("rate", "latency"), [(1, 0), (4, LATENCY)])
def test_a_stroke_belongs_to_the_image_it_began_on(
    windows: Windows, held_site: Site, held: HeldPipeline, other: Path, rate: int, latency: int
) -> None:
    assert not table(windows, held_site, held, other, rate, latency, 1)


@pytest.mark.load
@pytest.mark.parametrize("latency", [0, LATENCY])
@pytest.mark.parametrize("rate", [1, 4, 8])
def test_a_stroke_belongs_to_the_image_it_began_on_thirty_times(
    windows: Windows, held_site: Site, held: HeldPipeline, other: Path, rate: int, latency: int
) -> None:
    assert not table(windows, held_site, held, other, rate, latency, 30)


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
