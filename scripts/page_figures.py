"""How quickly the page answers, in Chromium, with the shipped model: seconds until one can paint, milliseconds from a
ready mask until it is shown, seconds from Edit to the noise and to the first preview.

Each on this machine and on one whose browser is so many times slower (Chrome's own throttling); medians in a table.
Of the first edit that a visitor makes, with the defaults: how many states are seen, in how many scales, when the first
one comes that is no noise and when the result, and by how many pixels anything else moves meanwhile. How wide a phone's
page is after ten runs. And how often an upload, or a result, that arrives while the pointer is down goes wrong: an
upload gets a mask of its own, and a result is in the history while the stroke stays.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, ViewportSize, expect, sync_playwright

HERE = Path(__file__).resolve().parent.parent
WIDE: ViewportSize = {"width": 1440, "height": 900}
PHONES = ((390, 844), (844, 390))
PATIENCE = 120_000  # milliseconds
SENT = "document.querySelector('.sp').sketchpad.props.value"  # what the sketchpad sends with every event
# When a dot could first be painted, in milliseconds since the page was asked for: it is painted, and taken back.
PAINTABLE = """
const look = () => {
    const pad = document.querySelector(".sp")?.sketchpad;
    if (!pad?.state.mask || !pad.canvas.view) return requestAnimationFrame(look);
    const { left, top, width, height } = pad.canvas.element.getBoundingClientRect();
    const before = pad.state.mask;
    for (const type of ["pointerdown", "pointerup"]) {
        const [clientX, clientY] = [left + width / 2, top + height / 4];
        pad.canvas.element.setPointerCapture = () => {};
        pad.canvas.element.dispatchEvent(new PointerEvent(type, { pointerId: 1, isPrimary: true, clientX, clientY }));
    }
    if (pad.state.mask === before) return requestAnimationFrame(look);
    window.paintable = performance.now();
    pad.state.undo();
};
look();
"""
# Milliseconds from the click on a ready mask to the end of the frame in which it is drawn.
SETTLED = """name => new Promise((done) => {
    const { canvas, state, props } = document.querySelector(".sp").sketchpad;
    const began = performance.now();
    [...document.querySelectorAll(".sp-presets button")].find((button) => button.textContent === name).click();
    const look = () => requestAnimationFrame(() => {
        if (canvas.overlayMask !== state.mask || props.value.version !== state.version) return look();
        setTimeout(() => done(performance.now() - began)); // after the frame
    });
    look();
})"""
# Seconds from Edit to the first image over the sketchpad, and to the first in which tokens are drawn.
PREVIEWS = """() => new Promise((done) => {
    const { review } = document.querySelector(".sp").sketchpad;
    const began = performance.now();
    const times = [];
    const update = review.update;
    review.update = function () {
        if (this.bitmap) times.push((performance.now() - began) / 1000);
        update.call(this);
        if (!this.finished && times.length < 2) return;
        delete review.update;
        done(times);
    };
    document.getElementById("edit").click();
})"""
# What is seen of a run, from the click on Edit to its result, and the sum of moves of all else, in pixels.
FIRST_EDIT = """() => new Promise((done) => {
    const { review } = document.querySelector(".sp").sketchpad;
    const changing = "#prompt, #history .sp-strip, .sp-film, .sp-variants, .sp-slider, #messages, #progress";
    const parts = [...document.querySelectorAll("button, input, textarea, h1, label, #dock, .sp-frame, .sp-masks")]
        .filter((part) => !part.closest(changing));
    const places = new Map();
    let [moved, running] = [0, true];
    const look = () => {
        for (const part of parts.filter((part) => part.checkVisibility({ visibilityProperty: true }))) {
            const { x, y } = part.getBoundingClientRect();
            const before = places.get(part) ?? { x, y };
            moved += Math.abs(x - before.x) + Math.abs(y - before.y);
            places.set(part, { x, y });
        }
        if (running) requestAnimationFrame(look);
    };
    look();
    const began = performance.now();
    const times = new Map(); // by image
    const setBitmap = review.setBitmap;
    review.setBitmap = function (bitmap, ...rest) {
        if (!times.has(bitmap)) times.set(bitmap, (performance.now() - began) / 1000);
        setBitmap.call(this, bitmap, ...rest);
        if (!this.finished) return;
        delete review.setBitmap;
        const [, first] = times.values();
        const scales = Math.max(...this.run.film.map((label) => Number(label.split(" of ")[1] ?? 1)));
        const seconds = times.get(bitmap);
        setTimeout(() => {
            running = false;
            done({ states: times.size, scales, first, seconds, moved: Math.round(moved) });
        }, 1000);
    };
    document.getElementById("edit").click();
})"""


@contextmanager
def served() -> Iterator[str]:
    """The page as `make demo` serves it."""
    command = [sys.executable, str(HERE / "app.py"), "--port", "7990"]
    at_once = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=at_once) as app:
        assert app.stdout is not None
        address = next(found.group() for line in app.stdout if (found := re.search(r"http://[\d.:]+", line)))
        yield address
        app.terminate()


@contextmanager
def opened(browser: Browser, url: str, rate: float, **options: Any) -> Iterator[Page]:
    """The page, ready, in a window that knows nothing of it yet, wide by default; `options` of `new_context`."""
    context = browser.new_context(**{"viewport": WIDE, **options})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.add_init_script(PAINTABLE)
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": rate})
    page.goto(url)
    expect(page.locator("#grid-status")).to_contain_text("will be regenerated", timeout=PATIENCE)
    page.wait_for_selector(".sp[data-shown]")
    yield page
    context.close()


def measure(browser: Browser, url: str, rate: float, times: int) -> str:
    """A line of the table."""
    paintable, settled, first, drawn = [], [], [], []
    for _ in range(times):
        with opened(browser, url, rate) as page:
            paintable.append(page.evaluate("window.paintable") / 1000)
            for name in ("Upper half", "Centre", "Border", "Everything", "Left half"):
                settled.append(page.evaluate(SETTLED, name))
            page.get_by_role("button", name="Centre", exact=True).click()
            noise, preview = page.evaluate(PREVIEWS)
            first.append(noise)
            drawn.append(preview)
            expect(page.locator(".sp")).to_have_attribute("data-review", "finished", timeout=PATIENCE)
    until = f"{median(paintable):.2f} ({min(paintable):.2f} to {max(paintable):.2f}) s"
    shown = f"{median(settled):.0f} ({min(settled):.0f} to {max(settled):.0f}) ms"
    return f"| {rate:g}x | {until} | {shown} | {median(first):.2f} s | {median(drawn):.2f} s |"


def first_edit(browser: Browser, url: str, rate: float, times: int) -> str:
    """A line of the table of first edits: the default example, its mask, its words, the default settings."""
    found = []
    for _ in range(times):
        with opened(browser, url, rate) as page:
            page.mouse.move(2, 2)
            found.append(page.evaluate(FIRST_EDIT))
    states, first, seconds = (median(one[name] for one in found) for name in ("states", "first", "seconds"))
    scales, moved = found[0]["scales"], max(one["moved"] for one in found)
    return f"| {rate:g}x | {states:g} | {scales} | {first:.2f} s | {seconds:.2f} s | {moved} px |"


def phone_width(browser: Browser, url: str, width: int, height: int) -> str:
    """A line of the table of phones: the page's width after ten runs, and where Edit is."""
    screen: ViewportSize = {"width": width, "height": height}
    with opened(browser, url, 1, viewport=screen, has_touch=True, is_mobile=True) as page:
        for done in range(1, 11):
            page.evaluate("document.getElementById('edit').click()")
            page.wait_for_function("n => document.querySelectorAll('#history img').length === n", arg=done)
            page.wait_for_function("!document.documentElement.dataset.runState")
        box = page.locator("#edit").bounding_box()
        assert box is not None
        reach = (
            "in sight" if box["y"] + box["height"] <= height and box["x"] + box["width"] <= width else "out of sight"
        )
        return f"| {width} x {height} | {page.evaluate('document.documentElement.scrollWidth')} px | {reach} |"


