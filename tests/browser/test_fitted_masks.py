"""What Edit will change, in Chromium: outlined before, and nothing else changes; real strokes, shipped models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from fake_models import HAT_TOKENS, LightnessScorer, WatchedPipeline, hat_model
from page_object import TOUCH, Fingers, PageObject, Site, Windows, pixels, preset_mask, served_with_examples
from playwright.sync_api import expect
from torch import Tensor

from imagebart.fitting import FittedMask
from imagebart.pipeline import Pipeline

pytestmark = pytest.mark.browser
CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
EYES = ((0.33, 0.42), (0.5, 0.42), (0.66, 0.42))
HAIR = ((0.35, 0.1), (0.65, 0.1))
CIRCLE = tuple((0.8 + 0.13 * math.cos(at * math.pi / 6), 0.22 + 0.13 * math.sin(at * math.pi / 6)) for at in range(13))
HAT = np.kron(HAT_TOKENS, np.ones((5, 5))) > 0  # where hats go in the first example, of 40 x 40 pixels
MISSED = "does not seem to show"


@pytest.fixture(scope="module")
def avatars() -> Iterator[Site]:
    with served_with_examples(shipped("avatars"), CHECKPOINTS / "avatars" / "examples") as site:
        yield site


@pytest.fixture(scope="module")
def things() -> Iterator[Site]:
    with served_with_examples(shipped("things"), CHECKPOINTS / "things" / "examples") as site:
        yield site


def shipped(name: str) -> WatchedPipeline:
    pipeline: Any = Pipeline.from_pretrained(CHECKPOINTS / name)
    return WatchedPipeline(pipeline.model, pipeline.scorer)


class SlowToFit(WatchedPipeline):
    """A pipeline that says what will change when the test lets it, and counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__(hat_model())
        self.let_go, self.asked = Event(), 0
        self.let_go.set()

    def fit_mask(self, *args: Any, **kwargs: Any) -> FittedMask:
        self.asked += 1
        assert self.let_go.wait(120)
        return super().fit_mask(*args, **kwargs)


class Doubter(LightnessScorer):
    """Sees nothing in any image."""

    def shows(self, squares: Tensor, prompt: str) -> list[bool]:
        return [False] * len(squares)


@contextmanager
def opened(windows: Windows, pipeline: WatchedPipeline, examples: Path) -> Iterator[PageObject]:
    with served_with_examples(pipeline, examples) as site, watched(windows, site) as page:
        yield page


@contextmanager
def watched(windows: Windows, site: Site, **options: Any) -> Iterator[PageObject]:
    """The page, which notes what its last run may change."""
    with windows.open(site.url, **options) as page:
        page.evaluate("imagebart.on('run', ({ mask }) => mask && (window.runMask = mask))")
        yield page


def ask_for(page: PageObject, words: str) -> np.ndarray:
    """What Edit will change by these words: bool [H, W]."""
    page.type_prompt(words)
    return page.fitted_mask()


def painted(page: PageObject) -> np.ndarray:
    return page.mask() > 0


def run_mask(page: PageObject) -> np.ndarray:
    """What the last run was allowed to change."""
    return page.read_mask("window.runMask")


def expect_outlined(page: PageObject, mask: np.ndarray) -> None:
    """The canvas shows a white line with a dark one on both sides at the left edge of a mask."""
    y = int(mask.any(axis=1).nonzero()[0].mean())
    x = int(mask[y].argmax())
    row: list[int] = page.evaluate(
        """([x, y]) => {
            const { canvas } = document.querySelector(".sp").sketchpad;
            canvas.render();
            const { view, element } = canvas;
            const place = [view.x + x * view.scale, view.y + (y + 0.5) * view.scale];
            const [left, top] = place.map((at) => Math.round(at * devicePixelRatio));
            const { data } = element.getContext("2d").getImageData(left - 6, top, 12, 1);
            return Array.from({ length: 12 }, (_, i) => Math.min(...data.slice(4 * i, 4 * i + 3)));
        }""",
        [x, y],
    )
    light = int(np.argmax(row))
    assert row[light] > 230 and min(row[:light]) < 120 and min(row[light + 1 :]) < 120, row


def expect_only_changed(page: PageObject, before: np.ndarray, mask: np.ndarray) -> None:
    """The result differs from an image within a mask, and nowhere else."""
    changed = (page.result_pixels() != before).any(axis=-1)
    assert changed[mask].any() and not changed[~mask].any()


def touch(page: PageObject, *points: tuple[float, float]) -> None:
    """A stroke with a finger; places are shares of the image."""
    page.evaluate("scrollTo(0, 0)")
    view, (_, _, width, height) = page.view(), page.canvas_box()

    def place(x: float, y: float) -> tuple[float, float]:
        across, down = x * view["width"] * view["scale"], y * view["height"] * view["scale"]
        return (view["x"] + across) / width, (view["y"] + down) / height

    fingers = Fingers(page)
    fingers.touch("touchStart", place(*points[0]))
    for point in points[1:]:
        fingers.touch("touchMove", place(*point))
    fingers.touch("touchEnd")


