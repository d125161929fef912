"""The page when something goes wrong around it: reloaded or closed in mid-run, open twice, the server gone and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_models import HeldPipeline
from page_object import PageObject, Site, Windows, pixels
from page_process import Relay
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def start(page: PageObject, site: Site) -> None:
    """Begin a run that takes a while."""
    page.press("Everything")
    page.expect_painted(64)
    page.press("Edit")
    expect(page.get_by_role("progressbar", name="Progress")).to_contain_text("of 64 tokens")
    assert site.pipeline.running == 1


@pytest.fixture
def window(windows: Windows, slow_site: Site) -> Iterator[PageObject]:
    """The page in a window that may log what is broken off."""
    with windows.open(slow_site.url, may_log_errors=True) as page:
        yield page


def test_a_page_that_is_reloaded_or_closed_frees_the_model(window: PageObject, slow_site: Site) -> None:
    start(window, slow_site)
    window.reload()
    window.wait_until(lambda: slow_site.pipeline.running == 0)
    window.wait_until_ready()
    with window.open_tab(slow_site.url) as tab:
        start(tab, slow_site)
    window.wait_until(lambda: slow_site.pipeline.running == 0)
    window.edit()


def test_what_was_painted_or_made_is_there_after_a_reload_but_not_in_another_tab(
    wide: PageObject, gradients: Path, site: Site
) -> None:
    wide.upload(gradients, (64, 32))
    wide.paint()
    painted = wide.mask()
    assert painted.any() and not painted.all()
    wide.reload()  # though nothing was run
    expect(wide.locator("#image-size")).to_contain_text("64 × 32")
    wide.wait_until_ready()
    assert (wide.mask() == painted).all()
    wide.press("Left half")
    wide.wait_until_ready()
    wide.type_prompt("a hat, sunglasses")
    wide.edit()
    made = wide.result_pixels()
    wide.reload()
    expect(wide.locator("#image-size")).to_contain_text("64 × 32")
    wide.wait_until_ready()
    expect(wide.prompt()).to_have_value("a hat, sunglasses")
    history = wide.get_by_role("region", name="History").get_by_role("button")
    expect(history).to_have_count(1)
    history.click()
    assert (wide.result_pixels() == made).all()
    wide.edit()
    assert (wide.result_pixels()[:, 34:] == pixels(gradients)[:, 34:]).all()
    with wide.open_tab(site.url) as tab:
        expect(tab.locator("#image-size")).to_contain_text("40 × 40")


def test_an_image_that_the_server_forgot_is_sent_again(windows: Windows, site: Site, gradients: Path) -> None:
    with windows.open(site.url, may_log_errors=True) as page:
        page.upload(gradients, (64, 32))
        page.press("Left half")
        page.wait_until_ready()
        page.wait_until(lambda: page.evaluate(KEPT, page.sent_value()["image"]))
        forgotten = Path(page.sent_value()["image"])
        forgotten.unlink()
        page.edit()
        assert page.sent_value()["image"] != str(forgotten)
        assert (page.result_pixels()[:, 34:] == pixels(gradients)[:, 34:]).all()
        Path(page.sent_value()["image"]).unlink()
        page.reload()
        expect(page.locator("#image-size")).to_contain_text("64 × 32")
        page.wait_until_ready()
        page.edit()
        assert (page.result_pixels()[:, 34:] == pixels(gradients)[:, 34:]).all()


# Whether the browser has put an image's file aside.
KEPT = """async path => {
    const copies = await caches.open("imagebart");
    return (await copies.keys()).some(({ url }) => decodeURIComponent(url).endsWith(path));
}"""


def test_two_tabs_of_one_browser_do_not_mix(window: PageObject, slow_site: Site) -> None:
    with window.open_tab(slow_site.url) as tab:
        tab.choose_second_example()
        tab.press("Lower half")
        tab.wait_until_ready()
        window.press("Edit")
        tab.press("Edit")
        window.expect_finished()
        tab.expect_finished()
        first, second = pixels(slow_site.examples / "01-first.png"), pixels(slow_site.examples / "02-second.png")
        assert (window.result_pixels()[:10] == first[:10]).all()
        assert (tab.result_pixels()[:20] == second[:20]).all()


def test_a_server_that_stops_is_missed_and_found_again(
    windows: Windows, held: HeldPipeline, held_site: Site, site: Site, slow_site: Site
) -> None:
    relay = Relay()
    held.results.clear()  # its run is not over before the server is
    with ExitStack() as open_window:
        with relay.to(held_site.url):
            page = open_window.enter_context(windows.open(relay.url, may_log_errors=True))
            page.press("Edit")
            expect(page.get_by_role("progressbar", name="Progress")).to_contain_text("tokens")
            page.press("Select by prompt")  # which waits for the run
            expect(page.locator(".sp-note")).to_contain_text("Looking")
        expect(page.locator(".sp-note")).to_contain_text("The server did not answer")
        expect(page.get_by_test_id("toast-body").first).to_contain_text("Connection to the server was lost")
        with relay.to(site.url):
            # The page reloads itself.
            expect(page.get_by_test_id("toast-body")).to_have_count(0)
            page.wait_until_ready()
            page.edit()
            page.press("Discard")
            page.press("Upper half")
            page.expect_painted(32)  # else the page asks a server that is gone, and reloads itself
            painted = page.mask()
        # Nothing ran meanwhile: the page still has the image and its mask, and a new server takes them from there.
        with relay.to(slow_site.url):
            page.edit()
            assert page.result_pixels().shape == (40, 40, 3) and (page.mask() == painted).all()
            page.press("Discard")
        page.click("Edit")
        expect(page.get_by_test_id("toast-body").first).to_contain_text("Connection to the server was lost")
        assert (page.mask() == painted).all()
