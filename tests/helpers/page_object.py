"""The page in Chromium as tests see it: windows of it, what a person does there, and what they see.

What has a place on the page, or lies in the sketchpad, is found here alone.
"""

import base64
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from fake_models import LightnessScorer, WatchedPipeline
from page_server import served
from PIL import Image
from playwright.sync_api import Browser, CDPSession, ConsoleMessage, Frame, Locator, Page, expect
from tiny_models import tiny_model

from imagebart.imaging.masks import preset
from imagebart.ui.files import unpack_mask
from imagebart.ui.models import find_examples

# Few stages for what is waited for; enough for a run that is still going when it is cancelled.
STAGES, MANY_STAGES = 5, 8
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
TOUCH: dict[str, Any] = {"viewport": PHONE, "has_touch": True, "is_mobile": True}  # of a window: a phone
POLLING = 30  # milliseconds between two looks
CLIENT_CLOSED = ("AbortError", "Connection errored out")  # what Gradio's client logs when the page is left
PIPELINE = WatchedPipeline(tiny_model(scales=STAGES), LightnessScorer())


@dataclass(frozen=True)
class Site:
    """A running page, its pipeline, and the folder of its examples."""

    url: str
    pipeline: WatchedPipeline
    examples: Path


@contextmanager
def served_with_examples(pipeline: WatchedPipeline, folder: Path, models: Path | None = None) -> Iterator[Site]:
    """The page with the examples of a folder."""
    with served(pipeline, find_examples(folder), models) as url:
        yield Site(url, pipeline, folder)


# Opens the menu that a button or link of this name is in, where none is in sight; another menu is closed.
OPEN_MENU = """name => {
    const named = (part) => (part.getAttribute("aria-label") ?? part.textContent.trim()) === name;
    const parts = [...document.querySelectorAll(".sp button, .sp a")].filter(named);
    if (parts.some((part) => part.closest(":popover-open"))) return;
    document.querySelector(":popover-open")?.hidePopover();
    if (parts.some((part) => part.checkVisibility())) return;
    parts.map((part) => part.closest("[popover]")).find(Boolean)?.showPopover();
}"""