@pytest.mark.shipped
@pytest.mark.slow
@pytest.mark.parametrize("device", ["wide", "phone"])
def test_a_stroke_over_the_eyes_becomes_sunglasses(windows: Windows, avatars: Site, device: str) -> None:
    with watched(windows, avatars, **(TOUCH if device == "phone" else {})) as page:
        before = pixels(avatars.examples / "1-brown-bob-and-a-hoodie.png")
        page.press("Clear mask")
        (touch if device == "phone" else PageObject.drag)(page, *EYES)
        outline = ask_for(page, "sunglasses")
        assert not (painted(page) & ~outline).sum() > 0.1 * painted(page).sum() and outline.mean() < 0.25
        expect_outlined(page, outline)
        expect(page.locator("#fit-status")).to_have_text(f"{round(100 * outline.mean())} % will change")
        page.edit()
        assert np.array_equal(run_mask(page), outline)
        expect_only_changed(page, before, outline)
        expect(page.locator("#messages")).not_to_contain_text(MISSED)
        expect(page.locator("#elsewhere")).to_be_hidden()


@pytest.mark.shipped
@pytest.mark.slow
def test_a_circle_on_an_empty_place_becomes_a_frog(windows: Windows, things: Site) -> None:
    with watched(windows, things) as page:
        page.press("Clear mask")
        page.get_by_role("button", name="Lasso").click()
        page.drag(*CIRCLE)
        outline = ask_for(page, "a frog")
        assert outline[painted(page)].mean() > 0.9
        page.edit()
        assert np.array_equal(run_mask(page), outline)
        expect_only_changed(page, pixels(things.examples / "1-a-cat.png"), outline)
        expect(page.locator("#messages")).not_to_contain_text(MISSED)


@pytest.mark.shipped
@pytest.mark.slow
def test_words_move_an_example_s_mask_and_not_a_painted_one(windows: Windows, avatars: Site) -> None:
    with watched(windows, avatars) as page:
        offer = page.locator("#elsewhere")
        outline = ask_for(page, "a red beanie")
        assert outline[:40].any() and painted(page)[100].any() and (outline & painted(page)).sum() < outline.sum() / 2
        expect(offer).to_be_hidden()
        page.edit()
        assert np.array_equal(run_mask(page), outline)
        expect_only_changed(page, pixels(avatars.examples / "1-brown-bob-and-a-hoodie.png"), outline)
        page.press("Discard")

        page.press("Clear mask")
        page.drag(*HAIR)
        by_hand = page.mask()
        place = ask_for(page, "sunglasses")
        assert place[by_hand > 0].mean() > 0.9, "what is painted stays"
        expect(offer).to_contain_text("Your words are about another place.")
        page.edit()
        expect(offer).to_be_visible()
        page.press("Move the mask there")
        page.expect_review("")
        expect(offer).to_be_hidden()
        moved = painted(page)
        assert not moved[by_hand > 0].any() and moved[90:130].any() and np.array_equal(page.fitted_mask(), moved)
        page.press("Undo")
        assert np.array_equal(page.mask(), by_hand)
        expect(offer).to_be_visible()


@pytest.mark.shipped
@pytest.mark.slow
def test_edit_at_once_after_the_stroke_changes_what_the_outline_would_show(windows: Windows, avatars: Site) -> None:
    with watched(windows, avatars) as page:
        page.press("Clear mask")
        page.type_prompt("sunglasses")
        page.drag(*EYES)
        page.edit()
        done = run_mask(page)
        expect_only_changed(page, pixels(avatars.examples / "1-brown-bob-and-a-hoodie.png"), done)
        assert np.array_equal(page.fitted_mask(), done)


def test_only_what_is_painted_changes_where_that_is_chosen(windows: Windows, examples: Path) -> None:
    with opened(windows, WatchedPipeline(hat_model()), examples) as page:
        page.drag((0.1, 0.2), (0.5, 0.35))
        assert (page.fitted_mask() & ~painted(page)).any()
        page.unfold("Settings")
        page.get_by_label("Only what I painted").check()
        page.wait_until(lambda: np.array_equal(page.fitted_mask(), painted(page)))
        page.edit()
        expect_only_changed(page, pixels(examples / "01-first.png"), painted(page))
        page.press("Discard")
        page.get_by_label("Only what I painted").uncheck()
        page.wait_until(lambda: (page.fitted_mask() & ~painted(page)).any())


