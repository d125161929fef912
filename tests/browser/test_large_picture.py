"""A photo as a camera makes it, twelve megapixels, in Chromium: opened, painted, edited and kept, to the pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from driving import cells, edit, gradient, mask, paint, pixels, press, result, sent, upload
from PIL import Image
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SIZE = (4000, 3000)


def test_a_photo_of_twelve_megapixels_is_edited_to_the_pixel(wide: Page, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    gradient((200, 150), 90).resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
    photo = pixels(path)
    upload(wide, path, SIZE)
    paint(wide)
    assert "1" in cells(wide)
    painted = mask(wide) > 0
    assert painted.shape == (768, 1024) and painted.any()
    edit(wide)
    changed = (result(wide) != photo).any(axis=-1)
    near = np.asarray(Image.fromarray(painted).resize(SIZE, Image.Resampling.NEAREST))
    assert changed[near].mean() > 0.5 and not changed[:1000].any() and not changed[-1000:].any()
    press(wide, "Keep")
    expect(wide.locator(".sp")).to_have_attribute("data-shown", sent(wide)["picture"])
    press(wide, "Upper half")
    wide.reload()
    expect(wide.locator("#image-size")).to_have_text("4000 × 3000 pixels")
    assert mask(wide)[:384].all() and not mask(wide)[384:].any()
    assert ((pixels(Path(sent(wide)["picture"])) != photo).any(axis=-1) == changed).all()