class PageObject:
    """The page in one window. What is not here is Playwright's own (`Page`)."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.canvas, self.prompt = page.locator(".sp canvas"), page.get_by_label("What should be there?").first
        self.messages, self.progress = page.locator("#messages"), page.locator("#progress")
        self.note, self.image_size = page.locator(".sp-note"), page.locator("#image-size")
        self.fit_status, self.elsewhere = page.locator("#fit-status"), page.locator("#elsewhere")
        self.film, self.caption = page.locator(".sp-film button"), page.locator(".sp-steps span")
        self.settings = page.get_by_role("button", name="Settings")
        self.runs = page.get_by_role("region", name="History").get_by_role("button")
        self.variants = page.get_by_role("group", name="Variants").get_by_role("button")
        self.compare_handle = page.get_by_role("slider", name="Before and after")
        self.steps_slider = page.get_by_role("slider", name="From noise to image")
        self.strength = page.locator("[data-part=strength]")
        self.how_many = page.locator("#how-many input")
        self.seed, self.new_seed = page.locator("#seed input"), page.get_by_label("New seed each time")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    def slow_down(self, rate: int, latency: int) -> None:
        """A machine that is so many times slower, at the end of a line of `latency` milliseconds."""
        line = {"offline": False, "latency": latency, "downloadThroughput": -1, "uploadThroughput": -1}
        self.devtools.send("Emulation.setCPUThrottlingRate", {"rate": rate})
        self.devtools.send("Network.enable")
        self.devtools.send("Network.emulateNetworkConditions", line)

    @cached_property
    def devtools(self) -> CDPSession:
        """One for all: fingers are lifted when their session ends."""
        return self.page.context.new_cdp_session(self.page)

    # What is seen.

    def pad(self, expression: str, arg: Any = None) -> Any:
        """The value of an expression of `pad`, the sketchpad, and `arg`."""
        return self.page.evaluate(f"arg => (pad => {expression})(document.querySelector('.sp').sketchpad)", arg)

    def wait_for(self, expression: str, arg: Any = None) -> None:
        """Wait until a JavaScript expression, or a function of `arg`, is true."""
        self.page.wait_for_function(expression, arg=arg, polling=POLLING)

    def wait_until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + Windows.patience / 1000
        while not true():
            assert time.monotonic() < deadline, "it never came"
            self.page.wait_for_timeout(POLLING)

    def wait_until_ready(self) -> None:
        """Wait until there is an image, and the server has said what Edit will change."""
        self.wait_for("document.querySelector('.sp[data-shown]')?.dataset.fit === 'known'")

    def expect_answer(self, name: str) -> Any:
        """While this lasts, the server answers to one of its functions, by its name."""
        return self.page.expect_response(lambda answer: f'"{name}"' in (answer.request.post_data or ""))

    def middle(self, dx: float = 0, dy: float = 0, of: Locator | None = None) -> tuple[float, float]:
        """A place so far from the middle of the canvas, or of something else, in pixels of the screen."""
        box = box_of(of or self.canvas)
        return box["x"] + box["width"] / 2 + dx, box["y"] + box["height"] / 2 + dy

    def view(self) -> dict[str, float]:
        """Where the image is on the canvas: scale, x, y, and its width and height in pixels of the mask."""
        return self.pad("({ ...pad.canvas.view, ...pad.canvas.size })")

    def sent_value(self) -> dict[str, Any]:
        """What the sketchpad would send now."""
        return self.pad("pad.props.value")

    def image(self) -> Path:
        """The file of what is painted on."""
        return Path(self.sent_value()["image"])

    def mask(self) -> np.ndarray:
        """What is painted, uint8 [H, W] in the sketchpad's pixels. All three of its places must agree."""
        text, width, height, painted, as_shown = self.pad(
            """{
                pad.canvas.render();
                const { width, height, data } = pad.state.mask;
                const overlay = pad.canvas.overlay.getContext("2d").getImageData(0, 0, width, height).data;
                const asShown = data.every((value, i) => value > 0 === overlay[4 * i + 3] > 0);
                const painted = data.reduce((text, value) => text + String.fromCharCode(value), "");
                return [pad.props.value.mask, width, height, btoa(painted), asShown];
            }"""
        )
        assert as_shown, "what is shown is not what is painted"
        sent = np.asarray(unpack_mask(text, (width, height)))
        assert sent.tobytes() == base64.b64decode(painted), "what is sent is not what is painted"
        return sent

    def expect_painted(self, count: int) -> None:
        """Wait until so many tokens of the image are painted, also in part, and what Edit will change is known."""

        def painted() -> int:
            mask = self.mask()
            tokens = (np.argwhere(mask) + 0.5) * PIPELINE.grid // mask.shape
            return len(np.unique(tokens, axis=0))

        self.wait_until_ready()
        self.wait_until(lambda: painted() == count)
        self.wait_until_ready()

    def fitted_mask(self) -> np.ndarray:
        """What Edit will change, as the page knows it: bool [H, W] in the sketchpad's pixels."""
        self.wait_until_ready()
        return self.read_mask("pad.fitted.mask ?? ''")

    def read_mask(self, packed: str) -> np.ndarray:
        """A packed mask, given as an expression of `pad`, the sketchpad: bool [H, W]."""
        text, width, height = self.pad(f"[{packed}, pad.state.mask.width, pad.state.mask.height]")
        return np.asarray(unpack_mask(text, (width, height))) > 0

    def button(self, name: str) -> Locator:
        """A button by its name; "Edit" is the main one, whose label is what it does."""
        return self.page.locator("#edit") if name == "Edit" else self.page.get_by_role("button", name=name, exact=True)

    def history(self) -> list[str]:
        """The runs that came to their end, the last one first, by the addresses of their thumbnails."""
        return self.page.locator("#history img").evaluate_all("images => images.map(({ src }) => src)")

    def expect_review(self, state: str) -> None:
        """Wait until a run is shown: "running", "finished", or "" for none."""
        self.wait_for("state => document.querySelector('.sp').dataset.review === state", state)

    def expect_free(self) -> None:
        """Wait until no run goes on."""
        self.wait_for("!document.documentElement.dataset.runState")

    def expect_finished(self) -> None:
        """Wait for the end of a run, whose result is shown."""
        expect(self.progress).to_contain_text("Done in")
        self.expect_free()
        self.expect_review("finished")
        self.wait_for("!('fresh' in document.documentElement.dataset)")

    def result_address(self) -> str:
        """Where the result can be downloaded."""
        self.expect_review("finished")
        return self.page.get_by_role("link", name="Download", exact=True).get_attribute("href")

    def result_pixels(self) -> np.ndarray:
        """Pixels of the result as it would be downloaded, uint8 [H, W, 3]."""
        return pixels(self.page.request.get(self.result_address()).body())

    # What is done.

    def click(self, *names: str, rest: float = 0) -> None:
        """Click buttons one after the other, so many milliseconds after each; 0: with no time for anything between."""
        self.page.evaluate(
            """async ([names, rest]) => {
                for (const name of names) {
                    [...document.querySelectorAll("button")].find((button) => name === "Edit" ? button.id === "edit" :
                        (button.getAttribute("aria-label") ?? button.textContent.trim()) === name,
                    ).click();
                    if (rest) await new Promise((done) => setTimeout(done, rest));
                }
            }""",
            [list(names), rest],
        )

    def press(self, name: str) -> None:
        """Press a button, in a menu too."""
        self.page.evaluate(OPEN_MENU, name)
        self.button(name).click()

    def choose_mode(self, name: str) -> None:
        self.page.locator("#mode").get_by_text(name, exact=True).click()

    def set_strength(self, percent: int) -> None:
        """Of the brush, with the slider in a menu."""
        self.strength.evaluate(
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
            percent,
        )

    def unfold_settings(self) -> None:
        if not self.new_seed.is_visible():
            self.settings.click()

    def choose_model(self, name: str) -> None:
        self.page.get_by_label("Model", exact=True).select_option(name)

    def choose_second_example(self) -> None:
        """The second example comes onto the canvas, without a mask."""
        self.press("Second")
        expect(self.image_size).to_contain_text("48 × 40")
        self.expect_painted(0)

    def begin_stroke(self, dx: float = 60, dy: float = 6) -> None:
        """The pointer goes down at (-dx, 0) from the middle of the canvas, to (dx, dy), and stays down."""
        self.page.mouse.move(*self.middle(-dx, 0))
        self.page.mouse.down()
        self.page.mouse.move(*self.middle(dx, dy), steps=12)

    def paint(self) -> None:
        """A stroke across the middle of the image."""
        self.begin_stroke()
        self.page.mouse.up()

    def place(self, at: tuple[float, float]) -> tuple[float, float]:
        """Where on the screen a place of the image is, given as shares of its width and height."""
        view, box = self.view(), box_of(self.canvas)
        x, y = at[0] * view["width"] * view["scale"], at[1] * view["height"] * view["scale"]
        return box["x"] + view["x"] + x, box["y"] + view["y"] + y

    def drag(self, start: tuple[float, float], *points: tuple[float, float]) -> None:
        """Drag over the image; places are shares of its width and height."""
        self.page.mouse.move(*self.place(start))
        self.page.mouse.down()
        for point in points:
            self.page.mouse.move(*self.place(point), steps=4)
        self.page.mouse.up()

    def edit(self, button: str = "Edit") -> None:
        """Press a button that starts a run, and wait until its result is shown."""
        before = self.history()
        self.press(button)
        self.wait_until(lambda: self.history() != before)
        self.expect_finished()

    def download(self, role: Any, name: str) -> Path:
        """The file that a link or a button saves, under a name with its ending."""
        self.page.evaluate(OPEN_MENU, name)
        with self.page.expect_download() as download:
            self.page.get_by_role(role, name=name, exact=True).click()
        path = Path(download.value.path())
        return path.rename(path.with_name(download.value.suggested_filename))

    def upload(self, path: Path, size: tuple[int, int]) -> None:
        """A file becomes the image."""
        self.page.get_by_label("Image to paint on", exact=True).set_input_files(path)
        expect(self.image_size).to_have_text(f"{size[0]} × {size[1]} pixels")

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        """Fingers at places of the screen: touchStart, touchMove, or touchEnd without places."""
        fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        self.devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})


