"""What a person does on the page, and what they see, for the tests in this folder."""

from __future__ import annotations

import io
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fake_models import LightnessScorer, WatchedPipeline
from page_server import served
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, expect
from tiny_models import tiny_model

from imagebart.imaging.masks import preset
from imagebart.ui.examples import find_examples
from imagebart.ui.model_list import Models
from imagebart.ui.sketchpad.component import unpack_mask

# Few stages for what is waited for; enough for a run that is still going when it is cancelled.
STAGES, MANY_STAGES = 5, 12
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
PATIENCE = 120_000  # milliseconds that an assertion is tried again, for a busy machine

expect.set_options(timeout=PATIENCE)
# What the sketchpad sends with every event, and its state.
SENT = "document.querySelector('.sp').sketchpad.props.value"


PIPELINE = WatchedPipeline(tiny_model(scales=STAGES), LightnessScorer())


@dataclass(frozen=True)
class Site:
    """A running page, its pipeline, and the folder of its examples."""

    url: str
    pipeline: WatchedPipeline
    examples: Path


@contextmanager
def served_with_examples(pipeline: WatchedPipeline, folder: Path, models: Models | None = None) -> Iterator[Site]:
    """The page with the examples of a folder."""
    with served(pipeline, find_examples(folder), models) as url:
        yield Site(url, pipeline, folder)


def gradient_image(size: tuple[int, int], blue: int) -> Image.Image:
    """A picture in which no two neighbouring pixels are alike."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    pixels = np.stack([x * 5 % 256, y * 5 % 256, np.full_like(x, blue)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def new_context(chromium: Browser, **options: Any) -> BrowserContext:
    """Windows that share nothing with others, and patient ones."""
    context = chromium.new_context(**options)
    context.set_default_timeout(PATIENCE)
    return context


@contextmanager
def open_page(chromium: Browser, url: str, **options: Any) -> Iterator[Page]:
    """The page in a window of its own; checked as by `open_window`."""
    with new_context(chromium, **options) as context, open_window(context, url) as page:
        yield page


@contextmanager
def open_window(context: BrowserContext, url: str) -> Iterator[Page]:
    """The page in a new window, with nothing stored. It must log no error and ask no other host for anything."""
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith((url, "data:", "blob:")):
            complaints.append(f"asked {request.url}")

    with context.new_page() as page:
        stored = {"origin": url.rstrip("/"), "storageTypes": "cookies,indexeddb,local_storage"}
        context.new_cdp_session(page).send("Storage.clearDataForOrigin", stored)
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", asked)
        page.goto(url)
        wait_until_ready(page)
        yield page
    assert not complaints, "\n".join(complaints)


@contextmanager
def open_slow_page(chromium: Browser, url: str, rate: int, latency: int) -> Iterator[Page]:
    """The page on a machine that is so many times slower, at the end of a line of `latency` milliseconds."""
    with open_page(chromium, url, viewport=WIDE) as page:
        slow_down(page, rate, latency)
        yield page


def slow_down(page: Page, rate: int, latency: int) -> None:
    machine = page.context.new_cdp_session(page)
    machine.send("Emulation.setCPUThrottlingRate", {"rate": rate})
    machine.send("Network.enable")
    line = {"offline": False, "latency": latency, "downloadThroughput": -1, "uploadThroughput": -1}
    machine.send("Network.emulateNetworkConditions", line)


def wait_until_ready(page: Page) -> None:
    """Wait until there is a picture, painted on, and the server has said what it would redraw."""
    expect(page.locator("#grid-status")).to_contain_text("will be regenerated")
    page.wait_for_selector(".sp[data-shown]")


def canvas(page: Page) -> Locator:
    """The canvas to paint on."""
    return page.locator(".sp canvas")


def sent_value(page: Page) -> dict[str, Any]:
    """What the sketchpad would send now."""
    found: dict[str, Any] = page.evaluate(SENT)
    return found


def mask(page: Page) -> np.ndarray:
    """What is painted, uint8 [H, W] in the sketchpad's pixels. All three of its places must agree."""
    text, size, as_sent, as_shown = page.evaluate(
        """() => {
            const { props, state, canvas } = document.querySelector(".sp").sketchpad;
            canvas.render();
            const { width, height, data } = state.mask;
            const overlay = canvas.overlay.getContext("2d").getImageData(0, 0, width, height).data;
            const sent = new Uint8Array(data.length);
            const runs = props.value.mask.split(" ").map(Number);
            for (let i = 0, at = 0; i + 1 < runs.length; at += runs[i + 1], i += 2) {
                sent.fill(runs[i], at, at + runs[i + 1]);
            }
            return [
                props.value.mask, [width, height],
                sent.every((value, i) => value === data[i]),
                data.every((value, i) => value > 0 === overlay[4 * i + 3] > 0),
            ];
        }"""
    )
    assert as_sent, "what is sent is not what is painted"
    assert as_shown, "what is shown is not what is painted"
    return np.asarray(unpack_mask(text, tuple(size)))


