"""Select by prompt, Edit without painting, and Describe image, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fake_models import HAT_TOKENS, FixedDescriber, WatchedPipeline, hat_model
from page_object import SENT, STAGES, PageObject, Windows, pixels, served_with_examples
from PIL import Image
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
COUNT = int(HAT_TOKENS.sum())


class Breakable(WatchedPipeline):
    """A pipeline that breaks over one word."""

    def suggest_mask(self, image: Image.Image, prompt: str | None) -> Image.Image:
        if prompt == "breakage":
            raise RuntimeError("broken, as wanted")
        return super().suggest_mask(image, prompt)


@pytest.fixture(scope="module")
def page(windows: Windows, examples: Path) -> Iterator[PageObject]:
    with (
        served_with_examples(Breakable(hat_model(STAGES), FixedDescriber("red hair")), examples) as site,
        windows.open(site.url) as page,
    ):
        yield page


def square(page: PageObject) -> None:
    """The first example, of which nothing is painted."""
    page.get_by_role("button", name="First").click()
    page.press("Clear mask")
    page.expect_painted(0)


def test_select_by_prompt_paints_where_the_words_belong_and_can_be_undone(page: PageObject) -> None:
    square(page)
    page.type_prompt("a hat")
    page.press("Select by prompt")
    page.expect_painted(COUNT)
    cells = page.locator(".sp").get_attribute("data-cells")
    assert cells == "".join(str(int(cell)) for cell in HAT_TOKENS.flatten())
    assert page.evaluate(f"{SENT}.selected_by") == "a hat"
    page.press("Undo")
    assert page.evaluate(f"{SENT}.selected_by") is None
    page.expect_painted(0)
    page.press("Redo")
    page.expect_painted(COUNT)
    assert page.evaluate(f"{SENT}.selected_by") == "a hat"
    page.reload()
    page.wait_until_ready()
    page.expect_painted(COUNT)
    assert page.evaluate(f"{SENT}.selected_by") == "a hat", "the same seed would draw another image"
    page.press("Invert")
    page.expect_painted(64 - COUNT)
    assert page.evaluate(f"{SENT}.selected_by") is None


def test_words_without_a_place_are_said_and_leave_the_mask_alone(page: PageObject) -> None:
    square(page)
    page.press("Upper half")
    page.expect_painted(32)
    page.type_prompt("red hair")
    page.press("Select by prompt")
    expect(page.locator("#messages")).to_contain_text("finds nothing")
    expect(page.locator(".sp-note")).to_be_empty()
    page.expect_painted(32)


def test_where_nothing_can_be_found_nobody_is_left_waiting(page: PageObject) -> None:
    square(page)
    page.type_prompt("breakage")
    page.press("Edit")
    expect(page.locator("#messages")).to_contain_text("please try again")
    expect(page.locator(".sp-note")).to_be_empty()
    page.expect_painted(0)


def test_edit_without_painting_finds_the_place_and_says_so(page: PageObject, examples: Path) -> None:
    square(page)
    before = page.history()
    page.type_prompt("a hat")
    page.press("Edit")
    page.wait_until(lambda: page.history() != before)
    page.expect_finished()
    page.expect_painted(COUNT)
    expect(page.locator(".sp-note")).to_contain_text("Your words said where")
    changed = (page.result_pixels() != pixels(examples / "01-first.png")).any(axis=-1)
    assert changed[:15, 10:30].any()
    changed[:15, 10:30] = False
    assert not changed.any()
    page.press("Discard")


def test_an_answer_about_another_image_is_dropped(page: PageObject) -> None:
    """The image changes in the moment in which the place is asked for."""
    square(page)
    page.type_prompt("a hat")
    asked = page.evaluate(f"{SENT}.version")
    page.press("Select by prompt")
    page.choose_second_example()
    told = page.evaluate(
        """at => new Promise((done) => {
            const pad = document.querySelector('.sp').sketchpad;
            const mask = "255 100 0 1500";
            imagebart.send("answer", { version: at, task: "select", mask });
            done(pad.props.value.mask);
        })""",
        asked,
    )
    assert told == ""
    page.expect_painted(0)


def test_describe_image_fills_the_prompt(page: PageObject) -> None:
    square(page)
    page.type_prompt("a hat")
    page.press("Describe image")
    expect(page.prompt()).to_have_value("red hair")
    page.press("Undo")
    expect(page.prompt()).to_have_value("a hat")
    assert np.asarray(page.evaluate(f"{SENT}.mask")) == ""
