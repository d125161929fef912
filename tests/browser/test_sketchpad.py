"""The sketchpad in Chromium: tools, ready masks, undo, zoom, keys, fingers, strength, the wand; uploads and links."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from page_object import PIPELINE, TOUCH, Fingers, PageObject, Site, Windows, gradient_image, pixels, preset_mask
from PIL import Image
from playwright.sync_api import expect

from imagebart.imaging.masks import load_mask
from imagebart.ui.files import scale_mask, view_size

pytestmark = pytest.mark.browser


def edited_mask(page: PageObject) -> np.ndarray:
    """The mask that an edit of what is on the page gets, uint8 [H, W]; it must be the one that is shown."""
    shown, before = page.mask(), len(PIPELINE.edits)
    page.edit()
    got = np.asarray(PIPELINE.edits[before][1])
    assert np.array_equal(got, shown)
    return got


def test_tools_paint_what_they_are_drawn_over_and_undo_walks_through_all(wide: PageObject) -> None:
    wide.choose_second_example()
    seen = [wide.mask()]

    def draw(key: str, *points: tuple[float, float]) -> np.ndarray:
        wide.keyboard.press(key)
        wide.drag(*((x / 48, y / 40) for x, y in points))
        seen.append(wide.mask())
        return seen[-1]

    painted = draw("r", (12.5, 10.5), (23.5, 29.5))
    assert (painted[10:30, 12:24] == 255).all() and painted.sum() == 20 * 12 * 255
    erased = draw("e", (14, 20), (21, 20))
    assert (erased <= painted).all() and not erased[20, 16] and erased[11, 13]
    wide.press("Clear mask")
    seen.append(wide.mask())
    triangle = draw("l", (24, 4), (43, 36), (5, 36))
    assert triangle[30, 24] and not triangle[6, 4] and 0.25 < (triangle > 0).mean() < 0.4
    wide.press("Clear mask")
    seen.append(wide.mask())
    for _ in range(20):
        wide.keyboard.press("[")
    assert (draw("b", (24.5, 20.5), (24.5, 20.5)) > 0).sum() == 1, "the smallest brush paints one pixel"
    for before in reversed(seen[:-1]):
        wide.keyboard.press("Control+z")
        assert (wide.mask() == before).all()
    for after in seen[1:]:
        wide.keyboard.press("Control+Shift+Z")
        assert (wide.mask() == after).all()


def test_a_ready_mask_is_seen_and_strokes_on_a_moved_and_zoomed_image_are_where_they_were_drawn(
    wide: PageObject,
) -> None:
    wide.press("Border")
    wide.wait_until_ready()
    wide.mouse.move(0, 0)
    wide.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    view = wide.view()
    screen = pixels(wide.canvas().screenshot())
    at = [np.rint((np.arange(40) + 0.5) * view["scale"] + view[axis]).astype(int) for axis in "yx"]
    blue = screen[np.ix_(*at)][..., 2].astype(int)  # 0 in this image, and 113 in the brush
    assert ((blue > 40) == (preset_mask("border", (40, 40)) > 0)).all()
    wide.press("Clear mask")
    wide.canvas().hover()
    wide.mouse.wheel(0, -300)
    wide.wait_until(lambda: wide.view()["scale"] > 1.5 * view["scale"])
    wide.keyboard.press("ArrowLeft")
    assert wide.view()["x"] != view["x"]
    wide.keyboard.press("r")
    wide.drag((18.5 / 40, 16.5 / 40), (23.5 / 40, 21.5 / 40))
    assert wide.mask()[16:22, 18:24].all() and (wide.mask() > 0).sum() == 36
    wide.keyboard.press("0")
    assert wide.view() == view


def test_enter_edits_and_what_is_painted_during_a_run_or_beside_the_wipe_is_kept(wide: PageObject) -> None:
    prompt, before = wide.prompt(), wide.mask()
    prompt.fill("sunglasses")
    prompt.press("b")
    prompt.press("Enter")
    wide.expect_finished()
    wide.expect_review("finished")
    assert (wide.mask() == before).all() and prompt.input_value() == "sunglassesb"
    before = wide.result_pixels()
    knob = wide.locator(".sp-slider").bounding_box()
    assert knob is not None
    wide.mouse.move(knob["x"] + knob["width"] / 2 + 8, knob["y"] + knob["height"] / 2)
    wide.mouse.down()
    wide.mouse.move(knob["x"] + 200, knob["y"] + 20, steps=3)
    wide.mouse.up()
    split = wide.get_by_role("slider", name="Before and after").get_attribute("aria-valuenow")
    assert int(split or 0) > 10 and (wide.result_pixels() == before).all()
    wide.press("Discard")
    # A stroke that still goes on is edited.
    asked = len(PIPELINE.edits)
    wide.press("Clear mask")
    wide.begin_stroke(dx=15)
    wide.click("Edit")
    wide.expect_review("finished")
    assert (np.asarray(PIPELINE.edits[asked][1]) == wide.mask()).all() and wide.mask().any()
    wide.mouse.up()
    # The last mask comes back after Keep.
    painted = wide.mask()
    wide.press("Keep")
    assert not wide.mask().any()
    wide.canvas().focus()
    wide.keyboard.press("m")
    assert np.array_equal(edited_mask(wide), painted)


def test_images_and_masks_are_uploaded(wide: PageObject, tmp_path: Path) -> None:
    painted = Image.new("L", (80, 80))
    painted.paste(255, (20, 20, 60, 40))
    mask_file = wide.get_by_label("Mask image", exact=True)
    for mask, note in ((painted, ""), (Image.new("L", (100, 20), 255), "same shape")):
        mask.save(tmp_path / "mask.png")
        mask_file.set_input_files(tmp_path / "mask.png")
        wide.expect_painted(8)
        expect(wide.note).to_contain_text(note)
        assert wide.mask()[10:20, 10:30].all() and (wide.mask() > 0).sum() == 200
    # What the model will regenerate is shown, also of an image that is too large for the canvas.
    image = gradient_image((700, 1300), 100)
    image.save(tmp_path / "large.png")
    wide.upload(tmp_path / "large.png", (700, 1300))
    wide.paint(down=40)
    found = wide.fitted_mask()
    fitted = PIPELINE.fit_mask(image, load_mask(Image.fromarray(wide.mask()), image.size), "a hat").mask
    assert np.array_equal(found, np.asarray(scale_mask(fitted, view_size(image.size))) > 0)
    # What the server does not read, the browser turns into a PNG.
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.gif")
    wide.upload(tmp_path / "red.gif", (50, 40))
    with Image.open(wide.sent_value()["image"]) as sent:
        assert sent.format == "PNG" and sent.convert("RGB").getpixel((9, 9)) == (255, 0, 0)


def test_one_finger_paints_and_two_zoom(windows: Windows, site: Site) -> None:
    with windows.open(site.url, **TOUCH) as phone:
        phone.press("Clear mask")
        phone.get_by_role("slider", name="Strength").fill("40")
        phone.evaluate("scrollTo(0, 0)")
        whole, fingers = phone.view()["scale"], Fingers(phone)
        fingers.touch("touchStart", (0.4, 0.5))
        fingers.touch("touchStart", (0.4, 0.5), (0.6, 0.5))
        fingers.touch("touchMove", (0.2, 0.5), (0.8, 0.5))
        fingers.touch("touchEnd")
        phone.wait_until(lambda: phone.view()["scale"] > 1.5 * whole)
        assert not phone.mask().any(), "two fingers painted"
        fingers.touch("touchStart", (0.4, 0.5))
        fingers.touch("touchMove", (0.6, 0.55))
        fingers.touch("touchEnd")
        phone.wait_until(lambda: phone.sent_value()["mask"] != "")
        assert phone.mask()[20, 20]
        assert set(np.unique(edited_mask(phone))) == {0, 102}


def test_a_link_brings_image_mask_words_and_settings(windows: Windows, site: Site, gradients: Path) -> None:
    with windows.open(site.url) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.upload(gradients, (64, 32))
        page.press("Left half")
        page.type_prompt("red hair")
        page.unfold("Settings")
        page.seed.fill("77")
        page.choose_mode("Remove")
        page.press("Copy a link to this")
        expect(page.note).to_contain_text("The link is copied")
        link, painted = page.evaluate("navigator.clipboard.readText()"), page.mask()
    with windows.open(site.url) as page:
        page.goto("about:blank")
        page.goto(link)
        expect(page.image_size).to_have_text("64 × 32 pixels")
        expect(page.prompt()).to_have_value("red hair")
        expect(page.get_by_label("What Edit does")).to_have_value("remove")
        assert page.sent_value()["mode"] == "remove"
        expect(page.messages).to_contain_text("This link's image")
        assert (page.mask() == painted).all()
        assert (pixels(Path(page.sent_value()["image"])) == pixels(gradients)).all()
        page.unfold("Settings")
        expect(page.seed).to_have_value("77")
        expect(page.new_seed).not_to_be_checked()
        assert "share" not in page.url
        page.goto("about:blank")
        page.goto(link[:-20])
        page.wait_until_ready()
        expect(page.note).to_contain_text("This link cannot be read")


def test_a_soft_brush_paints_its_strength_which_is_what_runs(wide: PageObject) -> None:
    wide.press("Clear mask")
    wide.canvas().focus()
    for key in "{{{{}":
        wide.keyboard.press(key)
    strength = wide.get_by_role("slider", name="Strength")
    expect(strength).to_have_attribute("aria-valuetext", "70 %")
    wide.paint()
    soft = wide.mask()
    assert set(np.unique(soft)) == {0, 179} and soft[20, 20]
    opacity = "pad.canvas.overlay.getContext('2d').getImageData(20, 20, 1, 1).data[3]"
    weak = wide.pad(opacity)
    strength.fill("100")
    wide.drag((0.5, 0.5), (0.52, 0.52))
    assert wide.pad(opacity) > 1.3 * weak
    wide.press("Grow")
    assert set(np.unique(edited_mask(wide))) == {0, 179, 255}
    wide.press("Discard")
    strength.fill("50")
    wide.press("Border")
    assert set(np.unique(wide.mask())) == {0, 128}


def test_the_wand_selects_a_color_by_mouse_keys_and_finger(
    wide: PageObject, windows: Windows, site: Site, tmp_path: Path
) -> None:
    image = Image.new("RGB", (60, 40), (200, 220, 250))
    image.paste((220, 60, 60), (10, 8, 30, 32))
    image.paste((40, 150, 80), (38, 3, 50, 15))
    image.save(tmp_path / "colors.png")
    red, green = np.zeros((2, 40, 60), np.uint8)
    red[8:32, 10:30] = green[3:15, 38:50] = 255

    def open_image(page: PageObject) -> None:
        page.upload(tmp_path / "colors.png", (60, 40))
        page.wait_until(lambda: page.pad("pad.canvas.bitmap !== null"))
        page.press("Magic wand")

    def selected(page: PageObject, *areas: np.ndarray) -> bool:
        """Whether it is these areas, each with its edge."""
        edged = [cv2.dilate(area, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) for area in areas]
        return np.array_equal(page.mask() > 0, np.any(edged, axis=0))

    open_image(wide)
    in_red, in_green = (20.5 / 60, 20.5 / 40), (43.5 / 60, 8.5 / 40)
    wide.drag(in_red)
    assert selected(wide, red)
    with wide.keyboard_held("Shift"):
        wide.drag(in_green)
    assert selected(wide, red, green)
    with wide.keyboard_held("Alt"):
        wide.drag(in_red)
    assert selected(wide, green)
    wide.canvas().focus()
    for key in ("ArrowLeft",) * 3 + ("ArrowUp",) * 3 + ("Enter",):
        wide.keyboard.press(key)
    assert selected(wide, red)
    wide.edit()
    wide.get_by_role("slider", name="Tolerance").fill("100")
    wide.drag(in_green)  # on the result, which is kept
    wide.wait_until(lambda: bool(wide.sent_value()["mask"]))
    wide.expect_review("")
    assert wide.mask().all()
    with windows.open(site.url, **TOUCH) as phone:
        open_image(phone)
        phone.evaluate("scrollTo(0, 0)")
        fingers = Fingers(phone)
        for (x, y), wanted in ((in_red, [red]), (in_green, [red, green]), (in_red, [green])):
            view, (_, _, width, height) = phone.view(), phone.canvas_box()
            place = view["x"] + x * 60 * view["scale"], view["y"] + y * 40 * view["scale"]
            fingers.touch("touchStart", (place[0] / width, place[1] / height))
            fingers.touch("touchEnd")
            assert selected(phone, *wanted)
