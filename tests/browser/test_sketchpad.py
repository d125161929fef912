"""The sketchpad in Chromium: tools, ready masks, undo, zoom, keys, fingers; and the grid of tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from driving import (
    PHONE,
    PIPELINE,
    WIDE,
    Site,
    canvas,
    choose_second_example,
    edit,
    expect_regenerated,
    gradient_image,
    grid_cells,
    mask,
    open_page,
    paint,
    pixels,
    press,
    result_pixels,
    sent_value,
    type_prompt,
    unfold,
    upload,
    wait_until,
    wait_until_ready,
)
from morphology import grow
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from imagebart.imaging import masks
from imagebart.ui.sketchpad.component import unpack_mask

pytestmark = pytest.mark.browser
COPIES = ["clipboard-read", "clipboard-write"]


def drag(page: Page, start: tuple[float, float], *points: tuple[float, float]) -> None:
    """Drag over the picture; places are shares of its width and height."""
    view = page.evaluate("(({ view, size }) => ({ ...view, ...size }))(document.querySelector('.sp').sketchpad.canvas)")
    box = canvas(page).bounding_box()
    assert box is not None

    def place(at: tuple[float, float]) -> tuple[float, float]:
        x, y = at[0] * view["width"] * view["scale"], at[1] * view["height"] * view["scale"]
        return box["x"] + view["x"] + x, box["y"] + view["y"] + y

    page.mouse.move(*place(start))
    page.mouse.down()
    for point in points:
        page.mouse.move(*place(point), steps=4)
    page.mouse.up()


def test_tools_paint_what_they_are_drawn_over(wide: Page) -> None:
    choose_second_example(wide)
    wide.keyboard.press("r")
    drag(wide, (12.5 / 48, 10.5 / 40), (23.5 / 48, 29.5 / 40))
    painted = mask(wide)
    assert painted.shape == (40, 48) and (painted[10:30, 12:24] == 255).all() and painted.sum() == 20 * 12 * 255
    wide.keyboard.press("e")
    drag(wide, (0.3, 0.5), (0.45, 0.5))
    erased = mask(wide)
    assert (erased <= painted).all() and not erased[20, 16] and erased[11, 13]
    press(wide, "Clear mask")
    press(wide, "Lasso")
    drag(wide, (0.5, 0.1), (0.9, 0.9), (0.1, 0.9))
    triangle = mask(wide)
    assert triangle[30, 24] and not triangle[6, 4] and 0.25 < (triangle > 0).mean() < 0.4
    press(wide, "Clear mask")
    wide.keyboard.press("b")
    for _ in range(20):
        wide.keyboard.press("[")
    drag(wide, (24.5 / 48, 20.5 / 40), (24.5 / 48, 20.5 / 40))
    assert (mask(wide) > 0).sum() == 1, "the smallest brush paints one pixel"


def test_one_paints_on_a_result_right_beside_the_wipe(wide: Page) -> None:
    edit(wide)
    wide.keyboard.press("r")
    drag(wide, (0.5 / 40, 0.5 / 40), (3.5 / 40, 4.5 / 40))
    painted = mask(wide)
    assert (painted[:5, :4] == 255).all() and (painted > 0).sum() == 20
    edit(wide)
    before = result_pixels(wide)
    knob = wide.locator(".sp-slider").bounding_box()
    assert knob is not None
    wide.mouse.move(knob["x"] + knob["width"] / 2 + 8, knob["y"] + knob["height"] / 2)
    wide.mouse.down()
    wide.mouse.move(knob["x"] + 200, knob["y"] + 20, steps=3)
    wide.mouse.up()
    split = wide.get_by_role("slider", name="Before and after").get_attribute("aria-valuenow")
    assert int(split or 0) > 10
    assert (mask(wide) == painted).all() and (result_pixels(wide) == before).all()


def test_ready_masks_are_there_at_once_and_are_what_is_redrawn(wide: Page) -> None:
    expect_regenerated(wide, 16)
    for name in masks.PRESETS:
        press(wide, name.capitalize())
        assert (mask(wide) == np.asarray(masks.preset(name, (40, 40)))).all(), name
    for name, count in {"Centre": 16, "Invert": 48, "Clear mask": None, "Upper half": 32}.items():
        press(wide, name)
        expect_regenerated(wide, count)
    press(wide, "Centre")
    press(wide, "Grow")
    assert (mask(wide) == np.asarray(grow(masks.preset("centre", (40, 40)), 1))).all()
    press(wide, "Shrink")
    assert (mask(wide) == np.asarray(masks.preset("centre", (40, 40)))).all()
    press(wide, "Clear mask")
    type_prompt(wide, "")  # words would say where
    press(wide, "Edit")
    expect(wide.locator("#messages")).to_contain_text("press one of the ready masks")


def test_undo_and_redo_walk_through_all_changes_and_pictures(wide: Page) -> None:
    seen = [mask(wide)]
    for act in (lambda: press(wide, "Left half"), lambda: paint(wide, 20), lambda: press(wide, "Invert")):
        act()
        seen.append(mask(wide))
    choose_second_example(wide)
    for before in reversed(seen):
        wide.keyboard.press("Control+z")
        assert (mask(wide) == before).all()
    expect(wide.get_by_role("button", name="Undo")).to_be_disabled()
    for after in seen[1:]:
        wide.keyboard.press("Control+Shift+Z")
        assert (mask(wide) == after).all()
    wide.keyboard.press("Control+y")
    assert mask(wide).shape == (40, 48)


def test_what_is_seen_is_what_is_painted(wide: Page) -> None:
    wide.get_by_role("checkbox", name="Show the tokens").uncheck()
    for name in ("Left half", "Border"):
        press(wide, name)
        wide.mouse.move(0, 0)
        wide.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        view = wide.evaluate("document.querySelector('.sp').sketchpad.canvas.view")
        screen = pixels(canvas(wide).screenshot())
        at = [np.rint((np.arange(40) + 0.5) * view["scale"] + view[axis]).astype(int) for axis in "yx"]
        blue = screen[np.ix_(*at)][..., 2].astype(int)  # 0 in this picture, and 113 in the brush
        assert ((blue > 40) == (np.asarray(masks.preset(name.lower(), (40, 40))) > 0)).all()


def test_the_grid_shows_what_the_model_will_redraw(wide: Page, tmp_path: Path) -> None:
    for size in ((48, 40), (90, 61), (700, 1300)):
        image = gradient_image(size, 100)
        path = tmp_path / f"{size[0]}.png"
        image.save(path)
        upload(wide, path, size)
        expect_regenerated(wide, None)
        paint(wide, down=40)
        found = grid_cells(wide)
        value = sent_value(wide)
        shape = masks.load_mask(Image.fromarray(mask(wide)), size)
        assert tuple(value["size"]) == size
        wanted = PIPELINE.region(size, shape).regenerated
        assert found == "".join(str(int(value)) for value in wanted.flatten())


def test_zoom_and_move_by_wheel_and_keys(wide: Page) -> None:
    scale = "document.querySelector('.sp').sketchpad.canvas.view.scale"
    whole = wide.evaluate(scale)
    canvas(wide).hover()
    wide.mouse.wheel(0, -300)
    wide.wait_for_function(f"whole => {scale} > 1.5 * whole", arg=whole)
    press(wide, "Clear mask")
    paint(wide)
    assert mask(wide)[20, 20], "the middle is still under the pointer"
    wide.keyboard.press("0")
    assert wide.evaluate(scale) == whole
    wide.keyboard.press("+")
    assert wide.evaluate(scale) > whole
    wide.keyboard.press("-")
    assert wide.evaluate(scale) == pytest.approx(whole)


def test_keys_are_listed_and_enter_edits(wide: Page) -> None:
    wide.keyboard.press("?")
    expect(wide.get_by_role("dialog", name="Keys")).to_contain_text("undo, redo")
    wide.keyboard.press("Escape")
    expect(wide.get_by_role("dialog", name="Keys")).to_be_hidden()
    prompt = wide.get_by_label("What should be there?").first
    before = mask(wide)
    prompt.fill("sunglasses")
    prompt.press("b")
    prompt.press("Enter")
    expect(wide.locator("#progress")).to_contain_text("Done in")
    assert (mask(wide) == before).all() and prompt.input_value() == "sunglassesb"


class Fingers:
    """Fingers on the canvas of a page; places are shares of its width and height."""

    def __init__(self, page: Page) -> None:
        self.page = page
        # One for all: fingers are lifted when their session ends.
        self.session = page.context.new_cdp_session(page)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        box = canvas(self.page).bounding_box()
        assert box is not None
        places = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"], "id": number}
            for number, (x, y) in enumerate(points)
        ]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})


def test_one_finger_paints_and_two_zoom(chromium: Browser, site: Site) -> None:
    with open_page(chromium, site.url, viewport=PHONE, has_touch=True, is_mobile=True) as phone:
        press(phone, "Clear mask")
        phone.evaluate("scrollTo(0, 0)")
        scale = "document.querySelector('.sp').sketchpad.canvas.view.scale"
        whole = phone.evaluate(scale)
        fingers = Fingers(phone)
        fingers.touch("touchStart", (0.4, 0.5))
        fingers.touch("touchStart", (0.4, 0.5), (0.6, 0.5))
        fingers.touch("touchMove", (0.2, 0.5), (0.8, 0.5))
        fingers.touch("touchEnd")
        phone.wait_for_function(f"whole => {scale} > 1.5 * whole", arg=whole)
        assert not mask(phone).any(), "two fingers painted"
        fingers.touch("touchStart", (0.4, 0.5))
        fingers.touch("touchMove", (0.6, 0.55))
        fingers.touch("touchEnd")
        wait_until(phone, lambda: sent_value(phone)["mask"] != "")
        assert mask(phone)[20, 20]


def test_a_mask_is_loaded_and_the_last_one_used_again(wide: Page, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    painted = Image.new("L", (80, 80))
    painted.paste(255, (20, 20, 60, 40))
    painted.save(path)
    wide.get_by_label("Mask image", exact=True).set_input_files(path)
    expect_regenerated(wide, 8)
    assert mask(wide)[10:20, 10:30].all() and (mask(wide) > 0).sum() == 200
    edit(wide)
    press(wide, "Discard")
    press(wide, "Clear mask")
    press(wide, "Last mask")
    assert (mask(wide) > 0).sum() == 200
    Image.new("L", (100, 20), 255).save(path)
    wide.get_by_label("Mask image", exact=True).set_input_files(path)
    expect(wide.locator(".sp-note")).to_contain_text("same shape")
    press(wide, "Upper half")
    expect(wide.locator(".sp-note")).to_be_empty()


def test_a_bad_upload_is_said_and_a_good_one_is_kept_to_the_pixel(wide: Page, tmp_path: Path) -> None:
    words, turned = tmp_path / "words.png", tmp_path / "turned.png"
    words.write_text("not a picture")
    upright = gradient_image((90, 61), 120)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side; to be shown turned by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    wide.get_by_label("Image to paint on", exact=True).set_input_files(words)
    expect(wide.locator(".sp-note")).to_contain_text("we can read")
    wait_until_ready(wide)
    upload(wide, turned, (90, 61))
    press(wide, "Centre")
    painted = np.asarray(unpack_mask(sent_value(wide)["mask"], (90, 61))) > 0
    edit(wide)
    after, before = result_pixels(wide), np.asarray(upright)
    changed = (after != before).any(axis=-1)
    assert changed[painted].mean() > 0.5 and not changed[~painted].any()


def test_a_link_brings_picture_mask_words_and_settings(chromium: Browser, site: Site, gradients: Path) -> None:
    with open_page(chromium, site.url, viewport=WIDE, permissions=COPIES) as page:
        upload(page, gradients, (64, 32))
        press(page, "Left half")
        type_prompt(page, "red hair")
        unfold(page, "Settings")
        page.locator("#seed input").fill("77")
        press(page, "Copy a link to this")
        expect(page.locator(".sp-note")).to_contain_text("The link is copied")
        link, painted = page.evaluate("navigator.clipboard.readText()"), mask(page)
    with open_page(chromium, site.url, viewport=WIDE) as page:
        page.goto("about:blank")
        page.goto(link)
        expect(page.locator("#image-size")).to_have_text("64 × 32 pixels")
        expect(page.get_by_label("What should be there?").first).to_have_value("red hair")
        expect(page.locator("#messages")).to_contain_text("This link's image")
        assert (mask(page) == painted).all()
        assert (pixels(Path(sent_value(page)["image"])) == pixels(gradients)).all()
        unfold(page, "Settings")
        expect(page.locator("#seed input")).to_have_value("77")
        expect(page.get_by_label("New seed each time")).not_to_be_checked()
        assert "share" not in page.url
        page.goto("about:blank")
        page.goto(link[:-20])
        wait_until_ready(page)
        expect(page.locator(".sp-note")).to_contain_text("This link cannot be read")


def test_a_stroke_that_still_goes_on_is_edited(wide: Page) -> None:
    asked = len(PIPELINE.edits)
    press(wide, "Clear mask")
    box = canvas(wide).bounding_box()
    assert box is not None
    wide.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    wide.mouse.down()
    wide.mouse.move(box["x"] + box["width"] / 2 + 30, box["y"] + box["height"] / 2)
    wide.get_by_role("button", name="Edit", exact=True).evaluate("button => button.click()")
    expect(wide.locator(".sp")).to_have_attribute("data-review", "finished")
    assert (np.asarray(PIPELINE.edits[asked][1]) == mask(wide)).all() and mask(wide).any()
    wide.mouse.up()
