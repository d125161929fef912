"""Select by prompt, and Describe image, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_models import HAT_TOKENS, FixedDescriber, WatchedPipeline, hat_model
from page_object import SENT, STAGES, PageObject, Windows, served_with_examples
from playwright.sync_api import expect

from imagebart.fitting import FittedMask

pytestmark = pytest.mark.browser
COUNT = int(HAT_TOKENS.sum())


class Breakable(WatchedPipeline):
    """A pipeline that breaks over one word."""

    def fit_mask(self, image: Any, mask: Any, prompt: Any = None, **options: Any) -> FittedMask:
        if prompt == "breakage":
            raise RuntimeError("broken, as wanted")
        return super().fit_mask(image, mask, prompt, **options)


@pytest.fixture(scope="module")
def page(windows: Windows, examples: Path) -> Iterator[PageObject]:
    with (
        served_with_examples(Breakable(hat_model(STAGES), FixedDescriber("red hair")), examples) as site,
        windows.open(site.url, may_log_errors=True) as page,
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
    found = np.kron(HAT_TOKENS, np.ones((5, 5))) > 0
    assert np.array_equal(page.mask() > 0, found) and np.array_equal(page.fitted_mask(), found)
    assert page.evaluate(f"{SENT}.movable") is True
    page.press("Undo")
    page.expect_painted(0)
    page.press("Redo")
    page.expect_painted(COUNT)


def test_words_without_a_place_are_said_and_leave_the_mask_alone(page: PageObject) -> None:
    square(page)
    page.press("Upper half")
    page.expect_painted(32)
    page.type_prompt("red hair")
    page.press("Select by prompt")
    expect(page.locator(".sp-note")).to_contain_text("finds nothing")
    page.expect_painted(32)


def test_where_nothing_can_be_found_nobody_is_left_waiting(page: PageObject) -> None:
    square(page)
    page.type_prompt("breakage")
    page.press("Select by prompt")
    expect(page.locator(".sp-note")).to_contain_text("try again")
    page.expect_painted(0)


def test_an_answer_about_another_image_is_dropped(page: PageObject) -> None:
    """The image changes in the moment in which the place is asked for."""
    square(page)
    page.type_prompt("a hat")
    with page.expect_answer("select"):
        page.click("Select by prompt", "Second")
    page.expect_painted(0)
    expect(page.locator(".sp-note")).to_be_empty()


def test_describe_image_fills_the_prompt(page: PageObject) -> None:
    square(page)
    page.type_prompt("a hat")
    page.press("Describe image")
    expect(page.prompt()).to_have_value("red hair")
    page.press("Undo")
    expect(page.prompt()).to_have_value("a hat")
    assert np.asarray(page.evaluate(f"{SENT}.mask")) == ""
