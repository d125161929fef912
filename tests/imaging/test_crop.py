"""The square that the model sees and the way back, against loops in exact fractions; unpainted pixels never change."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from PIL import Image

from imagebart.imaging import masks
from imagebart.imaging.crop import MIN_CONTEXT, Box, Region, crop_box, extract, paint_in, paste_back, whole_box
from imagebart.imaging.files import flatten


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int], value: int = 255) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(value, box)
    return mask


def slow_keep(mask: np.ndarray, box: Box, grid: int) -> list[bool]:
    """Every patch against every painted pixel, as open intervals that do or do not overlap, in exact fractions."""
    side, painted, keep = Fraction(box.side, grid), np.argwhere(mask > 0).tolist(), []
    for row, column in product(range(grid), repeat=2):
        top, left = box.top + row * side, box.left + column * side
        keep.append(not any(left - 1 < x < left + side and top - 1 < y < top + side for y, x in painted))
    return keep


@pytest.mark.parametrize("seed", range(12))
def test_kept_tokens_are_exact_for_any_size(seed: int) -> None:
    """Also where the square extends past the image, and for the faintest paint."""
    random = np.random.default_rng(seed)
    width, height = (int(n) for n in random.integers(16, 90, 2))
    mask = np.zeros((height, width), np.uint8)
    for _ in range(random.integers(1, 6)):
        y, x = random.integers(0, height), random.integers(0, width)
        mask[y : y + random.integers(1, 9), x : x + random.integers(1, 9)] = random.choice([1, 255])
    anywhere = Box(*(int(n) for n in random.integers(-40, 60, 2)), int(random.integers(1, 120)))
    for box in (anywhere, crop_box(Image.fromarray(mask), int(random.integers(16, 64)), float(random.uniform(0, 2)))):
        grid = int(random.integers(1, 17))
        assert (paint_in(mask, box, grid) == 0).flatten().tolist() == slow_keep(mask, box, grid)
    region = Region.of(Image.fromarray(mask), 32, 8)
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
        else:  # only where the mask does not fit otherwise; centered on the shorter axis and not too large
            assert longest * (1 + 2 * MIN_CONTEXT) + 2 > short and box.side <= max(width, height)
            start, length = (box.left, width) if width < height else (box.top, height)
            assert abs(start + (start + box.side) - length) <= 1
        if box.side < short:
            assert box.side >= model and has(math.floor(longest * min(context, 1e6)) - 1)
        assert context < math.inf or box.side in (short, max(width, height))


EYES = rectangle((800, 600), (380, 280, 420, 300))


def test_squares_of_known_masks() -> None:
    for mask, model, context, box in (
        (EYES, 128, 0.5, Box(336, 226, 128)),
        (EYES, 16, 1.0, Box(340, 230, 120)),
        (EYES, 128, 1e308, Box(100, 0, 600)),
        (rectangle((800, 600), (0, 0, 10, 10)), 128, 0.5, Box(0, 0, 128)),
        (rectangle((800, 600), (790, 590, 800, 600)), 128, 0.5, Box(672, 472, 128)),
        (masks.preset("everything", (600, 801)), 128, 0.5, Box(-100, 0, 801)),
        (masks.preset("left half", (800, 600)), 128, math.inf, Box(0, 0, 600)),
        (masks.preset("upper half", (40, 30)), 128, 0.5, Box(0, -5, 40)),
        (rectangle((128, 128), (60, 100, 127, 128)), 128, 0.0, Box(0, 0, 128)),  # the model's own size: all of it
    ):
        assert crop_box(mask, model, context) == box
    for size in ((800, 600), (600, 801), (40, 33), (64, 64)):
        assert whole_box(size) == crop_box(masks.preset("everything", size), 128, math.inf)


@pytest.mark.parametrize(
    ("box", "inside"),
    [(Box(7, 3, 16), True), (Box(0, -10, 50), False), (Box(-5, -20, 60), False), (Box(30, 10, 40), False)],
)
@pytest.mark.parametrize("channels", [3, 4])
def test_a_square_is_padded_by_its_edges_and_copied_or_resampled(box: Box, inside: bool, channels: int) -> None:
    """At its own size it is copied; otherwise the filter reads the pixels around it, if there are any all around."""
    image = Image.fromarray(noise(50, 30, channels))
    flat = flatten(image)
    rows, columns = (np.clip(np.arange(start, start + box.side), 0, n) for start, n in ((box.top, 29), (box.left, 49)))
    padded = Image.fromarray(np.asarray(flat)[rows][:, columns])
    assert np.array_equal(np.asarray(extract(image, box, box.side)), np.asarray(padded))
    for size, resampling in ((box.side // 3, Image.Resampling.HAMMING), (160, Image.Resampling.BICUBIC)):
        found = np.asarray(extract(image, box, size)).astype(int)
        source, edges = (flat, box.edges) if inside else (padded, None)
        assert np.abs(found - np.asarray(source.resize((size, size), resampling, edges))).max() <= 1


@pytest.mark.parametrize("size", [(131, 300), (90, 70), (128, 128), (1001, 701)])
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


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("context", [0.2, math.inf])
def test_unpainted_pixels_are_the_uploads_own(channels: int, context: float) -> None:
    before = noise(131, 77, channels)
    upload, generated = Image.fromarray(before), Image.fromarray(noise(32, 32, seed=9))
    brush = rectangle(upload.size, (15, 20, 70, 45))
    brush.putpixel((71, 46), 1)
    for mask in (brush, *(masks.preset(name, upload.size) for name in masks.PRESETS)):
        for feather in (0, 5):
            result = paste_back(upload, generated, masks.alpha(mask, feather), crop_box(mask, 32, context))
            assert (result.mode, result.size) == (upload.mode, upload.size)
            changed = (np.asarray(result) != before).any(-1)
            assert changed.any() and not changed[np.asarray(mask) == 0].any()
    assert np.array_equal(np.asarray(upload), before)


@pytest.mark.parametrize("channels", [3, 4])
def test_blending_weighs_colors_by_their_opacity_and_rounds_to_the_nearest(channels: int) -> None:
    """At every weight and every opacity; a square that begins above and left of the image."""
    alpha, opacity = (each.astype(np.uint8) for each in np.meshgrid(np.arange(256), np.arange(256)))
    upload, generated = noise(256, 256, channels, seed=3), noise(300, 300, seed=4)
    upload[..., 3:] = opacity[..., None]
    result = np.asarray(paste_back(*map(Image.fromarray, (upload, generated, alpha)), Box(-30, -9, 300)))
    weight, touched = alpha[..., None] / 255, alpha > 0
    old = (upload[..., 3:] if channels == 4 else 255) / 255 * (1 - weight)
    with np.errstate(invalid="ignore"):
        color = (upload[..., :3] * old + generated[9:265, 30:286] * weight) / (old + weight)
    assert np.abs(result[..., :3] - color)[touched].max() <= 0.5 + 1e-9
    assert channels == 3 or np.abs(result[..., 3:] - 255 * (old + weight))[touched].max() <= 0.5 + 1e-9
    assert np.array_equal(result[~touched], upload[~touched])


def test_only_the_square_is_pasted_and_the_color_profile_is_kept() -> None:
    upload, white = Image.new("RGB", (60, 40)), Image.new("RGB", (8, 8), "white")
    upload.info["icc_profile"] = b"profile"
    pasted = paste_back(upload, white, Image.new("L", (60, 40), 255), Box(50, 30, 20))
    assert pasted.info == {"icc_profile": b"profile"}
    changed = np.asarray(pasted).any(-1)
    assert changed[30:, 50:].all() and changed.sum() == 100
    assert not np.asarray(paste_back(upload, white, Image.new("L", (60, 40)), Box(0, 0, 20))).any()


def test_a_long_narrow_image_takes_little_memory() -> None:
    size = (20_000, 20)
    mask = masks.preset("everything", size)
    upload = Image.new("RGB", size, (9, 8, 7))
    box = crop_box(mask, 32)
    assert box == Box(0, -9990, 20_000)
    assert extract(upload, box, 32).getextrema() == ((9, 9), (8, 8), (7, 7))
    result = paste_back(upload, Image.new("RGB", (32, 32), "white"), mask, box)  # 1.2 GB if the square were made
    assert result.getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("size", [(64, 64), (61, 61), (45, 200), (100, 30)])
def test_painted_patches_are_the_ones_that_are_regenerated(size: tuple[int, int]) -> None:
    """Where a patch has pixels that are wholly in it; past the edge of an image there is nothing to paint."""
    cells = np.random.default_rng(0).integers(0, 3, (8, 8), np.uint8) * 100
    region = Region.of_patches(cells, whole_box(size), size, 32)
    assert np.array_equal(region.token_strength, cells)
    assert region.strength.shape == (32, 32) and region.mask.size == size
    found = paint_in(np.asarray(region.mask), region.box, 8)
    assert found.any() and not (found > 0)[cells == 0].any() and set(np.unique(found)) <= {0, 100, 200}
    if size == (64, 64):
        assert np.array_equal(found, cells)
