"""The page in Chromium as tests see it: windows of it, what a person does there, and what they see.

What has a place on the page, or lies in the sketchpad, is found here alone.
"""

import base64
import io
import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fake_models import LightnessScorer, WatchedPipeline
from page_server import served
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Frame, Locator, Page, TimeoutError, expect
from tiny_models import tiny_model

from imagebart.imaging.masks import preset
from imagebart.ui.files import unpack_mask
from imagebart.ui.models import find_examples

# Few stages for what is waited for; enough for a run that is still going when it is cancelled.
STAGES, MANY_STAGES = 5, 8
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
TOUCH: dict[str, Any] = {"viewport": PHONE, "has_touch": True, "is_mobile": True}  # of a window: a phone
PATIENCE = 60_000  # milliseconds that an assertion is tried again, for a busy machine
IMPATIENCE = 10_000  # the same once two tests have failed, as the page is broken
POLLING = 30  # milliseconds between two looks
CLIENT_CLOSED = ("AbortError", "Connection errored out")  # what Gradio's client logs when the page is left
# What the sketchpad sends with every event, and its state.
SENT = "document.querySelector('.sp').sketchpad.props.value"
READY = "document.querySelector('.sp[data-shown]')?.dataset.fit === 'known'"
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


class PageObject:
    """The page in one window. What is not here is Playwright's own (`Page`)."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.slowed = False
        self.messages, self.progress = page.locator("#messages"), page.locator("#progress")
        self.note, self.image_size = page.locator(".sp-note"), page.locator("#image-size")
        self.fit_status, self.elsewhere = page.locator("#fit-status"), page.locator("#elsewhere")
        self.unknown_image, self.toasts = page.locator("#unknown-image"), page.get_by_test_id("toast-body")
        self.film = page.locator(".sp-film button")
        self.runs = page.get_by_role("region", name="History").get_by_role("button")
        self.variants = page.get_by_role("toolbar", name="Variants").get_by_role("button")
        self.compare_handle = page.get_by_role("slider", name="Before and after")
        self.ready_masks, self.exact = page.locator(".sp-masks"), page.get_by_label("Only what I painted")
        self.best_first = page.get_by_role("checkbox", name="Best first")
        self.seed, self.new_seed = page.locator("#seed input"), page.get_by_label("New seed each time")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)

    @contextmanager
    def open_tab(self, url: str) -> "Iterator[PageObject]":
        """The page in another tab of the same browser; what is stored stays."""
        with self.page.context.new_page() as tab:
            tab.goto(url)
            other = PageObject(tab)
            other.wait_until_ready()
            yield other

    def slow_down(self, rate: int, latency: int) -> None:
        """A machine that is so many times slower, at the end of a line of `latency` milliseconds."""
        if (rate, latency) == (1, 0):
            return
        self.slowed = True
        machine = self.page.context.new_cdp_session(self.page)
        machine.send("Emulation.setCPUThrottlingRate", {"rate": rate})
        machine.send("Network.enable")
        line = {"offline": False, "latency": latency, "downloadThroughput": -1, "uploadThroughput": -1}
        machine.send("Network.emulateNetworkConditions", line)

    # What is seen.

    def pad(self, expression: str, arg: Any = None) -> Any:
        """The value of an expression of `pad`, the sketchpad, and `arg`."""
        return self.page.evaluate(f"arg => (pad => {expression})(document.querySelector('.sp').sketchpad)", arg)

    def wait_for(self, expression: str, arg: Any = None) -> None:
        """Wait until a JavaScript expression, or a function of `arg`, is true."""
        self.page.wait_for_function(expression, arg=arg, polling=POLLING)

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Wait until something is true."""
        deadline = time.monotonic() + Windows.patience / 1000
        while not true():
            assert time.monotonic() < deadline, "it never came"
            self.page.wait_for_timeout(POLLING)

    def rest(self) -> None:
        """Give the page the time to show what it is about to, by its own clock."""
        self.page.evaluate("new Promise((done) => setTimeout(() => requestAnimationFrame(done), 200))")

    def wait_until_ready(self) -> None:
        """Wait until there is an image, and the server has said what Edit will change."""
        self.wait_for(READY)

    @contextmanager
    def expect_answer(self, name: str) -> Iterator[None]:
        """Wait for the server's next answer to one of its functions, by its name."""
        with self.page.expect_response(lambda answer: f'"{name}"' in (answer.request.post_data or "")):
            yield

    def canvas(self) -> Locator:
        """The canvas to paint on."""
        return self.page.locator(".sp canvas")

    def canvas_box(self) -> tuple[float, float, float, float]:
        """Where the canvas is: left, top, width, height."""
        box = self.canvas().bounding_box()
        assert box is not None
        return box["x"], box["y"], box["width"], box["height"]

    def middle(self, dx: float = 0, dy: float = 0) -> tuple[float, float]:
        """A place so far from the middle of the canvas, in pixels of the screen."""
        left, top, width, height = self.canvas_box()
        return left + width / 2 + dx, top + height / 2 + dy

    def view(self) -> dict[str, float]:
        """Where the image is on the canvas: scale, x, y, and its width and height in pixels of the mask."""
        return self.pad("({ ...pad.canvas.view, ...pad.canvas.size })")

    def sent_value(self) -> dict[str, Any]:
        """What the sketchpad would send now."""
        return self.pad("pad.props.value")

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
        self.wait_until_ready()
        self.wait_until(lambda: self._painted_tokens() == count)
        self.wait_until_ready()

    def _painted_tokens(self) -> int:
        mask = self.mask()
        tokens = (np.argwhere(mask) + 0.5) * PIPELINE.grid // mask.shape
        return len(np.unique(tokens, axis=0))

    def fitted_mask(self) -> np.ndarray:
        """What Edit will change, as the page knows it: bool [H, W] in the sketchpad's pixels."""
        self.wait_until_ready()
        return self.read_mask("pad.fitted.mask ?? ''")

    def read_mask(self, packed: str) -> np.ndarray:
        """A packed mask, given as an expression of `pad`, the sketchpad: bool [H, W]."""
        text, width, height = self.pad(f"[{packed}, pad.state.mask.width, pad.state.mask.height]")
        return np.asarray(unpack_mask(text, (width, height))) > 0

    def brightness_around(self, x: int, y: int) -> np.ndarray:
        """The darkest color of twelve pixels of the screen in a row, around the left edge of a pixel of the mask."""
        rgba = self.pad(
            """{
                pad.canvas.render();
                const { view, element } = pad.canvas;
                const place = [view.x + arg[0] * view.scale, view.y + (arg[1] + 0.5) * view.scale];
                const [left, top] = place.map((at) => Math.round(at * devicePixelRatio));
                return [...element.getContext("2d").getImageData(left - 6, top, 12, 1).data];
            }""",
            [x, y],
        )
        return np.reshape(rgba, (12, 4))[:, :3].min(axis=1)

    def prompt(self) -> Locator:
        """The field of the prompt."""
        return self.page.get_by_label("What should be there?").first

    def button(self, name: str) -> Locator:
        """A button of exactly this name."""
        return self.page.get_by_role("button", name=name, exact=True)

    def how_many(self, number: int) -> Locator:
        """The choice of so many images at once."""
        return self.page.get_by_role("radio", name=str(number))

    def steps_slider(self) -> Locator:
        """The slider that shows a run's steps."""
        return self.page.get_by_role("slider", name="From noise to image")

    def caption(self) -> Locator:
        """What the step that is shown is, in words."""
        return self.page.locator(".sp-steps span")

    def history(self) -> list[str]:
        """The runs that came to their end, the last one first, by the addresses of their thumbnails."""
        return self.page.locator("#history img").evaluate_all("images => images.map(({ src }) => src)")

    def run_outline(self, number: int) -> np.ndarray:
        """Where the outline of its mask is drawn on a run of the history: bool [112, 112]."""
        drawn = self.runs.nth(number).locator("canvas")
        rgba = drawn.evaluate("canvas => [...canvas.getContext('2d').getImageData(0, 0, 112, 112).data]")
        return np.reshape(rgba, (112, 112, 4))[..., 3] > 0

    def film_states(self) -> list[str]:
        """What the film shows of each state: empty, current or done."""
        return self.film.evaluate_all("buttons => buttons.map(({ dataset }) => dataset.state)")

    def action_places(self) -> list[float]:
        """Where the buttons beside Edit end."""
        places = "buttons => buttons.map((button) => button.offsetLeft + button.offsetWidth)"
        return self.page.locator("#actions > button").evaluate_all(places)

    def expect_review(self, state: str) -> None:
        """Wait until a run is shown: "running", "finished", or "" for none."""
        self.wait_for("state => document.querySelector('.sp').dataset.review === state", state)

    def expect_replaying(self, on: bool) -> None:
        """Wait for the begin or the end of a replay."""
        self.wait_for("on => !!document.querySelector('.sp').sketchpad.review.replaying === on", on)

    def expect_shown(self, path: str) -> None:
        """Wait until an image is seen, by its file on the server."""
        expect(self.page.locator(".sp")).to_have_attribute("data-shown", path)

    def expect_free(self) -> None:
        """Wait until no run goes on."""
        self.wait_for("!document.documentElement.dataset.runState")

    def expect_finished(self) -> None:
        """Wait for the end of a run."""
        expect(self.progress).to_contain_text("Done in")
        self.expect_free()

    def result_address(self) -> str:
        """Where the result can be downloaded."""
        self.expect_review("finished")
        return self.page.get_by_role("link", name="Download", exact=True).get_attribute("href")

    def result_pixels(self) -> np.ndarray:
        """Pixels of the result as it would be downloaded, uint8 [H, W, 3]."""
        return pixels(self.page.request.get(self.result_address()).body())

    # What is done.

    def type_prompt(self, words: str) -> None:
        """Write the prompt."""
        self.prompt().fill(words)

    def click(self, *names: str, rest: float = 0) -> None:
        """Click buttons one after the other, so many milliseconds after each; 0: with no time for anything between."""
        self.page.evaluate(
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

    def enter_and_escape(self, share: float) -> None:
        """Enter in the prompt, and Escape once the run is seen to have come so far; 0: with no time in between."""
        self.page.evaluate(
            """share => new Promise((done) => {
                const press = (key) => document.querySelector("#prompt textarea").dispatchEvent(
                    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }),
                );
                const look = () => {
                    const seen = Number(document.querySelector("#progress [role=progressbar]")?.ariaValueNow ?? 0);
                    const goesOn = document.documentElement.dataset.runState === "requested";
                    if (seen < 100 * share && goesOn) return requestAnimationFrame(look);
                    press("Escape");
                    done();
                };
                press("Enter");
                look();
            })""",
            share,
        )

    def press(self, name: str) -> None:
        """Press a button."""
        self.button(name).click()

    def unfold(self, name: str) -> None:
        """Open what is folded away."""
        self.page.get_by_role("button", name=name).click()

    def choose_second_example(self) -> None:
        """The second example comes onto the canvas, without a mask."""
        self.page.get_by_role("button", name="Second").click()
        expect(self.image_size).to_contain_text("48 × 40")
        self.expect_painted(0)

    def begin_stroke(self, dx: float = 60, dy: float = 6) -> None:
        """The pointer goes down at (-dx, 0) from the middle of the canvas, to (dx, dy), and stays down."""
        self.page.mouse.move(*self.middle(-dx, 0))
        self.page.mouse.down()
        self.page.mouse.move(*self.middle(dx, dy), steps=12)

    def paint(self, down: int = 6) -> None:
        """A stroke across the middle of the image."""
        self.begin_stroke(dy=down)
        self.page.mouse.up()

    @contextmanager
    def keyboard_held(self, key: str) -> Iterator[None]:
        """A key is down."""
        self.page.keyboard.down(key)
        yield
        self.page.keyboard.up(key)

    def place(self, at: tuple[float, float]) -> tuple[float, float]:
        """Where on the screen a place of the image is, given as shares of its width and height."""
        view, (left, top, _, _) = self.view(), self.canvas_box()
        x, y = at[0] * view["width"] * view["scale"], at[1] * view["height"] * view["scale"]
        return left + view["x"] + x, top + view["y"] + y

    def drag(self, start: tuple[float, float], *points: tuple[float, float]) -> None:
        """Drag over the image; places are shares of its width and height."""
        self.page.mouse.move(*self.place(start))
        self.page.mouse.down()
        for point in points:
            self.page.mouse.move(*self.place(point), steps=4)
        self.page.mouse.up()

    def choose_mode(self, name: str) -> None:
        """Choose what Edit does."""
        self.page.get_by_label("What Edit does").select_option(name)

    def edit(self, button: str = "Edit") -> None:
        """Press a button that starts a run, and wait until its result is shown; "Vary": Edit, in this mode."""
        if button == "Vary":
            self.choose_mode("Vary")
            self.edit()
            self.choose_mode("Fill")
            return
        before = self.history()
        self.press(button)
        self.wait_until(lambda: self.history() != before)
        self.expect_finished()
        self.expect_review("finished")

    def download(self, role: Any, name: str) -> Path:
        """The file that a link or a button saves, under a name with its ending."""
        with self.page.expect_download() as download:
            self.page.get_by_role(role, name=name, exact=True).click()
        path = Path(download.value.path())
        return path.rename(path.with_name(download.value.suggested_filename))

    def drop(self, path: Path) -> None:
        """Drop a file on the canvas."""
        data = self.page.evaluate_handle(
            """([name, bytes]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], name));
                return transfer;
            }""",
            [path.name, list(path.read_bytes())],
        )
        self.canvas().dispatch_event("drop", {"dataTransfer": data})

    def choose_file(self, path: Path) -> None:
        """Choose a file to paint on."""
        self.page.get_by_label("Image to paint on", exact=True).set_input_files(path)

    def upload(self, path: Path, size: tuple[int, int]) -> None:
        """A file becomes the image."""
        self.choose_file(path)
        expect(self.image_size).to_have_text(f"{size[0]} × {size[1]} pixels")


class Fingers:
    """Fingers on the canvas of a page; places are shares of its width and height."""

    def __init__(self, page: PageObject) -> None:
        self.page = page
        # One for all: fingers are lifted when their session ends.
        self.session = page.context.new_cdp_session(page.page)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        """A touch event: touchStart, touchMove, or touchEnd without points."""
        left, top, width, height = self.page.canvas_box()
        places = [{"x": left + x * width, "y": top + y * height, "id": number} for number, (x, y) in enumerate(points)]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})


