"""The page when something goes wrong around it: reloaded or closed in mid-run, open twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from driving import WIDE, Site, edit, finished, pick_second, pixels, press, redrawn, result, until
from playwright.sync_api import Browser, Page, expect
from test_editing import working

pytestmark = pytest.mark.browser


def start(page: Page) -> None:
    """Begin a run that takes a while."""
    press(page, "Everything")
    redrawn(page, 64)
    press(page, "Edit")
    expect(page.get_by_role("progressbar", name="Progress")).to_contain_text("of 64 tokens")
    assert working() > 0


@pytest.fixture
def window(chromium: Browser, site: Site) -> Iterator[Page]:
    """The page in a window that may log what is broken off."""
    context = chromium.new_context(viewport=WIDE)
    page = context.new_page()
    page.goto(site.url)
    ready(page)
    yield page
    context.close()


def ready(page: Page) -> None:
    expect(page.locator("#grid-line")).to_contain_text("will be redrawn")


def test_a_page_that_is_reloaded_or_closed_frees_the_model(window: Page, site: Site) -> None:
    start(window)
    window.reload()
    until(window, lambda: working() == 0)
    ready(window)
    other = window.context.new_page()
    other.goto(site.url)
    ready(other)
    start(other)
    other.close()
    until(window, lambda: working() == 0)
    edit(window)


def test_two_tabs_of_one_browser_do_not_mix(window: Page, site: Site) -> None:
    tab = window.context.new_page()
    tab.goto(site.url)
    ready(tab)
    pick_second(tab)
    press(tab, "Lower half")
    ready(tab)
    press(window, "Edit")
    press(tab, "Edit")
    finished(window)
    finished(tab)
    first, second = pixels(site.examples / "01-first.png"), pixels(site.examples / "02-second.png")
    assert (result(window)[:10] == first[:10]).all()
    assert (result(tab)[:20] == second[:20]).all()
