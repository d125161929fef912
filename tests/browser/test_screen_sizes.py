"""The page in Chromium on wide screens and a phone: what fits and can be reached; and once with the shipped model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from driving import (
    PATIENCE,
    PHONE,
    PIPELINE,
    WIDE,
    Site,
    canvas,
    choose_second_example,
    edit,
    expect_finished,
    open_page,
    pixels,
    result_pixels,
    served_with_examples,
    type_prompt,
    unfold,
)
from page_server import served
from playwright.sync_api import Browser, Locator, Page, expect

from imagebart.pipeline import Pipeline
from imagebart.ui import messages
from imagebart.ui.examples import Example, find_examples

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
SCREENS = [{"width": 1440, "height": 900}, {"width": 1024, "height": 768}]
# Labels that are wider than their buttons.
OVERFLOWING = """[
    ...document.querySelectorAll("#dock button, #sharing button, .sp button, a.sp-button"),
].filter((button) => {
    if (!button.checkVisibility()) return false;
    const text = document.createRange();
    text.selectNodeContents(button);
    const [label, box] = [text.getBoundingClientRect(), button.getBoundingClientRect()];
    return label.left < box.left || label.right > box.right;
}).map((button) => button.textContent)"""


@pytest.fixture(scope="module")
def shipped_examples() -> Iterator[Site]:
    with served_with_examples(PIPELINE, ROOT / "checkpoints" / "avatars" / "examples") as site:
        yield site


def box_of(part: Locator) -> dict[str, float]:
    box = part.bounding_box()
    assert box is not None
    return dict(box)


def in_sight(page: Page, part: Locator, screen: dict[str, int]) -> bool:
    box = box_of(part)
    inside = box["x"] >= 0 and box["x"] + box["width"] <= screen["width"]
    return inside and box["y"] >= 0 and box["y"] + box["height"] <= screen["height"]


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: f"{screen['width']} x {screen['height']}")
def test_the_main_way_needs_no_scrolling(chromium: Browser, shipped_examples: Site, screen: Any) -> None:
    with open_page(chromium, shipped_examples.url, viewport=screen) as page:
        prompt = page.get_by_label("What should be there?").first
        names = ("Upper half", "Clear mask", "Edit")
        painting = [page.get_by_role("button", name=name, exact=True) for name in names]
        for part in (*painting, page.locator(".sp canvas"), prompt, page.locator(".sp-examples")):
            assert in_sight(page, part, screen), part
        edit(page)
        finishing = [page.get_by_role(role, name=name) for role, name in (("button", "Keep"), ("link", "Download"))]
        for part in (*finishing, page.locator("#progress"), page.locator(".sp canvas"), page.locator("#history")):
            assert in_sight(page, part, screen), part
        page.locator("#how-many").get_by_text("4", exact=True).click()
        edit(page)
        variants = page.get_by_role("toolbar", name="Variants").get_by_role("button")
        expect(variants).to_have_count(4)
        assert in_sight(page, variants.last, screen)
        assert page.evaluate("scrollY") == 0
        assert page.evaluate(OVERFLOWING) == []


@pytest.mark.parametrize("screen", SCREENS[1:], ids=lambda screen: f"{screen['width']} x {screen['height']}")
def test_settings_open_beside_the_picture_and_what_is_asked_for(
    chromium: Browser, shipped_examples: Site, screen: Any
) -> None:
    with open_page(chromium, shipped_examples.url, viewport=screen) as page:
        page.locator("#settings > button").click()
        page.locator("#reset").scroll_into_view_if_needed()
        assert page.evaluate("scrollY") > 0
        for part in (page.locator(".sp canvas"), page.get_by_role("button", name="Edit", exact=True)):
            assert in_sight(page, part, screen), part


def above_the_dock(phone: Page, *parts: Locator) -> None:
    """In sight while the dock shows no notes, which need a place of their own."""
    notes = phone.locator("#messages").evaluate("part => part.offsetHeight")
    edge = box_of(phone.locator("#dock"))["y"] + notes
    for part in parts:
        box = box_of(part)
        assert (phone.evaluate("scrollY"), box["y"] + box["height"] <= edge) == (0, True), f"{part}: {box}, {edge}"


def test_progress_is_one_line_however_much_it_says(chromium: Browser, shipped_examples: Site) -> None:
    run = {"stage": 3, "stages": 8, "resample_index": 1, "resamples": 4, "position": 137, "total": 256}
    clocks = {"fraction": 0.5, "elapsed": 128.4, "remaining": 130.2}
    longest = messages.progress_html(SimpleNamespace(**run, **clocks))
    with open_page(chromium, shipped_examples.url, viewport=PHONE) as phone:
        progress = phone.locator("#progress")
        heights = []
        for said in (messages.waiting_html(), longest):
            progress.evaluate("(part, said) => (part.innerHTML = said)", said)
            heights.append(box_of(progress.locator(".ib-line"))["height"])
        assert heights[0] == heights[1]
        assert in_sight(phone, progress.get_by_text("about 130.2 s left"), PHONE)


def test_a_phone_shows_everything_within_its_width(chromium: Browser, shipped_examples: Site) -> None:
    with open_page(chromium, shipped_examples.url, viewport=PHONE, has_touch=True, is_mobile=True) as phone:
        above_the_dock(
            phone, phone.get_by_role("button", name="Select by prompt"), phone.get_by_role("button", name="Grow")
        )
        edit(phone)
        above_the_dock(phone, phone.get_by_role("button", name="Keep"), phone.get_by_label("From noise to image"))
        type_prompt(phone, "sunglases")
        expect(phone.locator("#corrections")).to_be_visible()
        before = box_of(phone.locator("#edit"))
        edit(phone)
        assert box_of(phone.locator("#edit")) == before, "a button moved from under the finger"
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert phone.evaluate(OVERFLOWING) == []
        for button in (*phone.locator(".sp-tools button").all(), *phone.locator("#actions button").all()):
            assert min(box_of(button)["width"], box_of(button)["height"]) >= 40


def test_nothing_is_out_of_reach_and_drawing_does_not_scroll(chromium: Browser, site: Site) -> None:
    with open_page(chromium, site.url, viewport=PHONE, has_touch=True, is_mobile=True) as phone:
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
        choose_second_example(phone)
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
        expect_finished(phone)
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
    examples = find_examples(ROOT / "checkpoints" / "avatars" / "examples")
    with served(Pipeline.from_pretrained(ROOT / "checkpoints" / "avatars"), examples) as url:
        yield url, examples[0]


@pytest.mark.shipped
def test_the_first_click_edits_an_avatar(chromium: Browser, shipped: tuple[str, Example]) -> None:
    url, example = shipped
    with open_page(chromium, url, viewport=WIDE) as page:
        expect(page.get_by_label("What should be there?").first).to_have_value(example.prompt, timeout=PATIENCE)
        expect(page.locator("#unknown")).to_be_hidden()
        edit(page)
        mask = example.mask()
        assert mask is not None
        painted = np.asarray(mask) > 0
        changed = (result_pixels(page) != pixels(example.path)).any(axis=-1)
        assert changed[painted].mean() > 0.2 and not changed[~painted].any()
        expect(page.locator("#messages")).to_have_text("")