# The first example, as if nothing had been done before, by the page's own means but for what is never forgotten there.
FORGET = """() => {
    const pad = document.querySelector(".sp").sketchpad;
    document.activeElement.blur();
    pad.element.querySelector("[data-command=fitView]").click();
    document.querySelectorAll("#settings > button.open").forEach((fold) => fold.click());
    if (pad.modes.chosen !== "fill") pad.modes.choose("fill");
    pad.selectTool("brush");
    pad.openExample(pad.examples[0]);
    Object.assign(pad.state, { past: [], future: [] });
    pad.changed();
    pad.history.entries = [];
    pad.history.strip.replaceChildren();
    pad.history.update();
    scrollTo(0, 0);
}"""
# All in which the page can differ from a new one after that, but for the last run's steps and seed.
LOOKS = """() => {
    const pad = document.querySelector(".sp").sketchpad;
    const parts = document.querySelectorAll("button, dialog, select, textarea, input:not([type=number], .sp-steps *)");
    return JSON.stringify([
        Object.keys(window), document.documentElement.dataset.runState ?? "", scrollX, scrollY, pad.canvas.view,
        pad.element.dataset.fit, pad.element.dataset.shown, pad.parts.note.textContent,
        document.querySelectorAll("[data-testid=toast-body]").length,
        ...[...parts].map((part) => {
            const { className, value, checked, disabled, ariaPressed, ariaDisabled } = part;
            return [className, value, checked, disabled, ariaPressed, ariaDisabled, part.checkVisibility()];
        }),
    ]);
}"""


