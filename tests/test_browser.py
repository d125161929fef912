"""The page in Chromium, on a tiny random model: load, paint, type, edit, cancel, compare; wide and on a phone."""

from __future__ import annotations

import gc
import io
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import GeneratorType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect, sync_playwright

from imagebart.testing import tiny_pipeline
from imagebart.ui.examples import find_examples
from imagebart.ui.launch import launch_page
from imagebart.ui.page import build_page

pytestmark = pytest.mark.browser

# Enough stages that a run over the whole picture is still going when it is cancelled.
STAGES = 36
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
PATIENCE = 60_000  # milliseconds that an assertion is tried again, for a busy machine


@dataclass(frozen=True)
class Site:
    """A running page, and the folder of its examples."""

    url: str
    examples: Path


def gradient(size: tuple[int, int], blue: int) -> Image.Image:
    """A picture in which no two neighbouring pixels are alike."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    pixels = np.stack([x * 5 % 256, y * 5 % 256, np.full_like(x, blue)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    examples = tmp_path_factory.mktemp("examples")
    gradient((40, 40), 0).save(examples / "01-first.png")
    gradient((48, 40), 200).save(examples / "02-second.png")
    page = build_page(tiny_pipeline(stages=STAGES), find_examples(examples))
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    yield Site(url, examples)
    page.close(verbose=False)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = os.environ.get("IMAGEBART_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail("There is no Chromium: `make test` installs one, or name it in IMAGEBART_CHROMIUM.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(chromium: Browser, site: Site, **options: Any) -> Iterator[Page]:
    """The page in a window of its own. It must log no error and ask no other host for anything."""
    context = chromium.new_context(**options)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith((site.url, "data:", "blob:")):
            complaints.append(f"asked {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", asked)
    page.goto(site.url)
    canvas_ready(page)
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def wide(chromium: Browser, site: Site) -> Iterator[Page]:
    with opened(chromium, site, viewport=WIDE) as page:
        yield page


def canvas_ready(page: Page) -> None:
    expect(page.get_by_label("Brush", exact=True)).to_be_visible(timeout=PATIENCE)
    expect(canvas(page)).to_be_visible()


def canvas(page: Page) -> Locator:
    return page.locator("#canvas canvas").first


def say(page: Page, words: str) -> None:
    page.get_by_label("What should be there?").fill(words)


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def unfold(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()


def filled_by(page: Page, action: Callable[[], object]) -> None:
    """Do something that changes what the canvas shows, and wait until it does and has come to rest."""
    looked, before = b"", canvas(page).screenshot()
    action()

    def at_rest() -> bool:
        nonlocal looked
        last, looked = looked, canvas(page).screenshot()
        return looked != before and looked == last

    until(page, at_rest)


def until(page: Page, true: Callable[[], bool]) -> None:
    """Look again and again until something is true."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not true():
        assert time.monotonic() < deadline, "it never came"
        page.wait_for_timeout(100)


def paint(page: Page) -> None:
    """A stroke across the middle of the picture. Undo becomes possible once it is there."""
    box = canvas(page).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 60, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 6, steps=12)
    page.mouse.up()
    expect(page.get_by_role("button", name="Undo")).to_be_enabled(timeout=PATIENCE)


def finished(page: Page) -> None:
    expect(page.locator("#progress")).to_contain_text("Done in", timeout=PATIENCE)
    expect(page.get_by_role("button", name="Edit", exact=True)).to_be_enabled()


def result(page: Page) -> np.ndarray:
    """Pixels of the result as it would be downloaded, uint8 [H, W, 3]."""
    address = page.locator("#preview").get_by_role("link").get_attribute("href")
    assert address is not None
    answer = page.request.get(address)
    return np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB"))


def working() -> int:
    """How many generators of the pipeline are alive in this process, which is the server's too."""
    return sum(
        type(found) is GeneratorType and found.__qualname__ == "Pipeline._stream" and found.gi_frame is not None
        for found in gc.get_objects()
    )


