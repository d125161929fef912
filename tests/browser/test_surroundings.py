"""The page in other surroundings: dense screens, no storage, a frame, a newer server, a screen reader, Firefox; and
when something goes wrong around it: it is reloaded in mid-run, files are deleted, the server is gone and back.
"""

import json
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import playwright
import pytest
from fake_models import HeldPipeline
from page_object import PIPELINE, PageObject, Site, Windows, box_of, gradient_image, pixels, preset_mask
from page_server import free_port, relayed, served
from PIL import Image
from playwright.sync_api import Route, expect

from imagebart.ui.files import unpack_mask
from imagebart.ui.models import find_examples

pytestmark = pytest.mark.browser
NODE = Path(playwright.__file__).parent / "driver" / "node"
GONE = "Connection to the server was lost"


@pytest.mark.parametrize("density", [1, 2, 3])
def test_what_is_painted_is_where_the_pointer_was_on_dense_screens_and_zoomed_images(
    windows: Windows, site: Site, density: int
) -> None:
    with windows.open(site.url, device_scale_factor=density) as page:
        whole = page.view()
        page.press("Clear mask")
        page.press("Rectangle")
        page.canvas.hover()
        page.mouse.wheel(0, -150)
        page.wait_until(lambda: page.view()["scale"] > 1.1 * whole["scale"])
        page.keyboard.press("ArrowLeft")
        assert page.view()["x"] != whole["x"]
        page.drag((10.5 / 40, 8.5 / 40), (19.5 / 40, 29.5 / 40))
        wanted = np.zeros((40, 40), bool)
        wanted[8:30, 10:20] = True
        assert np.array_equal(page.mask() > 0, wanted)
        page.keyboard.press("0")
        assert page.view() == whole
        page.wait_until_ready()
        page.mouse.move(0, 0)
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        box, screen = box_of(page.canvas), pixels(page.screenshot())
        assert page.pad("pad.canvas.element.width / pad.canvas.frame.clientWidth") == density, "it is blurred"
        at = [((np.arange(40) + 0.5) * whole["scale"] + whole[axis] + box[axis]) * density for axis in "yx"]
        blue = screen[np.ix_(*(np.rint(places).astype(int) for places in at))][..., 2].astype(int)
        assert ((blue > 40) == wanted).all(), "0 in this image, and 113 in the brush"
        fitted, before = page.fitted_mask(), pixels(site.examples / "01-first.png")
        page.edit()
        changed = (page.result_pixels() != before).any(axis=-1)
        assert changed[wanted].mean() > 0.5 and not changed[~fitted].any()


def test_an_image_is_pasted(wide: PageObject, gradients: Path) -> None:
    wide.context.grant_permissions(["clipboard-read", "clipboard-write"])
    wide.evaluate(
        """bytes => navigator.clipboard.write(
            [new ClipboardItem({ "image/png": new Blob([new Uint8Array(bytes)], { type: "image/png" }) })])""",
        list(gradients.read_bytes()),
    )
    wide.prompt.focus()
    wide.keyboard.press("Control+v")
    expect(wide.image_size).to_have_text("64 × 32 pixels")
    expect(wide.prompt).to_have_value("a hat")
    assert np.array_equal(pixels(wide.image()), pixels(gradients))


FILL = """() => {
    for (let size = 2 ** 22; size >= 1; size /= 2) {
        try {
            while (true) sessionStorage.setItem(`filler ${sessionStorage.length}`, "x".repeat(size));
        } catch {} // that many letters no longer fit
    }
}"""
FORBID = """for (const name of ["sessionStorage", "localStorage", "indexedDB", "caches"]) {
    Object.defineProperty(window, name, { get() { throw new DOMException("Access is denied", "SecurityError"); } });
}"""


@pytest.mark.parametrize("storage", ["full", "forbidden"])
def test_without_storage_the_page_works_and_says_what_a_reload_loses(
    windows: Windows, site: Site, gradients: Path, storage: str
) -> None:
    with windows.open(site.url) as page:
        if storage == "forbidden":
            page.add_init_script(FORBID)
            page.reload()
            page.wait_until_ready()
        else:
            page.press("Clear mask")
            page.evaluate(FILL)
        page.press("Border")
        expect(page.note).to_contain_text("when it is reloaded, your image, mask and history are lost")
        page.upload(gradients, (64, 32))
        page.press("Left half")
        page.edit()
        assert (page.result_pixels()[:, 34:] == pixels(gradients)[:, 34:]).all()
        page.reload()
        page.wait_until_ready()
        expect(page.image_size).to_have_text("40 × 40 pixels")
        assert page.history() == []
        page.edit()


