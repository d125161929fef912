"""The page in Chromium: run, watch, replay, look again and go on."""

import re
from pathlib import Path

import numpy as np
import pytest
from page_object import MANY_STAGES, STAGES, PageObject, Site, Windows, pixels
from PIL import Image, ImageSequence
from playwright.sync_api import expect

from imagebart.imaging.files import read_recipe

pytestmark = pytest.mark.browser


def test_the_first_click_edits_and_the_run_can_be_looked_at_again(wide: PageObject, site: Site) -> None:
    expect(wide.prompt()).to_have_value("a hat")
    wide.edit()
    before, after = pixels(site.examples / "01-first.png"), wide.result_pixels()
    changed = (after != before).any(axis=-1)
    assert changed[10:30, 10:30].any() and not changed[:10].any() and not changed[:, 30:].any()

    # Its scales are shown in place by a click.
    expect(wide.film).to_have_count(STAGES + 1)
    labels = [button.get_attribute("aria-label") or "" for button in wide.film.all()]
    assert "Noise" in labels[0] and "Scale 2 of 5 done" in labels[2] and labels[-1] == "The result"
    shown = wide.canvas().screenshot()
    wide.film.nth(2).click()
    expect(wide.film.nth(2)).to_have_attribute("aria-pressed", "true")
    expect(wide.caption()).to_contain_text("Scale 2 of 5 done")
    assert wide.canvas().screenshot() != shown
    wide.film.last.click()
    wide.wait_until(lambda: wide.canvas().screenshot() == shown)
    expect(wide.caption()).to_contain_text("The result")

    # Before and after are compared by a handle and a key.
    handle = wide.compare_handle
    expect(handle).to_have_attribute("aria-valuenow", "0")
    handle.hover()
    wide.mouse.down()
    wide.mouse.move(*wide.middle(), steps=4)
    wide.mouse.up()
    expect(handle).to_have_attribute("aria-valuenow", "50")
    half = wide.canvas().screenshot()
    handle.press("End")
    expect(handle).to_have_attribute("aria-valuenow", "100")
    handle.press("Home")
    wide.canvas().focus()
    shown = wide.canvas().screenshot()
    assert shown != half
    with wide.keyboard_held("c"):
        wide.wait_until(lambda: wide.canvas().screenshot() != shown)
    wide.wait_until(lambda: wide.canvas().screenshot() == shown)
    assert (pixels(wide.download("link", "… before")) == before).all()

    # From an earlier step: it becomes the image, and undo leads back, to the words first.
    wide.steps_slider().fill("0")
    expect(wide.caption()).to_contain_text("no token is fixed yet")
    wide.press("Keep")
    wide.expect_painted(0)
    expect(wide.film).to_have_count(0)
    words = wide.prompt().input_value()
    wide.type_prompt("")  # with words, Edit finds the place by itself
    wide.press("Edit")
    expect(wide.messages).to_contain_text("say what should be there, or paint over")
    wide.press("Undo")
    expect(wide.prompt()).to_have_value(words)
    wide.expect_painted(0)
    wide.press("Undo")
    wide.expect_painted(16)
    wide.press("Redo")
    wide.expect_painted(0)


def test_what_is_kept_or_painted_on_is_gone_on_from_and_history_leads_back(wide: PageObject) -> None:
    start = wide.mask()
    wide.edit()
    first = wide.result_pixels()
    wide.press("Keep")
    assert not wide.mask().any()
    wide.press("Upper half")
    wide.type_prompt("sunglasses, zebra")
    wide.edit()
    expect(wide.messages).to_contain_text("zebra")
    second = wide.result_pixels()
    assert (second[20:] == first[20:]).all() and (second[:20] != first[:20]).any()
    wide.paint()
    wide.expect_review("")
    painted = wide.mask() > 0
    assert painted[20, 20] and not painted[5].any()
    kept = ~wide.fitted_mask()
    wide.edit()
    assert (wide.result_pixels()[kept] == second[kept]).all() and kept.any()
    expect(wide.runs).to_have_count(3)
    expect(wide.runs.first).to_contain_text("sunglasses")
    edge = wide.run_outline(2)
    assert edge[28, 28:84].all() and edge[84, 28:84].all() and edge[28:84, 28].all(), "the mask's outline"
    assert not edge[:24].any() and not edge[33:79, 33:79].any(), "and nothing else"
    wide.runs.nth(2).click()
    expect(wide.prompt()).to_have_value("a hat")
    assert (wide.result_pixels() == first).all() and (wide.mask() == start).all()
    # The same again begins from the same image, and Vary from what is shown.
    wide.edit()
    again = wide.result_pixels()
    assert (again[:10] == first[:10]).all()
    wide.edit("Vary")
    assert (wide.result_pixels()[:10] != again[:10]).any()
    # What was generated is painted on like any other image.
    wide.edit("Generate")
    generated = wide.result_pixels()
    wide.press("Keep")
    expect(wide.image_size).to_have_text("32 × 32 pixels")
    wide.press("Lower half")
    wide.edit()
    edited = wide.result_pixels()
    assert (edited[:16] == generated[:16]).all() and (edited[16:] != generated[16:]).any()


