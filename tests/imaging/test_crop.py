"""The square and the way back, against loops in exact fractions; unpainted pixels never change."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from imagebart.errors import InputError
from imagebart.imaging import masks
from imagebart.imaging.crop import MIN_CONTEXT, Box, Region, crop_box, extract, keep_tokens, paint_cells, paste_back
from imagebart.imaging.files import flatten, load_image


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def rectangle(size: tuple[int, int], box: tuple[int, int, int, int], value: int = 255) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(value, box)
    return mask


def slow_keep(mask: np.ndarray, box: Box, rows: int, columns: int) -> list[bool]:
    """Every cell against every painted pixel, as open intervals that do or do not overlap, in exact fractions."""
    keep = []
    painted = np.argwhere(mask > 0)
    height, width = Fraction(box.side, rows), Fraction(box.side, columns)
    for row in range(rows):
        top, bottom = box.top + row * height, box.top + (row + 1) * height
        for column in range(columns):
            left, right = box.left + column * width, box.left + (column + 1) * width
            keep.append(not any(x < right and x + 1 > left and y < bottom and y + 1 > top for y, x in painted.tolist()))
    return keep


@pytest.mark.parametrize("seed", range(25))
def test_tokens_are_exact_for_any_size(seed: int) -> None:
    random = np.random.default_rng(seed)
    width, height = (int(n) for n in random.integers(16, 90, 2))
    mask = np.zeros((height, width), np.uint8)
    for _ in range(random.integers(1, 6)):
        y, x = random.integers(0, height), random.integers(0, width)
        mask[y : y + random.integers(1, 9), x : x + random.integers(1, 9)] = random.integers(1, 256)
    rows, columns = (int(n) for n in random.integers(1, 17, 2))
    image = Image.fromarray(mask)
    boxes = [
        crop_box(image, int(random.integers(16, 64)), float(random.uniform(0, 2))),
        Box(int(random.integers(-40, 60)), int(random.integers(-40, 60)), int(random.integers(1, 120))),
    ]
    for box in boxes:
        keep = keep_tokens(image, box, (rows, columns))
        assert keep.shape == (rows * columns,)
        assert keep.tolist() == slow_keep(mask, box, rows, columns)


@pytest.mark.parametrize("size", [(64, 64), (37, 90), (300, 211)])
def test_a_regions_pixels_and_cells_agree_about_paint(size: tuple[int, int]) -> None:
    """The model's pixels that paint touches, found one by one; a cell is regenerated if any of its pixels is."""
    random = np.random.default_rng(size[0])
    for _ in range(4):
        left, top = random.integers(0, size[0] - 9), random.integers(0, size[1] - 9)
        mask = rectangle(size, (left, top, left + random.integers(1, 9), top + random.integers(1, 9)), value=1)
        region, paint = Region.of(mask, 32, 8), np.asarray(mask)
        assert (~region.painted).flatten().tolist() == slow_keep(paint, region.box, 32, 32)
        assert (~region.regenerated).flatten().tolist() == slow_keep(paint, region.box, 8, 8)


def test_the_faintest_pixel_counts_and_cell_borders_are_sharp() -> None:
    box = Box(0, 0, 64)
    for x, column in ((0, 0), (15, 0), (16, 1), (63, 3)):
        mask = rectangle((64, 64), (x, 20, x + 1, 21), value=1)
        assert (~keep_tokens(mask, box, (4, 4))).nonzero().flatten().tolist() == [4 + column]


def test_everything_is_redrawn_but_what_lies_past_the_picture() -> None:
    mask = masks.preset("everything", (64, 32))
    keep = keep_tokens(mask, Box(0, -16, 64), (8, 8)).reshape(8, 8)
    assert keep[:2].all() and keep[6:].all() and not keep[2:6].any()


def test_of_a_square_past_the_picture_no_more_is_kept_than_the_picture_has() -> None:
    mask = rectangle((64, 20), (0, 5, 64, 10))
    region = Region.of(mask, 32, 8)
    assert region.box == Box(0, -22, 64)
    rows = region.unknown(mask.size).all(1)  # row y of the square is rows 2 y - 22 and 2 y - 21 of the image
    assert [y for y in range(32) if not rows[y]] == [11, 12, 16, 17, 18, 19, 20]
    assert (region.unknown(mask.size) == rows[:, None]).all()