def test_in_a_frame_under_a_path_a_stroke_is_edited_and_its_images_come(windows: Windows, examples: Path) -> None:
    with (
        served(PIPELINE, find_examples(examples), root_path="/images") as url,  # as behind a proxy
        windows.open(url) as window,
        window.context.new_page() as outer,
    ):
        outer.goto(url.replace("127.0.0.1", "localhost") + "robots.txt")  # of another site, as a Space's
        outer.set_content(f"<iframe src='{url}images/' width=1200 height=880></iframe>")
        page = PageObject(outer.frames[1])
        page.wait_until_ready()
        page.press("Clear mask")
        outer.mouse.move(*page.middle(-60))
        outer.mouse.down()
        outer.mouse.move(*page.middle(60), steps=5)
        outer.mouse.up()
        painted = page.mask() > 0
        assert painted[20, 15:25].all() and not painted[:10].any()
        page.edit()
        assert page.result_address().startswith(f"{url}images/")
        page.wait_for("[...document.images].every(({ complete, naturalWidth }) => complete && naturalWidth)")


LISTEN = """() => {
    window.said = [];
    for (const region of document.querySelectorAll("#announcement[role=status], #messages[role=status]")) {
        const listen = () => region.textContent.trim() && said.push(region.textContent.trim());
        new MutationObserver(listen).observe(region, { childList: true, subtree: true, characterData: true });
    }
}"""


def test_who_does_not_see_the_page_hears_what_happens(wide: PageObject) -> None:
    wide.evaluate(LISTEN)
    wide.edit()
    said = wide.evaluate("said")
    assert said[:2] == ["Step 1 of 5 (coarsest)", "Step 1 of 5 (coarsest) done"] and "The image is ready." in said
    wide.press("Discard")
    wide.press("Clear mask")
    wide.prompt.fill("")
    wide.press("Edit")
    wide.wait_for("said.at(-1).includes('or paint over what should change')")


def test_one_edit_in_firefox(site: Site) -> None:
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("there is no Firefox")
    command = [NODE, Path(__file__).with_name("firefox.mjs"), program, site.url]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout)
    image, mask = site.pipeline.edits[-1]
    assert np.array_equal(mask, unpack_mask(found["mask"], image.size))
    assert np.asarray(mask)[20, 15:25].all() and not np.asarray(mask)[:10].any()
    assert found["result"].startswith(site.url)


def start(page: PageObject, site: Site) -> None:
    """Begin a run that takes long."""
    site.pipeline.pause = 0.5
    page.press("Everything")
    page.expect_painted(64)
    page.press("Edit")
    expect(page.progress).to_contain_text("%")
    assert site.pipeline.running == 1


def test_a_page_that_is_reloaded_or_closed_frees_the_model(windows: Windows, slow_site: Site) -> None:
    with windows.open(slow_site.url, may_log_errors=True) as page:
        start(page, slow_site)
        page.reload()
        page.wait_until(lambda: slow_site.pipeline.running == 0)
        page.wait_until_ready()
        with windows.open(slow_site.url, may_log_errors=True) as tab:
            start(tab, slow_site)
        page.wait_until(lambda: slow_site.pipeline.running == 0)