class Windows:
    """Windows of one browser. One in which nothing is left of a test is used again as it is: loading takes long."""

    patience = PATIENCE  # of all that is done and expected from now on

    def __init__(self, chromium: Browser) -> None:
        self._chromium = chromium
        self._contexts: dict[str, BrowserContext] = {}
        self._free: dict[str, list[Page]] = defaultdict(list)
        self._new: dict[Page, str] = {}  # how the page looked in it when it was new

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

        listeners: dict[Any, Callable[[Any], None]] = {"request": on_request, "framenavigated": on_navigation}
        if not may_log_errors:
            listeners |= {"console": on_console, "pageerror": lambda error: complaints.append(str(error))}
        options = {"viewport": WIDE, "reduced_motion": "reduce", **options}
        key = json.dumps(options, sort_keys=True)
        window = self._window(key, url, options)
        if window.url != url:
            window.goto("about:blank")  # the page of another server that is in it may ask that one meanwhile
        window.set_default_timeout(self.patience)
        expect.set_options(timeout=self.patience)
        for event, listener in listeners.items():
            window.on(event, listener)
        page = PageObject(window)
        try:
            if window.url != url:
                self._load(page, url)
            yield page
        except BaseException:
            window.close()
            raise
        for event, listener in listeners.items():
            window.remove_listener(event, listener)
        if page.slowed:
            window.close()
        else:
            window.set_viewport_size(options["viewport"])
            self._put_back(page)
            self._free[key].append(window)
        assert not complaints, "\n".join(complaints)

    def _window(self, key: str, url: str, options: dict[str, Any]) -> Page:
        """One that has the page as it is when new, or else any."""
        if key not in self._contexts:
            self._contexts[key] = self._chromium.new_context(**options)
        free = self._free[key]
        free.sort(key=lambda window: window.url == url)
        return free.pop() if free else self._contexts[key].new_page()

    def _load(self, page: PageObject, url: str) -> None:
        devtools = page.context.new_cdp_session(page.page)
        stored = {"origin": url.rstrip("/"), "storageTypes": "cookies,cache_storage,local_storage"}
        devtools.send("Storage.clearDataForOrigin", stored)
        devtools.detach()
        page.goto(f"{url}robots.txt")
        page.evaluate("sessionStorage.clear()")
        page.goto(url)
        page.wait_until_ready()
        self._new[page.page] = page.evaluate(LOOKS)

    def _put_back(self, page: PageObject) -> None:
        """Leaves a page that is not as it was when new, which the server notices."""
        page.unroute_all()
        page.mouse.up()
        page.mouse.move(0, 0)
        if not page.evaluate("document.documentElement.dataset.runState"):
            page.evaluate(FORGET)
            with suppress(TimeoutError):
                page.page.wait_for_function(READY, timeout=IMPATIENCE)
        if page.evaluate(LOOKS) != self._new[page.page]:
            page.goto("about:blank")


def gradient_image(size: tuple[int, int], blue: int) -> Image.Image:
    """An image in which no two neighbouring pixels are alike."""
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


def random_seed() -> int:
    """For what is done at random: another one each time, printed; that of SEED does the same again."""
    found = int(os.environ.get("SEED", random.randrange(10**6)))
    print(f"SEED={found}")
    return found
