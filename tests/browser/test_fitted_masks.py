"""What Edit will change and does, in each mode: outlined before, and nothing else changes; once with the shipped model.

And words that find their place, and an image its words.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from fake_models import HAT_TOKENS, FixedDescriber, WatchedPipeline, hat_model
from page_object import PageObject, Site, Windows, gradient_image, pixels, served_with_examples
from playwright.sync_api import expect
from torch import Tensor

from imagebart.fitting import FittedMask
from imagebart.imaging.files import Recipe, read_recipe
from imagebart.pipeline import Pipeline

pytestmark = pytest.mark.browser
AVATARS = Path(__file__).parents[2] / "checkpoints" / "avatars"
EYES = ((0.33, 0.42), (0.5, 0.42), (0.66, 0.42))
BEFORE = np.asarray(gradient_image((40, 40), 0))  # the first example
HAT = np.kron(HAT_TOKENS, np.ones((5, 5))) > 0  # where hats go in it
MISSED = "does not seem to show"


class Doubter(FixedDescriber):
    """Sees what was asked for in every image, or in none."""

    doubts = False

    def shows(self, squares: Tensor, prompt: str) -> list[bool]:
        return [not self.doubts] * len(squares)


class Hats(WatchedPipeline):
    """Knows where hats go, and says what will change when the test lets it."""

    let_go = Event()

    def fit_mask(self, *args: Any, **kwargs: Any) -> FittedMask:
        assert self.let_go.wait(60)
        return super().fit_mask(*args, **kwargs)


DOUBTER = Doubter("red hair")
HATS = Hats(hat_model(), DOUBTER)


@pytest.fixture(scope="module")
def site_of_hats(examples: Path) -> Iterator[Site]:
    with served_with_examples(HATS, examples) as site:
        yield site


@pytest.fixture
def page(windows: Windows, site_of_hats: Site) -> Iterator[PageObject]:
    HATS.let_go.set()
    HATS.pause, DOUBTER.doubts = 0, False
    with windows.open(site_of_hats.url) as page:
        yield page


def painted(page: PageObject) -> np.ndarray:
    return page.mask() > 0


def expect_outlined(page: PageObject, mask: np.ndarray) -> None:
    """The canvas shows a white line with a dark one on both sides at the left edge of a mask."""
    y = int(mask.any(axis=1).nonzero()[0].mean())
    rgba = page.pad(
        """{
            pad.canvas.render();
            const { view, element } = pad.canvas;
            const place = [view.x + arg[0] * view.scale, view.y + (arg[1] + 0.5) * view.scale];
            const [left, top] = place.map((at) => Math.round(at * devicePixelRatio));
            return [...element.getContext("2d").getImageData(left - 6, top, 12, 1).data];
        }""",
        [int(mask[y].argmax()), y],
    )
    row = np.reshape(rgba, (12, 4))[:, :3].min(axis=1)
    light = int(np.argmax(row))
    assert row[light] > 230 and min(row[:light]) < 120 and min(row[light + 1 :]) < 120, row


def expect_only_changed(page: PageObject, before: np.ndarray, mask: np.ndarray) -> None:
    """The result differs from an image within a mask, and nowhere else."""
    changed = (page.result_pixels() != before).any(axis=-1)
    assert changed[mask].any() and not changed[~mask].any()


def recipe(page: PageObject) -> Recipe:
    """How the result that is shown was made."""
    return read_recipe(BytesIO(page.request.get(page.result_address()).body()))


@pytest.mark.shipped
@pytest.mark.slow
def test_an_avatar_gets_a_beanie_on_its_head_or_sunglasses_where_they_are_painted(windows: Windows) -> None:
    model: Any = Pipeline.from_pretrained(AVATARS)
    pipeline = WatchedPipeline(model.model, model.scorer)
    with served_with_examples(pipeline, AVATARS / "examples") as site, windows.open(site.url) as page:
        page.prompt.fill("a red beanie")
        outline = page.fitted_mask()
        assert outline[:40].any() and painted(page)[100].any() and (outline & painted(page)).sum() < outline.sum() / 2
        page.press("Clear mask")
        page.prompt.fill("sunglasses")
        page.evaluate("imagebart.on('run', ({ mask }) => mask && (window.runMask = mask))")
        page.drag(*EYES)
        page.edit()  # at once: what it changes is what the outline would show
        done = page.read_mask("window.runMask")
        outline = page.fitted_mask()
        assert np.array_equal(outline, done) and outline.mean() < 0.25
        expect_only_changed(page, pixels(site.examples / "1-brown-bob-and-a-hoodie.png"), done)
        expect(page.messages).not_to_contain_text(MISSED)
        page.press("Discard")
        expect_outlined(page, outline)
        expect(page.fit_status).to_have_text(f"{round(100 * outline.mean())} % will change")


def test_what_will_change_follows_what_is_painted_the_settings_and_the_mode(page: PageObject) -> None:
    page.drag((0.1, 0.2), (0.5, 0.35))
    assert (page.fitted_mask() & ~painted(page)).any()
    page.settings.click()
    exact = page.get_by_label("Only what I painted")
    exact.check()
    page.wait_until(lambda: np.array_equal(page.fitted_mask(), painted(page)))
    exact.uncheck()
    page.wait_until(lambda: (page.fitted_mask() & ~painted(page)).any())
    page.choose_mode("Vary")
    page.wait_until_ready()
    expect(page.fit_status).to_have_text("All of the image will change")
    assert page.pad("pad.canvas.fitted") is None


def test_without_a_mask_the_words_place_is_outlined_and_edited(page: PageObject) -> None:
    page.press("Clear mask")
    page.prompt.fill("")
    expect(page.fit_status).to_have_text("Nothing is painted yet")
    page.prompt.fill("a hat")
    assert np.array_equal(page.fitted_mask(), HAT)
    expect_outlined(page, HAT)
    HATS.pause = 0.2
    page.press("Edit")
    page.expect_review("running")
    expect_outlined(page, HAT)
    page.expect_finished()
    expect_only_changed(page, BEFORE, HAT)
    assert not page.mask().any()
    # The history and "Last mask" know what was changed.
    drawn = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 112, 112).data]"
    outline = np.reshape(page.runs.locator("canvas").first.evaluate(drawn), (112, 112, 4))[..., 3] > 0
    assert outline[42, 28:84].all() and not outline[47:].any()
    page.press("Discard")
    page.press("Last mask")
    assert np.array_equal(painted(page), HAT)


def test_an_answer_that_comes_during_the_next_stroke_is_not_drawn_and_leaves_it_alone(page: PageObject) -> None:
    page.press("Clear mask")
    page.wait_until_ready()
    HATS.let_go.clear()
    with page.expect_request(lambda sent: '"fit"' in (sent.post_data or "")):
        page.drag((0.1, 0.7), (0.4, 0.7))
    first = page.mask()
    page.begin_stroke(60, 60)
    with page.expect_answer("fit"):
        HATS.let_go.set()
    assert page.pad("[pad.canvas.fitted, !!pad.state.stroke]") == [None, True]
    page.mouse.move(*page.middle(-60, 60), steps=8)
    page.mouse.up()
    both = page.mask()
    assert (both >= first).all() and (both > first).sum() > 50
    outline = page.fitted_mask()
    assert outline[both > 0].mean() > 0.95  # a patch that is barely touched stays as it is
    expect_outlined(page, outline)


def test_what_nobody_painted_moves_to_the_words_place_also_after_a_reload_and_the_rest_when_one_asks(
    page: PageObject,
) -> None:
    page.press("Lower half")
    assert np.array_equal(page.fitted_mask(), HAT)
    page.drag((0.1, 0.9), (0.4, 0.9))
    expect(page.elsewhere).to_be_hidden()  # the stroke is in the half, which is the same mask
    page.press("Eraser")
    page.drag((0.1, 0.9), (0.4, 0.9))
    expect(page.elsewhere).to_contain_text("Your words are about another place.")
    by_hand = page.mask()
    page.reload()
    expect(page.elsewhere).to_be_visible()
    page.press("Move the mask there")
    expect(page.elsewhere).to_be_hidden()
    assert np.array_equal(painted(page), HAT) and np.array_equal(page.fitted_mask(), HAT)
    page.press("Undo")
    assert np.array_equal(page.mask(), by_hand)
    expect(page.elsewhere).to_be_visible()
    for name in ("Upper half", "Grow", "Invert"):
        page.press(name)
        expect(page.elsewhere).to_be_hidden()
    moved = page.mask()
    page.reload()
    assert np.array_equal(page.fitted_mask(), HAT) and np.array_equal(page.mask(), moved)


def test_a_result_that_misses_the_words_is_tried_again_as_the_best_of_four(page: PageObject) -> None:
    DOUBTER.doubts = True
    page.edit()
    expect(page.messages).to_contain_text(MISSED)
    page.edit("Try four, best first")
    expect(page.variants).to_have_count(4)
    expect(page.how_many.nth(3)).to_be_checked()
    expect(page.locator("#best-first input")).to_be_checked()
    expect(page.button("Try four, best first")).to_have_count(0)


def test_remove_fills_from_around_without_words(page: PageObject) -> None:
    page.choose_mode("Remove")
    expect(page.prompt).to_be_hidden()
    page.press("Clear mask")
    page.press("Edit")
    expect(page.messages).to_contain_text("Paint over what should go")
    page.paint()
    shown = page.mask()
    page.edit()
    made = recipe(page)
    assert (made.task, made.prompt, made.settings.guidance) == ("edit", None, 1)
    assert np.array_equal(HATS.edits[-1][1], shown)


def test_the_background_is_found_by_the_words_for_it(page: PageObject) -> None:
    mask, runs = page.mask(), len(HATS.edits)
    page.get_by_role("radio", name="Fill").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.prompt.fill("")
    page.prompt.press("Enter")
    expect(page.messages).to_contain_text("Say how the background should be")
    page.prompt.fill("hat")
    page.prompt.press("Enter")
    page.expect_finished()
    found = np.zeros((40, 40), bool)
    found[:17, 8:32] = True  # where hats go, and half a token more
    assert np.array_equal(np.asarray(HATS.edits[-1][1]) > 0, found) and np.array_equal(page.mask(), mask)
    assert len(HATS.edits) == runs + 1 and recipe(page).prompt == "a hat background"
    expect(page.prompt).to_have_value("hat")


def test_the_image_grows_and_what_is_new_is_filled_and_vary_is_a_mode(page: PageObject) -> None:
    page.choose_mode("Expand")
    page.press("16 : 9")
    page.press("A quarter more below")
    expect(page.image_size).to_have_text("71 × 50 pixels")
    new = np.ones((50, 71), bool)
    new[:40, 15:55] = False
    page.edit()
    image, mask = HATS.edits[-1]
    assert np.array_equal(image, np.pad(BEFORE, ((0, 10), (15, 16), (0, 0)), mode="edge"))
    assert np.array_equal(np.asarray(mask) == 255, new)
    after = page.result_pixels()
    assert np.array_equal(after[:40, 15:55], BEFORE) and (after != np.asarray(image))[new].mean() > 0.5
    page.press("Discard")
    page.press("Undo")
    expect(page.image_size).to_have_text("71 × 40 pixels")
    page.choose_mode("Vary")
    page.edit()
    assert recipe(page).task == "vary"


def test_words_find_their_place_and_an_image_its_words(page: PageObject) -> None:
    """Both can be undone; what has no place is said, and what is about another image is dropped."""
    page.press("Clear mask")
    page.click("Describe the image", "Find by your words")  # only the answer to the last question counts
    page.expect_painted(int(HAT_TOKENS.sum()))
    assert np.array_equal(painted(page), HAT) and np.array_equal(page.fitted_mask(), HAT)
    assert page.sent_value()["movable"] is True
    expect(page.prompt).to_have_value("a hat")
    page.press("Describe the image")
    expect(page.prompt).to_have_value("red hair")
    page.press("Find by your words")
    expect(page.note).to_contain_text("finds nothing")
    assert np.array_equal(painted(page), HAT)
    page.press("Undo")
    expect(page.prompt).to_have_value("a hat")
    page.press("Undo")
    page.expect_painted(0)
    with page.expect_answer("select"):
        page.click("Find by your words", "Second")
    page.expect_painted(0)
    expect(page.note).to_be_empty()
