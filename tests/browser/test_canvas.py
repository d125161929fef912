"""The page in Chromium: pictures and masks on the canvas, and the grid of tokens that will be redrawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from driving import PIPELINE, canvas, cells, drop, edit, gradient, layers, paint, pick_second, press, redrawn, result
from PIL import Image
from playwright.sync_api import Page, expect

from imagebart.ui.picture import Picture, from_editor

pytestmark = pytest.mark.browser


def expected_cells(page: Page, image: Image.Image) -> str:
    """The cells that the pipeline redraws, from what Gradio would send it."""
    picture = Picture.of(image)
    _, mask = from_editor({"background": picture.view, "layers": layers(page), "composite": None}, picture)
    assert mask is not None
    redraws = PIPELINE.cells(image.size, mask).redrawn
    return "".join(str(int(value)) for value in np.asarray(redraws).flatten())


def upload(page: Page, path: Path, size: tuple[int, int]) -> None:
    page.get_by_test_id("Upload a picture-upload-button").set_input_files(path)
    expect(page.locator("#facts")).to_contain_text(f"{size[0]} × {size[1]} pixels")
    redrawn(page, None)


def test_the_grid_shows_what_the_model_will_redraw(wide: Page, tmp_path: Path) -> None:
    for size in ((48, 40), (90, 61), (700, 1300)):
        image = gradient(size, 100)
        path = tmp_path / f"{size[0]}.png"
        image.save(path)
        upload(wide, path, size)
        paint(wide, down=40)
        assert cells(wide) == expected_cells(wide, image)
        shown = wide.locator("#grid-overlay").evaluate(
            "it => it.getContext('2d').getImageData(0, 0, it.width, it.height).data.some(Boolean)"
        )
        assert shown
    wide.get_by_role("checkbox", name="Show the tokens").uncheck()
    assert not wide.locator("#grid-overlay").evaluate(
        "it => it.getContext('2d').getImageData(0, 0, it.width, it.height).data.some(Boolean)"
    )


def test_masks_are_made_without_painting(wide: Page) -> None:
    redrawn(wide, 16)
    for name, count in {"Upper half": 32, "Left half": 32, "Centre": 16, "Border": 48, "Everything": 64}.items():
        press(wide, name)
        redrawn(wide, count)
    press(wide, "Centre")
    redrawn(wide, 16)
    press(wide, "Invert")
    redrawn(wide, 48)
    press(wide, "Centre")
    redrawn(wide, 16)
    press(wide, "Grow")
    redrawn(wide, 36)
    press(wide, "Shrink")
    redrawn(wide, 16)
    press(wide, "Clear canvas")
    redrawn(wide, None)
    press(wide, "Edit")
    expect(wide.locator("#messages")).to_contain_text("press one of the ready masks")
    expect(wide.get_by_role("group", name="Ready masks")).to_be_visible()


def test_the_last_mask_can_be_used_again(wide: Page) -> None:
    press(wide, "Upper half")
    redrawn(wide, 32)
    edit(wide)
    press(wide, "Clear the mask")
    redrawn(wide, None)
    press(wide, "Last mask")
    redrawn(wide, 32)


def test_a_bad_upload_is_said_and_a_good_one_is_kept_to_the_pixel(wide: Page, tmp_path: Path) -> None:
    words, turned = tmp_path / "words.png", tmp_path / "turned.png"
    words.write_text("not a picture")
    upright = gradient((90, 61), 120)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side; to be shown turned by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)

    wide.get_by_test_id("Upload a picture-upload-button").set_input_files(words)
    expect(wide.get_by_test_id("toast-body").first).to_contain_text("can be read")
    upload(wide, turned, (90, 61))

    mask = tmp_path / "mask.png"
    painted = Image.new("L", (90, 61))
    painted.paste(255, (30, 20, 60, 40))
    painted.save(mask)
    wide.get_by_test_id("Upload a mask-upload-button").set_input_files(mask)
    expect(wide.locator("#grid-line")).to_contain_text("will be redrawn")
    edit(wide)
    after, before = result(wide), np.asarray(upright)
    assert after.shape == before.shape
    changed = (after != before).any(axis=-1)
    assert changed[20:40, 30:60].mean() > 0.5
    changed[19:41, 29:61] = False
    assert not changed.any()


def test_a_dropped_file_becomes_the_picture(wide: Page, gradients: Path) -> None:
    drop(wide, gradients)
    expect(wide.locator("#facts")).to_contain_text("64 × 32")
    press(wide, "Left half")
    expect(wide.locator("#grid-line")).to_contain_text("will be redrawn")
    edit(wide)
    with Image.open(gradients) as before:
        assert (result(wide)[:, 34:] == np.asarray(before)[:, 34:]).all()


def test_the_picture_is_in_the_middle_of_its_frame_and_stays_there(wide: Page) -> None:
    for width in (1280, 900, 600):
        wide.set_viewport_size({"width": width, "height": 900})
        wide.wait_for_function(
            """() => {
                const { position_value: at, scale_value: scale, width, height } = window.editor;
                const frame = document.querySelector("#canvas .pixi-target").getBoundingClientRect();
                const canvas = document.querySelector("#canvas canvas").getBoundingClientRect();
                const off = (start, side, room) => Math.abs(start + side * scale / 2 - room / 2);
                return off(at.x, width, frame.width) < 2 && off(at.y, height, frame.height) < 2
                    && Math.abs(canvas.width - frame.width) < 2;
            }"""
        )


def test_the_canvas_of_another_example_has_no_old_paint(wide: Page) -> None:
    paint(wide)
    pick_second(wide)
    assert not np.asarray(layers(wide)[0].getchannel("A")).any() if layers(wide) else True
    expect(canvas(wide)).to_be_visible()
