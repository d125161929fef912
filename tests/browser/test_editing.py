"""The page in Chromium: words and models; run, watch, replay, look again and go on."""

from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from page_object import MANY_STAGES, PIPELINE, STAGES, PageObject, Site, Windows, pixels
from PIL import Image, ImageSequence
from playwright.sync_api import expect

from imagebart.imaging.files import read_recipe

pytestmark = pytest.mark.browser


def test_words_are_checked_put_right_added_and_undone(wide: PageObject) -> None:
    """Unknown ones are named as they are typed; a click corrects one, or adds a suggestion; Undo takes it back."""
    prompt, unknown = wide.prompt, wide.locator("#unknown")
    prompt.fill("a zebra hat isn't шляпа")
    expect(unknown).to_have_text("Not known to this model, will be ignored: zebra isn't шляпа")
    prompt.fill("a Sunglases")  # no surprise has an article
    expect(unknown).to_be_hidden()
    wide.press("Sunglases → sunglasses")
    expect(prompt).to_have_value("a sunglasses")
    attribute, words = next(iter(PIPELINE.suggestions.items()))
    wide.get_by_role("button", name="Words this model knows").click()
    wide.get_by_label("Find a word").fill(words[0][-4:].upper())
    chips = wide.locator("#words .ib-chip:visible")
    assert 0 < chips.count() < 20 and all(words[0][-4:] in text for text in chips.all_inner_texts())
    wide.get_by_role("group", name=attribute).get_by_role("button", name=words[0], exact=True).click()
    expect(prompt).to_have_value(f"a sunglasses, {words[0]}")
    wide.press("Left half")
    wide.press("Surprise me")
    expect(wide.note).to_contain_text("Undo brings back your own words")
    prompt.focus()
    for words_before in (f"a sunglasses, {words[0]}", f"a sunglasses, {words[0]}", "a sunglasses"):
        wide.keyboard.press("Control+z")
        expect(prompt).to_have_value(words_before)


def choose(page: PageObject, name: str, *captions: str) -> None:
    """Another model, with examples of these captions."""
    page.choose_model(name)
    buttons = page.locator(".sp-examples button")
    expect(buttons).to_have_count(len(captions))
    for number, caption in enumerate(captions):
        expect(buttons.nth(number)).to_have_attribute("aria-label", caption)


def test_each_model_brings_its_examples_and_controls_and_what_was_painted_stays(wide: PageObject) -> None:
    prompt, kind = wide.locator("#prompt"), wide.locator("#choice input")
    choose(wide, "animals", "Animals 1")
    expect(wide.image_size).to_have_text("32 × 32 pixels")
    wide.expect_painted(16)
    expect(prompt).to_be_hidden()
    kind.click()
    kind.fill("bi")
    wide.get_by_role("option", name="bird").click()
    wide.edit()
    wide.press("Discard")
    choose(wide, "tiny", "First: a hat", "Second")
    expect(prompt).to_be_visible()
    wide.choose_second_example()
    wide.paint()
    painted = wide.mask()
    choose(wide, "plain", "Plain 2")
    expect(kind).to_be_hidden()
    expect(wide.locator("#surprise")).to_be_hidden()
    assert (wide.mask() == painted).all() and painted.any()
    wide.edit()


