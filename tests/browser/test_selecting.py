"""What is said with a mask beyond where: how strongly; and masks by color, each by mouse, finger and key."""

from __future__ import annotations

import numpy as np
import pytest
from page_object import PIPELINE, TOUCH, Fingers, PageObject, Site, Windows
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