def test_pick_paint_type_edit_compare_and_go_on(wide: Page, site: Site) -> None:
    filled_by(wide, lambda: wide.get_by_role("button", name="Second").click())
    paint(wide)
    say(wide, "sunglasses, zebra")
    press(wide, "Edit")
    finished(wide)
    expect(wide.locator("#messages")).to_contain_text("zebra")

    before = np.asarray(Image.open(site.examples / "02-second.png"))
    after = result(wide)
    changed = (after != before).any(axis=-1)
    assert changed.any(), "the painted part was not redrawn"
    assert not changed[:12].any() and not changed[-12:].any(), "pixels outside the paint changed"

    steps = wide.locator("#strip button")
    expect(steps).to_have_count(STAGES + 1)
    expect(steps.first).to_have_accessible_name("noise")
    expect(steps.last).to_have_accessible_name("fine")

    wide.get_by_role("tab", name="Before and after").click()
    shown = wide.locator("#comparison img")
    expect(shown).to_have_count(2)
    for image in shown.all():
        expect(image).to_be_visible()
        expect(image).to_have_js_property("complete", True)

    filled_by(wide, lambda: press(wide, "Continue from this result"))
    press(wide, "Edit")
    expect(wide.locator("#messages")).to_contain_text("Nothing is painted yet")


def test_generate_then_edit_what_came_out(wide: Page) -> None:
    say(wide, "a woman with a hat")
    press(wide, "Generate")
    finished(wide)
    generated = result(wide)
    assert generated.shape == (32, 32, 3)
    filled_by(wide, lambda: press(wide, "Continue from this result"))
    filled_by(wide, lambda: press(wide, "Lower half"))
    say(wide, "")
    press(wide, "Edit")
    expect(wide.locator("#progress")).not_to_contain_text("Done in")
    finished(wide)
    edited = result(wide)
    assert (edited[:16] == generated[:16]).all() and (edited[16:] != generated[16:]).any()


def test_cancel_stops_the_model_and_loses_nothing(wide: Page) -> None:
    filled_by(wide, lambda: press(wide, "Everything"))
    say(wide, "a hat")
    unfold(wide, "Advanced settings")
    wide.get_by_role("spinbutton", name=re.compile("Passes per stage")).fill("4")
    press(wide, "Edit")
    expect(wide.get_by_role("progressbar", name="Progress")).to_contain_text("of 64 tokens")
    assert working() > 0
    press(wide, "Cancel")
    expect(wide.locator("#messages")).to_contain_text("Cancelled")
    expect(wide.get_by_role("button", name="Edit", exact=True)).to_be_enabled()
    wide.wait_for_function("() => !document.querySelector('#progress').innerText.includes('Stage')")
    expect(wide.get_by_label("What should be there?")).to_have_value("a hat")
    assert working() == 0, "the model is still held"

    wide.get_by_role("spinbutton", name=re.compile("Passes per stage")).fill("1")
    press(wide, "Edit")
    finished(wide)


def test_a_kept_seed_gives_the_same_picture(wide: Page) -> None:
    filled_by(wide, lambda: press(wide, "Upper half"))
    press(wide, "Edit")
    finished(wide)
    first = result(wide)
    seed = re.search(r"seed (\d+)", wide.locator("#progress").inner_text())
    assert seed is not None
    unfold(wide, "Advanced settings")
    press(wide, "Keep the last seed")
    expect(wide.get_by_label("New seed each time")).not_to_be_checked()
    expect(wide.locator("#seed input")).to_have_value(seed.group(1))
    press(wide, "Edit")
    expect(wide.locator("#progress")).not_to_contain_text("Done in")
    finished(wide)
    assert (result(wide) == first).all()


def test_without_a_mask_the_ready_ones_are_offered(wide: Page) -> None:
    press(wide, "Edit")
    expect(wide.locator("#messages")).to_contain_text("press one of the ready masks")
    expect(wide.get_by_role("group", name=re.compile("Ready masks"))).to_be_visible()