def test_without_a_mask_the_words_place_is_outlined_and_edited(windows: Windows, examples: Path) -> None:
    with opened(windows, WatchedPipeline(hat_model(), pause=0.2), examples) as page:
        page.press("Clear mask")
        assert np.array_equal(page.fitted_mask(), HAT)
        assert ask_for(page, "").sum() == 0
        expect(page.locator("#fit-status")).to_have_text("Nothing is painted yet")
        ask_for(page, "a hat")
        expect_outlined(page, HAT)
        page.press("Edit")
        page.expect_review("running")
        expect_outlined(page, HAT)
        page.expect_review("finished")
        page.expect_finished()
        expect_only_changed(page, pixels(examples / "01-first.png"), HAT)
        assert not page.mask().any()
        # The history and "Last mask" know what was changed.
        edge = page.locator("#history canvas").evaluate(
            "canvas => [...canvas.getContext('2d').getImageData(0, 0, 112, 112).data]"
        )
        assert (np.reshape(edge, (112, 112, 4))[..., 3] > 0)[42, 28:84].all()
        page.press("Discard")
        page.press("Last mask")
        assert np.array_equal(painted(page), HAT)


def test_the_background_and_all_of_an_image_are_said_to_change(windows: Windows, examples: Path) -> None:
    with opened(windows, WatchedPipeline(hat_model()), examples) as page:
        page.choose_mode("Background")
        background = page.fitted_mask()
        assert (background & ~HAT).any() and background[HAT].all() and not background[30:].any()
        page.choose_mode("Vary")
        page.wait_until_ready()
        expect(page.locator("#fit-status")).to_have_text("All of the image will change")
        assert page.evaluate("document.querySelector('.sp').sketchpad.canvas.fitted") is None


@pytest.mark.parametrize("rate", [1, pytest.param(4, marks=pytest.mark.load)])
def test_an_answer_that_comes_during_the_next_stroke_is_not_drawn_and_leaves_it_alone(
    windows: Windows, examples: Path, rate: int
) -> None:
    pipeline = SlowToFit()
    drawn = "document.querySelector('.sp').sketchpad.canvas.fitted"
    with opened(windows, pipeline, examples) as page:
        page.slow_down(rate, 0)
        page.press("Clear mask")
        page.wait_until_ready()
        pipeline.let_go.clear()
        before = pipeline.asked
        page.drag((0.1, 0.7), (0.4, 0.7))
        page.wait_until(lambda: pipeline.asked == before + 1)
        # While this is not answered, of all that follows only the last is asked.
        for name in ("Upper half", "Left half", "Lower half", "Clear mask"):
            page.click(name, rest=200)
        page.drag((0.1, 0.7), (0.4, 0.7))
        first = page.mask()
        page.begin_stroke(60, 60)
        with page.expect_answer("fit"):
            pipeline.let_go.set()
        pipeline.let_go.clear()
        assert page.evaluate(drawn) is None and page.evaluate("!!document.querySelector('.sp').sketchpad.state.stroke")
        page.mouse.move(*page.middle(-60, 60), steps=8)
        page.mouse.up()
        both = page.mask()
        assert (both >= first).all() and (both > first).sum() > 50 and page.evaluate(drawn) is None
        page.wait_until(lambda: pipeline.asked == before + 2)
        assert page.evaluate(drawn) is None
        pipeline.let_go.set()
        outline = page.fitted_mask()
        assert outline[both > 0].all() and pipeline.asked == before + 2
        expect_outlined(page, outline)


def test_what_nobody_painted_stays_that_through_undo_a_reload_and_a_link(windows: Windows, examples: Path) -> None:
    sent = "document.querySelector('.sp').sketchpad.props.value.movable"
    with opened(windows, WatchedPipeline(hat_model()), examples) as page:
        offer = page.locator("#elsewhere")
        for name, movable in (("Lower half", True), ("Grow", True), ("Invert", True)):
            page.press(name)
            assert page.evaluate(sent) is movable, name
        page.press("Lower half")
        assert np.array_equal(page.fitted_mask(), HAT)
        page.drag((0.1, 0.9), (0.4, 0.9))
        expect(offer).to_be_hidden()  # the stroke is in the half, which is the same mask
        assert page.evaluate(sent) is True
        page.get_by_role("button", name="Eraser").click()
        page.drag((0.1, 0.9), (0.4, 0.9))
        expect(offer).to_be_visible()
        page.press("Shrink")
        assert page.evaluate(sent) is False
        page.reload()
        expect(offer).to_be_visible()
        assert page.evaluate(sent) is False
        page.press("Lower half")
        expect(offer).to_be_hidden()
        page.reload()
        page.wait_until_ready()
        assert page.evaluate(sent) is True and np.array_equal(page.mask(), preset_mask("lower half", (40, 40)))


def test_a_result_that_misses_the_words_is_tried_again_as_the_best_of_four(windows: Windows, examples: Path) -> None:
    with opened(windows, WatchedPipeline(hat_model(), Doubter()), examples) as page:
        messages, again = page.locator("#messages"), page.button("Try four, best first")
        page.edit()
        expect(messages).to_contain_text(MISSED)
        before = page.history()
        again.click()
        page.wait_until(lambda: page.history() != before)
        page.expect_finished()
        expect(page.get_by_role("toolbar", name="Variants").get_by_role("button")).to_have_count(4)
        expect(page.get_by_role("radio", name="4")).to_be_checked()
        expect(page.get_by_role("checkbox", name="Best first")).to_be_checked()
        expect(messages).to_contain_text(MISSED)
        expect(again).to_have_count(0)
