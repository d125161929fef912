"""How quickly the page answers, in Chromium, with the shipped model: seconds until one can paint, milliseconds from a
ready mask until it is shown; of the first edit that a visitor makes, with the defaults, seconds to the noise, to the
first preview and to the result, how many states are seen, and in how many scales.

Each on this machine and on one whose browser is so many times slower (Chrome's own throttling); medians in a table.
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
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, Page, expect, sync_playwright

HERE = Path(__file__).resolve().parent.parent
PATIENCE = 120_000  # milliseconds
HEADINGS = (
    *("browser", "page asked for → paintable", "ready mask → shown"),
    *("Edit → noise", "→ first preview", "→ result", "states seen", "scales"),
)
PRESETS = ("Upper half", "Centre", "Border", "Everything", "Left half")
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
# What is seen of a run, from the click on Edit to its result.
FIRST_EDIT = """() => new Promise((done) => {
    const { review } = document.querySelector(".sp").sketchpad;
    const began = performance.now();
    const times = new Map(); // by image
    const setBitmap = review.setBitmap;
    review.setBitmap = function (bitmap, ...rest) {
        if (!times.has(bitmap)) times.set(bitmap, (performance.now() - began) / 1000);
        setBitmap.call(this, bitmap, ...rest);
        if (!this.finished) return;
        delete review.setBitmap;
        const [noise, preview] = times.values();
        const scales = Math.max(...this.run.film.map((label) => Number(label.split(" of ")[1] ?? 1)));
        done({ noise, preview, result: times.get(bitmap), states: times.size, scales });
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
def opened(browser: Browser, url: str, rate: float) -> Iterator[Page]:
    """The page, ready, in a wide window that knows nothing of it yet."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.add_init_script(PAINTABLE)
    page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": rate})
    page.goto(url)
    expect(page.locator("#fit-status")).to_contain_text("% will change", timeout=PATIENCE)
    page.wait_for_selector(".sp[data-shown]")
    yield page
    context.close()


def measure(browser: Browser, url: str, rate: float, times: int) -> str:
    """A line of the table."""
    paintable, settled, edits = [], [], []
    for _ in range(times):
        with opened(browser, url, rate) as page:
            paintable.append(page.evaluate("window.paintable") / 1000)
            settled += [page.evaluate(SETTLED, name) for name in PRESETS]
        with opened(browser, url, rate) as page:
            edits.append(page.evaluate(FIRST_EDIT))
    until = f"{median(paintable):.2f} ({min(paintable):.2f} to {max(paintable):.2f}) s"
    shown = f"{median(settled):.0f} ({min(settled):.0f} to {max(settled):.0f}) ms"
    seconds = " | ".join(f"{median(edit[name] for edit in edits):.2f} s" for name in ("noise", "preview", "result"))
    states = median(edit["states"] for edit in edits)
    return f"| {rate:g}x | {until} | {shown} | {seconds} | {states:g} | {edits[0]['scales']} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=8, help="page loads at each speed (%(default)s)")
    parser.add_argument("--rates", type=float, nargs="+", default=[1, 4], help="how many times slower (%(default)s)")
    options = parser.parse_args()
    chromium = os.environ.get("IMAGEBART_CHROMIUM") or shutil.which("chromium")
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with opened(browser, url, 1):
            pass  # the server's first answer is slower than all later ones
        print("| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|")
        for rate in options.rates:
            print(measure(browser, url, rate, options.times), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
