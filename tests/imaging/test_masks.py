"""Masks: uploads, presets, and blending weights, each against plain loops."""

import math
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from imagebart.core.errors import InputError
from imagebart.imaging import masks


def blobs(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A few soft rectangles, one-pixel strokes and dots."""
    random = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    for _ in range(4):
        y, x = random.integers(0, height), random.integers(0, width)
        h, w = random.integers(1, height // 2 + 1), random.integers(1, width // 3 + 1)
        mask[y : y + h, x : x + w] = random.integers(1, 256)
    mask[random.integers(height)] = 255
    mask[random.integers(height), random.integers(width)] = 1
    return mask


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "P", "LA", "CMYK", "I;16"])
def test_white_on_black_in_any_mode_is_paint(mode: str) -> None:
    painted = (blobs(31, 45) > 0) * 255
    mask = Image.fromarray(painted.astype(np.uint8))
    mask = Image.fromarray((painted * 257).astype(np.uint16)) if mode == "I;16" else mask.convert(mode)
    for found in (masks.load_mask(mask, (45, 31)), masks.as_mask(mask, (45, 31))):
        assert found.mode == "L" and np.array_equal(np.asarray(found), painted)


def test_soft_and_faint_paint_is_kept_and_opacity_is_paint_whatever_its_color() -> None:
    soft = np.tile(np.arange(16, 240, dtype=np.uint8), (20, 1))
    assert np.array_equal(np.asarray(masks.load_mask(Image.fromarray(soft), (224, 20))), soft)
    faint = Image.new("L", (30, 20), 1)
    assert masks.as_mask(faint, (30, 20)) is faint
    for color in ("black", "white", "red"):
        layer = Image.new("RGB", (45, 31), color)
        layer.putalpha(Image.fromarray(blobs(31, 45)))
        assert np.array_equal(np.asarray(masks.load_mask(layer, (45, 31))), blobs(31, 45))


def test_jpeg_noise_in_black_paints_nothing() -> None:
    shape = np.zeros((64, 64), np.uint8)
    shape[20:40, 20:40] = 255
    file = BytesIO()
    Image.fromarray(shape).save(file, "JPEG", quality=90)
    outside = cv2.dilate(shape, np.ones((3, 3), np.uint8)) == 0
    assert np.asarray(Image.open(file))[outside].any()  # there is noise in the file
    mask = np.asarray(masks.load_mask(file.getvalue(), (64, 64)))
    assert not mask[outside].any()
    assert (mask[21:39, 21:39] == 255).all()  # nor is white a strength below 1


@pytest.mark.parametrize("size", [(90, 60), (31, 21), (11, 7), (134, 90)])
def test_a_mask_of_the_same_shape_is_scaled_without_losing_strokes(size: tuple[int, int]) -> None:
    stroke = np.zeros((60, 90), np.uint8)
    stroke[37, 10:80] = 255
    stroke[5, 8] = 40
    mask = np.asarray(masks.load_mask(Image.fromarray(stroke), size))
    width, height = size
    for y, x in np.ndindex(mask.shape):
        rows = [r for r in range(60) if r * height < (y + 1) * 60 and (r + 1) * height > y * 60]
        columns = [c for c in range(90) if c * width < (x + 1) * 90 and (c + 1) * width > x * 90]
        assert mask[y, x] == max(stroke[r, c] for r in rows for c in columns)
    assert mask.max() == 255 and 40 in mask


def test_what_is_no_mask_is_said() -> None:
    with pytest.raises(InputError, match=r"200 × 300.*300 × 200.*same shape"):
        masks.load_mask(Image.new("L", (200, 300)), (300, 200))
    with pytest.raises(InputError, match="The mask file"):
        masks.load_mask(b"not a mask", (300, 200))
    wrong = [(Image.new(mode, (20, 30), 1), r"20 × 30.*30 × 20.*same size") for mode in ("L", "RGB")]
    empty = (Image.new("L", (30, 20)), "Nothing is painted.*upper half")
    for mask, said in (*wrong, empty, ("center", "give an opened image")):
        with pytest.raises(InputError, match=said):
            masks.as_mask(mask, (30, 20))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'middle'.*center"):
        masks.preset("middle", (30, 20))


@pytest.mark.parametrize("size", [(16, 16), (17, 33)])
def test_presets(size: tuple[int, int]) -> None:
    full = {name: np.asarray(masks.preset(name, size)) for name in masks.PRESETS}
    for one, other in (("upper half", "lower half"), ("left half", "right half"), ("center", "border")):
        assert np.array_equal(255 - full[one], full[other]) and set(np.unique(full[one])) == {0, 255}
    upper, left, center = (full[name] for name in ("upper half", "left half", "center"))
    assert (full["everything"] == 255).all()
    assert upper[0, 0] == left[-1, 0] == 255 and upper[-1, 0] == left[0, -1] == 0
    assert center[size[1] // 2, size[0] // 2] == 255 and center[0, size[0] // 2] == 0
    assert np.array_equal(center, center[::-1, ::-1])


def test_a_small_mask_may_be_off_by_one_of_its_own_pixels() -> None:
    small = Image.new("L", (100, 100), 255)
    for height in (800, 807, 793):
        assert masks.load_mask(small, (800, height)).size == (800, height)
    for height in (830, 770):
        with pytest.raises(InputError, match="the same shape"):
            masks.load_mask(small, (800, height))


def slow_alpha(mask: np.ndarray, feather: int) -> np.ndarray:
    """The documented rule in plain loops and float64."""
    empty, depth, result = np.argwhere(mask == 0), np.zeros(mask.shape), np.zeros(mask.shape)
    for y, x in np.ndindex(mask.shape):
        depth[y, x] = min((math.hypot(y - b, x - a) for b, a in empty), default=math.inf)
    depth = np.minimum(depth, feather + 1)
    for y, x in np.argwhere(mask):
        around = depth[max(0, y - feather) : y + feather + 1, max(0, x - feather) : x + feather + 1]
        result[y, x] = 255 * depth[y, x] / around.max()
    return result


@pytest.mark.parametrize("feather", [0, 1, 3, 8, 40])
@pytest.mark.parametrize("seed", range(2))
def test_alpha_follows_the_rule(feather: int, seed: int) -> None:
    mask = blobs(22, 31, seed)
    got = np.asarray(masks.alpha(Image.fromarray(mask), feather)).astype(int)
    assert np.abs(got - slow_alpha(mask, feather)).max() <= 0.51
    assert (got[mask == 0] == 0).all() and (feather > 0 or (got[mask > 0] == 255).all())


def test_feather_rises_inwards_and_not_at_the_images_edge() -> None:
    half = masks.preset("left half", (64, 64))
    assert np.asarray(masks.alpha(half, 4))[30, 26:34].tolist() == [255, 255, 204, 153, 102, 51, 0, 0]
    assert masks.alpha(Image.new("L", (64, 64), 255), 4).getextrema() == (255, 255)
    assert masks.alpha(Image.new("L", (64, 64)), 4).getextrema() == (0, 0)
    assert masks.alpha(half, 10**9).tobytes() == masks.alpha(half, 1000).tobytes()


@pytest.mark.parametrize("resampling", [Image.Resampling.BOX, Image.Resampling.BICUBIC])
def test_an_antialiased_outline_is_as_strong_as_the_stroke_but_soft_paint_is_not(resampling: Image.Resampling) -> None:
    """Strokes drawn four times as large, reduced; beside one lies paint of strength 100."""
    large = Image.new("L", (400, 400))
    draw = ImageDraw.Draw(large)
    draw.ellipse((40, 30, 190, 290), 255)
    draw.line((30, 380, 370, 310), 255, 30)
    stroke = np.asarray(large.resize((100, 100), resampling))
    assert ((stroke > 0) & (stroke < 255)).any()
    found = masks.strengths(Image.fromarray(stroke))
    assert set(np.unique(found[stroke > 0])) == {255} and not found[stroke == 0].any()
    both = stroke.copy()
    both[10:70, 60:] = 100
    both[10:70, 30:60] = 255
    found = masks.strengths(Image.fromarray(both))
    assert (found[12:68, 60:] == 100).all() and (found[10:70, 30:60] == 255).all()
    soft = np.where(stroke == 255, np.uint8(77), np.uint8(0))
    assert np.array_equal(masks.strengths(Image.fromarray(soft)), soft)
