"""Masks: what is painted is regenerated.

A mask is an "L" picture of the upload's own size: 0 is untouched, 255 fully painted, anything between is a
soft edge. It stays at the upload's resolution until the very last step, so thin strokes are never lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from imagebart.errors import InputError, format_value
from imagebart.imaging.files import Source, load_image

PRESETS = ("upper half", "lower half", "left half", "right half", "centre", "border", "everything")

# JPEG masks are not quite black where they should be; a difference that nobody sees must not change anything.
DARKEST_PAINT = 16
STRIPE = 256  # rows at a time, which bounds memory
STRIP = 32  # rows or columns at a time, which the processor's cache holds

Size = tuple[int, int]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def load_mask(source: Source, size: Size) -> Image.Image:
    """A mask from an uploaded picture, for a picture of `size` (width, height).

    Where the upload has any transparency, its opacity is the paint; otherwise its brightness is (white =
    regenerate; under DARKEST_PAINT counts as black). A mask of the same shape but another size is scaled so that
    no stroke is lost. Raises InputError if it cannot be opened (see load_image) or has another shape.
    """
    upload = load_image(source, "mask")
    opacity = _opacity(upload)
    paint = _brightness(upload) if opacity is None or opacity.getextrema() == (255, 255) else opacity
    if paint.size == size:
        return paint
    scale_x, scale_y = size[0] / paint.width, size[1] / paint.height
    # One pixel of slack: programs round differently when they scale a picture.
    if abs(scale_x - scale_y) * min(paint.size) > max(1.0, scale_x):
        raise InputError(_mismatch(paint.size, size, "shape"))
    pixels = np.asarray(paint)
    return Image.fromarray(cover(pixels, spans(0, paint.height, size[1]), spans(0, paint.width, size[0])))


def as_mask(mask: Image.Image, size: Size) -> Image.Image:
    """A mask for a picture of `size` (width, height) from a picture of any mode: "L" as it is, others as uploads are.

    Raises InputError where it is no picture, has another size, or paints nothing.
    """
    if not isinstance(mask, Image.Image):
        raise InputError(f"The mask is {mask!r:.40}, a {type(mask).__name__}; give an opened picture.")
    if mask.mode != "L" and mask.size == size:
        mask = load_mask(mask, size)
    if mask.size != size:
        raise InputError(_mismatch(mask.size, size, "size"))
    bounds(mask)
    return mask


def bounds(mask: Image.Image) -> tuple[int, int, int, int]:
    """The painted part's (left, top, right, bottom), the last two exclusive.

    Raises InputError if nothing is painted.
    """
    box = mask.getbbox()
    if box is None:
        ready = f"a ready mask ({', '.join(PRESETS)})"
        raise InputError(f"Nothing is painted; paint over what should change, or choose {ready}.")
    return box


def preset(name: str, size: Size) -> Image.Image:
    """A ready mask for a picture of `size` (width, height); `name` is one of PRESETS.

    Opposite halves, and centre (the middle half of each side) and border, share no pixel and leave none out.
    """
    width, height = size
    centre = (width // 4, height // 4, width - width // 4, height - height // 4)
    boxes = {
        "upper half": (0, 0, width, height // 2),
        "lower half": (0, height // 2, width, height),
        "left half": (0, 0, width // 2, height),
        "right half": (width // 2, 0, width, height),
        "centre": centre,
        "border": centre,
        "everything": (0, 0, width, height),
    }
    if not isinstance(name, str) or name not in boxes:
        raise InputError(f"There is no ready mask {format_value(name)}; choose one of {', '.join(PRESETS)}.")
    mask = Image.new("L", size)
    mask.paste(255, boxes[name])
    return invert(mask) if name == "border" else mask


def preset_array(name: str, side: int) -> npt.NDArray[np.bool_]:
    """A preset for a square picture: bool [side, side], True where it is painted."""
    return np.asarray(preset(name, (side, side))) > 0


def invert(mask: Image.Image) -> Image.Image:
    """Painted where `mask` is not; soft edges stay soft."""
    return ImageChops.invert(mask)


def alpha(mask: Image.Image, feather: int) -> Image.Image:
    """How much of the new picture shows at each pixel, 0..255, as an "L" picture of the mask's size.

    Never more than the mask: exactly 0 wherever nothing is painted, so that nothing unpainted changes. The
    feather therefore grows inwards: over `feather` pixels (0: none) the weight climbs from the painted
    area's edge to the mask's own value. In strokes too thin for that it climbs to the middle of the stroke,
    so that they stay visible. The picture's own edge is no edge of the mask.
    """
    if feather < 0:
        raise ValueError(f"{feather} pixels of feather; 0 or more are needed")
    box = mask.getbbox()
    if box is None or feather == 0:
        return mask.copy()
    # The nearest unpainted pixel is never further out than one pixel around the painted part.
    left, top, right, bottom = box
    window = (max(0, left - 1), max(0, top - 1), min(mask.width, right + 1), min(mask.height, bottom + 1))
    paint = np.array(mask.crop(window))
    if paint.all():
        return mask.copy()
    # In place, and by stripes: large uploads would take gigabytes otherwise.
    depth = cv2.distanceTransform(paint, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float32, copy=False)
    np.minimum(depth, feather + 1, out=depth)
    for top, ridge in _window_max(depth, min(feather, max(depth.shape))):
        stripe = slice(top, top + len(ridge))
        weight = np.divide(depth[stripe], np.maximum(ridge, 1, out=ridge), out=ridge)
        np.rint(np.multiply(weight, paint[stripe], out=weight), out=paint[stripe], casting="unsafe")
    result = Image.new("L", mask.size)
    result.paste(Image.fromarray(paint), window[:2])
    return result


def spans(start: int, length: int, cells: int) -> list[tuple[int, int]]:
    """The pixels (first, one after the last) that each of `cells` equal cells overlaps, in exact integers.

    The cells divide [start, start + length); pixel p is [p, p + 1). Spans may lie outside the picture.
    """
    edges = [start * cells + i * length for i in range(cells + 1)]
    return [(low // cells, -(-high // cells)) for low, high in pairwise(edges)]


def cover(pixels: Bytes, rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> Bytes:
    """The largest value under each cell, uint8 [len(rows), len(columns)]; cells outside the picture are 0.

    `pixels` is uint8 [H, W]; `rows` and `columns` come from `spans`.
    """
    by_row = _cover_rows(pixels, rows)
    return np.ascontiguousarray(_cover_rows(by_row.T, columns).T)


def _cover_rows(pixels: Bytes, rows: list[tuple[int, int]]) -> Bytes:
    result = np.zeros((len(rows), pixels.shape[1]), np.uint8)
    for out, (low, high) in zip(result, rows, strict=True):
        part = pixels[max(low, 0) : max(high, 0)]
        if len(part):
            part.max(axis=0, out=out)
    return result


def _window_max(values: Floats, reach: int) -> Iterator[tuple[int, Floats]]:
    """The largest value in the square of 2 `reach` + 1 pixels around each, in a time that `reach` hardly changes.

    values: float32 [H, W], 0 or more. Yields stripes of it, each in the same memory, with the number of its first row.
    """
    length, width = values.shape
    rows = min(max(STRIPE, reach), length)
    result = np.empty((rows, width), np.float32)
    # Few columns or rows at a time, that the processor's cache holds.
    upright = np.empty((2, rows + 2 * reach, STRIP), np.float32)
    lying = np.empty((2, STRIP, width + 2 * reach), np.float32)
    for top in range(0, length, rows):
        above = min(top, reach)
        near, stripe = values[top - above : top + rows + reach], result[: length - top]
        for left in range(0, width, STRIP):
            part = near[:, left : left + STRIP]
            work = upright[:, : len(stripe) + 2 * reach, : part.shape[1]]
            stripe[:, left : left + STRIP] = _running_max(part, reach - above, work, 2 * reach + 1)
        for first in range(0, len(stripe), STRIP):
            part = stripe[first : first + STRIP]
            work = lying[:, : len(part)].transpose(0, 2, 1)
            part[:] = _running_max(part.T, reach, work, 2 * reach + 1).T
        yield top, stripe


def _running_max(values: Floats, before: int, work: Floats, run: int) -> Floats:
    """The largest of `run` values along axis 0, from each place on: by runs of 1, 2, 4, ... values.

    work: float32 [2, n, W], overwritten; `values` stand in it from place `before` on, and 0 elsewhere.
    Returns [n - run + 1, W], a part of it.
    """
    largest, other = work
    largest[:before] = largest[before + len(values) :] = 0
    largest[before : before + len(values)] = values
    length = 1
    while length < run:
        step = min(length, run - length)
        count = len(largest) - length - step + 1
        np.maximum(largest[:count], largest[step : step + count], out=other[:count])
        largest, other, length = other, largest, length + step
    return largest[: len(largest) - run + 1]


def _opacity(image: Image.Image) -> Image.Image | None:
    return image.convert("RGBA").getchannel("A") if image.has_transparency_data else None


def _brightness(image: Image.Image) -> Image.Image:
    grey = image.convert("RGB").convert("L")
    return grey.point([0 if value < DARKEST_PAINT else value for value in range(256)])


def _mismatch(mask: Size, picture: Size, quality: str) -> str:
    found = f"{mask[0]:,} × {mask[1]:,} pixels and the picture {picture[0]:,} × {picture[1]:,}"
    return f"The mask is {found}; give both the same {quality}."
