"""Pictures of the page for assets/: a real edit made in Chromium with the shipped model, wide and on a phone."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from imagebart.pipeline import Pipeline
from imagebart.ui.examples import find_examples
from imagebart.ui.launch import launch_page
from imagebart.ui.page import build_page

HERE = Path(__file__).resolve().parent.parent
ASSETS = HERE / "assets"
PATIENCE = 120_000  # milliseconds
WIDE = {"viewport": {"width": 1280, "height": 900}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
    "color_scheme": "dark",
}
# Strokes over the eyes of an avatar, in shares of the picture: from (x, y) to (x, y).
EYES = (((0.27, 0.36), (0.73, 0.36)), ((0.27, 0.44), (0.73, 0.44)))
VIEW = 512  # pixels a side of the canvas's copy of an example at 100 %


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(HERE / "checkpoints" / "avatars"), help="folder of the model")
    parser.add_argument("--prompt", default="sunglasses")
    options = parser.parse_args()
    page = build_page(Pipeline.from_pretrained(options.model), find_examples(ASSETS / "examples"))
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    chromium = os.environ.get("IMAGEBART_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        picture(browser, url, options.prompt, WIDE, ASSETS / "page.png")
        picture(browser, url, options.prompt, PHONE, ASSETS / "page-phone.png")
        browser.close()
    page.close(verbose=False)


def picture(browser: Browser, url: str, prompt: str, window: dict, path: Path) -> None:
    """Edit the first example in a window of its own, and take its picture when the result is there."""
    page = browser.new_context(**window).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    expect(page.get_by_label("Brush", exact=True)).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#canvas .zoom-number")).to_contain_text("%", timeout=PATIENCE)
    page.wait_for_timeout(2000)  # the canvas fits the picture into itself without saying when it has
    paint(page)
    page.get_by_label("What should be there?").fill(prompt)
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.locator("#progress")).to_contain_text("Done in", timeout=PATIENCE)
    page.wait_for_timeout(1000)  # the last pictures are still being decoded
    page.screenshot(path=path, full_page=True, animations="disabled")
    print(f"{path}: {page.locator('#progress').inner_text().strip()}")


def paint(page: Page) -> None:
    """Cover the eyes of the avatar on the canvas."""
    canvas = page.locator("#canvas canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    zoom = int(page.locator("#canvas .zoom-number").inner_text().strip().rstrip("%")) / 100
    left, top = box["x"] + (box["width"] - VIEW * zoom) / 2, box["y"] + (box["height"] - VIEW * zoom) / 2
    for start, end in EYES:
        page.mouse.move(left + start[0] * VIEW * zoom, top + start[1] * VIEW * zoom)
        page.mouse.down()
        page.mouse.move(left + end[0] * VIEW * zoom, top + end[1] * VIEW * zoom, steps=15)
        page.mouse.up()
    expect(page.get_by_role("button", name="Undo")).to_be_enabled(timeout=PATIENCE)


if __name__ == "__main__":
    main()
