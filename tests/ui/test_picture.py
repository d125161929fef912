"""Sizes of pictures on their way to the browser, and masks on their way back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from imagebart.imaging.masks import preset
from imagebart.ui.examples import reduced, scale_mask, view_size

SIZES = [(128, 128), (64, 100), (517, 389), (1024, 300), (2600, 1900), (3000, 40), (16, 16)]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_painted_on_is_the_picture_or_a_bounded_copy_of_its_shape(size: tuple[int, int]) -> None:
    width, height = view_size(size)
    assert (width, height) == size if max(size) <= 1024 else max(width, height) == 1024
    assert abs(width / height / (size[0] / size[1]) - 1) <= 0.5 / min(width, height) + 1e-9


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_goes_there_and_back_to_where_it_was(size: tuple[int, int]) -> None:
    back = scale_mask(scale_mask(preset("right half", size), view_size(size)), size)
    values, slack = np.asarray(back), -(-size[0] // 1024)
    assert back.size == size and (values[:, size[0] // 2 + slack :] == 255).all()
    assert (values[:, : size[0] // 2 - slack - 1] == 0).all()


@pytest.mark.parametrize("size", [(16, 16), (128, 96), (2600, 1900)])
def test_the_thinnest_stroke_is_not_lost(size: tuple[int, int]) -> None:
    width, height = view_size(size)
    mask = Image.new("L", (width, height))
    mask.putpixel((width // 3, height // 3), 1)
    column, row = (width // 3) * size[0] // width, (height // 3) * size[1] // height
    assert np.asarray(scale_mask(mask, size))[row : row + 2, column : column + 2].any()


def test_reduced_leaves_small_pictures_alone() -> None:
    small, large = Image.new("RGB", (300, 200)), Image.new("RGB", (3000, 1000))
    assert reduced(small, 512) is small and reduced(large, 512).size == (512, 171)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("size", [(700, 130), (331, 1203), (513, 512), (300, 3000)])
def test_a_reduced_picture_is_what_a_reader_of_all_of_it_sees(mode: str, size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (size[1] // 30 + 2, size[0] // 30 + 2, 4), np.uint8)
    image = Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).convert(mode)
    got = np.asarray(reduced(image, 128), int)
    want = np.asarray(image.resize(got.shape[1::-1], Image.Resampling.BILINEAR), int)
    if mode == "RGBA":  # colours count as much as they are seen
        for pixels in (got, want):
            pixels[..., :3] = pixels[..., :3] * pixels[..., 3:] / 255
    assert np.abs(got - want).mean() < 2 and np.abs(got - want).max() < 30
