"""Images of the page for assets/, taken in Chromium with the avatars.

Writes page.png (wide), page-phone.png (a phone, in the dark) and edit.webp (the run of the wide one, as the page saves
it, with what was painted as its first frame).
"""

import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image, ImageSequence
from playwright.sync_api import Browser, Page, expect, sync_playwright

from imagebart.imaging.files import save_animation
from imagebart.pipeline import Pipeline
from imagebart.ui.models import Example, Models, find_examples
from imagebart.ui.page import build_page, launch_page
from imagebart.weights.folder import EXAMPLES

ROOT = Path(__file__).resolve().parents[1]
ASSETS, MODEL = ROOT / "assets", ROOT / "checkpoints" / "avatars"
PATIENCE = 120_000  # milliseconds
WIDE = {"viewport": {"width": 1280, "height": 900}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
    "color_scheme": "dark",
}
ANIMATION_SECONDS = 5.0
OPENING = 6  # frames of what was painted, before the run


def main() -> None:
    pipe, examples = Pipeline.from_pretrained(MODEL), find_examples(MODEL / EXAMPLES)
    page = build_page(Models(pipe, examples))
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    chromium = os.environ.get("IMAGEBART_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        film(take_screenshot(browser, url, examples[0], WIDE, "page.png"), examples[0])
        take_screenshot(browser, url, examples[0], PHONE, "page-phone.png")
        browser.close()
    page.close(verbose=False)


def take_screenshot(browser: Browser, url: str, example: Example, window: dict[str, Any], name: str) -> Page:
    """Press Edit in a window of its own, and take a screenshot when the result is there."""
    page = browser.new_context(**window).new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(PATIENCE)
    page.goto(url)
    expect(page.locator("#fit-status")).to_contain_text("% will change")
    page.get_by_label("What should be there?").first.fill(example.prompt)
    settings = page.locator("#settings button").first
    settings.click()
    page.get_by_label("New seed each time").uncheck()
    page.locator("#seed input").fill("0")
    settings.click()
    page.locator("#edit").click()
    expect(page.locator(".sp")).to_have_attribute("data-review", "finished")
    expect(page.locator("#progress")).to_contain_text("Done in")
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=ASSETS / name, animations="disabled")
    return page


def film(page: Page, example: Example) -> None:
    """The run as the page saves it, after what was painted."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Share ▾").click()
        page.get_by_role("button", name="Animation").click()
    with Image.open(download.value.path()) as saved:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(saved)]
    opening = example.thumbnail().resize(frames[0].size)
    save_animation([*[opening] * OPENING, *frames], ASSETS / "edit.webp", ANIMATION_SECONDS)


if __name__ == "__main__":
    main()
