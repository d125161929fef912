"""What Edit will change, in Chromium: outlined before, and nothing else changes; once with the shipped model."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from fake_models import HAT_TOKENS, LightnessScorer, WatchedPipeline, hat_model
from page_object import PageObject, Site, Windows, pixels, preset_mask, served_with_examples
from playwright.sync_api import expect
from torch import Tensor

from imagebart.fitting import FittedMask
from imagebart.pipeline import Pipeline

pytestmark = pytest.mark.browser
AVATARS = Path(__file__).parents[2] / "checkpoints" / "avatars"
EYES = ((0.33, 0.42), (0.5, 0.42), (0.66, 0.42))
HAT = np.kron(HAT_TOKENS, np.ones((5, 5))) > 0  # where hats go in the first example, of 40 x 40 pixels
MISSED = "does not seem to show"
MOVABLE = "pad.props.value.movable"  # whether nobody painted the mask


class Doubter(LightnessScorer):
    """Sees what was asked for in every image, or in none."""

    doubts = False

    def shows(self, squares: Tensor, prompt: str) -> list[bool]:
        return [not self.doubts] * len(squares)


class Hats(WatchedPipeline):
    """Knows where hats go; says what will change when the test lets it, and counts how often it was asked."""

    def __init__(self) -> None:
        self.doubter = Doubter()
        super().__init__(hat_model(), self.doubter)
        self.let_go, self.asked = Event(), 0

    def fit_mask(self, *args: Any, **kwargs: Any) -> FittedMask:
        self.asked += 1
        assert self.let_go.wait(60)
        return super().fit_mask(*args, **kwargs)


@pytest.fixture(scope="module")
def site_of_hats(examples: Path) -> Iterator[Site]:
    with served_with_examples(Hats(), examples) as site:
        yield site


@pytest.fixture
def hats(site_of_hats: Site) -> Hats:
    hats = site_of_hats.pipeline
    assert isinstance(hats, Hats)
    hats.let_go.set()
    hats.pause, hats.doubter.doubts = 0, False
    return hats


@pytest.fixture
def page(windows: Windows, site_of_hats: Site, hats: Hats) -> Iterator[PageObject]:
    with windows.open(site_of_hats.url) as page:
        yield page


def ask_for(page: PageObject, words: str) -> np.ndarray:
    """What Edit will change by these words: bool [H, W]."""
    page.type_prompt(words)
    return page.fitted_mask()


def painted(page: PageObject) -> np.ndarray:
    return page.mask() > 0


def expect_outlined(page: PageObject, mask: np.ndarray) -> None:
    """The canvas shows a white line with a dark one on both sides at the left edge of a mask."""
    y = int(mask.any(axis=1).nonzero()[0].mean())
    row = page.brightness_around(int(mask[y].argmax()), y)
    light = int(np.argmax(row))
    assert row[light] > 230 and min(row[:light]) < 120 and min(row[light + 1 :]) < 120, row


def expect_only_changed(page: PageObject, before: np.ndarray, mask: np.ndarray) -> None:
    """The result differs from an image within a mask, and nowhere else."""
    changed = (page.result_pixels() != before).any(axis=-1)
    assert changed[mask].any() and not changed[~mask].any()


@pytest.mark.shipped
@pytest.mark.slow
def test_an_avatar_gets_a_beanie_on_its_head_or_sunglasses_where_they_are_painted(windows: Windows) -> None:
    model: Any = Pipeline.from_pretrained(AVATARS)
    pipeline = WatchedPipeline(model.model, model.scorer)
    with served_with_examples(pipeline, AVATARS / "examples") as site, windows.open(site.url) as page:
        outline = ask_for(page, "a red beanie")
        assert outline[:40].any() and painted(page)[100].any() and (outline & painted(page)).sum() < outline.sum() / 2
        expect(page.elsewhere).to_be_hidden()
        page.press("Clear mask")
        page.type_prompt("sunglasses")
        page.evaluate("imagebart.on('run', ({ mask }) => mask && (window.runMask = mask))")
        page.drag(*EYES)
        page.edit()  # at once: what it changes is what the outline would show
        done = page.read_mask("window.runMask")
        outline = page.fitted_mask()
        assert np.array_equal(outline, done) and outline.mean() < 0.25
        assert (painted(page) & ~outline).sum() < 0.1 * painted(page).sum()
        expect_only_changed(page, pixels(site.examples / "1-brown-bob-and-a-hoodie.png"), done)
        expect(page.messages).not_to_contain_text(MISSED)
        expect(page.elsewhere).to_be_hidden()
        page.press("Discard")
        expect_outlined(page, outline)
        expect(page.fit_status).to_have_text(f"{round(100 * outline.mean())} % will change")


def test_what_will_change_follows_what_is_painted_the_settings_and_the_mode(page: PageObject) -> None:
    page.drag((0.1, 0.2), (0.5, 0.35))
    assert (page.fitted_mask() & ~painted(page)).any()
    page.unfold("Settings")
    page.exact.check()
    page.wait_until(lambda: np.array_equal(page.fitted_mask(), painted(page)))
    page.exact.uncheck()
    page.wait_until(lambda: (page.fitted_mask() & ~painted(page)).any())
    page.choose_mode("Background")
    background = page.fitted_mask()
    assert (background & ~HAT).any() and background[HAT].all() and not background[30:].any()
    page.choose_mode("Vary")
    page.wait_until_ready()
    expect(page.fit_status).to_have_text("All of the image will change")
    assert page.pad("pad.canvas.fitted") is None


def test_without_a_mask_the_words_place_is_outlined_and_edited(
    page: PageObject, hats: Hats, site_of_hats: Site
) -> None:
    page.press("Clear mask")
    assert np.array_equal(page.fitted_mask(), HAT)
    assert ask_for(page, "").sum() == 0
    expect(page.fit_status).to_have_text("Nothing is painted yet")
    ask_for(page, "a hat")
    expect_outlined(page, HAT)
    hats.pause = 0.2
    page.press("Edit")
    page.expect_review("running")
    expect_outlined(page, HAT)
    page.expect_review("finished")
    page.expect_finished()
    expect_only_changed(page, pixels(site_of_hats.examples / "01-first.png"), HAT)
    assert not page.mask().any()
    # The history and "Last mask" know what was changed.
    assert page.run_outline(0)[42, 28:84].all()
    page.press("Discard")
    page.press("Last mask")
    assert np.array_equal(painted(page), HAT)


def test_an_answer_that_comes_during_the_next_stroke_is_not_drawn_and_leaves_it_alone(
    page: PageObject, hats: Hats
) -> None:
    page.press("Clear mask")
    page.wait_until_ready()
    hats.let_go.clear()
    before = hats.asked
    page.drag((0.1, 0.7), (0.4, 0.7))
    page.wait_until(lambda: hats.asked == before + 1)
    # While this is not answered, of all that follows only the last is asked.
    page.click("Upper half", "Left half", "Clear mask", rest=200)
    page.drag((0.1, 0.7), (0.4, 0.7))
    first = page.mask()
    page.begin_stroke(60, 60)
    with page.expect_answer("fit"):
        hats.let_go.set()
    hats.let_go.clear()
    assert page.pad("[pad.canvas.fitted, !!pad.state.stroke]") == [None, True]
    page.mouse.move(*page.middle(-60, 60), steps=8)
    page.mouse.up()
    both = page.mask()
    assert (both >= first).all() and (both > first).sum() > 50 and page.pad("pad.canvas.fitted") is None
    page.wait_until(lambda: hats.asked == before + 2)
    assert page.pad("pad.canvas.fitted") is None
    hats.let_go.set()
    outline = page.fitted_mask()
    assert outline[both > 0].all() and hats.asked == before + 2
    expect_outlined(page, outline)


def test_what_nobody_painted_moves_to_the_words_place_also_after_a_reload_and_the_rest_when_one_asks(
    page: PageObject,
) -> None:
    for name in ("Lower half", "Grow", "Invert"):
        page.press(name)
        assert page.pad(MOVABLE) is True, name
    page.press("Lower half")
    assert np.array_equal(page.fitted_mask(), HAT)
    page.drag((0.1, 0.9), (0.4, 0.9))
    expect(page.elsewhere).to_be_hidden()  # the stroke is in the half, which is the same mask
    assert page.pad(MOVABLE) is True
    page.press("Eraser")
    page.drag((0.1, 0.9), (0.4, 0.9))
    expect(page.elsewhere).to_contain_text("Your words are about another place.")
    page.press("Shrink")
    by_hand = page.mask()
    assert page.pad(MOVABLE) is False
    page.reload()
    expect(page.elsewhere).to_be_visible()
    assert page.pad(MOVABLE) is False
    page.press("Move the mask there")
    expect(page.elsewhere).to_be_hidden()
    assert np.array_equal(painted(page), HAT) and np.array_equal(page.fitted_mask(), HAT)
    page.press("Undo")
    assert np.array_equal(page.mask(), by_hand)
    expect(page.elsewhere).to_be_visible()
    page.press("Lower half")
    expect(page.elsewhere).to_be_hidden()
    page.reload()
    page.wait_until_ready()
    assert page.pad(MOVABLE) is True and np.array_equal(page.mask(), preset_mask("lower half", (40, 40)))


def test_a_result_that_misses_the_words_is_tried_again_as_the_best_of_four(page: PageObject, hats: Hats) -> None:
    hats.doubter.doubts = True
    page.edit()
    expect(page.messages).to_contain_text(MISSED)
    page.edit("Try four, best first")
    expect(page.variants).to_have_count(4)
    expect(page.how_many(4)).to_be_checked()
    expect(page.best_first).to_be_checked()
    expect(page.messages).to_contain_text(MISSED)
    expect(page.button("Try four, best first")).to_have_count(0)
