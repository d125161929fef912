"""The page when something goes wrong around it: reloaded or closed in mid-run, open twice, the server gone and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from socket import socket

import pytest
from driving import (
    WIDE,
    Site,
    choose_second_example,
    edit,
    expect_finished,
    expect_regenerated,
    gradient_image,
    mask,
    new_context,
    paint,
    pixels,
    press,
    result_pixels,
    sent_value,
    type_prompt,
    upload,
    wait_until,
    wait_until_ready,
)
from page_process import page_process
from playwright.sync_api import Browser, Page, expect

from imagebart.imaging.masks import preset

pytestmark = pytest.mark.browser


def start(page: Page, site: Site) -> None:
    """Begin a run that takes a while."""
    press(page, "Everything")
    expect_regenerated(page, 64)
    press(page, "Edit")
    expect(page.get_by_role("progressbar", name="Progress")).to_contain_text("of 64 tokens")
    assert site.pipeline.running == 1


@pytest.fixture
def window(chromium: Browser, slow_site: Site) -> Iterator[Page]:
    """The page in a window that may log what is broken off."""
    context = new_context(chromium, viewport=WIDE)
    page = context.new_page()
    page.goto(slow_site.url)
    wait_until_ready(page)
    yield page
    context.close()


def test_a_page_that_is_reloaded_or_closed_frees_the_model(window: Page, slow_site: Site) -> None:
    start(window, slow_site)
    window.reload()
    wait_until(window, lambda: slow_site.pipeline.running == 0)
    wait_until_ready(window)
    other = window.context.new_page()
    other.goto(slow_site.url)
    wait_until_ready(other)
    start(other, slow_site)
    other.close()
    wait_until(window, lambda: slow_site.pipeline.running == 0)
    edit(window)


def test_what_was_made_is_there_after_a_reload_but_not_in_another_tab(wide: Page, gradients: Path, site: Site) -> None:
    upload(wide, gradients, (64, 32))
    press(wide, "Left half")
    wait_until_ready(wide)
    type_prompt(wide, "a hat, sunglasses")
    edit(wide)
    made = result_pixels(wide)
    wide.reload()
    expect(wide.locator("#image-size")).to_contain_text("64 × 32")
    wait_until_ready(wide)
    expect(wide.get_by_label("What should be there?").first).to_have_value("a hat, sunglasses")
    history = wide.get_by_role("region", name="History").get_by_role("button")
    expect(history).to_have_count(1)
    history.click()
    assert (result_pixels(wide) == made).all()
    edit(wide)
    assert (result_pixels(wide)[:, 34:] == pixels(gradients)[:, 34:]).all()
    tab = wide.context.new_page()
    tab.goto(site.url)
    expect(tab.locator("#image-size")).to_contain_text("40 × 40")


def test_what_was_painted_is_there_after_a_reload_though_nothing_was_run(wide: Page, gradients: Path) -> None:
    upload(wide, gradients, (64, 32))
    paint(wide)
    painted = mask(wide)
    assert painted.any() and not painted.all()
    wide.reload()
    expect(wide.locator("#image-size")).to_contain_text("64 × 32")
    wait_until_ready(wide)
    assert (mask(wide) == painted).all()


def test_a_picture_that_the_server_forgot_is_sent_again(chromium: Browser, site: Site, gradients: Path) -> None:
    context = new_context(chromium, viewport=WIDE)
    page = context.new_page()
    page.goto(site.url)
    wait_until_ready(page)
    upload(page, gradients, (64, 32))
    press(page, "Left half")
    wait_until_ready(page)
    wait_until(page, lambda: page.evaluate(KEPT, sent_value(page)["image"]))
    forgotten = Path(sent_value(page)["image"])
    forgotten.unlink()
    edit(page)
    assert sent_value(page)["image"] != str(forgotten)
    assert (result_pixels(page)[:, 34:] == pixels(gradients)[:, 34:]).all()
    Path(sent_value(page)["image"]).unlink()
    page.reload()
    expect(page.locator("#image-size")).to_contain_text("64 × 32")
    wait_until_ready(page)
    edit(page)
    assert (result_pixels(page)[:, 34:] == pixels(gradients)[:, 34:]).all()
    context.close()


# Whether the browser has put a picture's file aside.
KEPT = """path => new Promise((done) => {
    const request = indexedDB.open("imagebart", 1);
    request.onsuccess = () => {
        const found = request.result.transaction("files").objectStore("files").get(path);
        found.onsuccess = () => done(Boolean(found.result));
    };
})"""


def test_two_tabs_of_one_browser_do_not_mix(window: Page, slow_site: Site) -> None:
    tab = window.context.new_page()
    tab.goto(slow_site.url)
    wait_until_ready(tab)
    choose_second_example(tab)
    press(tab, "Lower half")
    wait_until_ready(tab)
    press(window, "Edit")
    press(tab, "Edit")
    expect_finished(window)
    expect_finished(tab)
    first, second = pixels(slow_site.examples / "01-first.png"), pixels(slow_site.examples / "02-second.png")
    assert (result_pixels(window)[:10] == first[:10]).all()
    assert (result_pixels(tab)[:20] == second[:20]).all()


def free_port() -> int:
    """One that no other page takes while its server is gone: Gradio takes those from 7860 on."""
    with socket() as place:
        place.bind(("127.0.0.1", 0))
        number: int = place.getsockname()[1]
    return number


def test_a_server_that_stops_is_missed_and_found_again(chromium: Browser, tmp_path: Path) -> None:
    examples = tmp_path / "examples"
    examples.mkdir()
    gradient_image((40, 40), 0).save(examples / "01-first.png")
    preset("centre", (40, 40)).save(examples / "01-first.mask.png")
    (examples / "01-first.txt").write_text("a hat", encoding="utf-8")
    context = new_context(chromium, viewport=WIDE)
    page = context.new_page()
    port = free_port()
    with page_process(tmp_path, stages=16, pause=3600, port=port) as server:  # its run is not over before it is
        page.goto(server.url)
        wait_until_ready(page)
        press(page, "Edit")
        expect(page.get_by_role("progressbar", name="Progress")).to_contain_text("tokens")
        press(page, "Select by prompt")  # which waits for the run
        expect(page.locator(".sp-note")).to_contain_text("Looking")
    expect(page.locator(".sp-note")).to_contain_text("The server does not answer")
    expect(page.get_by_test_id("toast-body").first).to_contain_text("Connection to the server was lost")
    with page_process(tmp_path, stages=4, port=port):
        # The page reloads itself.
        expect(page.get_by_test_id("toast-body")).to_have_count(0)
        wait_until_ready(page)
        edit(page)
        press(page, "Discard")
        press(page, "Upper half")
        expect_regenerated(page, 32)  # else the page asks a server that is gone, and reloads itself
        painted = mask(page)
    # Nothing ran meanwhile: the page still has the picture and its mask, and a new server takes them from there.
    with page_process(tmp_path, stages=4, port=port):
        edit(page)
        assert result_pixels(page).shape == (40, 40, 3) and (mask(page) == painted).all()
    context.close()