def type_prompt(page: Page, words: str) -> None:
    """Write the prompt."""
    page.get_by_label("What should be there?").first.fill(words)


def click(page: Page, *names: str, rest: float = 0) -> None:
    """Click buttons one after the other, so many milliseconds after each; 0: with no time for anything in between."""
    page.evaluate(
        """async ([names, rest]) => {
            for (const name of names) {
                [...document.querySelectorAll("button")].find(
                    (button) => (button.getAttribute("aria-label") ?? button.textContent.trim()) === name,
                ).click();
                if (rest) await new Promise((done) => setTimeout(done, rest));
            }
        }""",
        [list(names), rest],
    )


def press(page: Page, name: str) -> None:
    """Press a button."""
    page.get_by_role("button", name=name, exact=True).click()


def unfold(page: Page, name: str) -> None:
    """Open what is folded away."""
    page.get_by_role("button", name=name).click()


def choose_second_example(page: Page) -> None:
    """The second example comes onto the canvas, without a mask."""
    page.get_by_role("button", name="Second").click()
    expect(page.locator("#image-size")).to_contain_text("48 × 40")
    expect_regenerated(page, None)


def expect_regenerated(page: Page, count: int | None) -> None:
    """Wait until so many tokens are shown to be redrawn, or none."""
    said = "Nothing is painted yet" if count is None else f"{count} of {PIPELINE.grid**2} tokens will be regenerated"
    expect(page.locator("#grid-status")).to_have_text(said)


def grid_cells(page: Page) -> str:
    """The cells of the grid that is drawn over the picture: 1 where a token will be regenerated."""
    page.wait_for_function(
        "() => { const { dataset } = document.querySelector('.sp'); return dataset.gridVersion === dataset.version; }"
    )
    return page.locator(".sp").get_attribute("data-cells") or ""


def paint(page: Page, down: int = 6) -> None:
    """A stroke across the middle of the picture."""
    box = canvas(page).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 60, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + down, steps=12)
    page.mouse.up()


def edit(page: Page, button: str = "Edit") -> None:
    """Press a button that starts a run, and wait until its result is shown."""
    before = history(page)
    press(page, button)
    wait_until(page, lambda: history(page) != before)
    expect_finished(page)
    expect(page.locator(".sp")).to_have_attribute("data-review", "finished")


def history(page: Page) -> list[str]:
    """The runs that came to their end, the last one first, by the addresses of their thumbnails."""
    addresses: list[str] = page.locator("#history img").evaluate_all("images => images.map(({ src }) => src)")
    return addresses


def expect_finished(page: Page) -> None:
    """Wait for the end of a run."""
    expect(page.locator("#progress")).to_contain_text("Done in")
    expect(page.get_by_role("button", name="Edit", exact=True)).to_be_enabled()


def result_pixels(page: Page) -> np.ndarray:
    """Pixels of the result as it would be downloaded, uint8 [H, W, 3]."""
    return pixels(page.request.get(result_address(page)).body())


def result_address(page: Page) -> str:
    """Where the result can be downloaded."""
    expect(page.locator(".sp")).to_have_attribute("data-review", "finished")
    address = page.get_by_role("link", name="Download", exact=True).get_attribute("href")
    assert address is not None
    return address


def pixels(file: bytes | Path) -> np.ndarray:
    """A picture's pixels, uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
        return np.asarray(image.convert("RGB"))


def drop(page: Page, path: Path) -> None:
    """Drop a file on the canvas."""
    data = page.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
            return transfer;
        }""",
        list(path.read_bytes()),
    )
    canvas(page).dispatch_event("drop", {"dataTransfer": data})


def upload(page: Page, path: Path, size: tuple[int, int]) -> None:
    """A file becomes the picture."""
    page.get_by_label("Image to paint on", exact=True).set_input_files(path)
    expect(page.locator("#image-size")).to_have_text(f"{size[0]} × {size[1]} pixels")


def preset_mask(name: str, size: tuple[int, int]) -> np.ndarray:
    """The ready mask of a name for a picture of `size` (width, height), uint8 [H, W]."""
    return np.asarray(preset(name.lower(), size))


def random_seed() -> int:
    """For what is done at random: another one each time, printed; that of SEED does the same again."""
    found = int(os.environ.get("SEED", random.randrange(10**6)))
    print(f"SEED={found}")
    return found


def wait_until(page: Page, true: Callable[[], bool]) -> None:
    """Look again and again until something is true."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not true():
        assert time.monotonic() < deadline, "it never came"
        page.wait_for_timeout(100)
