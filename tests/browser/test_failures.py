"""The page when something goes wrong around it: reloaded in mid-run, files deleted, the server gone and back."""

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from fake_models import HeldPipeline
from page_object import PageObject, Site, Windows, gradient_image, pixels
from page_process import Relay
from PIL import Image
from playwright.sync_api import Route, expect

pytestmark = pytest.mark.browser


def start(page: PageObject, site: Site) -> None:
    """Begin a run that takes long."""
    site.pipeline.pause = 0.5
    page.press("Everything")
    page.expect_painted(64)
    page.press("Edit")
    expect(page.progress).to_contain_text("of 64 tokens")
    assert site.pipeline.running == 1


def test_a_page_that_is_reloaded_or_closed_frees_the_model(windows: Windows, slow_site: Site) -> None:
    with windows.open(slow_site.url, may_log_errors=True) as page:
        start(page, slow_site)
        page.reload()
        page.wait_until(lambda: slow_site.pipeline.running == 0)
        page.wait_until_ready()
        with page.open_tab(slow_site.url) as tab:
            start(tab, slow_site)
        page.wait_until(lambda: slow_site.pipeline.running == 0)


def test_what_was_painted_or_made_on_a_photo_is_there_after_a_reload_but_not_in_another_tab(
    wide: PageObject, tmp_path: Path, site: Site
) -> None:
    size, path = (2000, 1500), tmp_path / "photo.jpg"
    gradient_image((200, 150), 90).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    photo = pixels(path)
    wide.upload(path, size)
    expect(wide.unknown_image).to_have_text(
        "This model knows nothing only; in another kind of image, expect odd results."
    )
    wide.paint()
    painted = wide.mask()
    assert painted.shape == (768, 1024) and painted.any() and not painted.all()
    wide.reload()  # though nothing was run
    expect(wide.image_size).to_have_text("2000 × 1500 pixels")
    assert (wide.mask() == painted).all()
    wide.type_prompt("a hat, sunglasses")
    wide.edit()
    made = wide.result_pixels()
    changed = (made != photo).any(axis=-1)
    near = np.asarray(Image.fromarray(painted > 0).resize(size, Image.Resampling.NEAREST))
    assert changed[near].mean() > 0.5 and not changed[:500].any() and not changed[-500:].any()
    wide.press("Keep")
    wide.reload()
    expect(wide.prompt()).to_have_value("a hat, sunglasses")
    assert (pixels(Path(wide.sent_value()["image"])) == made).all()
    expect(wide.runs).to_have_count(1)
    wide.runs.click()
    assert (wide.result_pixels() == made).all() and (wide.mask() == painted).all()
    wide.choose_second_example()
    expect(wide.unknown_image).to_be_hidden()
    with wide.open_tab(site.url) as tab:
        expect(tab.image_size).to_contain_text("40 × 40")


# Whether the browser has put an image's file aside.
KEPT = """async path => {
    const copies = await caches.open("imagebart");
    return (await copies.keys()).some(({ url }) => decodeURIComponent(url).endsWith(path));
}"""


def test_an_image_that_the_server_forgot_is_sent_again(windows: Windows, site: Site, gradients: Path) -> None:
    with windows.open(site.url, may_log_errors=True) as page:
        page.upload(gradients, (64, 32))
        page.press("Left half")
        page.wait_until_ready()
        forgotten = Path(page.sent_value()["image"])
        page.wait_until(lambda: page.evaluate(KEPT, str(forgotten)))
        forgotten.unlink()
        page.edit()
        assert page.sent_value()["image"] != str(forgotten)
        assert (page.result_pixels()[:, 34:] == pixels(gradients)[:, 34:]).all()
        Path(page.sent_value()["image"]).unlink()
        page.reload()
        expect(page.image_size).to_contain_text("64 × 32")
        page.wait_until_ready()
        page.edit()
        assert (page.result_pixels()[:, 34:] == pixels(gradients)[:, 34:]).all()


def test_a_request_that_is_spoiled_on_its_way_loses_nothing(wide: PageObject, site: Site) -> None:
    def spoil(route: Route) -> None:
        """Takes all values out of what the browser sends, as no page would: Gradio itself refuses it."""
        sent = json.loads(route.request.post_data or "{}")
        route.continue_(post_data=json.dumps({**sent, "data": []}))

    wide.route("**/queue/join*", spoil)
    wide.press("Edit")
    expect(wide.messages).to_contain_text("please try again")
    expect(wide.button("Edit")).to_be_enabled()
    expect(wide.prompt()).to_have_value("a hat")
    wide.expect_painted(16)
    assert site.pipeline.running == 0


def test_a_server_that_stops_is_missed_and_found_again(
    windows: Windows, held: HeldPipeline, held_site: Site, site: Site, slow_site: Site
) -> None:
    relay = Relay()
    held.results.clear()  # its run is not over before the server is
    with ExitStack() as open_window:
        with relay.to(held_site.url):
            page = open_window.enter_context(windows.open(relay.url, may_log_errors=True))
            page.press("Edit")
            expect(page.progress).to_contain_text("tokens")
            page.press("Select by prompt")  # which waits for the run
            expect(page.note).to_contain_text("Looking")
        expect(page.note).to_contain_text("The server did not answer")
        expect(page.toasts.first).to_contain_text("Connection to the server was lost")
        with relay.to(site.url):
            # The page reloads itself.
            expect(page.toasts).to_have_count(0)
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
        expect(page.toasts.first).to_contain_text("Connection to the server was lost")
        assert (page.mask() == painted).all()