def test_what_was_painted_or_made_on_a_photo_is_there_after_a_reload_but_not_in_another_tab(
    wide: PageObject, tmp_path: Path, site: Site
) -> None:
    size, path, unknown = (2000, 1500), tmp_path / "photo.jpg", wide.locator("#unknown-image")
    gradient_image((200, 150), 90).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    photo = pixels(path)
    wide.upload(path, size)
    expect(unknown).to_have_text("This model knows nothing only; in another kind of image, expect odd results.")
    wide.paint()
    painted = wide.mask()
    assert painted.shape == (768, 1024) and painted.any() and not painted.all()
    wide.reload()  # though nothing was run
    expect(wide.image_size).to_have_text("2000 × 1500 pixels")
    assert (wide.mask() == painted).all()
    wide.prompt.fill("a hat, sunglasses")
    wide.edit()
    made = wide.result_pixels()
    changed = (made != photo).any(axis=-1)
    near = np.asarray(Image.fromarray(painted > 0).resize(size, Image.Resampling.NEAREST))
    assert changed[near].mean() > 0.5 and not changed[:500].any() and not changed[-500:].any()
    wide.press("Keep")
    wide.reload()
    expect(wide.prompt).to_have_value("a hat, sunglasses")
    assert (pixels(wide.image()) == made).all()
    expect(wide.runs).to_have_count(1)
    wide.runs.click()
    assert (wide.result_pixels() == made).all() and (wide.mask() == painted).all()
    wide.choose_second_example()
    expect(unknown).to_be_hidden()
    with wide.context.new_page() as tab:
        tab.goto(site.url)
        expect(PageObject(tab).image_size).to_contain_text("40 × 40")


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
        forgotten = page.image()
        page.wait_until(lambda: page.evaluate(KEPT, str(forgotten)))
        forgotten.unlink()
        page.edit()
        assert page.image() != forgotten
        assert (page.result_pixels()[:, 34:] == pixels(gradients)[:, 34:]).all()
        page.image().unlink()
        page.reload()
        expect(page.image_size).to_contain_text("64 × 32")
        page.wait_until_ready()
        page.edit()
        assert (page.result_pixels()[:, 34:] == pixels(gradients)[:, 34:]).all()


def test_a_request_that_is_spoiled_on_its_way_loses_nothing(wide: PageObject, site: Site) -> None:
    def spoil(route: Route) -> None:
        """Takes all values out of what the browser sends, as no page would: Gradio itself refuses it."""
        route.continue_(post_data=json.dumps({**json.loads(route.request.post_data or "{}"), "data": []}))

    wide.route("**/queue/join*", spoil)
    wide.press("Edit")
    expect(wide.messages).to_contain_text("please try again")
    expect(wide.button("Edit")).to_be_enabled()
    wide.expect_painted(16)
    assert site.pipeline.running == 0


def test_a_page_that_is_older_than_its_server_is_renewed_and_loses_no_mask(
    windows: Windows, site: Site, slow_site: Site
) -> None:
    """Two servers know the page's parts by other numbers, as before and after an update."""
    port = free_port()
    with ExitStack() as open_window:
        with relayed(port, site.url):
            page = open_window.enter_context(windows.open(f"http://127.0.0.1:{port}/", may_log_errors=True))
            page.press("Border")
            page.wait_until_ready()
            page.evaluate("window.older = true")
        with relayed(port, slow_site.url):
            page.begin_stroke(dy=60)
            with page.expect_response("**/gradio_api/app_id"):
                page.prompt.fill("sunglasses")
            assert page.evaluate("window.older"), "it came anew during a stroke"
            page.mouse.up()
            page.wait_for("!window.older")
            page.wait_until_ready()
            painted, border = page.mask(), preset_mask("border", (40, 40))
            assert (painted >= border).all() and painted[20, 17:20].all() and not painted.all()
            expect(page.prompt).to_have_value("sunglasses")
            page.edit()
            assert np.array_equal(np.asarray(slow_site.pipeline.edits[-1][1]), painted)


def test_a_server_that_stops_is_missed_and_found_again(
    windows: Windows, held: HeldPipeline, held_site: Site, site: Site, slow_site: Site
) -> None:
    port = free_port()
    held.results.clear()  # its run is not over before the server is
    with ExitStack() as open_window:
        with relayed(port, held_site.url):
            page = open_window.enter_context(windows.open(f"http://127.0.0.1:{port}/", may_log_errors=True))
            toasts = page.get_by_test_id("toast-body")
            page.press("Edit")
            expect(page.progress).to_contain_text("%")
            page.press("Find by your words")  # which waits for the run
        expect(page.note).to_contain_text("The server did not answer")
        expect(toasts.first).to_contain_text(GONE)
        with relayed(port, site.url):
            # The page reloads itself.
            expect(toasts).to_have_count(0)
            page.wait_until_ready()
            page.edit()
            page.press("Discard")
            page.press("Upper half")
            page.expect_painted(32)  # else the page asks a server that is gone, and reloads itself
            painted = page.mask()
        # Nothing ran meanwhile: the page still has the image and its mask, and a new server takes them from there.
        with relayed(port, slow_site.url):
            page.edit()
            assert page.result_pixels().shape == (40, 40, 3) and (page.mask() == painted).all()
            page.press("Discard")
        page.click("Edit")
        expect(toasts.first).to_contain_text(GONE)
        assert (page.mask() == painted).all()