@pytest.mark.parametrize("seed", range(200))
def test_the_square_holds_the_mask_and_its_context(seed: int) -> None:
    random = np.random.default_rng(seed)
    width, height = (int(n) for n in random.integers(16, 700, 2))
    left, top = int(random.integers(0, width)), int(random.integers(0, height))
    right, bottom = int(random.integers(left, width)) + 1, int(random.integers(top, height)) + 1
    model, context = int(random.integers(16, 300)), float(random.choice([0, 0.1, 0.5, 2, math.inf]))
    box = crop_box(rectangle((width, height), (left, top, right, bottom)), model, context)
    longest, short = max(right - left, bottom - top), min(width, height)

    def has(margin: int) -> bool:
        """Whether the square holds the mask with a margin, as far as the image goes."""
        return (
            box.left <= max(0, left - margin)
            and box.top <= max(0, top - margin)
            and box.left + box.side >= min(width, right + margin)
            and box.top + box.side >= min(height, bottom + margin)
        )

    assert has(math.ceil(longest * MIN_CONTEXT))
    inside = box.left >= 0 and box.top >= 0 and box.left + box.side <= width and box.top + box.side <= height
    if inside:
        assert box.side <= short
    else:  # only where the mask does not fit otherwise; centred on the shorter axis and not too large
        assert longest * (1 + 2 * MIN_CONTEXT) + 2 > short
        assert box.side <= max(width, height)
        start, length = (box.left, width) if width < height else (box.top, height)
        assert abs(start + (start + box.side) - length) <= 1
    if box.side < short:
        assert box.side >= model
        assert has(math.floor(longest * min(context, 1e6)) - 1)
    if context == math.inf:
        assert box.side in (short, max(width, height))


def test_squares_of_known_pictures() -> None:
    for painted in ((3, 3, 4, 4), (0, 0, 128, 128), (60, 100, 127, 128)):  # the model's own size: all of it
        for context in (0.0, 0.5, math.inf):
            assert crop_box(rectangle((128, 128), painted), 128, context) == Box(0, 0, 128)
    eyes = rectangle((800, 600), (380, 280, 420, 300))
    assert crop_box(eyes, 128) == Box(336, 226, 128)
    assert crop_box(eyes, 16, 1.0) == Box(340, 230, 120)
    assert crop_box(eyes, 128, math.inf) == Box(100, 0, 600)
    assert crop_box(rectangle((800, 600), (0, 0, 10, 10)), 128) == Box(0, 0, 128)
    assert crop_box(rectangle((800, 600), (790, 590, 800, 600)), 128) == Box(672, 472, 128)
    assert crop_box(masks.preset("everything", (800, 600)), 128) == Box(0, -100, 800)
    assert crop_box(masks.preset("everything", (600, 801)), 128) == Box(-100, 0, 801)
    assert crop_box(masks.preset("left half", (800, 600)), 128, math.inf) == Box(0, 0, 600)
    assert crop_box(masks.preset("upper half", (40, 30)), 128) == Box(0, -5, 40)
    with pytest.raises(InputError, match="Nothing is painted"):
        crop_box(Image.new("L", (40, 30)), 128)
    for bad in (-0.1, math.nan):
        with pytest.raises(ValueError, match="context"):
            crop_box(eyes, 128, bad)


def test_the_models_own_size_is_never_resampled() -> None:
    image = Image.fromarray(noise(128, 128))
    new = Image.fromarray(noise(128, 128, seed=1))
    mask = rectangle((128, 128), (20, 30, 50, 60))
    box = crop_box(mask, 128)
    assert np.array_equal(np.asarray(extract(image, box, 128)), np.asarray(image))
    result = np.asarray(paste_back(image, new, mask, box))
    painted = np.asarray(mask) > 0
    assert np.array_equal(result[painted], np.asarray(new)[painted])
    assert np.array_equal(result[~painted], np.asarray(image)[~painted])


