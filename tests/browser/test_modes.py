"""What Edit does, chosen beside it, each mode by mouse or keys; and Select by prompt, and Describe image."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_models import HAT_TOKENS, FixedDescriber, WatchedPipeline, hat_model
from page_object import SENT, STAGES, TOUCH, PageObject, Site, Windows, gradient_image, pixels, served_with_examples
from playwright.sync_api import expect

from imagebart.fitting import FittedMask
from imagebart.imaging.files import Recipe, read_recipe

pytestmark = pytest.mark.browser
SIZE = (40, 40)  # of the first example


@pytest.fixture(scope="module")
def hats(examples: Path) -> Iterator[Site]:
    """The page with a model that knows where hats go."""
    with served_with_examples(WatchedPipeline(hat_model(3), FixedDescriber("red hair")), examples) as site:
        yield site


@pytest.fixture
def page(windows: Windows, hats: Site) -> Iterator[PageObject]:
    with windows.open(hats.url) as page:
        yield page


def recipe(page: PageObject) -> Recipe:
    """How the result that is shown was made."""
    found = read_recipe(BytesIO(page.request.get(page.result_address()).body()))
    assert found is not None
    return found


def edited(page: PageObject, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of the last edit."""
    image, mask = site.pipeline.edits[-1]
    return np.asarray(image.convert("RGB")), np.asarray(mask)


def test_remove_fills_from_around_without_words(page: PageObject, hats: Site) -> None:
    page.type_prompt("a hat")
    page.choose_mode("Remove")
    expect(page.locator(".sp-note")).to_contain_text("without words")
    page.press("Clear mask")
    page.press("Edit")
    expect(page.locator("#messages")).to_contain_text("Paint over what should go")
    page.paint()
    shown = page.mask()
    page.edit()
    made = recipe(page)
    assert (made.task, made.prompt, made.settings.guidance) == ("edit", None, 1)
    assert np.array_equal(edited(page, hats)[1], shown)
    expect(page.prompt()).to_have_value("a hat")
    page.press("Discard")
    page.choose_mode("Fill")
    page.edit()
    assert recipe(page).prompt == "a hat"


def test_the_background_is_found_by_the_words_for_it(page: PageObject, hats: Site) -> None:
    before = page.mask()
    mode = page.get_by_label("What Edit does")
    mode.focus()
    page.keyboard.press("b")
    expect(mode).to_have_value("background")
    runs = len(hats.pipeline.edits)
    page.type_prompt("")
    page.prompt().press("Enter")
    expect(page.locator("#messages")).to_contain_text("Say how the background should be")
    page.type_prompt("hat")
    page.prompt().press("Enter")
    page.expect_review("finished")
    page.expect_finished()
    found = np.zeros(SIZE, bool)
    found[:17, 8:32] = True  # where hats go, and half a token more
    assert np.array_equal(edited(page, hats)[1] > 0, found) and np.array_equal(page.mask(), before)
    assert len(hats.pipeline.edits) == runs + 1 and recipe(page).prompt == "a hat background"
    expect(page.prompt()).to_have_value("hat")


