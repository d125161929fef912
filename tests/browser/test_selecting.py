"""What is said with a mask beyond where: how strongly; and masks by color, each by mouse, finger and key."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from morphology import grow
from page_object import PIPELINE, TOUCH, Fingers, PageObject, Site, Windows, pixels
from PIL import Image, ImageDraw
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


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