def test_clearing_the_canvas_takes_the_paint_and_leaves_the_picture(wide: Page) -> None:
    empty = canvas(wide).screenshot()
    filled_by(wide, lambda: press(wide, "Everything"))
    filled_by(wide, lambda: press(wide, "Clear canvas"))
    until(wide, lambda: alike(canvas(wide).screenshot(), empty))
    press(wide, "Edit")
    expect(wide.locator("#messages")).to_contain_text("Nothing is painted yet")


def alike(one: bytes, other: bytes) -> bool:
    """Whether two screenshots show the same; the pointer may hover over a few of their pixels."""
    a, b = (np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), dtype=int) for shot in (one, other))
    return a.shape == b.shape and bool((np.abs(a - b) > 8).any(axis=-1).mean() < 0.02)


def test_a_bad_upload_is_said_and_a_good_one_is_kept_to_the_pixel(wide: Page, tmp_path: Path) -> None:
    words, turned = tmp_path / "words.png", tmp_path / "turned.png"
    words.write_text("not a picture")
    upright = gradient((90, 61), 120)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side; to be shown turned by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)

    picture_input = wide.get_by_test_id("Upload a picture-upload-button")
    picture_input.set_input_files(words)
    expect(wide.get_by_test_id("toast-body").first).to_contain_text("can be read")
    filled_by(wide, lambda: picture_input.set_input_files(turned))

    mask = tmp_path / "mask.png"
    painted = Image.new("L", (90, 61))
    painted.paste(255, (30, 20, 60, 40))
    painted.save(mask)
    filled_by(wide, lambda: wide.get_by_test_id("Upload a mask-upload-button").set_input_files(mask))
    press(wide, "Edit")
    finished(wide)
    after, before = result(wide), np.asarray(upright)
    assert after.shape == before.shape
    changed = (after != before).any(axis=-1)
    assert changed[20:40, 30:60].mean() > 0.5
    changed[19:41, 29:61] = False
    assert not changed.any()


def test_a_dropped_file_becomes_the_picture(wide: Page, tmp_path: Path) -> None:
    path = tmp_path / "dropped.png"
    gradient((64, 32), 33).save(path)
    data = wide.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
            return transfer;
        }""",
        list(path.read_bytes()),
    )
    filled_by(wide, lambda: canvas(wide).dispatch_event("drop", {"dataTransfer": data}))
    filled_by(wide, lambda: press(wide, "Left half"))
    press(wide, "Edit")
    finished(wide)
    assert (result(wide)[:, 34:] == np.asarray(gradient((64, 32), 33))[:, 34:]).all()


def test_on_a_phone_nothing_is_out_of_reach_and_drawing_does_not_scroll(chromium: Browser, site: Site) -> None:
    with opened(chromium, site, viewport=PHONE, has_touch=True, is_mobile=True) as phone:
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        unfold(phone, "Advanced settings")
        for name in ("Upload a picture", "Upper half", "Everything", "Edit", "Generate", "Keep the last seed"):
            box = phone.get_by_role("button", name=name, exact=True).bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], name

        swipe(phone, phone.locator("#heading"), upwards=200)
        phone.wait_for_function("scrollY > 50")
        canvas(phone).scroll_into_view_if_needed()
        height = phone.evaluate("scrollY")
        swipe(phone, canvas(phone), upwards=60)
        expect(phone.get_by_role("button", name="Undo")).to_be_enabled(timeout=PATIENCE)
        assert phone.evaluate("scrollY") == height
        phone.get_by_role("button", name="Edit", exact=True).tap()
        finished(phone)
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def swipe(page: Page, over: Locator, upwards: int) -> None:
    """A finger moving up from the middle of something."""
    box = over.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 11):
        point = {"x": x, "y": y - upwards * step / 10}
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
