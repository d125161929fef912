"""The square of the upload that the model works on, which of its tokens are kept, and pasting the result back."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageChops

from imagebart.imaging import masks
from imagebart.imaging.files import flatten
from imagebart.imaging.masks import Bools, Bytes, Size

BAND = 64  # rows that are pasted at a time, which fit the processor's cache
MIN_CONTEXT = 1 / 8  # of a painted area's length, on each side where the image has it


@dataclass(frozen=True)
class Box:
    """A square of an image, in its pixels, or in tokens of its grid.

    In pixels it may extend past the image; left and top may be negative.
    """

    left: int
    top: int
    side: int

    @property
    def cells(self) -> tuple[slice, slice]:
        """The rows and the columns inside, of an array as large as the image or grid."""
        return slice(self.top, self.top + self.side), slice(self.left, self.left + self.side)

    @property
    def edges(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, the last two exclusive, as Pillow has them."""
        return self.left, self.top, self.left + self.side, self.top + self.side

    def overlap(self, other: "Box") -> int:
        """How many pixels, or tokens, both hold."""
        spans = ((self.top, other.top), (self.left, other.left))
        rows, columns = (max(0, min(a + self.side, b + other.side) - max(a, b)) for a, b in spans)
        return rows * columns


@dataclass(frozen=True)
class Region:
    """Where an edit happens, from its mask."""

    box: Box  # what the model sees
    strength: Bytes  # of the paint that touches each of the model's pixels, uint8 [size, size]; 0: none does
    grid: int  # patches, and so tokens, a side
    mask: Image.Image  # what may change, by its strength: "L" of the upload's size
    feather: int  # pixels over which the change fades in at the mask's edge, inwards

    @classmethod
    def of(cls, mask: Image.Image, model_size: int, grid: int, context: float = math.inf, feather: int = 0) -> "Region":
        """The region of an "L" mask of the upload's size, for a model of grid x grid tokens.

        context, feather: see `crop_box` and `masks.alpha`. Raises InputError if nothing is painted.
        """
        box = crop_box(mask, model_size, context)
        strength = paint_in(masks.strengths(mask), box, model_size)
        return cls(box, strength, grid, mask, feather)

    @classmethod
    def of_patches(cls, patches: Bytes, box: Box, size: Size, model_size: int, feather: int = 0) -> "Region":
        """The region that regenerates whole patches of a square in an image of `size` (width, height).

        patches: the strength of each, uint8 [grid, grid], rows from the top; 0: it is kept.
        """
        side = model_size // len(patches)
        strength = patches.repeat(side, 0).repeat(side, 1)
        return cls(box, strength, len(patches), paint_patches(patches, box, size), feather)

    @property
    def painted(self) -> Bools:
        """The model's pixels that paint touches: [size, size]."""
        return self.strength > 0

    @property
    def token_strength(self) -> Bytes:
        """The largest strength in each token's patch: uint8 [grid, grid], rows from the top; 0: it is kept."""
        side = len(self.strength) // self.grid
        largest: Bytes = self.strength.reshape(self.grid, side, self.grid, side).max((1, 3))
        return largest

    @property
    def regenerated(self) -> Bools:
        """The patches whose tokens are regenerated, as paint touches them: [grid, grid], rows from the top."""
        return self.token_strength > 0

    def unknown(self, size: Size) -> Bools:
        """The model's pixels that are painted or past the edge of an image of `size` (width, height)."""
        across, down = (masks.spans(start, self.box.side, len(self.painted)) for start in (self.box.left, self.box.top))
        columns = np.array([low < 0 or high > size[0] for low, high in across])
        rows = np.array([low < 0 or high > size[1] for low, high in down])
        return self.painted | rows[:, None] | columns

    @cached_property
    def alpha(self) -> Image.Image:
        """The new image's weight, "L" of the upload's size: see `masks.alpha`."""
        return masks.alpha(self.mask, self.feather)