def test_the_first_click_edits_and_the_run_can_be_looked_at_again(wide: PageObject, site: Site) -> None:
    expect(wide.prompt).to_have_value("a hat")
    wide.edit()
    before, after = pixels(site.examples / "01-first.png"), wide.result_pixels()
    changed = (after != before).any(axis=-1)
    assert changed[10:30, 10:30].any() and not changed[:10].any() and not changed[:, 30:].any()

    # Its scales are shown in place by a click.
    expect(wide.film).to_have_count(STAGES + 1)
    shown = wide.canvas.screenshot()
    wide.film.nth(2).click()
    expect(wide.film.nth(2)).to_have_attribute("aria-pressed", "true")
    expect(wide.caption).to_contain_text("Step 2 of 5 done")
    assert wide.canvas.screenshot() != shown
    wide.film.last.click()
    wide.wait_until(lambda: wide.canvas.screenshot() == shown)
    expect(wide.caption).to_contain_text("The result")

    # Before and after are compared by a handle.
    handle = wide.compare_handle
    handle.hover()
    wide.mouse.down()
    wide.mouse.move(*wide.middle(), steps=4)
    wide.mouse.up()
    expect(handle).to_have_attribute("aria-valuenow", "50")
    handle.press("Home")
    assert (pixels(wide.download("link", "Image before")) == before).all()

    # Undo takes back words or the result, whichever came last.
    wide.prompt.press("End")
    wide.keyboard.type(" and")
    wide.press("Undo")
    expect(wide.prompt).to_have_value("a hat")
    assert (wide.result_pixels() == after).all()
    wide.press("Undo")
    wide.expect_review("")
    wide.press("Redo")
    assert (wide.result_pixels() == after).all()
    wide.press("Discard")
    wide.runs.click()
    wide.expect_review("finished")

    # From an earlier step: it becomes the image, and undo leads back.
    wide.steps_slider.fill("0")
    expect(wide.caption).to_contain_text("nothing is drawn yet")
    wide.press("Keep")
    wide.expect_painted(0)
    expect(wide.film).to_have_count(0)
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
    wide.prompt.fill("sunglasses, zebra")
    wide.edit()
    expect(wide.messages).to_contain_text("zebra")
    second = wide.result_pixels()
    assert (second[20:] == first[20:]).all() and (second[:20] != first[:20]).any()
    wide.paint()
    wide.expect_review("")
    kept = ~wide.fitted_mask()
    wide.edit()
    assert (wide.result_pixels()[kept] == second[kept]).all() and kept.any()
    expect(wide.runs).to_have_count(3)
    expect(wide.runs.first).to_contain_text("sunglasses")
    wide.runs.nth(2).click()
    expect(wide.prompt).to_have_value("a hat")
    assert (wide.result_pixels() == first).all() and (wide.mask() == start).all()
    wide.edit()  # the same again begins from the same image
    assert (wide.result_pixels()[:10] == first[:10]).all()
    # What was generated is painted on like any other image.
    wide.edit("New image")
    generated = wide.result_pixels()
    wide.press("Keep")
    expect(wide.image_size).to_have_text("32 × 32 pixels")
    wide.press("Lower half")
    wide.edit()
    assert (wide.result_pixels()[:16] == generated[:16]).all()


def test_what_is_pressed_twice_is_not_what_takes_its_place(wide: PageObject) -> None:
    """Cancel comes where Edit was, and Keep where Cancel was."""
    wide.button("Edit").dblclick()
    wide.expect_finished()
    expect(wide.messages).not_to_contain_text("Cancelled")
    assert len(wide.history()) == 1 and wide.mask().any()


def test_settings_and_their_model_are_there_after_a_reload(wide: PageObject) -> None:
    wide.choose_model("animals")
    wide.expect_painted(16)
    wide.unfold_settings()
    wide.seed.fill("77")
    wide.new_seed.uncheck()
    wide.how_many.nth(1).check()
    wide.reload()
    expect(wide.get_by_label("Model", exact=True)).to_have_value("animals")
    expect(wide.seed).to_have_value("77")
    expect(wide.new_seed).not_to_be_checked()
    expect(wide.how_many.nth(1)).to_be_checked()
    wide.edit()
    expect(wide.progress).to_contain_text("seed 77")
    expect(wide.variants).to_have_count(2)


def test_what_is_transparent_looks_the_same_under_a_result(wide: PageObject, tmp_path: Path) -> None:
    rgba = np.full((40, 40, 4), (0, 0, 255, 120), np.uint8)
    rgba[20:] = (200, 40, 40, 255)
    Image.fromarray(rgba).save(tmp_path / "glass.png")
    wide.upload(tmp_path / "glass.png", (40, 40))
    wide.press("Lower half")
    wide.wait_until_ready()
    place = "pad.canvas.view.x + 9, pad.canvas.view.y + 9, 30, 30"
    corner = f"[...pad.canvas.element.getContext('2d').getImageData({place}).data]"
    before = wide.pad(corner)
    assert len(set(before[2::4])) > 1, "there is no checkerboard"
    wide.edit()
    wide.wait_until(lambda: wide.pad("pad.review.scene().mix === 1"))
    assert wide.pad(corner) == before


DROP = """([name, bytes]) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
    document.querySelector(".sp canvas").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
}"""


