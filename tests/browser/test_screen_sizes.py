"""The page in Chromium on wide screens and a phone: what fits and can be reached; and once with the shipped model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_object import PHONE, PIPELINE, TOUCH, PageObject, Site, Windows, served_with_examples
from page_server import served
from playwright.sync_api import Locator, expect

from imagebart.pipeline import LazyImages, Pipeline, PipelineEvent
from imagebart.ui import messages
from imagebart.ui.models import Example, find_examples

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
SCREENS = [{"width": 1440, "height": 900}, {"width": 1024, "height": 768}]
# Labels that are wider than their buttons.
OVERFLOWING = """[
    ...document.querySelectorAll("#dock button, #sharing button, .sp button, a.sp-button"),
].filter((button) => {
    if (!button.checkVisibility()) return false;
    const text = document.createRange();
    text.selectNodeContents(button);
    const [label, box] = [text.getBoundingClientRect(), button.getBoundingClientRect()];
    return label.left < box.left || label.right > box.right;
}).map((button) => button.textContent)"""


@pytest.fixture(scope="session")
def shipped_examples() -> Iterator[Site]:
    with served_with_examples(PIPELINE, ROOT / "checkpoints" / "avatars" / "examples") as site:
        yield site


def box_of(part: Locator) -> dict[str, float]:
    box = part.bounding_box()
    assert box is not None
    return dict(box)


def in_sight(page: PageObject, part: Locator, screen: dict[str, int]) -> bool:
    box = box_of(part)
    inside = box["x"] >= 0 and box["x"] + box["width"] <= screen["width"]
    return inside and box["y"] >= 0 and box["y"] + box["height"] <= screen["height"]


@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: f"{screen['width']} x {screen['height']}")
def test_the_main_way_needs_no_scrolling(windows: Windows, shipped_examples: Site, screen: Any) -> None:
    with windows.open(shipped_examples.url, viewport=screen) as page:
        prompt = page.prompt()
        names = ("Upper half", "Clear mask", "Edit")
        painting = [page.button(name) for name in names]
        for part in (*painting, page.locator(".sp canvas"), prompt, page.locator(".sp-examples")):
            assert in_sight(page, part, screen), part
        page.edit()
        finishing = [page.get_by_role(role, name=name) for role, name in (("button", "Keep"), ("link", "Download"))]
        for part in (*finishing, page.locator("#progress"), page.locator(".sp canvas"), page.locator("#history")):
            assert in_sight(page, part, screen), part
        page.locator("#how-many").get_by_text("4", exact=True).click()
        page.edit()
        variants = page.get_by_role("toolbar", name="Variants").get_by_role("button")
        expect(variants).to_have_count(4)
        assert in_sight(page, variants.last, screen)
        assert page.evaluate("scrollY") == 0
        assert page.evaluate(OVERFLOWING) == []
        if screen == SCREENS[1]:  # settings open beside the image
            page.locator("#settings > button").click()
            page.locator("#reset").scroll_into_view_if_needed()
            assert page.evaluate("scrollY") > 0
            for part in (page.locator(".sp canvas"), page.button("Edit")):
                assert in_sight(page, part, screen), part


# Notes, frame by frame, by how many pixels anything moves but the image, its film, the prompt, which grows upwards on a
# phone, and what is new; and what Chrome itself calls a layout shift.
WATCH_MOVES = """() => {
    const changing = "#prompt, #history .sp-strip, .sp-film, .sp-variants, .sp-slider, #messages, #progress";
    const parts = [...document.querySelectorAll(
        "button, input, textarea, h1, label, canvas, #dock, #notes, #suggestions, #settings, .sp-frame, .sp-masks",
    )].filter((part) => !part.closest(changing));
    const shown = (part) => part.isConnected && part.checkVisibility({ visibilityProperty: true });
    const place = (part) => {
        const { x, y } = part.getBoundingClientRect();
        return [Math.round(x + scrollX), Math.round(y + scrollY)];
    };
    const last = new Map();
    window.moved = {};
    window.shifted = [];
    new PerformanceObserver((list) => {
        for (const { sources } of list.getEntries()) {
            for (const { node, previousRect, currentRect } of sources) {
                const part = node?.nodeType === 1 ? node : node?.parentElement;
                if (!part || part.closest("#prompt, #notes, #history .sp-strip")) continue;
                window.shifted.push([part.outerHTML.slice(0, 90), previousRect, currentRect]);
            }
        }
    }).observe({ type: "layout-shift" });
    const look = () => {
        for (const part of parts.filter(shown)) {
            const [before, now] = [last.get(part) ?? place(part), place(part)];
            const by = Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
            const name = `${part.tagName}#${part.id} ${part.textContent.trim().slice(0, 20)}`;
            if (by) window.moved[name] = (window.moved[name] ?? 0) + by;
            last.set(part, now);
        }
        requestAnimationFrame(look);
    };
    look();
}"""
PHONES = [{"width": 390, "height": 844}, {"width": 844, "height": 390}]


@pytest.mark.parametrize("screen", [*SCREENS, *PHONES], ids=lambda screen: f"{screen['width']} x {screen['height']}")
def test_nothing_moves_from_the_first_word_to_the_history(windows: Windows, slow_site: Site, screen: Any) -> None:
    touch = {**TOUCH, "viewport": screen} if screen in PHONES else {"viewport": screen}
    with windows.open(slow_site.url, **touch) as page:

        def expect_nothing_moved(by: str) -> None:
            page.wait_for_timeout(100)  # what moves late
            assert (page.evaluate("moved"), page.evaluate("shifted")) == ({}, []), by

        page.evaluate(WATCH_MOVES)
        page.type_prompt(
            "zebra, a blue sunglases, and many more words than one line of the prompt can ever hold on a phone"
        )
        expect(page.locator("#unknown")).to_be_visible()
        expect_nothing_moved("unknown words")
        page.click("Edit")
        page.expect_review("running")
        expect_nothing_moved("a run that begins")
        page.expect_finished()
        page.expect_review("finished")
        expect(page.locator("#messages")).to_contain_text("zebra")
        expect_nothing_moved("its end, its notes or the history")
        page.click("Replay")
        page.wait_for("() => document.querySelector('.sp').sketchpad.review.replaying")
        page.click("Keep")
        page.expect_painted(0)
        expect_nothing_moved("what is kept")
        page.click("Everything")
        page.expect_painted(64)
        page.click("Edit")
        page.expect_review("running")
        page.click("Cancel")
        expect(page.locator("#messages")).to_contain_text("Cancelled")
        expect_nothing_moved("a run that is cancelled")
        page.evaluate("document.querySelectorAll('#how-many input')[3].click()")
        page.click("Generate")
        page.expect_finished()
        expect(page.get_by_role("toolbar", name="Variants").get_by_role("button")).to_have_count(4)
        expect_nothing_moved("variants")


def above_the_dock(phone: PageObject, *parts: Locator) -> None:
    """In sight while the dock shows no notes, which lie over what is above it."""
    edge = box_of(phone.locator("#dock"))["y"]
    for part in parts:
        box = box_of(part)
        assert (phone.evaluate("scrollY"), box["y"] + box["height"] <= edge) == (0, True), f"{part}: {box}, {edge}"


LONG_RUN = PipelineEvent(
    kind="preview",
    tokens=torch.zeros(1, 256),
    **{"stage": 3, "stages": 8, "resample_index": 1, "resamples": 4, "position": 137, "total": 256},
    **{"fraction": 0.5, "elapsed": 128.4, "remaining": 130.2, "drawing": "a watermelon"},
    **{"lazy_images": LazyImages(list), "seed": 0, "notes": [], "recipes": ()},
)


def test_a_phone_shows_everything_within_its_width(windows: Windows, shipped_examples: Site) -> None:
    with windows.open(shipped_examples.url, **TOUCH) as phone:
        above_the_dock(
            phone, phone.get_by_role("button", name="Select by prompt"), phone.get_by_role("button", name="Grow")
        )
        phone.edit()
        above_the_dock(phone, phone.get_by_role("button", name="Keep"), phone.steps_slider())
        phone.type_prompt("sunglases")
        expect(phone.locator("#corrections")).to_be_visible()
        before = box_of(phone.locator("#edit"))
        phone.edit()
        assert box_of(phone.locator("#edit")) == before, "a button moved from under the finger"
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert phone.evaluate(OVERFLOWING) == []
        for button in (
            *phone.locator(".sp-tools button").all(),
            *phone.locator("#actions button:visible, #mode").all(),
        ):
            assert min(box_of(button)["width"], box_of(button)["height"]) >= 40
        # Progress is one line, however much it says.
        longest = messages.progress_html(LONG_RUN)
        progress, heights = phone.locator("#progress"), []
        for said in (messages.waiting_html(), longest):
            progress.evaluate("(part, said) => (part.innerHTML = said)", said)
            heights.append(box_of(progress.locator(".ib-line"))["height"])
        assert heights[0] == heights[1]
        assert in_sight(phone, progress.get_by_text("about 130.2 s left"), PHONE)


AGAIN = "(({ history }) => history.add(history.entries[0]))(document.querySelector('.sp').sketchpad)"


@pytest.mark.parametrize("screen", PHONES, ids=["upright", "on its side"])
def test_after_ten_runs_a_phone_shows_the_same(windows: Windows, site: Site, screen: dict[str, int]) -> None:
    with windows.open(site.url, **{**TOUCH, "viewport": screen}) as phone:
        buttons = [phone.button(name) for name in ("Edit", "Generate", "Cancel")]
        phone.edit()
        for _ in range(9):  # the same run again, which takes no time
            phone.evaluate(AGAIN)
            assert phone.evaluate("document.documentElement.scrollWidth") == screen["width"]
        assert len(phone.history()) == 10
        phone.evaluate("scrollTo(0, 0)")
        for button in buttons:
            assert in_sight(phone, button, screen), button
            box, dock = box_of(button), box_of(phone.locator("#dock"))
            assert dock["x"] <= box["x"] and box["x"] + box["width"] <= dock["x"] + dock["width"], "it is cut"
        last = phone.locator("#history").get_by_role("button").last
        last.scroll_into_view_if_needed()
        assert 0 <= box_of(last)["x"] <= screen["width"] - box_of(last)["width"], "the history does not scroll"


def test_nothing_is_out_of_reach_and_drawing_does_not_scroll(windows: Windows, site: Site) -> None:
    with windows.open(site.url, **TOUCH) as phone:
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        for name in ("Edit", "Generate", "Cancel"):
            box = box_of(phone.button(name))
            assert box["height"] >= 40 and box["y"] > PHONE["height"] / 2, f"{name}: out of reach"
            assert box["y"] + box["height"] <= PHONE["height"], name
        phone.unfold("Settings")
        names = ("Upload an image", "Upper half", "Everything", "Invert", "Surprise me", "Brush", "Redo", "Zoom in")
        for name in (*names, "Keep the last seed"):
            box = box_of(phone.button(name))
            assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], name
            assert name == "Keep the last seed" or box["height"] >= 36, name
        for button in phone.locator(".sp-tools button").all():
            box = box_of(button)
            assert min(box["width"], box["height"]) >= 40

        labels = (
            phone.locator(".sp-status label"),
            phone.locator("#best-first label"),
            phone.locator("#new-seed label"),
        )
        for part in (*phone.locator("#suggestions .ib-tab").all(), *labels):
            assert box_of(part)["height"] >= 40, part

        phone.locator("#settings > button").click()  # and fold again
        phone.choose_second_example()
        phone.evaluate("scrollTo(0, 0)")
        swipe(phone, phone.locator("#heading"), upwards=200)
        phone.wait_for_function("scrollY > 50")
        phone.canvas().scroll_into_view_if_needed()
        height = phone.evaluate("scrollY")
        swipe(phone, phone.canvas(), upwards=60)
        expect(phone.locator("#fit-status")).to_contain_text("% will change")
        assert phone.evaluate("scrollY") == height
        # The stroke's last change has been told: an answer to an older mask would go to the history alone.
        phone.wait_until_ready()
        phone.button("Edit").tap()
        phone.expect_review("finished")
        phone.expect_finished()
        expect(phone.canvas()).to_be_in_viewport()
        assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def swipe(page: PageObject, over: Locator, upwards: int) -> None:
    """A finger moving up from the middle of something."""
    box = box_of(over)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page.page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 11):
        point = {"x": x, "y": y - upwards * step / 10}
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.fixture(scope="module")
def shipped() -> Iterator[tuple[str, Example]]:
    """The page as people get it, and its first example."""
    examples = find_examples(ROOT / "checkpoints" / "avatars" / "examples")
    with served(Pipeline.from_pretrained(ROOT / "checkpoints" / "avatars"), examples) as url:
        yield url, examples[0]


@pytest.mark.shipped
def test_the_first_click_edits_an_avatar(windows: Windows, shipped: tuple[str, Example]) -> None:
    url, example = shipped
    with windows.open(url) as page:
        expect(page.prompt()).to_have_value(example.prompt)
        expect(page.locator("#unknown")).to_be_hidden()
        outline = page.fitted_mask()
        page.edit()
        changed = (page.result_pixels() != np.asarray(example.image)).any(axis=-1)
        assert changed[outline].mean() > 0.2 and not changed[~outline].any()
        expect(page.locator("#messages")).to_have_text("")
