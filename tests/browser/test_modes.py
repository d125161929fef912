"""What Edit does, chosen beside it, each mode by mouse or keys; and Select by prompt, and Describe image."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fake_models import HAT_TOKENS, FixedDescriber, WatchedPipeline, hat_model
from page_object import PageObject, Site, Windows, pixels, served_with_examples
from playwright.sync_api import expect

from imagebart.imaging.files import Recipe, read_recipe

pytestmark = pytest.mark.browser


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


def edited(site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of the last edit."""
    image, mask = site.pipeline.edits[-1]
    return np.asarray(image.convert("RGB")), np.asarray(mask)


def test_remove_fills_from_around_without_words(page: PageObject, hats: Site) -> None:
    page.type_prompt("a hat")
    page.choose_mode("Remove")
    expect(page.note).to_contain_text("without words")
    page.press("Clear mask")
    page.press("Edit")
    expect(page.messages).to_contain_text("Paint over what should go")
    page.paint()
    shown = page.mask()
    page.edit()
    made = recipe(page)
    assert (made.task, made.prompt, made.settings.guidance) == ("edit", None, 1)
    assert np.array_equal(edited(hats)[1], shown)
    page.press("Discard")
    page.choose_mode("Fill")
    page.edit()
    assert recipe(page).prompt == "a hat"


def test_the_background_is_found_by_the_words_for_it(page: PageObject, hats: Site) -> None:
    before = page.mask()
    page.get_by_label("What Edit does").focus()
    page.keyboard.press("b")
    runs = len(hats.pipeline.edits)
    page.type_prompt("")
    page.prompt().press("Enter")
    expect(page.messages).to_contain_text("Say how the background should be")
    page.type_prompt("hat")
    page.prompt().press("Enter")
    page.expect_review("finished")
    page.expect_finished()
    found = np.zeros((40, 40), bool)
    found[:17, 8:32] = True  # where hats go, and half a token more
    assert np.array_equal(edited(hats)[1] > 0, found) and np.array_equal(page.mask(), before)
    assert len(hats.pipeline.edits) == runs + 1 and recipe(page).prompt == "a hat background"
    expect(page.prompt()).to_have_value("hat")


def test_the_image_grows_and_what_is_new_is_filled_and_vary_is_a_mode(page: PageObject, hats: Site) -> None:
    original = pixels(hats.examples / "01-first.png")
    page.choose_mode("Expand")
    page.press("16 : 9")
    expect(page.image_size).to_have_text("71 × 40 pixels")
    page.press("A quarter more below")
    expect(page.image_size).to_have_text("71 × 50 pixels")
    new = np.ones((50, 71), bool)
    new[:40, 15:55] = False
    assert np.array_equal(page.mask() == 255, new)
    page.edit()
    image, mask = edited(hats)
    assert np.array_equal(image, np.pad(original, ((0, 10), (15, 16), (0, 0)), mode="edge"))
    assert np.array_equal(mask == 255, new)
    after = page.result_pixels()
    assert np.array_equal(after[:40, 15:55], original) and (after != image)[new].mean() > 0.5
    page.press("Discard")
    for _ in range(2):
        page.press("Undo")
    expect(page.image_size).to_have_text("40 × 40 pixels")
    for width in (50, 63, 79, 99):
        page.press("A quarter more on the right")
        expect(page.image_size).to_have_text(f"{width} × 40 pixels")
    page.press("A quarter more on the right")
    expect(page.note).to_contain_text("The image would have 124 × 40 pixels; it can grow to at most")
    page.edit("Vary")
    assert recipe(page).task == "vary"


def test_words_find_their_place_and_an_image_its_words(page: PageObject) -> None:
    """Both can be undone; what has no place is said, and what is about another image is dropped."""
    page.press("Clear mask")
    page.type_prompt("a hat")
    page.press("Select by prompt")
    page.expect_painted(int(HAT_TOKENS.sum()))
    found = np.kron(HAT_TOKENS, np.ones((5, 5))) > 0
    assert np.array_equal(page.mask() > 0, found) and np.array_equal(page.fitted_mask(), found)
    assert page.sent_value()["movable"] is True
    page.press("Describe image")
    expect(page.prompt()).to_have_value("red hair")
    page.press("Select by prompt")
    expect(page.note).to_contain_text("finds nothing")
    assert np.array_equal(page.mask() > 0, found)
    page.press("Undo")
    expect(page.prompt()).to_have_value("a hat")
    page.press("Undo")
    page.expect_painted(0)
    with page.expect_answer("select"):
        page.click("Select by prompt", "Second")
    page.expect_painted(0)
    expect(page.note).to_be_empty()
