"""What fits on the screen, with all the shipped examples: the main way without scrolling, and a phone's width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import served
from driving import PHONE, PIPELINE, Site, edit, opened, say
from playwright.sync_api import Browser, Locator, Page, expect

from imagebart.ui import messages

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
    with served(PIPELINE, ROOT / "assets" / "examples") as site:
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
    with opened(chromium, shipped_examples.url, viewport=screen) as page:
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
    with opened(chromium, shipped_examples.url, viewport=screen) as page:
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
    with opened(chromium, shipped_examples.url, viewport=PHONE) as phone:
        progress = phone.locator("#progress")
        heights = []
        for said in (messages.waiting_html(), longest):
            progress.evaluate("(part, said) => (part.innerHTML = said)", said)
            heights.append(box_of(progress.locator(".ib-line"))["height"])
        assert heights[0] == heights[1]
        assert in_sight(phone, progress.get_by_text("about 130.2 s left"), PHONE)


def test_a_phone_shows_everything_within_its_width(chromium: Browser, shipped_examples: Site) -> None:
    with opened(chromium, shipped_examples.url, viewport=PHONE, has_touch=True, is_mobile=True) as phone:
        above_the_dock(
            phone, phone.get_by_role("button", name="Select by prompt"), phone.get_by_role("button", name="Grow")
        )
        edit(phone)
        above_the_dock(phone, phone.get_by_role("button", name="Keep"), phone.get_by_label("From noise to image"))
        say(phone, "sunglases")
        expect(phone.locator("#meant")).to_be_visible()
        before = box_of(phone.locator("#edit"))
        edit(phone)
        assert box_of(phone.locator("#edit")) == before, "a button moved from under the finger"
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert phone.evaluate(OVERFLOWING) == []
        for button in (*phone.locator(".sp-tools button").all(), *phone.locator("#actions button").all()):
            assert min(box_of(button)["width"], box_of(button)["height"]) >= 40