def crop_box(mask: Image.Image, model_size: int, context: float = 0.5) -> Box:
    """The square to work on for an "L" mask of the upload's size.

    It holds the painted part with `context` times its longer side on each side, and is at least model_size pixels a
    side. It stays inside the image, at most as large as its shorter side, unless the painted part with MIN_CONTEXT does
    not fit; then it extends past the image, equally at both ends. `math.inf` takes as much as possible, as for models
    of faces, which know no enlarged details. Raises InputError if nothing is painted.
    """
    left, top, right, bottom = masks.bounds(mask)
    width, height = mask.size
    longest = max(right - left, bottom - top)
    margin = math.ceil(longest * MIN_CONTEXT)
    across = min(width, right + margin) - max(0, left - margin)
    down = min(height, bottom + margin) - max(0, top - margin)
    least = max(across, down)
    room = min(mask.size) if least <= min(mask.size) else max(mask.size)
    wanted = math.ceil(min(longest * (1 + 2 * context), room))  # the context may be infinite
    side = min(max(wanted, model_size, least), room)

    def start(twice_center: int, length: int) -> int:
        if side > length:
            return -((side - length) // 2)
        return min(max((twice_center - side) // 2, 0), length - side)

    return Box(start(left + right, width), start(top + bottom, height), side)


def whole_box(size: Size) -> Box:
    """The square that holds all of an image of `size` (width, height), in the middle."""
    side = max(size)
    return Box(-((side - size[0]) // 2), -((side - size[1]) // 2), side)


def extract(image: Image.Image, box: Box, size: int) -> Image.Image:
    """The square of an "RGB" or "RGBA" image, "RGB" of `size` x `size` pixels, on white.

    Pixels are copied, not resampled, where box.side is size. Past the image's edge, its edge pixels repeat.
    """
    left, top, right, bottom = box.edges
    inside = min(left, top) >= 0 and right <= image.width and bottom <= image.height
    # One axis at a time, so that padding stays small; with the pixels around the square that the filter reads.
    reach = 2 * max(1, math.ceil(box.side / size)) + 1 if inside else 0
    left, top = max(left - reach, 0), max(top - reach, 0)
    right, bottom = min(right + reach, image.width), min(bottom + reach, image.height)
    strip = _resize_columns(flatten(image.crop((left, top, right, bottom))), box.left - left, box.side, size)
    upright = strip.transpose(Image.Transpose.TRANSPOSE)
    return _resize_columns(upright, box.top - top, box.side, size).transpose(Image.Transpose.TRANSPOSE)


def paint_in(paint: Bytes, box: Box, grid: int) -> Bytes:
    """The largest of the upload's pixels, uint8 [H, W], that overlap each patch of the square: uint8 [grid, grid].

    However little of a pixel overlaps, it counts. Past the image's edge there is nothing, 0.
    """
    return masks.cover(paint, masks.spans(box.top, box.side, grid), masks.spans(box.left, box.side, grid))


def paint_patches(patches: Bytes, box: Box, size: Size) -> Image.Image:
    """The mask of `size` (width, height) that regenerates patches of the square alone, by their strengths.

    patches: uint8 [grid, grid]. A pixel in several patches has the least of their strengths.
    """
    touched = masks.spans(0, len(patches), box.side)  # by each pixel of the square
    columns = touched[max(0, -box.left) : max(0, size[0] - box.left)]
    rows = touched[max(0, -box.top) : max(0, size[1] - box.top)]
    kept = masks.cover(255 - patches, rows, columns)
    mask = Image.new("L", size)
    mask.paste(Image.fromarray(255 - kept), (max(0, box.left), max(0, box.top)))
    return mask


def paste_back(upload: Image.Image, generated: Image.Image, alpha: Image.Image, box: Box) -> Image.Image:
    """The upload ("RGB" or "RGBA") with `generated`, a square of any size, blended into `box` by `alpha`.

    Where `alpha` ("L", the upload's size) is 0, pixels are the upload's, bit for bit, hidden colors of transparent
    ones included. Elsewhere an "RGB" square is opaque: on transparent ground it becomes visible, softly at soft
    edges. An "RGBA" square is a layer, as opaque as it says.
    """
    result = upload.copy()
    painted = alpha.getbbox() or (0, 0, 0, 0)
    (left, top), (right, bottom) = map(max, painted[:2], box.edges[:2]), map(min, painted[2:], box.edges[2:])
    if left >= right:
        return result
    for start in range(top, bottom, BAND):
        band = (left, start, right, min(bottom, start + BAND))
        new, weight = _resample(generated, box, band), alpha.crop(band)
        if new.mode == "RGBA":
            new, weight = new.convert("RGB"), ImageChops.multiply(weight, new.getchannel("A"))
        result.paste(new, band[:2], weight)  # rounds to the nearest: exact but on transparent ground
        if upload.mode == "RGBA":
            ground, share = np.asarray(upload.crop(band)), np.asarray(weight)
            mixed = (ground[..., 3] < 255) & (share > 0) & (share < 255)
            if mixed.any():
                pixels = np.array(result.crop(band))
                pixels[mixed] = _over(ground[mixed], np.asarray(new)[mixed], share[mixed])
                result.paste(Image.fromarray(pixels), band[:2])
    return result


def _filter(before: int, after: int) -> Image.Resampling:
    # Both widen when they shrink an image; Hamming leaves no halos around flat colors.
    return Image.Resampling.HAMMING if after < before else Image.Resampling.BICUBIC


def _resize_columns(image: Image.Image, start: int, side: int, size: int) -> Image.Image:
    """Columns [start, start + side) of an "RGB" image, those past its edges repeating them, as `size` columns."""
    if start < 0 or start + side > image.width:
        columns = np.clip(np.arange(start, start + side), 0, image.width - 1)
        image, start = Image.fromarray(np.take(np.asarray(image), columns, axis=1)), 0
    if side == size:
        return image.crop((start, 0, start + side, image.height))
    return image.resize((size, image.height), _filter(side, size), box=(start, 0, start + side, image.height))


def _resample(generated: Image.Image, box: Box, window: tuple[int, int, int, int]) -> Image.Image:
    """The part of the square in `window` (upload's pixels), at the upload's resolution."""
    left, top, right, bottom = window
    inside = (left - box.left, top - box.top, right - box.left, bottom - box.top)
    if generated.width == box.side:
        return generated.crop(inside)
    scale = generated.width / box.side
    x0, y0, x1, y1 = (edge * scale for edge in inside)
    source = (x0, y0, min(x1, generated.width), min(y1, generated.height))  # rounding must not pass the edge
    return generated.resize((right - left, bottom - top), _filter(generated.width, box.side), box=source)


def _over(old: Bytes, new: Bytes, weight: Bytes) -> Bytes:
    """Old "RGBA" pixels [M, 4] with new "RGB" ones [M, 3] over them by weight [M] (1 to 254).

    float32 holds all these whole numbers, and its quotients never reach the next whole number.
    """
    before, over = (255 - weight).astype(np.float32) * old[:, 3], weight.astype(np.float32) * 255
    opacity = before + over  # 255 times what it is
    half = np.floor(opacity / 2)
    colors = (before * old[:, :3].T + over * new.T + half) / opacity
    return np.vstack([colors, (opacity + 127) / 255]).T.astype(np.uint8)
