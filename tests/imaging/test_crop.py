"""The square that the model sees and the way back, against loops in exact fractions; unpainted pixels never change."""

from __future__ import annotations

import math
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from imagebart.core.errors import InputError
from imagebart.imaging import masks
from imagebart.imaging.crop import MIN_CONTEXT, Box, Region, crop_box, extract, paint_in, paint_patches, paste_back
from imagebart.imaging.files import flatten, load_image


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int], value: int = 255) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(value, box)
    return mask


def pasted(upload: np.ndarray, generated: np.ndarray, alpha: np.ndarray, box: Box) -> np.ndarray:
    return np.asarray(paste_back(*(Image.fromarray(each) for each in (upload, generated, alpha)), box))


def slow_keep(mask: np.ndarray, box: Box, grid: int) -> list[bool]:
    """Every patch against every painted pixel, as open intervals that do or do not overlap, in exact fractions."""
    keep = []
    painted = np.argwhere(mask > 0)
    side = Fraction(box.side, grid)
    for row in range(grid):
        top, bottom = box.top + row * side, box.top + (row + 1) * side
        for column in range(grid):
            left, right = box.left + column * side, box.left + (column + 1) * side
            keep.append(not any(x < right and x + 1 > left and y < bottom and y + 1 > top for y, x in painted.tolist()))
    return keep


@pytest.mark.parametrize("seed", range(25))
def test_kept_tokens_are_exact_for_any_size(seed: int) -> None:
    """Also where the square extends past the image, and for the faintest paint."""
    random = np.random.default_rng(seed)
    width, height = (int(n) for n in random.integers(16, 90, 2))
    mask = np.zeros((height, width), np.uint8)
    for _ in range(random.integers(1, 6)):
        y, x = random.integers(0, height), random.integers(0, width)
        mask[y : y + random.integers(1, 9), x : x + random.integers(1, 9)] = random.choice([1, 255])
    grid = int(random.integers(1, 17))
    image = Image.fromarray(mask)
    square = crop_box(image, int(random.integers(16, 64)), float(random.uniform(0, 2)))
    for box in (
        square,
        Box(int(random.integers(-40, 60)), int(random.integers(-40, 60)), int(random.integers(1, 120))),
    ):
        assert (paint_in(mask, box, grid) == 0).flatten().tolist() == slow_keep(mask, box, grid)
    region = Region.of(image, 32, 8)
    assert (~region.painted).flatten().tolist() == slow_keep(mask, region.box, 32)
    assert (~region.regenerated).flatten().tolist() == slow_keep(mask, region.box, 8)


def test_what_is_past_the_image_is_unknown() -> None:
    mask = rectangle((64, 20), (0, 5, 64, 10))
    region = Region.of(mask, 32, 8)
    assert region.box == Box(0, -22, 64)
    rows = region.unknown(mask.size).all(1)  # row y of the square is rows 2 y - 22 and 2 y - 21 of the image
    assert [y for y in range(32) if not rows[y]] == [11, 12, 16, 17, 18, 19, 20]
    assert (region.unknown(mask.size) == rows[:, None]).all()


def test_the_square_holds_the_mask_and_its_context() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        width, height = (int(n) for n in random.integers(16, 700, 2))
        left, top = int(random.integers(0, width)), int(random.integers(0, height))
        right, bottom = int(random.integers(left, width)) + 1, int(random.integers(top, height)) + 1
        model, context = int(random.integers(16, 300)), float(random.choice([0, 0.1, 0.5, 2, math.inf]))
        box = crop_box(rectangle((width, height), (left, top, right, bottom)), model, context)
        longest, short = max(right - left, bottom - top), min(width, height)

        def has(margin: int) -> bool:
            """Whether the square holds the mask with a margin, as far as the image goes."""
            begins = box.left <= max(0, left - margin) and box.top <= max(0, top - margin)  # noqa: B023
            ends = box.left + box.side >= min(width, right + margin)  # noqa: B023
            return begins and ends and box.top + box.side >= min(height, bottom + margin)  # noqa: B023

        assert has(math.ceil(longest * MIN_CONTEXT))
        if box.left >= 0 and box.top >= 0 and box.left + box.side <= width and box.top + box.side <= height:
            assert box.side <= short
        else:  # only where the mask does not fit otherwise; centred on the shorter axis and not too large
            assert longest * (1 + 2 * MIN_CONTEXT) + 2 > short and box.side <= max(width, height)
            start, length = (box.left, width) if width < height else (box.top, height)
            assert abs(start + (start + box.side) - length) <= 1
        if box.side < short:
            assert box.side >= model and has(math.floor(longest * min(context, 1e6)) - 1)
        assert context < math.inf or box.side in (short, max(width, height))


