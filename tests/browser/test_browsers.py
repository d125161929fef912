"""The page in other surroundings: dense screens, no storage, a frame, a newer server, a screen reader, Firefox."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import playwright
import pytest
from page_object import PIPELINE, PageObject, Site, Windows, pixels, preset_mask
from page_process import Relay
from page_server import served
from playwright.sync_api import expect

from imagebart.ui.files import unpack_mask
from imagebart.ui.models import find_examples

pytestmark = pytest.mark.browser
NODE = Path(playwright.__file__).parent / "driver" / "node"
LOST = "when it is reloaded, your image, mask and history are lost"


@pytest.mark.parametrize("density", [2, 3])
def test_on_a_dense_screen_what_is_painted_is_where_the_pointer_was(windows: Windows, site: Site, density: int) -> None:
    with windows.open(site.url, device_scale_factor=density) as page:
        page.press("Clear mask")
        page.press("Rectangle")
        page.drag((10.5 / 40, 4.5 / 40), (19.5 / 40, 29.5 / 40))
        wanted = np.zeros((40, 40), bool)
        wanted[4:30, 10:20] = True
        assert np.array_equal(page.mask() > 0, wanted)
        page.wait_until_ready()
        page.mouse.move(0, 0)
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        (left, top, *_), view, screen = page.canvas_box(), page.view(), pixels(page.screenshot())
        assert page.pad("pad.canvas.element.width / pad.canvas.frame.clientWidth") == density, "it is blurred"
        starts = {"y": top + view["y"], "x": left + view["x"]}
        at = [((np.arange(40) + 0.5) * view["scale"] + start) * density for start in starts.values()]
        blue = screen[np.ix_(*(np.rint(places).astype(int) for places in at))][..., 2].astype(int)
        assert ((blue > 40) == wanted).all(), "0 in this image, and 113 in the brush"
        fitted, before = page.fitted_mask(), pixels(site.examples / "01-first.png")
        page.edit()
        changed = (page.result_pixels() != before).any(axis=-1)
        assert changed[wanted].mean() > 0.5 and not changed[~fitted].any()


def test_an_image_is_pasted(windows: Windows, site: Site, gradients: Path) -> None:
    with windows.open(site.url) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.evaluate(
            """bytes => navigator.clipboard.write(
                [new ClipboardItem({ "image/png": new Blob([new Uint8Array(bytes)], { type: "image/png" }) })])""",
            list(gradients.read_bytes()),
        )
        page.prompt().focus()
        page.keyboard.press("Control+v")
        expect(page.image_size).to_have_text("64 × 32 pixels")
        expect(page.prompt()).to_have_value("a hat")
        assert np.array_equal(pixels(Path(page.sent_value()["image"])), pixels(gradients))


FILL = """() => {
    for (let size = 2 ** 22; size >= 1; ) {
        try {
            sessionStorage.setItem(`filler ${sessionStorage.length}`, "x".repeat(size));
        } catch {
            size = Math.floor(size / 2);
        }
    }
}"""
FORBID = """for (const name of ["sessionStorage", "localStorage", "indexedDB", "caches"]) {
    Object.defineProperty(window, name, { get() { throw new DOMException("Access is denied", "SecurityError"); } });
}"""


@pytest.mark.parametrize("storage", ["full", "forbidden"])
def test_without_storage_the_page_works_and_says_what_a_reload_loses(
    windows: Windows, site: Site, gradients: Path, storage: str
) -> None:
    with windows.open(site.url) as window, window.open_tab(site.url) as page:
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        if storage == "forbidden":
            page.add_init_script(FORBID)
            page.reload()
            page.wait_until_ready()
        else:
            page.press("Clear mask")
            page.evaluate(FILL)
        page.press("Border")
        expect(page.note).to_contain_text(LOST)
        page.upload(gradients, (64, 32))
        page.press("Left half")
        page.edit()
        assert (page.result_pixels()[:, 34:] == pixels(gradients)[:, 34:]).all()
        page.reload()
        page.wait_until_ready()
        expect(page.image_size).to_have_text("40 × 40 pixels")
        assert page.history() == []
        page.edit()
        assert errors == []


@pytest.fixture
def under_a_path(examples: Path) -> Iterator[str]:
    """The page that believes to be under /images, as behind a proxy."""
    with served(PIPELINE, find_examples(examples), root_path="/images") as url:
        yield url


def test_in_a_frame_under_a_path_a_stroke_is_edited_and_its_images_come(windows: Windows, under_a_path: str) -> None:
    with windows.open(under_a_path) as window, window.context.new_page() as outer:
        outer.goto(under_a_path.replace("127.0.0.1", "localhost") + "robots.txt")  # of another site, as a Space's
        outer.set_content(f"<iframe src='{under_a_path}images/' width=1200 height=880></iframe>")
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
        address = page.result_address()
        assert address.startswith(f"{under_a_path}images/")
        file = page.evaluate("async (url) => [...new Uint8Array(await (await fetch(url)).arrayBuffer())]", address)
        assert (pixels(bytes(file))[painted] != 0).any()
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
    assert said[:2] == ["Scale 1 of 5 (coarsest)", "Scale 1 of 5 (coarsest) done"] and "The image is ready." in said
    wide.press("Discard")
    wide.press("Clear mask")
    wide.type_prompt("")
    wide.press("Edit")
    wide.wait_for("said.at(-1).includes('or paint over what should change')")


def test_a_page_that_is_older_than_its_server_is_renewed_and_loses_no_mask(
    windows: Windows, site: Site, slow_site: Site
) -> None:
    """Two servers know the page's parts by other numbers, as before and after an update."""
    relay = Relay()
    with ExitStack() as open_window:
        with relay.to(site.url):
            page = open_window.enter_context(windows.open(relay.url, may_log_errors=True))
            page.press("Border")
            page.wait_until_ready()
            page.evaluate("window.older = true")
        with relay.to(slow_site.url):
            page.begin_stroke(dy=60)
            with page.expect_response(f"{relay.url}gradio_api/app_id"):
                page.type_prompt("sunglasses")
            assert page.evaluate("window.older"), "it came anew during a stroke"
            page.mouse.up()
            page.wait_for("!window.older")
            page.wait_until_ready()
            painted, border = page.mask(), preset_mask("border", (40, 40))
            assert (painted >= border).all() and painted[20, 17:20].all() and not painted.all()
            expect(page.prompt()).to_have_value("sunglasses")
            page.edit()
            assert np.array_equal(np.asarray(slow_site.pipeline.edits[-1][1]), painted)


def test_one_edit_in_firefox(site: Site) -> None:
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("there is no Firefox")
    edits = len(PIPELINE.edits)
    command = [NODE, Path(__file__).with_name("firefox.mjs"), program, site.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    found = json.loads(done.stdout)
    image, mask = PIPELINE.edits[edits]
    assert np.array_equal(np.asarray(mask), np.asarray(unpack_mask(found["mask"], image.size)))
    painted = np.asarray(mask) > 0
    assert painted[20, 15:25].all() and not painted[:10].any()
    assert found["result"].startswith(site.url)
