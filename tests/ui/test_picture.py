"""The canvas's copy of a picture, and masks on their way to the canvas and back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from imagebart.masks import preset
from imagebart.ui.picture import BRUSH_OPACITY, Picture, from_editor, reduced, to_editor, view_size

SIZES = [(128, 128), (64, 100), (517, 389), (1024, 300), (2600, 1900), (3000, 40), (16, 16)]


@pytest.mark.parametrize("size", SIZES)
def test_the_canvas_copy_has_the_shape_of_the_picture_and_a_comfortable_size(size: tuple[int, int]) -> None:
    width, height = view_size(size)
    assert 512 <= max(width, height) <= 1024
    assert abs(width / height / (size[0] / size[1]) - 1) <= 0.5 / min(width, height) + 1e-9


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_comes_back_from_the_canvas_where_it_was(size: tuple[int, int]) -> None:
    picture = Picture.of(Image.new("RGB", size, "white"))
    mask = preset("right half", size)
    kept, back = from_editor(to_editor(picture, mask), picture)
    assert kept is picture and back is not None and back.size == size
    values, slack = np.asarray(back), max(1, -(-size[0] // 512))
    assert (values[:, size[0] // 2 + slack :] == 255).all()
    assert (values[:, : size[0] // 2 - slack - 1] == 0).all()


@pytest.mark.parametrize("size", [(16, 16), (128, 128), (32, 64), (512, 256), (1024, 768)])
def test_a_mask_comes_back_exactly_where_the_sizes_divide(size: tuple[int, int]) -> None:
    picture = Picture.of(Image.new("RGB", size))
    soft = Image.fromarray(np.random.default_rng(1).integers(0, 256, (size[1], size[0]), dtype=np.uint8))
    _, back = from_editor(to_editor(picture, soft), picture)
    difference = np.abs(np.asarray(back, dtype=int) - np.asarray(soft, dtype=int))
    assert difference.max() <= 2 and ((np.asarray(back) > 0) == (np.asarray(soft) > 0)).all()


@pytest.mark.parametrize("size", [(16, 16), (128, 96), (2600, 1900)])
def test_the_thinnest_stroke_is_not_lost(size: tuple[int, int]) -> None:
    picture = Picture.of(Image.new("RGB", size))
    width, height = picture.view.size
    layer = Image.new("RGBA", (width, height))
    layer.putpixel((width // 3, height // 3), (255, 0, 0, 1))
    _, mask = from_editor({"background": picture.view, "layers": [layer], "composite": None}, picture)
    assert mask is not None
    column, row = (width // 3) * size[0] // width, (height // 3) * size[1] // height
    assert np.asarray(mask)[row : row + 2, column : column + 2].any()


def test_a_translucent_brush_paints_solidly() -> None:
    picture = Picture.of(Image.new("RGB", (512, 512)))
    layer = Image.new("RGBA", (512, 512), (255, 0, 0, round(255 * BRUSH_OPACITY)))
    _, mask = from_editor({"background": picture.view, "layers": [layer], "composite": None}, picture)
    assert mask is not None and mask.getextrema() == (255, 255)


def test_layers_add_up() -> None:
    picture = Picture.of(Image.new("RGB", (512, 512)))
    left, right = (Image.new("RGBA", (512, 512)) for _ in range(2))
    left.paste((1, 2, 3, 255), (0, 0, 10, 10))
    right.paste((1, 2, 3, 255), (20, 0, 30, 10))
    _, mask = from_editor({"background": picture.view, "layers": [left, right], "composite": None}, picture)
    assert mask is not None and np.count_nonzero(np.asarray(mask)) == 200


@pytest.mark.parametrize("layers", [[], [Image.new("RGBA", (512, 512))]])
def test_nothing_painted_is_no_mask(layers: list[Image.Image]) -> None:
    picture = Picture.of(Image.new("RGB", (512, 512)))
    assert from_editor({"background": picture.view, "layers": layers, "composite": None}, picture) == (
        picture,
        None,
    )


def test_something_else_on_the_canvas_becomes_the_picture() -> None:
    kept = Picture.of(Image.new("RGB", (128, 128)))
    other = Image.new("RGBA", (600, 300), "red")
    picture, mask = from_editor({"background": other, "layers": [], "composite": None}, kept)
    assert picture is not None and picture.image.size == (600, 300) and mask is None
    assert picture.image.getpixel((5, 5)) == (255, 0, 0)


def test_a_canvas_without_a_picture_gives_none() -> None:
    assert from_editor(None, None) == (None, None)
    assert from_editor({"background": None, "layers": [], "composite": None}, None) == (None, None)


def test_a_transparent_upload_is_shown_on_white_but_kept_as_it_is() -> None:
    upload = Image.new("RGBA", (600, 600), (10, 20, 30, 0))
    picture = Picture.of(upload)
    assert picture.image is upload and picture.view.getpixel((0, 0)) == (255, 255, 255)


def test_reduced_leaves_small_pictures_alone() -> None:
    small, large = Image.new("RGB", (300, 200)), Image.new("RGB", (3000, 1000))
    assert reduced(small, 512) is small and reduced(large, 512).size == (512, 171)