EYES = rectangle((800, 600), (380, 280, 420, 300))


@pytest.mark.parametrize(
    ("mask", "model", "context", "box"),
    [
        (EYES, 128, 0.5, Box(336, 226, 128)),
        (EYES, 16, 1.0, Box(340, 230, 120)),
        (EYES, 128, math.inf, Box(100, 0, 600)),
        (EYES, 128, 1e308, Box(100, 0, 600)),
        (rectangle((800, 600), (0, 0, 10, 10)), 128, 0.5, Box(0, 0, 128)),
        (rectangle((800, 600), (790, 590, 800, 600)), 128, 0.5, Box(672, 472, 128)),
        (masks.preset("everything", (800, 600)), 128, 0.5, Box(0, -100, 800)),
        (masks.preset("everything", (600, 801)), 128, 0.5, Box(-100, 0, 801)),
        (masks.preset("left half", (800, 600)), 128, math.inf, Box(0, 0, 600)),
        (masks.preset("upper half", (40, 30)), 128, 0.5, Box(0, -5, 40)),
        (rectangle((128, 128), (60, 100, 127, 128)), 128, 0.0, Box(0, 0, 128)),  # the model's own size: all of it
    ],
)
def test_squares_of_known_masks(mask: Image.Image, model: int, context: float, box: Box) -> None:
    assert crop_box(mask, model, context) == box


def test_squares_need_paint() -> None:
    with pytest.raises(InputError, match="Nothing is painted"):
        crop_box(Image.new("L", (40, 30)), 128)


@pytest.mark.parametrize("box", [Box(7, 3, 16), Box(0, -10, 50), Box(-5, -20, 60), Box(30, 10, 40)])
def test_a_square_of_the_models_size_is_copied_and_padded_by_its_edges(box: Box) -> None:
    pixels = noise(50, 30)
    rows, columns = (np.clip(np.arange(start, start + box.side), 0, n) for start, n in ((box.top, 29), (box.left, 49)))
    assert np.array_equal(np.asarray(extract(Image.fromarray(pixels), box, box.side)), pixels[rows][:, columns])