class Windows:
    """Windows of one browser."""

    patience = 60_000  # milliseconds that all that is done and expected from now on may take, on a busy machine

    def __init__(self, chromium: Browser) -> None:
        self._chromium = chromium

    @contextmanager
    def open(self, url: str, may_log_errors: bool = False, **options: Any) -> Iterator[PageObject]:
        """The page in a window with nothing stored, wide and without motion unless `options` say otherwise.

        It must ask no other host for anything, and log no error unless it may.
        """
        complaints: list[str] = []

        def on_console(message: ConsoleMessage) -> None:
            if message.type == "error":
                complaints.append(message.text)

        def on_request(request: Any) -> None:
            if not request.url.startswith((url, "data:", "blob:")):
                complaints.append(f"asked {request.url}")

        def on_navigation(frame: Frame) -> None:
            """Gradio's client logs requests that end because the page is left or reloaded; nobody sees that."""
            if frame.parent_frame is None:
                complaints[:] = [text for text in complaints if not any(name in text for name in CLIENT_CLOSED)]

        expect.set_options(timeout=self.patience)
        options = {"viewport": WIDE, "reduced_motion": "reduce", **options}
        with self._chromium.new_context(**options) as context:
            context.set_default_timeout(self.patience)
            window = context.new_page()
            window.on("request", on_request)
            window.on("framenavigated", on_navigation)
            if not may_log_errors:
                window.on("console", on_console)
                window.on("pageerror", lambda error: complaints.append(str(error)))
            window.goto(url)
            page = PageObject(window)
            page.wait_until_ready()
            yield page
        assert not complaints, "\n".join(complaints)


def box_of(part: Locator) -> dict[str, float]:
    """Where something is on the screen: x, y, width, height."""
    return dict(part.bounding_box())


def gradient_image(size: tuple[int, int], blue: int) -> Image.Image:
    """An image in which no two neighboring pixels are alike."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    values = np.stack([x * 5 % 256, y * 5 % 256, np.full_like(x, blue)], axis=-1)
    return Image.fromarray(values.astype(np.uint8))


def pixels(file: bytes | Path) -> np.ndarray:
    """An image's pixels, uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
        return np.asarray(image.convert("RGB"))


def preset_mask(name: str, size: tuple[int, int]) -> np.ndarray:
    """The ready mask of a name for an image of `size` (width, height), uint8 [H, W]."""
    return np.asarray(preset(name.lower(), size))
