"""The page in Chromium while a run is shown: its film, its dissolves, its replay; on a quick browser and a slow one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_object import MANY_STAGES, PageObject, Site, Windows, pixels
from PIL import Image, ImageSequence
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
# How much of each new state is seen over the one before it, frame by frame; and the times at which states changed.
WATCH = """() => {
    const { review, canvas } = document.querySelector(".sp").sketchpad;
    window.mixes = [];
    window.steps = [];
    const { afterRender } = canvas;
    canvas.afterRender = () => {
        const scene = review.scene();
        if (scene) window.mixes.push(scene.mix);
        if (window.steps.at(-1)?.step !== review.step) window.steps.push({ step: review.step, at: performance.now() });
        afterRender();
    };
}"""


def states(page: PageObject) -> list[str]:
    """What the film shows of each state: empty, current or done."""
    found: list[str] = page.locator(".sp-film button").evaluate_all("all => all.map(({ dataset }) => dataset.state)")
    return found


@pytest.mark.parametrize("rate", [1, 4])
def test_the_film_fills_while_the_run_goes_on_and_is_replayed(windows: Windows, slow_site: Site, rate: int) -> None:
    with windows.open(slow_site.url, reduced_motion="no-preference") as page:
        page.slow_down(rate, 0)
        expect(page.locator(".sp-film button")).to_have_count(0)
        before = page.locator(".sp-masks").bounding_box()
        page.evaluate(WATCH)
        page.press("Edit")
        film = page.locator(".sp-film button")
        if rate == 1:  # a slowed browser may be shown all of so short a run at its end
            page.wait_until(lambda: states(page).count("done") >= 2)
            assert len(states(page)) == MANY_STAGES + 1 and "empty" in states(page)
            # One that is done is shown in place as long as the run goes on.
            film.first.click()
            expect(film.first).to_have_attribute("aria-pressed", "true")
            expect(page.caption()).to_contain_text("no token is fixed yet")
        page.expect_finished()
        page.expect_review("finished")
        assert states(page) == ["done"] * (MANY_STAGES + 1)
        assert film.all_inner_texts()[:2] == ["Noise", f"1 of {MANY_STAGES}"] and film.last.inner_text() == "Image"
        expect(film.last).to_have_attribute("aria-pressed", "true")
        assert page.locator(".sp-masks").bounding_box() == before, "it moved"
        assert any(0 < mix < 1 for mix in page.evaluate("mixes")), "states dissolve into each other"

        count = page.evaluate("document.querySelector('.sp').sketchpad.review.steps().length")
        page.evaluate("window.steps = []; window.mixes = [];")
        page.press("Replay")
        page.wait_for("() => document.querySelector('.sp').sketchpad.review.replaying")
        page.wait_for("() => !document.querySelector('.sp').sketchpad.review.replaying")
        seen: list[dict[str, Any]] = page.evaluate("steps")
        order = [one["step"] for one in seen[1:]] if seen[0]["step"] == count - 1 else [one["step"] for one in seen]
        assert order == list(range(count)), "each state is seen"
        assert 0.8 <= (seen[-1]["at"] - seen[0]["at"]) / 1000 <= 2 * rate
        assert any(0 < mix < 1 for mix in page.evaluate("mixes"))
        with page.expect_download() as download:
            page.press("Save as WebP")
        shown = page.evaluate(
            "(({ review }) => review.steps().map(({ shown }) => shown[0]))(document.querySelector('.sp').sketchpad)"
        )
        frames = [pixels(Path(path)) for path in shown]
        frames = [
            frame for frame, last in zip(frames, [None, *frames], strict=False) if last is None or (frame != last).any()
        ]
        with Image.open(download.value.path()) as saved:  # in which equal frames are one
            same = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(saved)]
        assert len(same) == len(frames) and all((a == b).all() for a, b in zip(same, frames, strict=True))
        # What is kept meanwhile is the result, not the state that is seen.
        result = page.result_address()
        page.press("Replay")
        page.wait_for("() => document.querySelector('.sp').sketchpad.review.replaying")
        page.press("Keep")
        page.expect_review("")
        assert result.endswith(page.sent_value()["image"].rpartition("/")[2])
        assert states(page) == []


def test_nothing_dissolves_where_no_motion_is_wanted(windows: Windows, slow_site: Site) -> None:
    with windows.open(slow_site.url) as page:
        page.evaluate(WATCH)
        page.edit()
        page.press("Replay")
        page.wait_for("() => document.querySelector('.sp').sketchpad.review.replaying")
        page.wait_for("() => !document.querySelector('.sp').sketchpad.review.replaying")
        assert set(page.evaluate("mixes")) == {1}
