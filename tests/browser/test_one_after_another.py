"""The page in Chromium: what is asked for while a run goes on, or is just about to end."""

from __future__ import annotations

import re

import pytest
from driving import WIDE, Site, edit, finished, opened, press, redrawn, say, until
from pacing import HeldPipeline
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.browser

# Presses Edit in the first moment in which it can be pressed again.
EAGER = """() => {
    const button = document.getElementById("edit");
    new MutationObserver((_, observer) => {
        if (button.disabled) return;
        observer.disconnect();
        button.click();
    }).observe(button, { attributeFilter: ["disabled"] });
}"""


def test_an_edit_is_drawn_that_was_asked_for_as_soon_as_could_be(
    chromium: Browser, held_site: Site, held: HeldPipeline
) -> None:
    with opened(chromium, held_site.url, viewport=WIDE) as page:
        press(page, "Edit")
        expect(page.get_by_role("button", name="Edit", exact=True)).to_be_disabled()
        page.evaluate(EAGER)
        expect(page.locator(".sp")).to_have_attribute("data-review", "finished")
        held.let_go.set()
        until(page, lambda: held.runs == 2)
        finished(page)


def test_a_second_person_sees_their_place_and_can_leave_the_queue(
    chromium: Browser, held_site: Site, held: HeldPipeline
) -> None:
    with (
        opened(chromium, held_site.url, viewport=WIDE) as page,
        opened(chromium, held_site.url, viewport=WIDE) as other,
    ):
        press(page, "Edit")
        expect(page.locator(".sp")).to_have_attribute("data-review", "finished")
        press(other, "Edit")
        expect(other.locator("#progress")).to_contain_text(re.compile(r"queue: 1/1"))
        expect(other.locator("#progress")).to_contain_text("Waiting for the model")
        press(other, "Cancel")
        expect(other.locator("#messages")).to_contain_text("Cancelled")
        held.let_go.set()
        finished(page)
        edit(other)


def test_the_last_words_are_found_though_others_were_asked_for_before(
    chromium: Browser, held_site: Site, held: HeldPipeline
) -> None:
    with opened(chromium, held_site.url, viewport=WIDE) as page:
        press(page, "Clear mask")
        redrawn(page, None)
        for words in ("a hat", "sunglasses", "sunglasses"):
            say(page, words)
            press(page, "Select by prompt")
            expect(page.locator(".sp-note")).to_contain_text("Looking")
        held.let_go.set()
        redrawn(page, 16)
        expect(page.locator(".sp-note")).to_contain_text("Found by your words")
