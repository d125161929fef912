"""Images of the page for assets/, taken in Chromium with the model of things.

Writes page.png (wide), page-phone.png (a phone, in the dark) and edit.webp (the run that they show, after what was
painted).
"""

import os
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from imagebart.imaging.files import save_animation
from imagebart.pipeline import Pipeline
from imagebart.ui.controls import starting_values
from imagebart.ui.models import Models, find_examples
from imagebart.ui.page import build_page, launch_page
from imagebart.weights.folder import EXAMPLES

ROOT = Path(__file__).resolve().parents[1]
ASSETS, MODEL = ROOT / "assets", ROOT / "checkpoints" / "things"
PATIENCE = 120_000  # milliseconds
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
WINDOWS: dict[str, dict[str, Any]] = {
    "page.png": {"viewport": {"width": 1280, "height": 900}},
    "page-phone.png": PHONE | {"device_scale_factor": 2, "color_scheme": "dark"},
}
ANIMATION_SECONDS = 5.0
OPENING = 6  # frames of what was painted, before the run


def main() -> None:
    pipe, examples = Pipeline.from_pretrained(MODEL), find_examples(MODEL / EXAMPLES)
    example, begun = examples[0], starting_values(pipe)
    settings, feather = pipe.defaults.replace(scales=begun["scales"]), begun["feather"]
    run = pipe.edit(example.image, example.mask, example.prompt, seed=0, settings=settings, feather=feather)
    frames = [example.thumbnail()] * OPENING + [event.image for event in run]
    save_animation(frames, ASSETS / "edit.webp", ANIMATION_SECONDS)
    page = build_page(Models(pipe, examples))
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    chromium = os.environ.get("IMAGEBART_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, window in WINDOWS.items():
            take_screenshot(browser.new_context(**window).new_page(), url, example.prompt, ASSETS / name)
        browser.close()
    page.close(verbose=False)


def take_screenshot(page: Page, url: str, prompt: str, path: Path) -> None:
    """Press Edit, and take a screenshot when the result is there."""
    page.set_default_timeout(PATIENCE)
    expect.set_options(PATIENCE)
    page.goto(url)
    expect(page.locator("#fit-status")).to_contain_text("% will change")
    page.get_by_label("What should be there?").first.fill(prompt)
    settings = page.locator("#settings button").first
    settings.click()
    page.get_by_label("New seed each time").uncheck()
    page.locator("#seed input").fill("0")
    settings.click()
    page.locator("#edit").click()
    expect(page.locator(".sp")).to_have_attribute("data-review", "finished")
    expect(page.locator("#progress")).to_contain_text("Done in")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1000)  # until the result has taken the last preview's place
    page.screenshot(path=path, animations="disabled")


if __name__ == "__main__":
    main()