@pytest.mark.parametrize(("size", "side"), [((100, 60), 100), ((60, 100), 100), ((97, 61), 97)])
@pytest.mark.parametrize("model", [32, 160])
def test_padding_and_resampling_equal_padding_the_whole_first(size: tuple[int, int], side: int, model: int) -> None:
    pixels = noise(*size)
    box = Box(-((side - size[0]) // 2), -((side - size[1]) // 2), side)
    rows, columns = (np.clip(np.arange(a, a + side), 0, n - 1) for a, n in ((box.top, size[1]), (box.left, size[0])))
    resampling = Image.Resampling.HAMMING if model < side else Image.Resampling.BICUBIC
    expected = Image.fromarray(pixels[rows][:, columns]).resize((model, model), resampling)
    found = extract(Image.fromarray(pixels), box, model)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("size", [(640, 480), (131, 300), (90, 70), (128, 128), (1001, 701)])
@pytest.mark.parametrize("context", [0.5, math.inf])
def test_extracting_and_pasting_shifts_and_stretches_nothing(size: tuple[int, int], context: float) -> None:
    y, x = np.mgrid[: size[1], : size[0]] / max(size)
    image = Image.fromarray(np.rint(np.stack([255 * x, 255 * y, 128 + 60 * (x - y)], -1)).astype(np.uint8))
    for painted in ((0, 0, 30, 20), (size[0] - 40, size[1] - 40, *size), (0, size[1] // 3, size[0], size[1] // 2)):
        mask = rectangle(size, painted)
        box = crop_box(mask, 128, context)
        back = paste_back(image, extract(image, box, 128), mask, box)
        difference = np.abs(np.asarray(back).astype(int) - np.asarray(image)).max(-1)
        assert difference.max() <= 3 and difference[np.asarray(mask) == 0].max() == 0


def test_a_line_of_one_pixel_on_a_large_image_changes_its_tokens_alone() -> None:
    size = (4000, 3000)
    mask = rectangle(size, (3210, 100, 3211, 2900))
    box = crop_box(mask, 128, math.inf)
    assert box == Box(1000, 0, 3000)
    keep = paint_in(np.asarray(mask), box, 16) == 0
    column = (3210 - box.left) * 16 // box.side
    rows = range((100 - box.top) * 16 // box.side, (2899 - box.top) * 16 // box.side + 1)
    assert [(int(r), int(c)) for r, c in np.argwhere(~keep)] == [(row, column) for row in rows]
    generated = np.zeros((128, 128, 3), np.uint8)
    generated[:, column * 8 : column * 8 + 8] = 200
    upload = Image.new("RGB", size, (10, 20, 30))
    result = np.asarray(paste_back(upload, Image.fromarray(generated), masks.alpha(mask, 8), box))
    assert (result[101:2899, 3210] > 100).all()
    changed = (result != (10, 20, 30)).any(-1)
    assert changed[:, 3210].sum() >= 2798 and changed.sum() == changed[:, 3210].sum()


def upload_of(mode: str) -> bytes:
    """An encoded image of an odd size; mode: of Pillow, or "EXIF" and an orientation."""
    rgb, rgba = noise(131, 77), noise(131, 77, 4, seed=2)
    rgba[10:40, 10:60, 3] = 0
    image = Image.fromarray(rgba).convert(mode) if mode in ("RGBA", "LA") else Image.fromarray(rgb)
    exif, file = Image.Exif(), BytesIO()
    if mode.startswith("EXIF"):
        exif[0x0112] = int(mode[-1])
    elif mode == "I;16":
        image = Image.fromarray(np.random.default_rng(5).integers(0, 65536, (77, 131), dtype=np.uint16))
    else:
        image = image.convert(mode)
    image.save(file, "JPEG" if mode == "CMYK" else "PNG", exif=exif)
    return file.getvalue()


MODES = ("RGB", "RGBA", "LA", "L", "1", "P", "I;16", "CMYK", *(f"EXIF {orientation}" for orientation in range(1, 9)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("context", [0.2, math.inf])
def test_unpainted_pixels_are_the_uploads_own(mode: str, context: float) -> None:
    upload = load_image(upload_of(mode))
    generated = Image.fromarray(noise(32, 32, seed=9))
    brush = np.zeros((upload.height, upload.width), np.uint8)
    brush[20:45, 15:70] = 255
    brush[45:47, 15:70] = [[90], [1]]
    before = np.asarray(upload).copy()
    for mask in [Image.fromarray(brush), *(masks.preset(name, upload.size) for name in masks.PRESETS)]:
        box = crop_box(mask, 32, context)
        assert extract(upload, box, 32).size == (32, 32)
        for feather in (0, 5):
            result = paste_back(upload, generated, masks.alpha(mask, feather), box)
            assert (result.mode, result.size) == (upload.mode, upload.size)
            untouched = np.asarray(mask) == 0
            assert np.array_equal(np.asarray(result)[untouched], before[untouched])
            assert not np.array_equal(np.asarray(result), before)
    assert np.array_equal(np.asarray(upload), before)


def test_blending_is_rounded_to_the_nearest() -> None:
    upload, generated, alpha = noise(64, 600), noise(600, 600, seed=1), noise(64, 600, 1, seed=2)[..., 0]
    result = pasted(upload, generated, alpha, Box(-30, 0, 600))
    weight = alpha[..., None] / 255
    expected = upload * (1 - weight) + generated[:, 30:94] * weight
    assert np.abs(result - expected).max() <= 0.5 + 1e-9


def test_blending_with_transparency_weighs_colours_by_their_opacity() -> None:
    """At every weight and every opacity."""
    alpha, opacity = (each.astype(np.uint8) for each in np.meshgrid(np.arange(256), np.arange(256)))
    upload, generated = noise(256, 256, 4, seed=3), noise(256, 256, seed=4)
    upload[..., 3] = opacity
    result = pasted(upload, generated, alpha, Box(0, 0, 256))
    old, weight = opacity / 255 * (1 - alpha / 255), alpha / 255
    with np.errstate(invalid="ignore"):
        colour = (upload[..., :3] * old[..., None] + generated * weight[..., None]) / (old + weight)[..., None]
    touched = alpha > 0
    assert np.abs(result[..., 3] - 255 * (old + weight))[touched].max() <= 0.5 + 1e-9
    assert np.abs(result[..., :3] - colour)[touched].max() <= 0.5 + 1e-9
    assert np.array_equal(result[~touched], upload[~touched])


def test_only_the_square_is_pasted() -> None:
    upload, white = Image.new("RGB", (60, 40)), Image.new("RGB", (8, 8), "white")
    changed = np.asarray(paste_back(upload, white, Image.new("L", (60, 40), 255), Box(50, 30, 20))).any(-1)
    assert changed[30:, 50:].all() and changed.sum() == 100
    assert not np.asarray(paste_back(upload, white, Image.new("L", (60, 40)), Box(0, 0, 20))).any()


def test_the_colour_profile_is_kept() -> None:
    file = BytesIO()
    Image.fromarray(noise(40, 40)).save(file, "PNG", icc_profile=b"profile")
    upload = load_image(file.getvalue())
    mask = masks.preset("centre", upload.size)
    assert paste_back(upload, Image.new("RGB", (16, 16)), mask, Box(0, 0, 40)).info == {"icc_profile": b"profile"}


def test_a_long_narrow_image_takes_little_memory() -> None:
    size = (20_000, 20)
    mask = masks.preset("everything", size)
    upload = Image.new("RGB", size, (9, 8, 7))
    box = crop_box(mask, 32)
    assert box == Box(0, -9990, 20_000)
    assert extract(upload, box, 32).getextrema() == ((9, 9), (8, 8), (7, 7))
    result = paste_back(upload, Image.new("RGB", (32, 32), "white"), mask, box)  # 1.2 GB if the square were made
    assert result.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("box", [Box(0, 0, 30), Box(5, 7, 16), Box(-9, 0, 60), Box(0, -9, 47), Box(20, 3, 5)])
def test_a_square_of_a_transparent_image_is_that_of_the_flattened_one(box: Box) -> None:
    image = Image.fromarray(noise(47, 30, 4, seed=3))
    assert extract(image, box, 16).tobytes() == extract(flatten(image), box, 16).tobytes()


@pytest.mark.parametrize("size", [(64, 64), (61, 61), (45, 200), (100, 30), (16, 16)])
def test_painted_patches_are_the_ones_that_are_regenerated(size: tuple[int, int]) -> None:
    """Where a patch has pixels that are wholly in it; past the edge of an image there is nothing to paint."""
    cells = np.random.default_rng(0).random((8, 8)) < 0.5
    box = crop_box(masks.preset("everything", size), 32, math.inf)
    mask = paint_patches(np.where(cells, np.uint8(255), np.uint8(0)), box, size)
    regenerated = paint_in(np.asarray(mask), box, 8) > 0
    assert mask.size == size and regenerated.any() and not (regenerated & ~cells).any()
    if size[0] == size[1]:
        assert (regenerated == cells).all()
