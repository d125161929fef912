"""The page in Chromium: Cancel before the server has answered that a run begins, twice, and at the very end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from driving import WIDE, Site, edit, finished, opened, press, until
from pacing import HeldPipeline
from playwright.sync_api import Browser, Page, Route, expect

pytestmark = pytest.mark.browser

JOIN, CANCEL = "**/queue/join*", "**/cancel"


class Gate:
    """What the page asks at this address waits until the test opens the gate."""

    def __init__(self, page: Page, address: str) -> None:
        self._page, self.waiting, self._open = page, list[Route](), False
        page.route(address, self._take)

    def _take(self, route: Route) -> None:
        if self._open:
            route.continue_()
        else:
            self.waiting.append(route)

    def reached(self) -> None:
        until(self._page, lambda: bool(self.waiting))

    def open(self) -> None:
        self._open = True
        for route in self.waiting:
            route.continue_()


def cancelled(page: Page) -> None:
    expect(page.locator("#messages")).to_contain_text("Cancelled")
    expect(page.get_by_role("button", name="Edit", exact=True)).to_be_enabled()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_disabled()


@pytest.fixture
def page(chromium: Browser, held_site: Site) -> Iterator[Page]:
    with opened(chromium, held_site.url, viewport=WIDE) as page:
        yield page


def button(page: Page) -> None:
    press(page, "Cancel")


def twice(page: Page) -> None:
    page.get_by_role("button", name="Cancel", exact=True).dblclick()


def key(page: Page) -> None:
    page.keyboard.press("Escape")


@pytest.mark.parametrize("cancel", [button, twice, key])
def test_a_run_is_cancelled_before_the_server_has_answered(
    page: Page, held: HeldPipeline, cancel: Callable[[Page], None]
) -> None:
    start = Gate(page, JOIN)
    press(page, "Edit")
    start.reached()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_enabled()
    cancel(page)
    start.open()
    cancelled(page)
    expect(page.locator(".sp")).to_have_attribute("data-review", "")
    held.let_go.set()
    edit(page)
    expect(page.locator("#messages")).not_to_contain_text(re.compile("Cancelled|try again"))
    assert page.evaluate("document.querySelector('.sp').sketchpad.history.entries.length") == 1


def test_cancel_after_the_result_takes_nothing_back(page: Page, held: HeldPipeline) -> None:
    stop = Gate(page, CANCEL)
    press(page, "Edit")
    expect(page.locator(".sp")).to_have_attribute("data-review", "finished")
    press(page, "Cancel")
    held.let_go.set()
    finished(page)
    stop.open()
    edit(page)
    expect(page.locator("#messages")).not_to_contain_text(re.compile("Cancelled|try again"))
    assert not stop.waiting
