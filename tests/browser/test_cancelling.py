"""The page in Chromium: Cancel at any moment, on slow machines and lines. What the page says of a run is so.

A short form is part of every test run; `make load` does each thing thirty times, and SEED=N the same ones again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from driving import WIDE, Site, edit, finished, mask, opened, press, redrawn, say, seed, slow_down, until
from pacing import HeldPipeline
from playwright.sync_api import Browser, Page, Route, expect

pytestmark = pytest.mark.browser

JOIN, ASKED = "**/queue/join*", "**/component_server/"
SLOW = [(1, 0), (4, 150), (8, 150)]  # times slower, milliseconds of latency


class Gate:
    """What the page sends to an address waits until the test opens the gate; of it, only what holds these words."""

    def __init__(self, page: Page, address: str, words: str) -> None:
        self._page, self._words, self.waiting, self._open = page, words, list[Route](), False
        page.route(address, self._take)

    def _take(self, route: Route) -> None:
        if self._open or self._words not in (route.request.post_data or ""):
            route.continue_()
        else:
            self.waiting.append(route)

    def reached(self) -> None:
        until(self._page, lambda: bool(self.waiting))

    def open(self) -> None:
        self._open = True
        for route in self.waiting:
            route.continue_()


@pytest.fixture(params=SLOW, ids=lambda slow: f"{slow[0]}x-{slow[1]}ms")
def page(chromium: Browser, held_site: Site, request: pytest.FixtureRequest) -> Iterator[Page]:
    with opened(chromium, held_site.url, viewport=WIDE) as page:
        say(page, "a hat, sunglasses")
        slow_down(page, *request.param)
        yield page


def button(page: Page) -> None:
    press(page, "Cancel")


def twice(page: Page) -> None:
    page.get_by_role("button", name="Cancel", exact=True).dblclick()


def key(page: Page) -> None:
    page.keyboard.press("Escape")


def runs(page: Page) -> int:
    """How many runs the history holds."""
    found: int = page.evaluate("document.querySelector('.sp').sketchpad.history.entries.length")
    return found


def cancelling(page: Page) -> None:
    """The page says that it is about to cancel, and no more than that."""
    expect(page.get_by_role("button", name="Cancelling …")).to_be_visible()
    expect(page.locator("#messages")).not_to_contain_text("Cancelled")


def ready_again(page: Page) -> None:
    expect(page.get_by_role("button", name="Edit", exact=True)).to_be_enabled()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_disabled()


def as_it_was(page: Page) -> None:
    """The run was cancelled: the page says so, and has picture, mask and words, and no result."""
    expect(page.locator("#messages")).to_contain_text("Cancelled")
    ready_again(page)
    expect(page.locator(".sp")).to_have_attribute("data-review", "")
    expect(page.get_by_label("What should be there?").first).to_have_value("a hat, sunglasses")
    redrawn(page, 16)
    assert mask(page).any() and runs(page) == 0


def goes_on(page: Page, held: HeldPipeline) -> None:
    """The next run is drawn, and is the only one of which there is a result."""
    held.let_go.set()
    edit(page)
    expect(page.locator("#messages")).not_to_contain_text("Cancelled")
    assert runs(page) == 1


@pytest.mark.parametrize("cancel", [button, twice, key])
def test_a_run_is_cancelled_before_the_server_has_heard_of_it(
    page: Page, held: HeldPipeline, cancel: Callable[[Page], None]
) -> None:
    start = Gate(page, JOIN, '"run"')
    press(page, "Edit")
    start.reached()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_enabled()
    cancel(page)
    cancelling(page)
    start.open()
    as_it_was(page)
    assert held.runs == 0, "it was drawn"
    goes_on(page, held)