def test_variants_are_chosen_downloaded_and_drawn_again_from_the_file(wide: PageObject) -> None:
    how_many = wide.how_many
    wide.settings.click()
    wide.seed.fill("7")  # with some seeds, a batch rounds a pixel differently than an image alone
    wide.new_seed.uncheck()
    how_many.nth(2).check()
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
    wide.prompt.fill("")
    wide.evaluate(DROP, [path.name, list(path.read_bytes())])
    expect(wide.messages).to_contain_text("made here")
    expect(wide.prompt).to_have_value("a hat")
    wide.expect_painted(0)
    expect(wide.seed).to_have_value(str(recipe.own_seed))
    expect(wide.new_seed).not_to_be_checked()
    # The image from which it was made, with its mask: the very same comes out.
    wide.click("First: a hat")
    wide.expect_painted(16)
    expect(wide.messages).to_be_hidden()
    how_many.nth(0).check()
    wide.edit()
    assert (wide.result_pixels() == second).all()

    # With a new seed each time, the last one can be kept.
    wide.press("Reset the settings")
    expect(wide.new_seed).to_be_checked()
    wide.edit()
    wide.press("Keep the last seed")
    expect(wide.new_seed).not_to_be_checked()
    expect(wide.progress).to_contain_text(f"seed {wide.seed.input_value()}")


# Notes, frame by frame, which state of a run is seen, and how much of it over the one before.
WATCH = """pad => {
    const { afterRender } = pad.canvas;
    window.seen = [];
    pad.canvas.afterRender = () => {
        const scene = pad.review.scene();
        if (scene) seen.push([pad.review.step, scene.mix]);
        afterRender();
    };
}"""
REPLAYING = "on => !!document.querySelector('.sp').sketchpad.review.replaying === on"


def replay(page: PageObject) -> tuple[list[int], set[float]]:
    """What is seen of a replay: its states in their order, and how much of each."""
    page.evaluate("seen = []")
    page.press("Replay")
    page.wait_for(REPLAYING, True)
    page.wait_for(REPLAYING, False)
    seen = page.evaluate("seen")
    return [step for step, _ in groupby(step for step, _ in seen)], {mix for _, mix in seen}


def test_the_film_fills_while_the_run_goes_on_and_is_replayed(windows: Windows, slow_site: Site) -> None:
    with windows.open(slow_site.url, reduced_motion="no-preference") as page:

        def states() -> list[str]:
            return page.film.evaluate_all("buttons => buttons.map(({ dataset }) => dataset.state)")

        before = page.locator(".sp-frame").bounding_box()
        page.pad(f"({WATCH})(pad)")
        slow_site.pipeline.pause = 0.5  # until this has been seen
        page.press("Edit")
        page.wait_until(lambda: states().count("done") >= 2)
        assert len(states()) == MANY_STAGES + 1 and "empty" in states()
        # One that is done is shown in place as long as the run goes on.
        page.film.first.click()
        expect(page.film.first).to_have_attribute("aria-pressed", "true")
        expect(page.caption).to_contain_text("nothing is drawn yet")
        slow_site.pipeline.pause = 0.05
        page.expect_finished()
        assert states() == ["done"] * (MANY_STAGES + 1)
        scales = [f"{i} of {MANY_STAGES}" for i in range(1, MANY_STAGES)]
        assert page.film.all_inner_texts() == ["Noise", *scales, "Image"]
        expect(page.film.last).to_have_attribute("aria-pressed", "true")
        assert page.locator(".sp-frame").bounding_box() == before, "it moved"
        assert page.evaluate("seen.some(([, mix]) => mix > 0 && mix < 1)"), "states dissolve into each other"

        count, (steps, mixes) = page.pad("pad.review.steps().length"), replay(page)
        assert steps[steps[0] == count - 1 :] == list(range(count)), "each state is seen"
        assert len(mixes) > 1
        page.emulate_media(reduced_motion="reduce")
        assert replay(page)[1] == {1}, "nothing dissolves where no motion is wanted"

        shown = [pixels(Path(path)) for path in page.pad("pad.review.steps().map(({ shown }) => shown[0])")]
        frames = [shown[0]] + [b for a, b in zip(shown, shown[1:], strict=False) if (a != b).any()]
        with Image.open(page.download("button", "Animation")) as saved:  # in which equal frames are one
            same = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(saved)]
        assert len(same) == len(frames) and all((a == b).all() for a, b in zip(same, frames, strict=True))
        strip = pixels(page.download("button", "Strip of steps"))
        assert strip.shape == (40, 40 * (MANY_STAGES + 1), 3) and (strip[:, :40] == shown[0]).all()
        # What is kept meanwhile is the result, not the state that is seen.
        result = page.result_address()
        page.press("Replay")
        page.wait_for(REPLAYING, True)
        page.press("Keep")
        page.expect_review("")
        assert result.endswith(page.image().name)
        expect(page.film).to_have_count(0)