def test_variants_are_chosen_downloaded_and_drawn_again_from_the_file(wide: PageObject) -> None:
    wide.unfold("Settings")
    wide.seed.fill("7")  # with some seeds, a batch rounds a pixel differently than an image alone
    wide.new_seed.uncheck()
    wide.how_many(3).check()
    wide.edit()
    first = wide.result_pixels()
    expect(wide.variants).to_have_count(3)
    wide.variants.nth(1).click()
    expect(wide.variants.nth(1)).to_have_attribute("aria-pressed", "true")
    second = wide.result_pixels()
    assert (second != first).any()
    path = wide.download("link", "Download")
    recipe = read_recipe(path)
    assert recipe is not None and recipe.prompt == "a hat" and recipe.variant == 1
    assert (pixels(path) == second).all()

    wide.new_seed.check()
    wide.type_prompt("")
    wide.drop(path)
    expect(wide.messages).to_contain_text("made here")
    expect(wide.messages).to_be_visible()
    expect(wide.prompt()).to_have_value("a hat")
    wide.expect_painted(0)
    expect(wide.seed).to_have_value(str(recipe.own_seed))
    expect(wide.new_seed).not_to_be_checked()
    # The image from which it was made, with its mask: the very same comes out.
    wide.click("First: a hat")
    wide.expect_painted(16)
    expect(wide.messages).to_be_hidden()
    wide.how_many(1).check()
    wide.edit()
    assert (wide.result_pixels() == second).all()

    # With a new seed each time, the last one can be kept.
    wide.press("Reset the settings")
    expect(wide.new_seed).to_be_checked()
    wide.edit()
    seed = re.search(r"seed (\d+)", wide.progress.inner_text())
    wide.press("Keep the last seed")
    expect(wide.new_seed).not_to_be_checked()
    assert seed is not None
    expect(wide.seed).to_have_value(seed.group(1))


# How much of each new state is seen over the one before it, frame by frame; the states in their order; and how long a
# replay means to show each, in milliseconds.
WATCH = """pad => {
    const { review, canvas } = pad;
    const [{ afterRender }, { setTimeout }] = [canvas, window];
    Object.assign(window, { mixes: [], steps: [], pauses: [] });
    canvas.afterRender = () => {
        const scene = review.scene();
        if (scene) mixes.push(scene.mix);
        if (steps.at(-1) !== review.step) steps.push(review.step);
        afterRender();
    };
    window.setTimeout = (act, pause, ...rest) => {
        if (review.replaying) pauses.push(pause);
        return setTimeout(act, pause, ...rest);
    };
}"""


def replay(page: PageObject) -> None:
    page.evaluate("Object.assign(window, { mixes: [], steps: [], pauses: [] })")
    page.press("Replay")
    page.expect_replaying(True)
    page.expect_replaying(False)


def test_the_film_fills_while_the_run_goes_on_and_is_replayed(windows: Windows, slow_site: Site) -> None:
    with windows.open(slow_site.url, reduced_motion="no-preference") as page:
        expect(page.film).to_have_count(0)
        before = page.ready_masks.bounding_box()
        page.pad(f"({WATCH})(pad)")
        slow_site.pipeline.pause = 0.5  # until this has been seen
        page.press("Edit")
        page.wait_until(lambda: page.film_states().count("done") >= 2)
        assert len(page.film_states()) == MANY_STAGES + 1 and "empty" in page.film_states()
        # One that is done is shown in place as long as the run goes on.
        page.film.first.click()
        expect(page.film.first).to_have_attribute("aria-pressed", "true")
        expect(page.caption()).to_contain_text("no token is fixed yet")
        slow_site.pipeline.pause = 0.05
        page.expect_finished()
        page.expect_review("finished")
        assert page.film_states() == ["done"] * (MANY_STAGES + 1)
        assert page.film.all_inner_texts()[:2] == ["Noise", f"1 of {MANY_STAGES}"]
        expect(page.film.last).to_have_text("Image")
        expect(page.film.last).to_have_attribute("aria-pressed", "true")
        assert page.ready_masks.bounding_box() == before, "it moved"
        assert any(0 < mix < 1 for mix in page.evaluate("mixes")), "states dissolve into each other"

        count = page.pad("pad.review.steps().length")
        replay(page)
        steps, pauses = page.evaluate("[steps, pauses]")
        assert steps[steps[0] == count - 1 :] == list(range(count)), "each state is seen"
        assert pauses.count(max(60, 1600 / count)) == count, "all together for 1.6 seconds"
        assert any(0 < mix < 1 for mix in page.evaluate("mixes"))
        page.emulate_media(reduced_motion="reduce")
        replay(page)
        assert set(page.evaluate("mixes")) == {1}, "nothing dissolves where no motion is wanted"

        shown = [pixels(Path(path)) for path in page.pad("pad.review.steps().map(({ shown }) => shown[0])")]
        frames = [shown[0]] + [b for a, b in zip(shown, shown[1:], strict=False) if (a != b).any()]
        with Image.open(page.download("button", "Save as WebP")) as saved:  # in which equal frames are one
            same = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(saved)]
        assert len(same) == len(frames) and all((a == b).all() for a, b in zip(same, frames, strict=True))
        # What is kept meanwhile is the result, not the state that is seen.
        result = page.result_address()
        page.press("Replay")
        page.expect_replaying(True)
        page.press("Keep")
        page.expect_review("")
        assert result.endswith(page.sent_value()["image"].rpartition("/")[2])
        expect(page.film).to_have_count(0)
