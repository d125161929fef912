"""The page in Chromium: run, watch, replay, look again and go on; and once with a photo of twelve megapixels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_object import MANY_STAGES, PIPELINE, STAGES, PageObject, Site, Windows, gradient_image, pixels
from PIL import Image, ImageSequence
from playwright.sync_api import Route, expect

from imagebart.imaging.files import read_recipe

pytestmark = pytest.mark.browser


def test_the_first_click_edits_and_the_run_can_be_looked_at_again(wide: PageObject, site: Site) -> None:
    expect(wide.prompt()).to_have_value("a hat")
    wide.edit()
    before, after = pixels(site.examples / "01-first.png"), wide.result_pixels()
    changed = (after != before).any(axis=-1)
    assert changed[10:30, 10:30].any() and not changed[:10].any() and not changed[:, 30:].any()

    # Its scales are shown in place by a click.
    film = wide.get_by_role("group", name="Scales").get_by_role("button")
    expect(film).to_have_count(STAGES + 1)
    labels = [button.get_attribute("aria-label") or "" for button in film.all()]
    assert "Noise" in labels[0] and "Scale 2 of 5 done" in labels[2] and labels[-1] == "The result"
    shown = wide.canvas().screenshot()
    film.nth(2).click()
    expect(film.nth(2)).to_have_attribute("aria-pressed", "true")
    expect(wide.caption()).to_contain_text("Scale 2 of 5 done")
    assert wide.canvas().screenshot() != shown
    film.last.click()
    wide.wait_until(lambda: wide.canvas().screenshot() == shown)
    expect(wide.caption()).to_contain_text("The result")

    # Before and after are compared by a handle and a key.
    handle = wide.get_by_role("slider", name="Before and after")
    expect(handle).to_have_attribute("aria-valuenow", "0")
    left, top, width, _ = wide.canvas_box()
    handle.hover()
    wide.mouse.down()
    wide.mouse.move(left + width / 2, top + 100, steps=4)
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

    wide.steps_slider().fill("0")
    expect(wide.caption()).to_contain_text("no token is fixed yet")
    with wide.expect_download() as download:
        wide.press("Save as WebP")
    with Image.open(download.value.path()) as saved:
        assert saved.n_frames > STAGES and download.value.suggested_filename.endswith(".webp")
    with wide.expect_download() as download:
        wide.get_by_role("link", name="… before").click()
    assert (pixels(download.value.path()) == before).all()

    # From an earlier step: it becomes the image, and undo leads back, to the words first.
    wide.press("Keep")
    wide.expect_painted(0)
    expect(film).to_have_count(0)
    words = wide.prompt().input_value()
    wide.prompt().fill("")  # with words, Edit finds the place by itself
    wide.press("Edit")
    expect(wide.locator("#messages")).to_contain_text("say what should be there, or paint over")
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
    wide.press("Discard")
    wide.expect_review("")
    wide.expect_painted(16)
    wide.edit()
    first = wide.result_pixels()
    wide.press("Keep")
    assert not wide.mask().any()
    wide.press("Upper half")
    wide.type_prompt("sunglasses")
    wide.edit()
    second = wide.result_pixels()
    assert (second[20:] == first[20:]).all() and (second[:20] != first[:20]).any()
    wide.paint()
    wide.expect_review("")
    painted = wide.mask() > 0
    assert painted[20, 20] and not painted[5].any()
    kept = ~wide.fitted_mask()
    wide.edit()
    assert (wide.result_pixels()[kept] == second[kept]).all() and kept.any()
    history = wide.get_by_role("region", name="History").get_by_role("button")
    expect(history).to_have_count(4)
    expect(history.first).to_contain_text("sunglasses")
    outline = (
        history.nth(2)
        .locator("canvas")
        .evaluate("""canvas => [...canvas.getContext("2d").getImageData(0, 0, 112, 112).data]""")
    )
    edge = np.reshape(outline, (112, 112, 4))[..., 3] > 0
    assert edge[28, 28:84].all() and edge[84, 28:84].all() and edge[28:84, 28].all(), "the mask's outline"
    assert not edge[:24].any() and not edge[33:79, 33:79].any(), "and nothing else"
    history.nth(2).click()
    expect(wide.prompt()).to_have_value("a hat")
    assert (wide.result_pixels() == first).all() and (wide.mask() == start).all()
    # The same again begins from the same image.
    wide.edit()
    assert (wide.result_pixels()[:10] == first[:10]).all()


def test_pick_paint_type_and_edit_and_again_with_the_same_seed(wide: PageObject, site: Site, gradients: Path) -> None:
    def spoil(route: Route) -> None:
        """Takes all values out of what the browser sends, as no page would: Gradio itself refuses it."""
        sent = json.loads(route.request.post_data or "{}")
        route.continue_(post_data=json.dumps({**sent, "data": []}))

    wide.route("**/queue/join*", spoil)
    wide.press("Edit")
    expect(wide.locator("#messages")).to_contain_text("please try again")
    expect(wide.button("Edit")).to_be_enabled()
    expect(wide.prompt()).to_have_value("a hat")
    wide.expect_painted(16)
    assert PIPELINE.running == 0
    wide.unroute_all()

    unknown = wide.locator("#unknown-image")
    wide.upload(gradients, (64, 32))
    expect(unknown).to_have_text("This model knows nothing only; in another kind of image, expect odd results.")
    wide.press("Upper half")
    expect(unknown).to_be_visible()
    wide.choose_second_example()
    expect(unknown).to_be_hidden()
    wide.paint()
    wide.type_prompt("sunglasses, zebra")
    wide.edit()
    expect(wide.locator("#messages")).to_contain_text("zebra")
    before, after = pixels(site.examples / "02-second.png"), wide.result_pixels()
    changed = (after != before).any(axis=-1)
    assert changed.any(), "the painted part was not redrawn"
    assert not changed[:12].any() and not changed[-12:].any(), "pixels outside the paint changed"

    seed = re.search(r"seed (\d+)", wide.locator("#progress").inner_text())
    assert seed is not None
    wide.unfold("Settings")
    wide.press("Keep the last seed")
    expect(wide.get_by_label("New seed each time")).not_to_be_checked()
    expect(wide.locator("#seed input")).to_have_value(seed.group(1))
    wide.edit()
    assert (wide.result_pixels() == after).all()


def test_generate_then_edit_what_came_out(wide: PageObject) -> None:
    wide.type_prompt("a woman with a hat")
    wide.edit("Generate")
    generated = wide.result_pixels()
    assert generated.shape == (32, 32, 3)
    wide.press("Keep")
    expect(wide.locator("#image-size")).to_contain_text("32 × 32")
    wide.press("Lower half")
    wide.expect_painted(32)
    wide.type_prompt("")
    wide.edit()
    edited = wide.result_pixels()
    assert (edited[:16] == generated[:16]).all() and (edited[16:] != generated[16:]).any()
    # Vary takes what is shown.
    wide.edit("Vary")
    assert (wide.result_pixels()[:16] != generated[:16]).any()
    expect(wide.get_by_role("region", name="History").get_by_role("button")).to_have_count(3)


def test_variants_are_ranked_chosen_downloaded_and_drawn_again_from_the_file(wide: PageObject, tmp_path: Path) -> None:
    wide.unfold("Settings")
    wide.locator("#seed input").fill("7")  # with some seeds, a batch rounds a pixel differently than an image alone
    wide.get_by_label("New seed each time").uncheck()
    wide.get_by_role("radio", name="3").check()
    wide.edit()
    wide.get_by_label("New seed each time").check()
    first = wide.result_pixels()
    expect(wide.get_by_role("toolbar", name="Variants").get_by_role("button")).to_have_count(3)
    wide.get_by_role("button", name="Variant 2").click()
    expect(wide.get_by_role("button", name="Variant 2")).to_have_attribute("aria-pressed", "true")
    second = wide.result_pixels()
    assert (second != first).any()
    with wide.expect_download() as download:
        wide.get_by_role("link", name="Download", exact=True).click()
    path = tmp_path / "variant.png"
    download.value.save_as(path)
    recipe = read_recipe(path)
    assert recipe is not None and recipe.prompt == "a hat" and recipe.variant == 1
    assert (pixels(path) == second).all()

    wide.type_prompt("")
    wide.drop(path)
    messages = wide.locator("#messages")
    expect(messages).to_contain_text("made here")
    expect(messages).to_be_visible()
    expect(wide.prompt()).to_have_value("a hat")
    wide.expect_painted(0)
    expect(wide.locator("#seed input")).to_have_value(str(recipe.own_seed))
    expect(wide.get_by_label("New seed each time")).not_to_be_checked()
    # The image from which it was made, with its mask: the very same comes out.
    wide.get_by_role("button", name="First").click()
    wide.expect_painted(16)
    expect(messages).to_be_hidden()
    wide.get_by_role("radio", name="1").check()
    wide.edit()
    assert (wide.result_pixels() == second).all()
    wide.press("Reset the settings")
    expect(wide.get_by_label("New seed each time")).to_be_checked()

    # The best of several comes first, each with its own steps.
    wide.get_by_role("radio", name="4").check()
    wide.get_by_role("checkbox", name="Best first").check()
    wide.locator("#seed input").fill("7")  # four that differ by more than what rounding to bytes does
    wide.get_by_label("New seed each time").uncheck()
    wide.edit("Generate")
    light, names = [], []
    for place in range(1, 5):
        wide.get_by_role("button", name=f"Variant {place}").click()
        expect(wide.get_by_role("button", name=f"Variant {place}")).to_have_attribute("aria-pressed", "true")
        light.append(wide.result_pixels().mean())
        names.append(wide.get_by_role("link", name="Download", exact=True).get_attribute("download"))
        wide.steps_slider().fill("0")
        expect(wide.caption()).to_contain_text("no token is fixed yet")
    assert light == sorted(light, reverse=True) and len(set(light)) == 4
    as_drawn = list(PIPELINE.generate("a hat", seed=7, variants=4))[-1].images
    order = sorted(range(4), key=lambda number: -np.asarray(as_drawn[number], float).mean())
    assert names == [f"generate-7-{number + 1}.png" for number in order]


@pytest.mark.slow
def test_a_photo_of_twelve_megapixels_is_edited_to_the_pixel(wide: PageObject, tmp_path: Path) -> None:
    size = (4000, 3000)
    path = tmp_path / "photo.jpg"
    gradient_image((200, 150), 90).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    photo = pixels(path)
    wide.upload(path, size)
    wide.paint()
    assert wide.fitted_mask().any()
    painted = wide.mask() > 0
    assert painted.shape == (768, 1024) and painted.any()
    wide.edit()
    changed = (wide.result_pixels() != photo).any(axis=-1)
    near = np.asarray(Image.fromarray(painted).resize(size, Image.Resampling.NEAREST))
    assert changed[near].mean() > 0.5 and not changed[:1000].any() and not changed[-1000:].any()
    wide.press("Keep")
    expect(wide.locator(".sp")).to_have_attribute("data-shown", wide.sent_value()["image"])
    wide.press("Upper half")
    wide.reload()
    expect(wide.locator("#image-size")).to_have_text("4000 × 3000 pixels")
    assert wide.mask()[:384].all() and not wide.mask()[384:].any()
    assert ((pixels(Path(wide.sent_value()["image"])) != photo).any(axis=-1) == changed).all()


# How much of each new state is seen over the one before it, frame by frame; and the times at which states changed.
WATCH = """() => {
    const { review, canvas } = document.querySelector(".sp").sketchpad;
    window.mixes = [];
    window.steps = [];
    const { afterRender } = canvas;
    canvas.afterRender = () => {
        const scene = review.scene();
        if (scene) window.mixes.push(scene.mix);
        if (window.steps.at(-1)?.step !== review.step) window.steps.push({ step: review.step, at: performance.now() });
        afterRender();
    };
}"""


def states(page: PageObject) -> list[str]:
    """What the film shows of each state: empty, current or done."""
    found: list[str] = page.locator(".sp-film button").evaluate_all("all => all.map(({ dataset }) => dataset.state)")
    return found


@pytest.mark.parametrize("rate", [1, pytest.param(4, marks=pytest.mark.load)])
def test_the_film_fills_while_the_run_goes_on_and_is_replayed(windows: Windows, slow_site: Site, rate: int) -> None:
    with windows.open(slow_site.url, reduced_motion="no-preference") as page:
        page.slow_down(rate, 0)
        expect(page.locator(".sp-film button")).to_have_count(0)
        before = page.locator(".sp-masks").bounding_box()
        page.evaluate(WATCH)
        page.press("Edit")
        film = page.locator(".sp-film button")
        if rate == 1:  # a slowed browser may be shown all of so short a run at its end
            page.wait_until(lambda: states(page).count("done") >= 2)
            assert len(states(page)) == MANY_STAGES + 1 and "empty" in states(page)
            # One that is done is shown in place as long as the run goes on.
            film.first.click()
            expect(film.first).to_have_attribute("aria-pressed", "true")
            expect(page.caption()).to_contain_text("no token is fixed yet")
        page.expect_finished()
        page.expect_review("finished")
        assert states(page) == ["done"] * (MANY_STAGES + 1)
        assert film.all_inner_texts()[:2] == ["Noise", f"1 of {MANY_STAGES}"] and film.last.inner_text() == "Image"
        expect(film.last).to_have_attribute("aria-pressed", "true")
        assert page.locator(".sp-masks").bounding_box() == before, "it moved"
        assert any(0 < mix < 1 for mix in page.evaluate("mixes")), "states dissolve into each other"

        count = page.evaluate("document.querySelector('.sp').sketchpad.review.steps().length")
        page.evaluate("window.steps = []; window.mixes = [];")
        page.press("Replay")
        page.wait_for("() => document.querySelector('.sp').sketchpad.review.replaying")
        page.wait_for("() => !document.querySelector('.sp').sketchpad.review.replaying")
        seen: list[dict[str, Any]] = page.evaluate("steps")
        order = [one["step"] for one in seen[1:]] if seen[0]["step"] == count - 1 else [one["step"] for one in seen]
        assert order == list(range(count)), "each state is seen"
        assert 0.8 <= (seen[-1]["at"] - seen[0]["at"]) / 1000 <= 2 * rate
        assert any(0 < mix < 1 for mix in page.evaluate("mixes"))
        with page.expect_download() as download:
            page.press("Save as WebP")
        shown = page.evaluate(
            "(({ review }) => review.steps().map(({ shown }) => shown[0]))(document.querySelector('.sp').sketchpad)"
        )
        frames = [pixels(Path(path)) for path in shown]
        frames = [
            frame for frame, last in zip(frames, [None, *frames], strict=False) if last is None or (frame != last).any()
        ]
        with Image.open(download.value.path()) as saved:  # in which equal frames are one
            same = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(saved)]
        assert len(same) == len(frames) and all((a == b).all() for a, b in zip(same, frames, strict=True))
        # What is kept meanwhile is the result, not the state that is seen.
        result = page.result_address()
        page.press("Replay")
        page.wait_for("() => document.querySelector('.sp').sketchpad.review.replaying")
        page.press("Keep")
        page.expect_review("")
        assert result.endswith(page.sent_value()["image"].rpartition("/")[2])
        assert states(page) == []


def test_nothing_dissolves_where_no_motion_is_wanted(windows: Windows, slow_site: Site) -> None:
    with windows.open(slow_site.url) as page:
        page.evaluate(WATCH)
        page.edit()
        page.press("Replay")
        page.wait_for("() => document.querySelector('.sp').sketchpad.review.replaying")
        page.wait_for("() => !document.querySelector('.sp').sketchpad.review.replaying")
        assert set(page.evaluate("mixes")) == {1}
