"""The page in Chromium on a phone, and once with the shipped model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from driving import PATIENCE, PHONE, WIDE, Site, canvas, edit, finished, opened, pick_second, pixels, result, unfold
from playwright.sync_api import Browser, Locator, Page, expect

from imagebart.pipeline import Pipeline
from imagebart.ui.app import build_page, launch_page
from imagebart.ui.examples import Example, find_examples

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]


def test_nothing_is_out_of_reach_and_drawing_does_not_scroll(chromium: Browser, site: Site) -> None:
    with opened(chromium, site.url, viewport=PHONE, has_touch=True, is_mobile=True) as phone:
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        for name in ("Edit", "Generate", "Vary", "Cancel"):
            box = phone.get_by_role("button", name=name, exact=True).bounding_box()
            assert box is not None and box["height"] >= 40 and box["y"] > PHONE["height"] / 2, f"{name}: out of reach"
            assert box["y"] + box["height"] <= PHONE["height"], name
        unfold(phone, "Settings")
        names = ("Upload an image", "Upper half", "Everything", "Invert", "Surprise me", "Brush", "Redo", "Zoom in")
        for name in (*names, "Keep the last seed"):
            box = phone.get_by_role("button", name=name, exact=True).bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], name
            assert name == "Keep the last seed" or box["height"] >= 36, name
        for button in phone.locator(".sp-tools button").all():
            box = button.bounding_box()
            assert box is not None and min(box["width"], box["height"]) >= 40

        phone.locator("#settings > button").click()  # and fold again
        pick_second(phone)
        phone.evaluate("scrollTo(0, 0)")
        swipe(phone, phone.locator("#heading"), upwards=200)
        phone.wait_for_function("scrollY > 50")
        canvas(phone).scroll_into_view_if_needed()
        height = phone.evaluate("scrollY")
        swipe(phone, canvas(phone), upwards=60)
        expect(phone.locator("#grid-status")).to_contain_text("will be regenerated")
        assert phone.evaluate("scrollY") == height
        # The stroke's last change has been told: an answer to an older mask would go to the history alone.
        pad = phone.locator(".sp")
        expect(pad).to_have_attribute("data-grid-version", pad.get_attribute("data-version") or "")
        phone.get_by_role("button", name="Edit", exact=True).tap()
        expect(phone.locator(".sp")).to_have_attribute("data-review", "finished")
        finished(phone)
        expect(canvas(phone)).to_be_in_viewport()
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def swipe(page: Page, over: Locator, upwards: int) -> None:
    """A finger moving up from the middle of something."""
    box = over.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 11):
        point = {"x": x, "y": y - upwards * step / 10}
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.fixture(scope="module")
def shipped() -> Iterator[tuple[str, Example]]:
    """The page as people get it, and its first example."""
    examples = find_examples(ROOT / "assets" / "examples")
    page = build_page(Pipeline.from_pretrained(ROOT / "checkpoints" / "avatars"), examples)
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    yield url, examples[0]
    page.close(verbose=False)


@pytest.mark.shipped
def test_the_first_click_edits_an_avatar(chromium: Browser, shipped: tuple[str, Example]) -> None:
    url, example = shipped
    with opened(chromium, url, viewport=WIDE) as page:
        expect(page.get_by_label("What should be there?").first).to_have_value(example.prompt, timeout=PATIENCE)
        expect(page.locator("#unknown")).to_be_hidden()
        edit(page)
        mask = example.mask()
        assert mask is not None
        painted = np.asarray(mask) > 0
        changed = (result(page) != pixels(example.path)).any(axis=-1)
        assert changed[painted].mean() > 0.2 and not changed[~painted].any()
        expect(page.locator("#messages")).to_have_text("")
