"""The page in Chromium: run, watch, cancel, look again and go on; and once with a photo of twelve megapixels."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from driving import (
    PIPELINE,
    STAGES,
    Site,
    canvas,
    choose_second_example,
    drop,
    edit,
    expect_regenerated,
    gradient_image,
    grid_cells,
    mask,
    paint,
    pixels,
    press,
    result_pixels,
    sent_value,
    type_prompt,
    unfold,
    upload,
    wait_until,
)
from PIL import Image
from playwright.sync_api import Page, Route, expect

from imagebart.imaging.metadata import read_recipe

pytestmark = pytest.mark.browser


def look(page: Page, step: int) -> None:
    """Move the slider of steps."""
    steps = page.get_by_role("slider", name="From noise to image")
    steps.fill(str(step))


def test_the_first_click_edits_and_the_run_can_be_looked_at_again(wide: Page, site: Site) -> None:
    expect(wide.get_by_label("What should be there?").first).to_have_value("a hat")
    edit(wide)
    before, after = pixels(site.examples / "01-first.png"), result_pixels(wide)
    changed = (after != before).any(axis=-1)
    assert changed[10:30, 10:30].any() and not changed[:10].any() and not changed[:, 30:].any()

    bar = wide.get_by_role("toolbar", name="The result")
    expect(bar).to_contain_text("The result")
    look(wide, 0)
    expect(bar).to_contain_text("Before the first token")
    with wide.expect_download() as download:
        press(wide, "Save the run as WebP")
    with Image.open(download.value.path()) as film:
        assert film.n_frames > STAGES and download.value.suggested_filename.endswith(".webp")
    with wide.expect_download() as download:
        wide.get_by_role("link", name="… before").click()
    assert (pixels(download.value.path()) == before).all()

    # From an earlier step: it becomes the picture, and undo leads back.
    press(wide, "Keep")
    expect_regenerated(wide, None)
    wide.get_by_label("What should be there?").first.fill("")  # with words, Edit finds the place by itself
    press(wide, "Edit")
    expect(wide.locator("#messages")).to_contain_text("Nothing is painted yet")
    press(wide, "Undo")
    expect_regenerated(wide, 16)
    press(wide, "Redo")
    expect_regenerated(wide, None)


def test_before_and_after_are_compared_by_a_handle_and_a_key(wide: Page) -> None:
    edit(wide)
    handle = wide.get_by_role("slider", name="Before and after")
    expect(handle).to_have_attribute("aria-valuenow", "0")
    box = canvas(wide).bounding_box()
    assert box is not None
    handle.hover()
    wide.mouse.down()
    wide.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100, steps=4)
    wide.mouse.up()
    expect(handle).to_have_attribute("aria-valuenow", "50")
    half = canvas(wide).screenshot()
    handle.press("End")
    expect(handle).to_have_attribute("aria-valuenow", "100")
    handle.press("Home")
    canvas(wide).focus()
    after = canvas(wide).screenshot()
    assert after != half
    wide.keyboard.down("c")
    wait_until(wide, lambda: canvas(wide).screenshot() != after)
    wide.keyboard.up("c")
    wait_until(wide, lambda: canvas(wide).screenshot() == after)
    press(wide, "Discard")
    expect_regenerated(wide, 16)
    assert wide.locator(".sp").get_attribute("data-review") == ""


def test_what_is_kept_is_gone_on_from_and_history_leads_back(wide: Page) -> None:
    start = mask(wide)
    edit(wide)
    first = result_pixels(wide)
    press(wide, "Keep")
    assert not mask(wide).any()
    press(wide, "Upper half")
    type_prompt(wide, "sunglasses")
    edit(wide)
    second = result_pixels(wide)
    assert (second[20:] == first[20:]).all() and (second[:20] != first[:20]).any()
    history = wide.get_by_role("region", name="History").get_by_role("button")
    expect(history).to_have_count(2)
    expect(history.first).to_contain_text("sunglasses")
    history.last.click()
    expect(wide.get_by_label("What should be there?").first).to_have_value("a hat")
    assert (result_pixels(wide) == first).all() and (mask(wide) == start).all()
    # The same again begins from the same picture.
    edit(wide)
    assert (result_pixels(wide)[:10] == first[:10]).all()


def test_painting_on_a_result_goes_on_from_it(wide: Page) -> None:
    edit(wide)
    first = result_pixels(wide)
    press(wide, "Keep")
    edit_again = (slice(20, None),)
    press(wide, "Lower half")
    edit(wide)
    second = result_pixels(wide)
    assert (second[:20] == first[:20]).all() and (second[edit_again] != first[edit_again]).any()
    paint(wide)
    expect(wide.locator(".sp")).to_have_attribute("data-review", "")
    painted = mask(wide) > 0
    assert painted[20, 20] and not painted[5].any()
    edit(wide)
    assert (result_pixels(wide)[~painted] == second[~painted]).all()


def test_pick_paint_type_and_edit(wide: Page, site: Site) -> None:
    choose_second_example(wide)
    paint(wide)
    type_prompt(wide, "sunglasses, zebra")
    edit(wide)
    expect(wide.locator("#messages")).to_contain_text("zebra")
    before, after = pixels(site.examples / "02-second.png"), result_pixels(wide)
    changed = (after != before).any(axis=-1)
    assert changed.any(), "the painted part was not redrawn"
    assert not changed[:12].any() and not changed[-12:].any(), "pixels outside the paint changed"


def test_generate_then_edit_what_came_out(wide: Page) -> None:
    type_prompt(wide, "a woman with a hat")
    edit(wide, "Generate")
    generated = result_pixels(wide)
    assert generated.shape == (32, 32, 3)
    press(wide, "Keep")
    expect(wide.locator("#image-size")).to_contain_text("32 × 32")
    press(wide, "Lower half")
    expect_regenerated(wide, 32)
    type_prompt(wide, "")
    edit(wide)
    edited = result_pixels(wide)
    assert (edited[:16] == generated[:16]).all() and (edited[16:] != generated[16:]).any()
    # Vary takes what is shown.
    edit(wide, "Vary")
    assert (result_pixels(wide)[:16] != generated[:16]).any()
    expect(wide.get_by_role("region", name="History").get_by_role("button")).to_have_count(3)


def test_variants_are_chosen_downloaded_and_drawn_again_from_the_file(wide: Page, tmp_path: Path) -> None:
    unfold(wide, "Settings")
    wide.locator("#seed input").fill("7")  # with some seeds, a batch rounds a pixel differently than an image alone
    wide.get_by_label("New seed each time").uncheck()
    wide.get_by_role("radio", name="3").check()
    edit(wide)
    wide.get_by_label("New seed each time").check()
    first = result_pixels(wide)
    expect(wide.get_by_role("toolbar", name="Variants").get_by_role("button")).to_have_count(3)
    wide.get_by_role("button", name="Variant 2").click()
    expect(wide.get_by_role("button", name="Variant 2")).to_have_attribute("aria-pressed", "true")
    second = result_pixels(wide)
    assert (second != first).any()
    with wide.expect_download() as download:
        wide.get_by_role("link", name="Download", exact=True).click()
    path = tmp_path / "variant.png"
    download.value.save_as(path)
    recipe = read_recipe(path)
    assert recipe is not None and recipe.prompt == "a hat" and recipe.variant == 1
    assert (pixels(path) == second).all()

    type_prompt(wide, "")
    drop(wide, path)
    messages = wide.locator("#messages")
    expect(messages).to_contain_text("made here")
    expect(messages).to_be_visible()
    expect(wide.get_by_label("What should be there?").first).to_have_value("a hat")
    expect_regenerated(wide, None)
    expect(wide.locator("#seed input")).to_have_value(str(recipe.own_seed))
    expect(wide.get_by_label("New seed each time")).not_to_be_checked()
    # The picture from which it was made, with its mask: the very same comes out.
    wide.get_by_role("button", name="First").click()
    expect_regenerated(wide, 16)
    expect(messages).to_be_hidden()
    wide.get_by_role("radio", name="1").check()
    edit(wide)
    assert (result_pixels(wide) == second).all()
    press(wide, "Reset the settings")
    expect(wide.get_by_label("New seed each time")).to_be_checked()


def test_the_best_of_several_comes_first_each_with_its_own_steps(wide: Page) -> None:
    type_prompt(wide, "a hat")
    wide.get_by_role("radio", name="4").check()
    wide.get_by_role("checkbox", name="Best first").check()
    unfold(wide, "Settings")
    wide.locator("#seed input").fill("7")  # four that differ by more than what rounding to bytes does
    wide.get_by_label("New seed each time").uncheck()
    edit(wide, "Generate")
    light, names = [], []
    for place in range(1, 5):
        wide.get_by_role("button", name=f"Variant {place}").click()
        expect(wide.get_by_role("button", name=f"Variant {place}")).to_have_attribute("aria-pressed", "true")
        light.append(result_pixels(wide).mean())
        names.append(wide.get_by_role("link", name="Download", exact=True).get_attribute("download"))
        look(wide, 0)
        expect(wide.get_by_role("toolbar", name="The result")).to_contain_text("Before the first token")
    assert light == sorted(light, reverse=True) and len(set(light)) == 4
    as_drawn = list(PIPELINE.generate("a hat", seed=7, variants=4))[-1].images
    order = sorted(range(4), key=lambda number: -np.asarray(as_drawn[number], float).mean())
    assert names == [f"generate-7-{number + 1}.png" for number in order]


def test_a_kept_seed_gives_the_same_picture(wide: Page) -> None:
    edit(wide)
    first = result_pixels(wide)
    seed = re.search(r"seed (\d+)", wide.locator("#progress").inner_text())
    assert seed is not None
    unfold(wide, "Settings")
    press(wide, "Keep the last seed")
    expect(wide.get_by_label("New seed each time")).not_to_be_checked()
    expect(wide.locator("#seed input")).to_have_value(seed.group(1))
    edit(wide)
    assert (result_pixels(wide) == first).all()


def test_what_breaks_outside_our_code_is_said_in_a_sentence(wide: Page) -> None:
    def spoil(route: Route) -> None:
        """Takes all values out of what the browser sends, as no page would: Gradio itself refuses it."""
        sent = json.loads(route.request.post_data or "{}")
        route.continue_(post_data=json.dumps({**sent, "data": []}))

    wide.route("**/queue/join*", spoil)
    press(wide, "Edit")
    expect(wide.locator("#messages")).to_contain_text("please try again")
    expect(wide.get_by_role("button", name="Edit", exact=True)).to_be_enabled()
    expect(wide.get_by_label("What should be there?").first).to_have_value("a hat")
    expect_regenerated(wide, 16)
    assert PIPELINE.running == 0


@pytest.mark.slow
def test_a_photo_of_twelve_megapixels_is_edited_to_the_pixel(wide: Page, tmp_path: Path) -> None:
    size = (4000, 3000)
    path = tmp_path / "photo.jpg"
    gradient_image((200, 150), 90).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    photo = pixels(path)
    upload(wide, path, size)
    paint(wide)
    assert "1" in grid_cells(wide)
    painted = mask(wide) > 0
    assert painted.shape == (768, 1024) and painted.any()
    edit(wide)
    changed = (result_pixels(wide) != photo).any(axis=-1)
    near = np.asarray(Image.fromarray(painted).resize(size, Image.Resampling.NEAREST))
    assert changed[near].mean() > 0.5 and not changed[:1000].any() and not changed[-1000:].any()
    press(wide, "Keep")
    expect(wide.locator(".sp")).to_have_attribute("data-shown", sent_value(wide)["image"])
    press(wide, "Upper half")
    wide.reload()
    expect(wide.locator("#image-size")).to_have_text("4000 × 3000 pixels")
    assert mask(wide)[:384].all() and not mask(wide)[384:].any()
    assert ((pixels(Path(sent_value(wide)["image"])) != photo).any(axis=-1) == changed).all()