def begin_stroke(page: Page) -> None:
    box = page.locator(".sp canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.35, steps=5)


def upload_during_stroke(page: Page, uploads: Iterator[bytes]) -> bool:
    """Whether the upload has come, without what was painted on the image before it."""
    before = page.evaluate(f"{SENT}.image")
    begin_stroke(page)
    with page.expect_response(lambda response: "open_image" in (response.request.post_data or "")):
        file: FilePayload = {"name": "upload.png", "mimeType": "image/png", "buffer": next(uploads)}
        page.get_by_label("Image to paint on", exact=True).set_input_files(file)
    page.mouse.up()
    page.wait_for_function(f"before => {SENT}.image !== before", arg=before)
    return bool(page.evaluate(f"{SENT}.mask === ''"))


def result_during_stroke(page: Page, uploads: Iterator[bytes]) -> bool:
    """Whether the result has come to the history, and the stroke is painted on the image that was edited."""
    page.get_by_role("button", name="Lower half", exact=True).click()
    before = page.evaluate(f"[{SENT}.image, {SENT}.mask]")
    last = page.locator("#history img").first.get_attribute("src") if page.locator("#history img").count() else None
    page.get_by_role("button", name="Edit", exact=True).click()
    page.wait_for_selector(".sp[data-review=running]")
    begin_stroke(page)
    page.wait_for_function("last => (document.querySelector('#history img')?.src ?? null) !== last", arg=last)
    page.mouse.up()
    page.wait_for_function("!document.documentElement.dataset.runState")
    image, mask = page.evaluate(f"[{SENT}.image, {SENT}.mask]")
    return image == before[0] and mask != before[1]


def noise_images() -> Iterator[bytes]:
    """PNG files of the examples' size, no two alike."""
    while True:
        file = BytesIO()
        Image.effect_noise((256, 256), 50).save(file, "PNG")
        yield file.getvalue()


def count_wrong(browser: Browser, url: str, rate: float, times: int) -> str:
    """A line of the table of strokes."""
    cells, uploads = [], noise_images()
    with opened(browser, url, rate) as page:
        for attempt in (upload_during_stroke, result_during_stroke):
            cells.append(f"{sum(not attempt(page, uploads) for _ in range(times))} of {times} wrong")
    return f"| {rate:g}x | {' | '.join(cells)} |"


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=8, help="page loads at each speed (%(default)s)")
    parser.add_argument("--rates", type=float, nargs="+", default=[1, 4], help="how many times slower (%(default)s)")
    parser.add_argument("--strokes", type=int, default=30, help="strokes of each kind (%(default)s)")
    options = parser.parse_args()
    chromium = os.environ.get("IMAGEBART_CHROMIUM") or shutil.which("chromium")
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with opened(browser, url, 1):
            pass  # the server's first answer is slower than all later ones
        print("| browser | page asked for → paintable | ready mask → shown | Edit → noise | → first preview |")
        print("|---|---|---|---|---|")
        for rate in options.rates:
            print(measure(browser, url, rate, options.times), flush=True)
        print(
            "\n| browser | states seen | scales | first preview | done | all else moves by |\n|---|---|---|---|---|---|"
        )
        for rate in options.rates:
            print(first_edit(browser, url, rate, options.times), flush=True)
        print("\n| phone, after ten runs | page's width | Edit |\n|---|---|---|")
        for size in PHONES:
            print(phone_width(browser, url, *size), flush=True)
        print("\n| browser | upload during a stroke | result during a stroke |\n|---|---|---|")
        for rate in options.rates:
            print(count_wrong(browser, url, rate, options.strokes), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
