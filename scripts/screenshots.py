"""Screenshots of the page for assets/: a real edit made in Chromium with the shipped model, still and moving.

Writes page.png (wide), page-phone.png (a phone, in the dark) and edit.webp (the run of the wide one, as the page saves
it, with what was painted as its first frame).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image, ImageSequence
from playwright.sync_api import Browser, Page, expect, sync_playwright

from imagebart.imaging.files import save_animation
from imagebart.pipeline import Pipeline
from imagebart.ui.app import build_page, launch_page
from imagebart.ui.examples import Example, find_examples
from imagebart.weights.folder import EXAMPLES

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
ANIMATION_SECONDS = 5.0
# The animation opens with what was painted for this many frames.
OPENING = 6


def main(
    model: Annotated[Path, typer.Option(help="Folder of the model.")] = HERE / "checkpoints" / "avatars",
    prompt: Annotated[str | None, typer.Option(help="What to write; else the first example's prompt.")] = None,
    seed: int = 0,
) -> None:
    """Take screenshots of the page for assets/."""
    examples = find_examples(model / EXAMPLES)
    page = build_page(Pipeline.from_pretrained(model), examples)
    _, url, _ = launch_page(page, prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    chromium = os.environ.get("IMAGEBART_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        words = prompt or examples[0].prompt
        take_screenshot(browser, url, words, seed, WIDE, ASSETS / "page.png", examples[0])
        take_screenshot(browser, url, words, seed, PHONE, ASSETS / "page-phone.png")
        browser.close()
    page.close(verbose=False)


def take_screenshot(
    browser: Browser,
    url: str,
    prompt: str,
    seed: int,
    window: dict[str, Any],
    path: Path,
    example: Example | None = None,
) -> None:
    """Press Edit in a window of its own, and take a screenshot when the result is there; film it for an example."""
    page = browser.new_context(**window).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    expect(page.locator("#grid-status")).to_contain_text("will be regenerated", timeout=PATIENCE)
    page.get_by_label("What should be there?").first.fill(prompt)
    settings = page.locator("#settings button").first
    settings.click()
    page.get_by_label("New seed each time").uncheck()
    page.locator("#seed input").fill(str(seed))
    settings.click()
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.locator("#progress")).to_contain_text("Done in", timeout=PATIENCE)
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator(".sp")).to_have_attribute("data-review", "finished")
    page.screenshot(path=path, full_page=True, animations="disabled")
    print(f"{path}: {page.locator('#progress').inner_text().strip()}")
    if example is not None:
        film(page, example, ASSETS / "edit.webp")


def film(page: Page, example: Example, path: Path) -> None:
    """The run as the page saves it, after what was painted."""
    with page.expect_download(timeout=PATIENCE) as download:
        page.get_by_role("button", name="Save as WebP").click()
    with Image.open(download.value.path()) as saved:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(saved)]
    opening = example.thumbnail().resize(frames[0].size)
    save_animation([*[opening] * OPENING, *frames], path, ANIMATION_SECONDS)
    print(f"{path}: {len(frames)} steps, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    typer.run(main)
