"""Select by prompt, Edit without painting, and Describe image, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import served
from driving import LAST_RUN, SENT, STAGES, WIDE, finished, opened, pick_second, pixels, press, ready, redrawn, result
from hatted import HAT, hatted_model
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from torch import Tensor

from imagebart.pipeline import Pipeline

COUNT = int(HAT.sum())


class Teller:
    """Sees red hair in everything, and cannot say what else there is."""

    def score(self, images: Tensor, prompt: str) -> Tensor:
        return images.mean((1, 2, 3))

    def describe(self, image: Tensor) -> str:
        return "red hair"

    def contrast(self, image: Tensor, prompt: str) -> None:
        return None


class Breakable(Pipeline):
    """A pipeline that breaks over one word."""

    def suggest_mask(self, image: Image.Image, prompt: str | None) -> Image.Image:
        if prompt == "breakage":
            raise RuntimeError("broken, as wanted")
        return super().suggest_mask(image, prompt)


@pytest.fixture(scope="module")
def page(chromium: Browser, examples: Path) -> Iterator[Page]:
    with (
        served(Breakable(hatted_model(STAGES), scorer=Teller()), examples) as site,
        opened(chromium, site.url, viewport=WIDE) as page,
    ):
        yield page


def say(page: Page, words: str) -> None:
    page.get_by_label("What should be there?").first.fill(words)


def square(page: Page) -> None:
    """The first example, of which nothing is painted."""
    page.get_by_role("button", name="First").click()
    press(page, "Clear mask")
    redrawn(page, None)


def test_find_it_paints_where_the_words_belong_and_can_be_undone(page: Page) -> None:
    square(page)
    say(page, "a hat")
    press(page, "Select by prompt")
    redrawn(page, COUNT)
    cells = page.locator(".sp").get_attribute("data-cells")
    assert cells == "".join(str(int(cell)) for cell in HAT.flatten())
    assert page.evaluate(f"{SENT}.of") == "a hat"
    press(page, "Undo")
    assert page.evaluate(f"{SENT}.of") is None
    redrawn(page, None)
    press(page, "Redo")
    redrawn(page, COUNT)
    assert page.evaluate(f"{SENT}.of") == "a hat"
    page.reload()
    ready(page)
    redrawn(page, COUNT)
    assert page.evaluate(f"{SENT}.of") == "a hat", "the same seed would draw another picture"
    press(page, "Invert")
    redrawn(page, 64 - COUNT)
    assert page.evaluate(f"{SENT}.of") is None


def test_words_without_a_place_are_said_and_leave_the_mask_alone(page: Page) -> None:
    square(page)
    press(page, "Upper half")
    redrawn(page, 32)
    say(page, "red hair")
    press(page, "Select by prompt")
    expect(page.locator("#messages")).to_contain_text("finds nothing")
    expect(page.locator(".sp-note")).to_be_empty()
    redrawn(page, 32)


def test_where_nothing_can_be_found_nobody_is_left_waiting(page: Page) -> None:
    square(page)
    say(page, "breakage")
    press(page, "Edit")
    expect(page.locator("#messages")).to_contain_text("please try again")
    expect(page.locator(".sp-note")).to_be_empty()
    redrawn(page, None)


def test_edit_without_painting_finds_the_place_and_says_so(page: Page, examples: Path) -> None:
    square(page)
    before = page.evaluate(LAST_RUN)
    say(page, "a hat")
    press(page, "Edit")
    page.wait_for_function(f"before => {LAST_RUN} !== before", arg=before)
    finished(page)
    redrawn(page, COUNT)
    expect(page.locator(".sp-note")).to_contain_text("Nothing was painted")
    changed = (result(page) != pixels(examples / "01-first.png")).any(axis=-1)
    assert changed[:15, 10:30].any()
    changed[:15, 10:30] = False
    assert not changed.any()
    press(page, "Discard")


def test_an_answer_about_another_picture_is_dropped(page: Page) -> None:
    """The picture changes in the moment in which the place is asked for."""
    square(page)
    say(page, "a hat")
    asked = page.evaluate(f"{SENT}.version")
    press(page, "Select by prompt")
    pick_second(page)
    told = page.evaluate(
        """at => new Promise((done) => {
            const pad = document.querySelector('.sp').sketchpad;
            const mask = "255 100 0 1500";
            imagebart.send("answer", { version: at, task: "find", mask });
            done(pad.props.value.mask);
        })""",
        asked,
    )
    assert told == ""
    redrawn(page, None)


def test_what_is_here_fills_the_prompt(page: Page) -> None:
    square(page)
    say(page, "a hat")
    press(page, "Describe image")
    expect(page.get_by_label("What should be there?").first).to_have_value("red hair")
    assert np.asarray(page.evaluate(f"{SENT}.mask")) == ""
