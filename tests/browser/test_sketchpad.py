"""The sketchpad in Chromium: tools, ready masks, undo, zoom, keys, fingers, strength, the wand; the grid of tokens."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from morphology import grow
from page_object import PHONE, PIPELINE, TOUCH, Fingers, PageObject, Site, Windows, gradient_image, pixels
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from imagebart.imaging import masks
from imagebart.ui.files import scale_mask, view_size

pytestmark = pytest.mark.browser


def test_undo_walks_through_all_changes_and_tools_paint_what_they_are_drawn_over(wide: PageObject) -> None:
    seen = [wide.mask()]
    for act in (lambda: wide.press("Left half"), lambda: wide.paint(20), lambda: wide.press("Invert")):
        act()
        seen.append(wide.mask())
    wide.choose_second_example()
    for before in reversed(seen):
        wide.keyboard.press("Control+z")
        assert (wide.mask() == before).all()
    expect(wide.get_by_role("button", name="Undo")).to_be_disabled()
    for after in seen[1:]:
        wide.keyboard.press("Control+Shift+Z")
        assert (wide.mask() == after).all()
    wide.keyboard.press("Control+y")
    assert wide.mask().shape == (40, 48)
    wide.press("Clear mask")
    wide.keyboard.press("r")
    wide.drag((12.5 / 48, 10.5 / 40), (23.5 / 48, 29.5 / 40))
    painted = wide.mask()
    assert painted.shape == (40, 48) and (painted[10:30, 12:24] == 255).all() and painted.sum() == 20 * 12 * 255
    wide.keyboard.press("e")
    wide.drag((0.3, 0.5), (0.45, 0.5))
    erased = wide.mask()
    assert (erased <= painted).all() and not erased[20, 16] and erased[11, 13]
    wide.press("Clear mask")
    wide.press("Lasso")
    wide.drag((0.5, 0.1), (0.9, 0.9), (0.1, 0.9))
    triangle = wide.mask()
    assert triangle[30, 24] and not triangle[6, 4] and 0.25 < (triangle > 0).mean() < 0.4
    wide.press("Clear mask")
    wide.keyboard.press("b")
    for _ in range(20):
        wide.keyboard.press("[")
    wide.drag((24.5 / 48, 20.5 / 40), (24.5 / 48, 20.5 / 40))
    assert (wide.mask() > 0).sum() == 1, "the smallest brush paints one pixel"


def test_ready_masks_are_there_at_once_seen_and_what_is_regenerated(wide: PageObject) -> None:
    wide.expect_painted(16)
    for name in masks.PRESETS:
        wide.press(name.capitalize())
        assert (wide.mask() == np.asarray(masks.preset(name, (40, 40)))).all(), name
    for name, count in {"Centre": 16, "Invert": 48, "Clear mask": 0, "Upper half": 32}.items():
        wide.press(name)
        wide.expect_painted(count)
    wide.press("Centre")
    wide.press("Grow")
    assert (wide.mask() == np.asarray(grow(masks.preset("centre", (40, 40)), 1))).all()
    wide.press("Shrink")
    assert (wide.mask() == np.asarray(masks.preset("centre", (40, 40)))).all()
    wide.press("Clear mask")
    wide.type_prompt("")  # words would say where
    wide.press("Edit")
    expect(wide.locator("#messages")).to_contain_text("or paint over what should change")
    # What is seen is what is painted.
    for name in ("Left half", "Border"):
        wide.press(name)
        wide.mouse.move(0, 0)
        wide.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        view = wide.evaluate("document.querySelector('.sp').sketchpad.canvas.view")
        screen = pixels(wide.canvas().screenshot())
        at = [np.rint((np.arange(40) + 0.5) * view["scale"] + view[axis]).astype(int) for axis in "yx"]
        blue = screen[np.ix_(*at)][..., 2].astype(int)  # 0 in this image, and 113 in the brush
        assert ((blue > 40) == (np.asarray(masks.preset(name.lower(), (40, 40))) > 0)).all()
    # Also where one has zoomed.
    scale = "document.querySelector('.sp').sketchpad.canvas.view.scale"
    whole = wide.evaluate(scale)
    wide.canvas().hover()
    wide.mouse.wheel(0, -300)
    wide.wait_for_function(f"whole => {scale} > 1.5 * whole", arg=whole)
    wide.press("Clear mask")
    wide.paint()
    assert wide.mask()[20, 20], "the middle is still under the pointer"
    wide.keyboard.press("0")
    assert wide.evaluate(scale) == whole
    wide.keyboard.press("+")
    assert wide.evaluate(scale) > whole
    wide.keyboard.press("-")
    assert wide.evaluate(scale) == pytest.approx(whole)


def test_enter_edits_and_what_is_painted_during_a_run_or_beside_the_wipe_is_kept(wide: PageObject) -> None:
    wide.keyboard.press("?")
    expect(wide.get_by_role("dialog", name="Keys")).to_contain_text("undo, redo")
    wide.keyboard.press("Escape")
    expect(wide.get_by_role("dialog", name="Keys")).to_be_hidden()
    prompt = wide.prompt()
    before = wide.mask()
    prompt.fill("sunglasses")
    prompt.press("b")
    prompt.press("Enter")
    expect(wide.locator("#progress")).to_contain_text("Done in")
    assert (wide.mask() == before).all() and prompt.input_value() == "sunglassesb"
    wide.expect_review("finished")
    wide.canvas().focus()
    wide.keyboard.press("r")
    wide.drag((0.5 / 40, 0.5 / 40), (3.5 / 40, 4.5 / 40))
    painted = wide.mask()
    assert (painted[:5, :4] == 255).all() and (painted > 0).sum() == 20
    wide.edit()
    before = wide.result_pixels()
    knob = wide.locator(".sp-slider").bounding_box()
    assert knob is not None
    wide.mouse.move(knob["x"] + knob["width"] / 2 + 8, knob["y"] + knob["height"] / 2)
    wide.mouse.down()
    wide.mouse.move(knob["x"] + 200, knob["y"] + 20, steps=3)
    wide.mouse.up()
    split = wide.get_by_role("slider", name="Before and after").get_attribute("aria-valuenow")
    assert int(split or 0) > 10
    assert (wide.mask() == painted).all() and (wide.result_pixels() == before).all()
    wide.press("Discard")
    # A stroke that still goes on is edited.
    asked = len(PIPELINE.edits)
    wide.press("Clear mask")
    wide.press("Brush")
    wide.begin_stroke(dx=15)
    wide.button("Edit").evaluate("button => button.click()")
    wide.expect_review("finished")
    assert (np.asarray(PIPELINE.edits[asked][1]) == wide.mask()).all() and wide.mask().any()
    wide.mouse.up()


def test_images_and_masks_are_uploaded(wide: PageObject, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    painted = Image.new("L", (80, 80))
    painted.paste(255, (20, 20, 60, 40))
    painted.save(path)
    wide.get_by_label("Mask image", exact=True).set_input_files(path)
    wide.expect_painted(8)
    assert wide.mask()[10:20, 10:30].all() and (wide.mask() > 0).sum() == 200
    wide.edit()
    wide.press("Discard")
    wide.press("Clear mask")
    wide.press("Last mask")
    assert (wide.mask() > 0).sum() == 200
    Image.new("L", (100, 20), 255).save(path)
    wide.get_by_label("Mask image", exact=True).set_input_files(path)
    expect(wide.locator(".sp-note")).to_contain_text("same shape")
    wide.press("Upper half")
    expect(wide.locator(".sp-note")).to_be_empty()
    # What the model will regenerate is shown, of images of any size.
    for size in ((48, 40), (90, 61), (700, 1300)):
        image = gradient_image(size, 100)
        path = tmp_path / f"{size[0]}.png"
        image.save(path)
        wide.upload(path, size)
        wide.expect_painted(0)
        wide.paint(down=40)
        found = wide.fitted_mask()
        shape = masks.load_mask(Image.fromarray(wide.mask()), size)
        fitted = PIPELINE.fit_mask(image, shape, "a hat").mask
        assert np.array_equal(found, np.asarray(scale_mask(fitted, view_size(size))) > 0)
    # What the server does not read, the browser turns into a PNG.
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.gif")
    wide.upload(tmp_path / "red.gif", (50, 40))
    with Image.open(wide.sent_value()["image"]) as sent:
        assert sent.format == "PNG" and sent.convert("RGB").getpixel((9, 9)) == (255, 0, 0)
    # A bad upload is said, and a good one is kept to the pixel.
    words, turned = tmp_path / "words.png", tmp_path / "turned.png"
    words.write_text("not an image")
    upright = gradient_image((90, 61), 120)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side; to be shown turned by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
    wide.get_by_label("Image to paint on", exact=True).set_input_files(words)
    expect(wide.locator(".sp-note")).to_contain_text("we can read")
    wide.wait_until_ready()
    wide.upload(turned, (90, 61))
    wide.press("Centre")
    painted = wide.fitted_mask()
    wide.edit()
    after, before = wide.result_pixels(), np.asarray(upright)
    changed = (after != before).any(axis=-1)
    assert changed[painted].mean() > 0.5 and not changed[~painted].any()


def test_one_finger_paints_and_two_zoom(windows: Windows, site: Site) -> None:
    with windows.open(site.url, viewport=PHONE, has_touch=True, is_mobile=True) as phone:
        phone.press("Clear mask")
        phone.evaluate("scrollTo(0, 0)")
        scale = "document.querySelector('.sp').sketchpad.canvas.view.scale"
        whole = phone.evaluate(scale)
        fingers = Fingers(phone)
        fingers.touch("touchStart", (0.4, 0.5))
        fingers.touch("touchStart", (0.4, 0.5), (0.6, 0.5))
        fingers.touch("touchMove", (0.2, 0.5), (0.8, 0.5))
        fingers.touch("touchEnd")
        phone.wait_for_function(f"whole => {scale} > 1.5 * whole", arg=whole)
        assert not phone.mask().any(), "two fingers painted"
        fingers.touch("touchStart", (0.4, 0.5))
        fingers.touch("touchMove", (0.6, 0.55))
        fingers.touch("touchEnd")
        phone.wait_until(lambda: phone.sent_value()["mask"] != "")
        assert phone.mask()[20, 20]


def test_a_link_brings_image_mask_words_and_settings(windows: Windows, site: Site, gradients: Path) -> None:
    with windows.open(site.url) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.upload(gradients, (64, 32))
        page.press("Left half")
        page.type_prompt("red hair")
        page.unfold("Settings")
        page.locator("#seed input").fill("77")
        page.choose_mode("Remove")
        page.press("Copy a link to this")
        expect(page.locator(".sp-note")).to_contain_text("The link is copied")
        link, painted = page.evaluate("navigator.clipboard.readText()"), page.mask()
    with windows.open(site.url) as page:
        page.goto("about:blank")
        page.goto(link)
        expect(page.locator("#image-size")).to_have_text("64 × 32 pixels")
        expect(page.prompt()).to_have_value("red hair")
        expect(page.get_by_label("What Edit does")).to_have_value("remove")
        assert page.sent_value()["mode"] == "remove"
        expect(page.locator("#messages")).to_contain_text("This link's image")
        assert (page.mask() == painted).all()
        assert (pixels(Path(page.sent_value()["image"])) == pixels(gradients)).all()
        page.unfold("Settings")
        expect(page.locator("#seed input")).to_have_value("77")
        expect(page.get_by_label("New seed each time")).not_to_be_checked()
        assert "share" not in page.url
        page.goto("about:blank")
        page.goto(link[:-20])
        page.wait_until_ready()
        expect(page.locator(".sp-note")).to_contain_text("This link cannot be read")


def edited_mask(page: PageObject) -> np.ndarray:
    """The mask that an edit of what is on the page gets, uint8 [H, W]; it must be the one that is shown."""
    shown, before = page.mask(), len(PIPELINE.edits)
    page.edit()
    got = np.asarray(PIPELINE.edits[before][1])
    assert np.array_equal(got, shown)
    return got


def test_a_soft_brush_paints_its_strength_which_is_what_runs(wide: PageObject, windows: Windows, site: Site) -> None:
    wide.press("Clear mask")
    wide.canvas().focus()
    for key in "{{{{}":
        wide.keyboard.press(key)
    strength = wide.get_by_role("slider", name="Strength")
    expect(strength).to_have_attribute("aria-valuetext", "70 %")
    wide.paint()
    soft = wide.mask()
    assert set(np.unique(soft)) == {0, 179} and soft[20, 20]
    opacity = (
        "document.querySelector('.sp').sketchpad.canvas.overlay.getContext('2d').getImageData(20, 20, 1, 1).data[3]"
    )
    weak = wide.evaluate(opacity)
    strength.focus()
    wide.keyboard.press("End")
    expect(strength).to_have_attribute("aria-valuetext", "100 %")
    wide.drag((0.5, 0.5), (0.52, 0.52))
    both = wide.mask()
    assert set(np.unique(both)) == {0, 179, 255} and wide.evaluate(opacity) > 1.3 * weak
    wide.press("Grow")
    wide.press("Shrink")
    assert set(np.unique(edited_mask(wide))) == {0, 179, 255}
    wide.press("Discard")
    after = wide.mask()
    wide.reload()
    wide.wait_until_ready()
    assert np.array_equal(wide.mask(), after)
    wide.get_by_role("slider", name="Strength").fill("50")
    wide.press("Border")
    assert set(np.unique(wide.mask())) == {0, 128}
    with windows.open(site.url, **TOUCH) as phone:
        phone.press("Clear mask")
        phone.get_by_role("slider", name="Strength").fill("40")
        phone.evaluate("scrollTo(0, 0)")
        fingers = Fingers(phone)
        fingers.touch("touchStart", (0.4, 0.5))
        fingers.touch("touchMove", (0.6, 0.55))
        fingers.touch("touchEnd")
        phone.wait_until(lambda: phone.sent_value()["mask"] != "")
        assert set(np.unique(edited_mask(phone))) == {0, 102}


def of_color(image: np.ndarray, at: tuple[int, int], tolerance: float = 0.1) -> np.ndarray:
    """What the wand selects at (x, y) of an image [H, W, 3], by OpenCV's flood fill: bool [H, W]."""
    found, most = np.zeros((image.shape[0] + 2, image.shape[1] + 2), np.uint8), (round(255 * tolerance),) * 3
    cv2.floodFill(image.copy(), found, at, 0, most, most, 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE)
    return np.asarray(grow(Image.fromarray(found[1:-1, 1:-1] * 255), 1)) > 0


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """Flat shapes with a little noise, an antialiased circle, and two areas of one color that do not touch."""
    large = Image.new("RGB", (240, 160), (200, 220, 250))
    draw = ImageDraw.Draw(large)
    draw.ellipse((40, 30, 120, 130), (220, 60, 60))
    draw.rectangle((150, 10, 200, 60), (40, 150, 80))
    draw.rectangle((150, 100, 220, 140), (40, 150, 80))
    noise = np.random.default_rng(0).integers(-8, 9, (40, 60, 3))
    small = np.asarray(large.resize((60, 40), Image.Resampling.BOX)) + noise
    path = tmp_path / "colors.png"
    Image.fromarray(small.clip(0, 255).astype(np.uint8)).save(path)
    return path


