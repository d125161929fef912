"""Select by prompt, Edit without painting, and Describe image, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from driving import (
    SENT,
    STAGES,
    WIDE,
    choose_second_example,
    expect_finished,
    expect_regenerated,
    history,
    open_page,
    pixels,
    press,
    result_pixels,
    served_with_examples,
    type_prompt,
    wait_until,
    wait_until_ready,
)
from fake_models import HAT_TOKENS, FixedDescriber, WatchedPipeline, hat_model
from PIL import Image
from playwright.sync_api import Browser, Page, expect

COUNT = int(HAT_TOKENS.sum())


class Breakable(WatchedPipeline):
    """A pipeline that breaks over one word."""

    def suggest_mask(self, image: Image.Image, prompt: str | None) -> Image.Image:
        if prompt == "breakage":
            raise RuntimeError("broken, as wanted")
        return super().suggest_mask(image, prompt)


@pytest.fixture(scope="module")
def page(chromium: Browser, examples: Path) -> Iterator[Page]:
    with (
        served_with_examples(Breakable(hat_model(STAGES), FixedDescriber("red hair")), examples) as site,
        open_page(chromium, site.url, viewport=WIDE) as page,
    ):
        yield page


def square(page: Page) -> None:
    """The first example, of which nothing is painted."""
    page.get_by_role("button", name="First").click()
    press(page, "Clear mask")
    expect_regenerated(page, None)


def test_select_by_prompt_paints_where_the_words_belong_and_can_be_undone(page: Page) -> None:
    square(page)
    type_prompt(page, "a hat")
    press(page, "Select by prompt")
    expect_regenerated(page, COUNT)
    cells = page.locator(".sp").get_attribute("data-cells")
    assert cells == "".join(str(int(cell)) for cell in HAT_TOKENS.flatten())
    assert page.evaluate(f"{SENT}.selected_by") == "a hat"
    press(page, "Undo")
    assert page.evaluate(f"{SENT}.selected_by") is None
    expect_regenerated(page, None)
    press(page, "Redo")
    expect_regenerated(page, COUNT)
    assert page.evaluate(f"{SENT}.selected_by") == "a hat"
    page.reload()
    wait_until_ready(page)
    expect_regenerated(page, COUNT)
    assert page.evaluate(f"{SENT}.selected_by") == "a hat", "the same seed would draw another picture"
    press(page, "Invert")
    expect_regenerated(page, 64 - COUNT)
    assert page.evaluate(f"{SENT}.selected_by") is None


def test_words_without_a_place_are_said_and_leave_the_mask_alone(page: Page) -> None:
    square(page)
    press(page, "Upper half")
    expect_regenerated(page, 32)
    type_prompt(page, "red hair")
    press(page, "Select by prompt")
    expect(page.locator("#messages")).to_contain_text("finds nothing")
    expect(page.locator(".sp-note")).to_be_empty()
    expect_regenerated(page, 32)


def test_where_nothing_can_be_found_nobody_is_left_waiting(page: Page) -> None:
    square(page)
    type_prompt(page, "breakage")
    press(page, "Edit")
    expect(page.locator("#messages")).to_contain_text("please try again")
    expect(page.locator(".sp-note")).to_be_empty()
    expect_regenerated(page, None)


def test_edit_without_painting_finds_the_place_and_says_so(page: Page, examples: Path) -> None:
    square(page)
    before = history(page)
    type_prompt(page, "a hat")
    press(page, "Edit")
    wait_until(page, lambda: history(page) != before)
    expect_finished(page)
    expect_regenerated(page, COUNT)
    expect(page.locator(".sp-note")).to_contain_text("Nothing was painted")
    changed = (result_pixels(page) != pixels(examples / "01-first.png")).any(axis=-1)
    assert changed[:15, 10:30].any()
    changed[:15, 10:30] = False
    assert not changed.any()
    press(page, "Discard")


def test_an_answer_about_another_picture_is_dropped(page: Page) -> None:
    """The picture changes in the moment in which the place is asked for."""
    square(page)
    type_prompt(page, "a hat")
    asked = page.evaluate(f"{SENT}.version")
    press(page, "Select by prompt")
    choose_second_example(page)
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
    expect_regenerated(page, None)


def test_describe_image_fills_the_prompt(page: Page) -> None:
    square(page)
    type_prompt(page, "a hat")
    press(page, "Describe image")
    expect(page.get_by_label("What should be there?").first).to_have_value("red hair")
    assert np.asarray(page.evaluate(f"{SENT}.mask")) == ""