def test_a_square_of_the_models_size_is_cut_out_exactly_and_padded_by_its_edges() -> None:
    pixels = noise(50, 30)
    image = Image.fromarray(pixels)
    assert np.array_equal(np.asarray(extract(image, Box(7, 3, 16), 16)), pixels[3:19, 7:23])
    for box in (Box(0, -10, 50), Box(-5, -20, 60), Box(30, 10, 40)):
        square = np.asarray(extract(image, box, box.side))
        rows = [min(max(box.top + i, 0), 29) for i in range(box.side)]
        columns = [min(max(box.left + i, 0), 49) for i in range(box.side)]
        assert np.array_equal(square, pixels[rows][:, columns])


@pytest.mark.parametrize(("size", "side"), [((100, 60), 100), ((60, 100), 100), ((97, 61), 97)])
def test_padding_and_resampling_equal_padding_the_whole_first(size: tuple[int, int], side: int) -> None:
    pixels = noise(*size)
    box = Box(-((side - size[0]) // 2), -((side - size[1]) // 2), side)
    rows, columns = (
        np.clip(np.arange(start, start + side), 0, n - 1)
        for start, n in zip((box.top, box.left), (size[1], size[0]), strict=True)
    )
    whole = Image.fromarray(pixels[rows][:, columns])
    for model in (32, 160):
        resampling = Image.Resampling.HAMMING if model < side else Image.Resampling.BICUBIC
        expected = np.asarray(whole.resize((model, model), resampling)).astype(int)
        assert np.abs(np.asarray(extract(Image.fromarray(pixels), box, model)).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (131, 300), (90, 70), (128, 128), (1001, 701)])
@pytest.mark.parametrize("context", [0.5, math.inf])
def test_there_and_back_lands_on_the_same_place(size: tuple[int, int], context: float) -> None:
    """A smooth image comes back from the model's resolution as it was: nothing shifts or stretches."""
    y, x = np.mgrid[: size[1], : size[0]] / max(size)
    image = Image.fromarray(np.rint(np.stack([255 * x, 255 * y, 128 + 60 * (x - y)], -1)).astype(np.uint8))
    for box_painted in ((0, 0, 30, 20), (size[0] - 40, size[1] - 40, *size), (0, size[1] // 3, size[0], size[1] // 2)):
        mask = rectangle(size, box_painted)
        box = crop_box(mask, 128, context)
        back = paste_back(image, extract(image, box, 128), mask, box)
        difference = np.abs(np.asarray(back).astype(int) - np.asarray(image)).max(-1)
        assert difference.max() <= 3 and difference[np.asarray(mask) == 0].max() == 0


def test_a_hair_on_a_large_picture_marks_its_token_and_lands_there() -> None:
    size = (4000, 3000)
    mask = rectangle(size, (3210, 100, 3211, 2900))
    upload = Image.new("RGB", size, (10, 20, 30))
    box = crop_box(mask, 128, math.inf)
    assert box == Box(1000, 0, 3000)
    keep = keep_tokens(mask, box, (16, 16)).reshape(16, 16)
    column = (3210 - box.left) * 16 // box.side
    rows = range((100 - box.top) * 16 // box.side, (2899 - box.top) * 16 // box.side + 1)
    assert sorted({int(c) for _, c in (~keep).nonzero()}) == [column]
    assert [int(r) for r, _ in (~keep).nonzero()] == list(rows)
    drawn = np.zeros((128, 128, 3), np.uint8)
    drawn[:, column * 8 : column * 8 + 8] = 200
    result = np.asarray(paste_back(upload, Image.fromarray(drawn), masks.alpha(mask, 8), box))
    assert (result[101:2899, 3210] > 100).all()
    changed = (result != (10, 20, 30)).any(-1)
    assert changed[:, 3210].sum() >= 2798 and changed.sum() == changed[:, 3210].sum()


def uploads() -> dict[str, bytes]:
    """Encoded images of odd sizes in every mode that people have."""
    rgb, rgba = noise(131, 77), noise(131, 77, 4, seed=2)
    rgba[10:40, 10:60, 3] = 0
    deep = np.random.default_rng(5).integers(0, 65536, (77, 131), dtype=np.uint16)
    images = {
        "RGB": Image.fromarray(rgb),
        "RGBA": Image.fromarray(rgba),
        "LA": Image.fromarray(rgba[..., 2:].copy(), "LA"),
        "L": Image.fromarray(rgb[..., 0]),
        "1": Image.fromarray(rgb[..., 0] > 99),
        "P": Image.fromarray(rgb).quantize(64),
        "I;16": Image.fromarray(deep),
        "CMYK": Image.fromarray(rgba, "CMYK"),
    }
    for orientation in range(1, 9):
        images[f"EXIF {orientation}"] = Image.fromarray(rgb)
    files = {}
    for name, image in images.items():
        exif = Image.Exif()
        if name.startswith("EXIF"):
            exif[0x0112] = int(name[-1])
        file = BytesIO()
        image.save(file, "TIFF" if name == "CMYK" else "PNG", exif=exif)
        files[name] = file.getvalue()
    return files


UPLOADS = uploads()


@pytest.mark.parametrize("mode", UPLOADS)
@pytest.mark.parametrize("context", [0.2, math.inf])
def test_unpainted_pixels_are_the_uploads_own(mode: str, context: float) -> None:
    upload = load_image(UPLOADS[mode])
    drawn = Image.fromarray(noise(32, 32, seed=9))
    brush = np.zeros((upload.height, upload.width), np.uint8)
    brush[20:45, 15:70] = 255
    brush[45:47, 15:70] = [[90], [1]]
    shapes = [Image.fromarray(brush), *(masks.preset(name, upload.size) for name in masks.PRESETS)]
    before = np.asarray(upload).copy()
    for mask in shapes:
        box = crop_box(mask, 32, context)
        assert extract(flatten(upload), box, 32).size == (32, 32)
        for feather in (0, 5):
            result = paste_back(upload, drawn, masks.alpha(mask, feather), box)
            assert (result.mode, result.size) == (upload.mode, upload.size)
            untouched = np.asarray(mask) == 0
            assert np.array_equal(np.asarray(result)[untouched], before[untouched])
            assert not np.array_equal(np.asarray(result), before)
    assert np.array_equal(np.asarray(upload), before)


def test_blending_is_rounded_to_the_nearest() -> None:
    upload, drawn = noise(64, 600), noise(600, 600, seed=1)
    alpha = noise(64, 600, 1, seed=2)[..., 0]
    result = np.asarray(
        paste_back(Image.fromarray(upload), Image.fromarray(drawn), Image.fromarray(alpha), Box(-30, 0, 600))
    )
    share = alpha[..., None].astype(np.float64) / 255
    expected = upload * (1 - share) + drawn[:, 30:94] * share
    assert np.abs(result - expected).max() <= 0.5 + 1e-9


def test_blending_with_transparency_weighs_colours_by_their_opacity() -> None:
    upload, drawn = noise(64, 64, 4), noise(64, 64, seed=1)
    upload[:20, :, 3], upload[20:30, :, 3] = 0, 255
    alpha = noise(64, 64, 1, seed=2)[..., 0]
    alpha[:, :10], alpha[:, 10:20] = 255, 0
    result = np.asarray(
        paste_back(Image.fromarray(upload), Image.fromarray(drawn), Image.fromarray(alpha), Box(0, 0, 64))
    )
    share = alpha.astype(np.float64) / 255
    old = upload[..., 3] / 255 * (1 - share)
    opacity = old + share
    with np.errstate(invalid="ignore"):
        colour = (upload[..., :3] * old[..., None] + drawn * share[..., None]) / opacity[..., None]
    touched = alpha > 0
    assert np.abs(result[..., 3] - 255 * opacity)[touched].max() <= 0.5 + 1e-9
    assert np.abs(result[..., :3] - colour)[touched].max() <= 0.5 + 1e-9
    assert np.array_equal(result[~touched], upload[~touched])
    assert np.array_equal(result[:, :10, :3], drawn[:, :10]) and (result[:, :10, 3] == 255).all()


def test_blending_is_exact_at_every_weight_and_opacity() -> None:
    weight, opacity = np.meshgrid(np.arange(256), np.arange(256))
    upload, drawn = noise(256, 256, 4, seed=3), noise(256, 256, seed=4)
    upload[..., 3] = opacity
    alpha = Image.fromarray(weight.astype(np.uint8))
    result = np.asarray(paste_back(Image.fromarray(upload), Image.fromarray(drawn), alpha, Box(0, 0, 256)))
    before, over = (255 - weight) * opacity, weight * 255
    whole = np.maximum(before + over, 1)[..., None]
    colour = (before[..., None] * upload[..., :3] + over[..., None] * drawn + whole // 2) // whole
    assert np.array_equal(result[..., :3], np.where(weight[..., None] == 0, upload[..., :3], colour))
    assert np.array_equal(result[..., 3], (before + over + 127) // 255)


def test_only_the_square_is_pasted() -> None:
    upload = Image.new("RGB", (60, 40))
    result = paste_back(upload, Image.new("RGB", (8, 8), "white"), Image.new("L", (60, 40), 255), Box(50, 30, 20))
    changed = np.asarray(result).any(-1)
    assert changed[30:, 50:].all() and changed.sum() == 100
    nowhere = paste_back(upload, Image.new("RGB", (8, 8), "white"), Image.new("L", (60, 40)), Box(0, 0, 20))
    assert not np.asarray(nowhere).any()


def test_the_colour_profile_comes_along() -> None:
    file = BytesIO()
    Image.fromarray(noise(40, 40)).save(file, "PNG", icc_profile=b"profile")
    upload = load_image(file.getvalue())
    mask = masks.preset("centre", upload.size)
    assert paste_back(upload, Image.new("RGB", (16, 16)), mask, Box(0, 0, 40)).info == {"icc_profile": b"profile"}


def test_a_long_narrow_picture_takes_little_memory() -> None:
    size = (20_000, 20)
    mask = masks.preset("everything", size)
    upload = Image.new("RGB", size, (9, 8, 7))
    box = crop_box(mask, 32)
    assert box == Box(0, -9990, 20_000)
    assert extract(upload, box, 32).getextrema() == ((9, 9), (8, 8), (7, 7))
    result = paste_back(upload, Image.new("RGB", (32, 32), "white"), mask, box)  # 1.2 GB if the square were made
    assert result.getextrema() == ((255, 255),) * 3


def test_programming_mistakes_are_named() -> None:
    square, mask = Image.new("RGB", (16, 16)), Image.new("L", (20, 20), 255)
    with pytest.raises(ValueError, match="'P'"):
        paste_back(Image.new("P", (20, 20)), square, mask, Box(0, 0, 20))
    with pytest.raises(ValueError, match="alpha"):
        paste_back(Image.new("RGB", (20, 21)), square, mask, Box(0, 0, 20))
    with pytest.raises(ValueError, match="a square"):
        paste_back(Image.new("RGB", (20, 20)), Image.new("RGB", (16, 8)), mask, Box(0, 0, 20))


LARGE = """
import resource
from PIL import Image
from imagebart.imaging import masks
from imagebart.imaging.crop import Box, paste_back
from imagebart.imaging.files import flatten, load_image
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
before = peak()
upload = load_image(Image.new("RGBA", (8000, 5000), (9, 8, 7, 100)))
alpha = masks.alpha(masks.preset("border", upload.size), 1000)
flatten(upload)
paste_back(upload, Image.new("RGB", (128, 128)), alpha, Box(0, -1500, 8000))
print(peak() - before)
"""


@pytest.mark.slow
def test_a_picture_of_forty_megapixels_takes_less_than_a_gigabyte() -> None:
    """With transparency and the widest feather."""
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000


@pytest.mark.parametrize("box", [Box(0, 0, 30), Box(5, 7, 16), Box(-9, 0, 60), Box(0, -9, 47), Box(20, 3, 5)])
def test_a_square_of_a_transparent_picture_is_that_of_the_flattened_one(box: Box) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (30, 47, 4), np.uint8)
    image = Image.fromarray(pixels)
    assert extract(image, box, 16).tobytes() == extract(flatten(image), box, 16).tobytes()


@pytest.mark.parametrize("size", [(64, 64), (61, 61), (45, 200), (100, 30), (16, 16)])
def test_painted_cells_are_the_ones_that_are_redrawn(size: tuple[int, int]) -> None:
    """Where a square has pixels that lie wholly in each cell; past the edge of an image there is nothing to paint."""
    cells = np.random.default_rng(0).random((8, 8)) < 0.5
    box = crop_box(masks.preset("everything", size), 32, math.inf)
    mask = paint_cells(cells, box, size)
    regenerated = ~keep_tokens(mask, box, (8, 8)).numpy().reshape(8, 8)
    assert mask.size == size and regenerated.any() and not (regenerated & ~cells).any()
    if size[0] == size[1]:
        assert (regenerated == cells).all()