def test_the_wand_selects_a_color_by_mouse_keys_and_finger(
    wide: PageObject, windows: Windows, site: Site, colors: Path
) -> None:
    image = pixels(colors)
    circle, green, other, sky = (of_color(image, at) for at in ((20, 20), (43, 8), (45, 30), (2, 2)))
    wide.upload(colors, (60, 40))
    wide.wait_for("document.querySelector('.sp').sketchpad.canvas.bitmap")
    wide.keyboard.press("w")

    def click(x: int, y: int) -> None:
        wide.drag(((x + 0.5) / 60, (y + 0.5) / 40))

    click(20, 20)
    assert np.array_equal(wide.mask() > 0, circle) and circle.sum() < 500
    with wide.keyboard_held("Shift"):
        click(43, 8)
    assert np.array_equal(wide.mask() > 0, circle | green)
    with wide.keyboard_held("Alt"):
        click(20, 20)
    assert np.array_equal(wide.mask() > 0, (circle | green) & ~circle)
    wide.keyboard.press("Control+z")
    assert np.array_equal(wide.mask() > 0, circle | green)
    wide.get_by_role("slider", name="Strength").fill("50")
    click(45, 30)
    assert np.array_equal(edited_mask(wide), np.where(other, 128, 0))
    result = wide.result_pixels()
    wide.get_by_role("slider", name="Tolerance").fill("20")
    wide.get_by_role("slider", name="Strength").fill("100")
    click(20, 20)  # on the result, which is kept
    wide.wait_until(lambda: bool(wide.sent_value()["mask"]))
    wide.expect_review("")
    assert np.array_equal(wide.mask() > 0, of_color(result, (20, 20), 0.2))
    wide.canvas().focus()
    for key in ("ArrowLeft",) * 14 + ("ArrowUp",) * 9 + ("Shift+ArrowUp", "Enter"):
        wide.keyboard.press(key)
    assert np.array_equal(wide.mask() > 0, of_color(result, (3, 2), 0.2)) and wide.mask()[2, 2]
    wide.keyboard.press("Alt+Enter")
    assert not wide.mask().any()
    with windows.open(site.url, **TOUCH) as phone:
        phone.upload(colors, (60, 40))
        phone.wait_for("document.querySelector('.sp').sketchpad.canvas.bitmap")
        phone.press("Magic wand")
        phone.evaluate("scrollTo(0, 0)")
        fingers = Fingers(phone)

        def tap(x: int, y: int) -> np.ndarray:
            view, (_, _, width, height) = phone.view(), phone.canvas_box()
            place = view["x"] + (x + 0.5) * view["scale"], view["y"] + (y + 0.5) * view["scale"]
            fingers.touch("touchStart", (place[0] / width, place[1] / height))
            fingers.touch("touchEnd")
            return phone.mask() > 0

        assert np.array_equal(tap(20, 20), circle)
        assert np.array_equal(tap(45, 30), circle | other)
        assert np.array_equal(tap(20, 20), (circle | other) & ~circle)
        assert np.array_equal(tap(2, 2), other | sky)


def test_the_last_mask_comes_back_after_keep(wide: PageObject) -> None:
    wide.press("Upper half")
    painted = wide.mask()
    wide.edit()
    wide.press("Keep")
    assert not wide.mask().any()
    wide.canvas().focus()
    wide.keyboard.press("m")
    assert np.array_equal(edited_mask(wide), painted)
    wide.press("Discard")
    assert np.array_equal(wide.mask(), painted)  # which checks that all of it is seen