def test_the_image_grows_and_what_is_new_is_filled(page: PageObject, windows: Windows, hats: Site) -> None:
    original = pixels(hats.examples / "01-first.png")
    page.choose_mode("Expand")
    page.press("16 : 9")
    expect(page.locator("#image-size")).to_have_text("71 × 40 pixels")
    new = np.ones((40, 71), bool)
    new[:, 15:55] = False
    assert np.array_equal(page.mask() == 255, new)
    page.get_by_role("button", name="A quarter more below").click()
    expect(page.locator("#image-size")).to_have_text("71 × 50 pixels")
    new = np.pad(new, ((0, 10), (0, 0)), constant_values=True)
    assert np.array_equal(page.mask() == 255, new)
    page.edit()
    image, mask = edited(page, hats)
    assert np.array_equal(image, np.pad(original, ((0, 10), (15, 16), (0, 0)), mode="edge"))
    assert np.array_equal(mask == 255, new)
    after = page.result_pixels()
    assert np.array_equal(after[:40, 15:55], original) and (after != image)[new].mean() > 0.5
    page.press("Discard")
    for _ in range(2):
        page.press("Undo")
    expect(page.locator("#image-size")).to_have_text("40 × 40 pixels")
    right = page.get_by_role("button", name="A quarter more on the right")
    for width in (50, 63, 79, 99):
        right.click()
        expect(page.locator("#image-size")).to_have_text(f"{width} × 40 pixels")
    right.click()
    expect(page.locator(".sp-note")).to_contain_text("The image would have 124 × 40 pixels; it can grow to at most")
    page.press("1 : 1")
    expect(page.locator("#image-size")).to_have_text("99 × 99 pixels")
    page.press("1 : 1")
    expect(page.locator(".sp-note")).to_contain_text("has this shape already")
    with windows.open(hats.url, **TOUCH) as phone:
        phone.choose_mode("Expand")
        phone.get_by_role("button", name="A quarter more above").tap()
        expect(phone.locator("#image-size")).to_have_text("40 × 50 pixels")
        phone.edit()
        new = edited(phone, hats)[1] == 255
        assert new[:10].all() and not new[10:].any()


def test_a_large_upload_grows_as_well_and_vary_is_a_mode(page: PageObject, hats: Site, tmp_path: Path) -> None:
    large = gradient_image((1500, 700), 50)
    large.save(tmp_path / "large.png")
    page.upload(tmp_path / "large.png", (1500, 700))
    page.choose_mode("Expand")
    page.get_by_role("button", name="A quarter more on the left").click()
    expect(page.locator("#image-size")).to_have_text("1875 × 700 pixels")
    page.edit()
    image, mask = edited(page, hats)
    assert (
        np.array_equal(image[:, 375:], np.asarray(large)) and (mask[:, :375] == 255).all() and not mask[:, 377:].any()
    )
    page.press("Discard")
    page.edit("Vary")
    assert recipe(page).task == "vary"


COUNT = int(HAT_TOKENS.sum())


class Breakable(WatchedPipeline):
    """A pipeline that breaks over one word."""

    def fit_mask(self, image: Any, mask: Any, prompt: Any = None, **options: Any) -> FittedMask:
        if prompt == "breakage":
            raise RuntimeError("broken, as wanted")
        return super().fit_mask(image, mask, prompt, **options)


@pytest.fixture(scope="module")
def selecting(windows: Windows, examples: Path) -> Iterator[PageObject]:
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


def test_select_by_prompt_paints_where_the_words_belong_and_can_be_undone(selecting: PageObject) -> None:
    page = selecting
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


def test_words_without_a_place_are_said_and_leave_the_mask_alone(selecting: PageObject) -> None:
    page = selecting
    square(page)
    page.press("Upper half")
    page.expect_painted(32)
    page.type_prompt("red hair")
    page.press("Select by prompt")
    expect(page.locator(".sp-note")).to_contain_text("finds nothing")
    page.expect_painted(32)


def test_where_nothing_can_be_found_nobody_is_left_waiting(selecting: PageObject) -> None:
    page = selecting
    square(page)
    page.type_prompt("breakage")
    page.press("Select by prompt")
    expect(page.locator(".sp-note")).to_contain_text("try again")
    page.expect_painted(0)


def test_an_answer_about_another_image_is_dropped(selecting: PageObject) -> None:
    """The image changes in the moment in which the place is asked for."""
    page = selecting
    square(page)
    page.type_prompt("a hat")
    with page.expect_answer("select"):
        page.click("Select by prompt", "Second")
    page.expect_painted(0)
    expect(page.locator(".sp-note")).to_be_empty()


def test_describe_image_fills_the_prompt(selecting: PageObject) -> None:
    page = selecting
    square(page)
    page.type_prompt("a hat")
    page.press("Describe image")
    expect(page.prompt()).to_have_value("red hair")
    page.press("Undo")
    expect(page.prompt()).to_have_value("a hat")
    assert np.asarray(page.evaluate(f"{SENT}.mask")) == ""
