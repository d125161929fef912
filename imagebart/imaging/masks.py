"""Masks: "L" images of the upload's size; what is painted is regenerated.

A value is a strength: how much of what is there is forgotten, as the noise level that its token starts from. 0 is kept,
255 regenerated from noise, v between starts from noise level v / 255. Masks keep the upload's resolution, so that thin
strokes are not lost.
"""

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from imagebart.core.errors import InputError, format_value
from imagebart.imaging.files import Source, load_image

PRESETS = ("upper half", "lower half", "left half", "right half", "center", "border", "everything")

MASK_SUFFIX = ".mask.png"  # NAME.mask.png is the mask of NAME.png
DARKEST_PAINT, LIGHTEST_GRAY = 16, 239  # JPEG masks are not quite black and white where they should be
EDGE = 2  # pixels from 0 to 255, at most, that an antialiased edge takes on each side

Size = tuple[int, int]
Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def load_mask(source: Source, size: Size) -> Image.Image:
    """A mask from an uploaded image, for an image of `size` (width, height).

    Where the upload has any transparency, its opacity is the paint; otherwise its brightness is (white = regenerate;
    under DARKEST_PAINT counts as black, over LIGHTEST_GRAY as white). A mask of the same shape but another size is
    scaled so that no stroke is lost.
    Raises InputError if it cannot be opened (see load_image) or has another shape.
    """
    upload = load_image(source, "mask")  # RGB or RGBA
    paint = upload.getchannel("A") if upload.mode == "RGBA" else Image.new("L", upload.size, 255)
    if paint.getextrema() == (255, 255):
        brightness = upload.convert("RGB").convert("L")
        paint = brightness.point([0 if v < DARKEST_PAINT else 255 if v > LIGHTEST_GRAY else v for v in range(256)])
    if paint.size == size:
        return paint
    scale_x, scale_y = size[0] / paint.width, size[1] / paint.height
    # One pixel of slack: programs round differently when they scale an image.
    if abs(scale_x - scale_y) * min(paint.size) > max(1.0, scale_x):
        raise InputError(_mismatch(paint.size, size, "shape"))
    pixels = np.asarray(paint)
    return Image.fromarray(cover(pixels, spans(0, paint.height, size[1]), spans(0, paint.width, size[0])))


def as_mask(mask: Image.Image, size: Size, empty: bool = False) -> Image.Image:
    """A mask of `size` (width, height) from an image: "L" as it is, others as `load_mask` reads them.

    Raises InputError where it is no image, has another size, or paints nothing unless it may be `empty`.
    """
    if not isinstance(mask, Image.Image):
        raise InputError(f"The mask is {format_value(mask)}; give an opened image.")
    if mask.mode != "L" and mask.size == size:
        mask = load_mask(mask, size)
    if mask.size != size:
        raise InputError(_mismatch(mask.size, size, "size"))
    if not empty:
        bounds(mask)
    return mask


def bounds(mask: Image.Image) -> tuple[int, int, int, int]:
    """The painted part's (left, top, right, bottom), the last two exclusive; raises InputError without one."""
    box = mask.getbbox()
    if box is None:
        ready = f"a ready mask ({', '.join(PRESETS)})"
        raise InputError(f"Nothing is painted; paint over what should change, or choose {ready}.")
    return box


def preset(name: str, size: Size) -> Image.Image:
    """A ready mask of `size` (width, height); `name` is one of PRESETS.

    Opposite halves, and center (the middle half of each side) and border, are complements.
    """
    width, height = size
    center = (width // 4, height // 4, width - width // 4, height - height // 4)
    boxes = {
        "upper half": (0, 0, width, height // 2),
        "lower half": (0, height // 2, width, height),
        "left half": (0, 0, width // 2, height),
        "right half": (width // 2, 0, width, height),
        "center": center,
        "border": center,
        "everything": (0, 0, width, height),
    }
    if not isinstance(name, str) or name not in boxes:
        raise InputError(f"There is no ready mask {format_value(name)}; choose one of {', '.join(PRESETS)}.")
    mask = Image.new("L", size)
    mask.paste(255, boxes[name])
    return ImageChops.invert(mask) if name == "border" else mask


def preset_array(name: str, side: int) -> Bools:
    """A preset as bool [side, side], True where it is painted."""
    return np.asarray(preset(name, (side, side))) > 0


def alpha(mask: Image.Image, feather: int) -> Image.Image:
    """The new image's weight at each pixel, 0..255, as an "L" image of the mask's size.

    It is 0 wherever nothing is painted, and 255 elsewhere, whatever the strength. Over `feather` pixels (0: none) it
    rises inwards from the painted area's edge; in strokes that are too thin for that, up to the middle of the stroke.
    The image's edge is no edge of the mask.
    """
    box, full = mask.getbbox(), [0] + [255] * 255
    if box is None or feather == 0:
        return mask.point(full)
    # The nearest unpainted pixel is at most one pixel outside of the painted part.
    left, top, right, bottom = box
    window = (max(0, left - 1), max(0, top - 1), min(mask.width, right + 1), min(mask.height, bottom + 1))
    paint = np.array(mask.crop(window).point(full))
    if paint.all():
        return mask.point(full)
    depth = cv2.distanceTransform(paint, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Roots of whole numbers, whose last bit OpenCV rounds now one way, now the other.
    depth = np.minimum(np.sqrt(np.rint(depth * depth)), feather + 1)
    reach = 2 * min(feather, max(depth.shape)) + 1
    ridge = cv2.dilate(np.maximum(depth, 1), np.ones((reach, reach), np.uint8))
    paint = np.rint(depth / ridge * paint).astype(np.uint8)
    result = Image.new("L", mask.size)
    result.paste(Image.fromarray(paint), window[:2])
    return result


def strengths(mask: Image.Image) -> Bytes:
    """The strength of each pixel of an "L" mask, uint8 [H, W]: its values, but 255 on an antialiased edge of 255.

    An edge is what has both 0 and 255 within EDGE pixels: other programs smooth outlines, and mean no strength by it.
    """
    values = np.asarray(mask)
    if not any(mask.histogram()[1:255]):
        return values
    around = np.ones((2 * EDGE + 1, 2 * EDGE + 1), np.uint8)
    edge = (cv2.dilate(values, around) == 255) & (cv2.erode(values, around) == 0) & (values > 0)
    return np.where(edge, np.uint8(255), values)


def spans(start: int, length: int, cells: int) -> list[tuple[int, int]]:
    """The pixels (first, one after the last) that overlap each of `cells` equal parts of [start, start + length).

    Pixel p is [p, p + 1). Spans may be outside of the image.
    """
    edges = [start * cells + i * length for i in range(cells + 1)]
    return [(low // cells, -(-high // cells)) for low, high in pairwise(edges)]


def cover(pixels: Bytes, rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> Bytes:
    """The largest of the pixels, uint8 [H, W], in each pair of spans: uint8 [len(rows), len(columns)]; 0 outside."""
    for parts in (rows, columns):
        result = np.zeros((len(parts), pixels.shape[1]), np.uint8)
        for out, (low, high) in zip(result, parts, strict=True):
            part = pixels[max(low, 0) : max(high, 0)]
            if len(part):
                part.max(axis=0, out=out)
        pixels = result.T
    return np.ascontiguousarray(pixels)


def _mismatch(mask: Size, image: Size, quality: str) -> str:
    found = f"{mask[0]:,} × {mask[1]:,} pixels and the image {image[0]:,} × {image[1]:,}"
    return f"The mask is {found}; give both the same {quality}."
