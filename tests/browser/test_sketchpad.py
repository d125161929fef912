"""The sketchpad in Chromium: tools, undo, keys, fingers, strength, the wand; uploads and links."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from page_object import PIPELINE, TOUCH, PageObject, Site, Windows, pixels
from PIL import Image
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def edited_mask(page: PageObject) -> np.ndarray:
    """The mask that an edit of what is on the page gets, uint8 [H, W]; it must be the one that is shown."""
    shown, before = page.mask(), len(PIPELINE.edits)
    page.edit()
    got = np.asarray(PIPELINE.edits[before][1])
    assert np.array_equal(got, shown)
    return got


def test_tools_paint_what_they_are_drawn_over(wide: PageObject) -> None:
    wide.choose_second_example()

    def draw(key: str, *points: tuple[float, float]) -> np.ndarray:
        wide.keyboard.press(key)
        wide.drag(*((x / 48, y / 40) for x, y in points))
        return wide.mask()

    painted = draw("r", (12.5, 10.5), (23.5, 29.5))
    assert (painted[10:30, 12:24] == 255).all() and painted.sum() == 20 * 12 * 255
    erased = draw("e", (14, 20), (21, 20))
    assert (erased <= painted).all() and not erased[20, 16] and erased[11, 13]
    wide.press("Clear mask")
    triangle = draw("l", (24, 4), (43, 36), (5, 36))
    assert triangle[30, 24] and not triangle[6, 4] and 0.25 < (triangle > 0).mean() < 0.4


def test_enter_edits_and_what_is_painted_during_a_run_or_beside_the_wipe_is_kept(wide: PageObject) -> None:
    before = wide.mask()
    wide.prompt.fill("sunglasses")
    wide.prompt.press("b")
    wide.prompt.press("Enter")
    wide.expect_finished()
    assert (wide.mask() == before).all() and wide.prompt.input_value() == "sunglassesb"
    knob = wide.compare_handle
    wide.mouse.move(*wide.middle(8, of=knob))
    wide.mouse.down()
    wide.mouse.move(*wide.middle(200, 20, of=knob), steps=3)
    wide.mouse.up()
    assert int(knob.get_attribute("aria-valuenow") or 0) > 10
    wide.expect_review("finished")
    wide.press("Discard")
    # A stroke that still goes on is edited.
    asked = len(PIPELINE.edits)
    wide.press("Clear mask")
    wide.begin_stroke(dx=15)
    wide.click("Edit")
    wide.expect_finished()
    painted = wide.mask()
    assert (np.asarray(PIPELINE.edits[asked][1]) == painted).all() and painted.any()
    wide.mouse.up()
    # The last mask comes back after Keep.
    wide.press("Keep")
    assert not wide.mask().any()
    wide.canvas.focus()
    wide.keyboard.press("m")
    assert np.array_equal(edited_mask(wide), painted)


def test_images_and_masks_are_uploaded(wide: PageObject, tmp_path: Path) -> None:
    painted = Image.new("L", (80, 80))
    painted.paste(255, (20, 20, 60, 40))
    for mask, note in ((painted, ""), (Image.new("L", (100, 20), 255), "same shape")):
        mask.save(tmp_path / "mask.png")
        wide.get_by_label("Mask image", exact=True).set_input_files(tmp_path / "mask.png")
        wide.expect_painted(8)
        expect(wide.note).to_contain_text(note)
    # What the server does not read, the browser turns into a PNG.
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.gif")
    wide.upload(tmp_path / "red.gif", (50, 40))
    with Image.open(wide.image()) as sent:
        assert sent.format == "PNG" and sent.convert("RGB").getpixel((9, 9)) == (255, 0, 0)


def test_one_finger_paints_and_two_zoom(windows: Windows, site: Site) -> None:
    with windows.open(site.url, **TOUCH) as phone:
        phone.press("Clear mask")
        phone.set_strength(40)
        phone.evaluate("scrollTo(0, 0)")
        whole = phone.view()["scale"]
        phone.touch("touchStart", phone.middle(-30))
        phone.touch("touchStart", phone.middle(-30), phone.middle(30))
        phone.touch("touchMove", phone.middle(-90), phone.middle(90))
        phone.touch("touchEnd")
        phone.wait_until(lambda: phone.view()["scale"] > 1.5 * whole)
        assert not phone.mask().any(), "two fingers painted"
        phone.touch("touchStart", phone.middle(-30))
        phone.touch("touchMove", phone.middle(30, 15))
        phone.touch("touchEnd")
        phone.wait_until(lambda: phone.sent_value()["mask"] != "")
        assert phone.mask()[20, 20]
        assert set(np.unique(edited_mask(phone))) == {0, 102}


def test_a_soft_brush_paints_its_strength_which_is_what_runs(wide: PageObject) -> None:
    wide.press("Clear mask")
    wide.canvas.focus()
    for key in "{{{{}":
        wide.keyboard.press(key)
    expect(wide.strength).to_have_attribute("aria-valuetext", "70 %")
    wide.paint()
    soft = wide.mask()
    assert set(np.unique(soft)) == {0, 179} and soft[20, 20]
    opacity = "pad.canvas.overlay.getContext('2d').getImageData(20, 20, 1, 1).data[3]"
    weak = wide.pad(opacity)
    wide.set_strength(100)
    wide.drag((0.5, 0.5), (0.52, 0.52))
    assert wide.pad(opacity) > 1.3 * weak
    wide.press("Grow")
    assert set(np.unique(edited_mask(wide))) == {0, 179, 255}
    wide.press("Discard")
    wide.set_strength(50)
    wide.press("Border")
    assert set(np.unique(wide.mask())) == {0, 128}


def test_a_link_brings_image_mask_words_and_settings(windows: Windows, site: Site, gradients: Path) -> None:
    with windows.open(site.url) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.upload(gradients, (64, 32))
        page.press("Left half")
        page.prompt.fill("red hair")
        page.settings.click()
        page.seed.fill("77")
        page.choose_mode("Remove")
        page.press("Copy a link")
        expect(page.note).to_contain_text("The link is copied")
        link, painted = page.evaluate("navigator.clipboard.readText()"), page.mask()
    with windows.open(site.url) as page:
        page.goto("about:blank")
        page.goto(link)
        expect(page.image_size).to_have_text("64 × 32 pixels")
        expect(page.prompt).to_have_value("red hair")
        expect(page.get_by_role("radio", name="Remove")).to_be_checked()
        assert page.sent_value()["mode"] == "remove"
        expect(page.messages).to_contain_text("This link's image")
        assert (page.mask() == painted).all() and (pixels(page.image()) == pixels(gradients)).all()
        page.settings.click()
        expect(page.seed).to_have_value("77")
        expect(page.new_seed).not_to_be_checked()
        assert "share" not in page.url
        page.goto("about:blank")
        page.goto(link[:-20])
        page.wait_until_ready()
        expect(page.note).to_contain_text("This link cannot be read")


IN_RED, IN_GREEN = (20.5 / 60, 20.5 / 40), (43.5 / 60, 8.5 / 40)
RED, GREEN = np.zeros((2, 40, 60), np.uint8)
RED[8:32, 10:30] = GREEN[3:15, 38:50] = 255


def take_wand(page: PageObject, path: Path) -> None:
    """To an image of a red and a green rectangle."""
    image = np.full((40, 60, 3), (200, 220, 250), np.uint8)
    image[RED > 0], image[GREEN > 0] = (220, 60, 60), (40, 150, 80)
    Image.fromarray(image).save(path)
    page.upload(path, (60, 40))
    page.wait_until(lambda: page.pad("pad.canvas.bitmap !== null"))
    page.press("Magic wand")


def selected(page: PageObject, *areas: np.ndarray) -> bool:
    """Whether it is these areas, each with its edge."""
    edged = [cv2.dilate(area, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) for area in areas]
    return np.array_equal(page.mask() > 0, np.any(edged, axis=0))


def test_the_wand_selects_a_color_by_mouse_and_keys(wide: PageObject, tmp_path: Path) -> None:
    take_wand(wide, tmp_path / "colors.png")
    wide.drag(IN_RED)
    assert selected(wide, RED)
    for key, place, wanted in (("Shift", IN_GREEN, [RED, GREEN]), ("Alt", IN_RED, [GREEN])):
        wide.keyboard.down(key)
        wide.drag(place)
        wide.keyboard.up(key)
        assert selected(wide, *wanted)
    wide.canvas.focus()
    for key in ("ArrowLeft",) * 3 + ("ArrowUp",) * 3 + ("Enter",):
        wide.keyboard.press(key)
    assert selected(wide, RED)
    wide.edit()
    wide.get_by_role("slider", name="Tolerance").fill("100")
    wide.drag(IN_GREEN)  # on the result, which is kept
    wide.wait_until(lambda: bool(wide.sent_value()["mask"]))
    wide.expect_review("")
    assert wide.mask().all()


def test_a_finger_adds_a_color_and_takes_it_away(windows: Windows, site: Site, tmp_path: Path) -> None:
    with windows.open(site.url, **TOUCH) as phone:
        take_wand(phone, tmp_path / "colors.png")
        phone.evaluate("scrollTo(0, 0)")
        for place, wanted in ((IN_RED, [RED]), (IN_GREEN, [RED, GREEN]), (IN_RED, [GREEN])):
            phone.touch("touchStart", phone.place(place))
            phone.touch("touchEnd")
            assert selected(phone, *wanted)
