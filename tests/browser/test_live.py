"""The page in Chromium in live mode: strokes and words regenerate at once; on a quick browser and a slow one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from page_object import PIPELINE, STAGES, PageObject, Site, Windows, pixels
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
# Notes each result that is shown: how many states its run has, and whether it came during a stroke or to another mask.
WATCH = """() => {
    const { review, state } = document.querySelector(".sp").sketchpad;
    const finish = review.finish.bind(review);
    window.shown = [];
    review.finish = (run, ...more) => {
        const late = run.version !== state.version;
        window.shown.push({ states: run.film.length, late, stroke: Boolean(state.stroke) });
        return finish(run, ...more);
    };
}"""


def shown_states(page: PageObject) -> list[int]:
    """How many states the runs have whose results were shown."""
    found: list[int] = page.evaluate("shown.map(({ states }) => states)")
    return found


@pytest.mark.parametrize("rate", [1, 4])
def test_each_stroke_and_each_pause_in_typing_regenerates_at_once(windows: Windows, site: Site, rate: int) -> None:
    with windows.open(site.url) as page:
        page.slow_down(rate, 0)
        page.evaluate(WATCH)
        start = page.sent_value()["image"]
        page.get_by_role("switch", name="Live").check()
        # The mask that is there, as a draft with one scale, and when the hand rests with all.
        page.wait_until(lambda: shown_states(page) == [2, STAGES + 1])
        assert len(page.history()) == 1, "drafts are not in the history"
        edits = len(PIPELINE.edits)
        page.drag((0.1, 0.1), (0.3, 0.1))
        page.wait_until(lambda: shown_states(page)[2:] == [2, STAGES + 1])
        runs = PIPELINE.edits[edits:]
        assert len(runs) == 2 and page.mask()[4, 8] and page.mask()[20, 20], "the mask has grown"
        for image, mask in runs:
            assert (np.asarray(mask) == page.mask()).all() and (np.asarray(image) == pixels(Path(start))).all()
        # Words: the focus stays where one writes.
        page.prompt().focus()
        page.keyboard.type(" and sunglasses")
        page.wait_until(lambda: shown_states(page)[4:] == [2, STAGES + 1])
        expect(page.prompt()).to_be_focused()
        expect(page.locator("#messages")).not_to_contain_text("Cancelled")
        result = page.result_address()
        page.press("Keep")
        page.expect_painted(0)
        kept = page.sent_value()["image"]
        assert kept != start and result.endswith(kept.rpartition("/")[2])
        page.wait_for_timeout(1500)  # longer than the hand rests: without a mask nothing runs
        assert len(shown_states(page)) == 6
        page.get_by_role("switch", name="Live").uncheck()
        page.press("Upper half")
        page.wait_for_timeout(300)
        assert len(shown_states(page)) == 6


@pytest.mark.parametrize("rate", [1, 4])
def test_a_newer_stroke_ends_the_older_run_and_no_result_lands_in_it(
    windows: Windows, slow_site: Site, rate: int
) -> None:
    with windows.open(slow_site.url) as page:
        page.slow_down(rate, 0)
        page.evaluate(WATCH)
        page.get_by_role("switch", name="Live").check()
        for dy in range(-60, 80, 20):
            page.wait_until(lambda: slow_site.pipeline.running > 0)
            page.begin_stroke(dx=40 + dy / 4, dy=dy)
            page.wait_for_timeout(100 + 5 * (dy + 60))
            page.mouse.up()
        page.wait_until(lambda: len(shown_states(page)) > 0 and slow_site.pipeline.running == 0)
        page.expect_finished()
        page.wait_until(lambda: not page.evaluate("document.querySelector('.sp').sketchpad.review.running"))
        assert all(not one["late"] and not one["stroke"] for one in page.evaluate("shown"))
        assert (np.asarray(slow_site.pipeline.edits[-1][1]) == page.mask()).all()
        expect(page.canvas()).to_be_focused()
        expect(page.locator("#messages")).not_to_contain_text("Cancelled")
