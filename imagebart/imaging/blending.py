"""Blending a generated square with what is kept, without a seam.

1. Decoded tokens differ from the image by a residual, which is known where pixels are kept. Continued from the mask's
   edge into what was generated, it makes both meet there, and fades inwards: the membrane of Pérez et al., Poisson
   Image Editing (2003), section 2, screened (Bhat et al., Fourier Analysis of the 2D Screened Poisson Equation, 2008).
   A large residual is other content, such as a hat where there was hair; it ends at the mask's edge, for continued it
   would be a glow.
2. Flat colors of what is kept, as drawings have them, go on exactly: where the generated part next to them nearly has
   their color, it gets that color.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from imagebart.imaging.masks import Bools, Bytes, Floats

REACH = 8.0  # pixels over which a residual decays by a factor of e along a straight edge
STEPS, TOLERANCE = 200, 1e-8  # of conjugate gradients, at most; mean square error, in levels
OTHER_CONTENT, OTHER_MEDIANS = 24, 3  # a larger residual, in levels and in medians of all, is not the decoder's error
FLAT_SIDE, FLAT_LEAST, FLAT_COLORS = 5, 64, 32  # pixels a side and pixels in all of a flat color; colors, at most
TEXTURE = 2.0  # levels: the mean of the Laplacian of a ground in which filling is to be seen
FILL_RADIUS, FILL_SIDE, FILL_MARGIN = 3, 384, 16  # pixels: see cv2.inpaint; of a longer side; around what is filled
SAME, DIFFERENT = 6, 12  # levels off a flat color up to which a pixel gets it, and from which it stays as it is


def blend(generated: Image.Image, before: Image.Image, painted: Bools) -> Image.Image:
    """A generated "RGB" square blended with the square before; painted: bool [size, size], False where it is kept."""
    kept_pixels, generated_pixels = np.asarray(before), np.asarray(generated)
    if painted.all():
        return generated
    if not painted.any():
        return before
    residual = kept_pixels.astype(np.float32) - generated_pixels
    error = _apart(kept_pixels, generated_pixels)
    unknown = painted | (error > max(OTHER_CONTENT, OTHER_MEDIANS * np.median(error[~painted])))
    continued = membrane(np.where(unknown[..., None], np.float32(0), residual), unknown)
    blended = (generated_pixels + continued).round().clip(0, 255).astype(np.uint8)
    whole = np.where(painted[..., None], blended, kept_pixels)
    return Image.fromarray(continue_flat_colors(whole, painted))


def is_textured(image: Image.Image, mask: Image.Image) -> bool:
    """Whether the ground around an "L" mask is more than plain colors, so that `fill` is to be seen."""
    near = _near(mask)
    painted, gray = (np.asarray(mask.crop(near)) > 0).astype(np.uint8), np.asarray(image.crop(near).convert("L"))
    around = cv2.dilate(painted, np.ones((9, 9), np.uint8)) > painted
    return bool(np.abs(cv2.Laplacian(gray, cv2.CV_16S)[around]).mean() > TEXTURE) if around.any() else False


def fill(image: Image.Image, mask: Image.Image) -> Image.Image:
    """An "RGB" or "RGBA" image whose ground goes on where an "L" mask of its size is not 0; opacity stays.

    By Bertalmio, Bertozzi, Sapiro, Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting (2001).
    """
    if mask.getbbox() is None:
        return image
    near = _near(mask)
    painted = np.asarray(mask.crop(near)) > 0
    colors = np.array(image.crop(near).convert("RGB"))
    scale = min(1.0, FILL_SIDE / max(colors.shape))
    if scale < 1:  # the time grows with the mask's pixels
        size = tuple(max(1, round(scale * side)) for side in colors.shape[1::-1])
        small = cv2.resize(colors, size, interpolation=cv2.INTER_AREA)
        hidden = cv2.resize(painted.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        hidden = cv2.dilate(hidden, np.ones((3, 3), np.uint8))  # no pixel beside is mixed of both
        filled = cv2.inpaint(small, hidden, FILL_RADIUS, cv2.INPAINT_NS)
        filled = cv2.resize(filled, colors.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    else:
        filled = cv2.inpaint(colors, painted.astype(np.uint8), FILL_RADIUS, cv2.INPAINT_NS)
    result = image.copy()
    result.paste(Image.fromarray(filled), near[:2], Image.fromarray(painted))
    if image.mode == "RGBA":
        result.putalpha(image.getchannel("A"))
    return result


def _near(mask: Image.Image) -> tuple[int, int, int, int]:
    """The box around what is painted, with a margin: left, top, right, bottom."""
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    left, top = max(left - FILL_MARGIN, 0), max(top - FILL_MARGIN, 0)
    return left, top, min(right + FILL_MARGIN, mask.width), min(bottom + FILL_MARGIN, mask.height)


def membrane(residual: Floats, unknown: Bools) -> Floats:
    """Values [S, S, C], known where `unknown`, bool [S, S], is False, continued over the unknown part.

    There they solve (Laplacian - 1 / REACH²) v = 0, with a derivative of 0 at the square's edge.
    """
    near = _around(unknown)
    # The weight with which a value decays to exp(-1 / REACH) a pixel further from a straight edge.
    weight = 2 / (1 + math.cosh(1 / REACH))
    inside = np.repeat(unknown[near][..., None], residual.shape[2], 2).astype(np.float32)  # faster than broadcast
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) * (weight / 4)

    def from_neighbors(values: Floats) -> Floats:
        around = cv2.filter2D(values, -1, cross, borderType=cv2.BORDER_REPLICATE)
        return np.multiply(around.reshape(values.shape), inside, dtype=np.float32)

    result, known = residual.copy(), residual[near] * (1 - inside)
    result[near] = known + _conjugate_gradients(lambda values: values - from_neighbors(values), from_neighbors(known))
    return result


def _around(places: Bools) -> tuple[slice, ...]:
    """The smallest rectangle with all of these pixels and their neighbors."""
    found = [np.flatnonzero(places.any(axis)) for axis in (1, 0)]
    return tuple(slice(max(0, int(some[0]) - 1), int(some[-1]) + 2) for some in found)


def _conjugate_gradients(apply: Callable[[Floats], Floats], right: Floats) -> Floats:
    """v with apply(v) = right, for a symmetric, positive definite map."""
    solution, residual = np.zeros_like(right), right.copy()
    direction, size = residual.copy(), float(np.vdot(residual, residual))
    for _ in range(STEPS):
        if size <= TOLERANCE * right.size:
            break
        applied = apply(direction)
        step = size / float(np.vdot(direction, applied))
        solution += step * direction
        residual -= step * applied
        before, size = size, float(np.vdot(residual, residual))
        direction = residual + (size / before) * direction
    return solution


def continue_flat_colors(image: Bytes, painted: Bools) -> Bytes:
    """An image [S, S, 3] whose painted part, bool [S, S], has the kept part's flat colors exactly where it nearly has.

    A painted pixel belongs to a flat color where it is connected to kept pixels of it by pixels less than DIFFERENT
    levels off. Up to SAME levels become 0, and from there on fewer, so that soft shadows get no edge. Photographs have
    no flat colors, and stay as they are.
    """
    near = _around(painted)
    result, inside, pixels = image.copy(), painted[near], np.ascontiguousarray(image[near])
    nearest = np.full(inside.shape, DIFFERENT, np.uint8)
    for color in _flat_colors(image, ~painted):
        away = _apart(pixels, np.full_like(pixels, color))
        kept = ~inside & (away == 0)
        _, parts = cv2.connectedComponents((inside & (away < DIFFERENT) | kept).astype(np.uint8), connectivity=4)
        connected = np.zeros(parts.max() + 1, np.bool_)
        connected[parts[kept]] = True
        own = inside & connected[parts] & (away < nearest)
        share = np.clip((away[own, None] - float(SAME)) / (DIFFERENT - SAME), 0, 1)
        result[near][own] = np.rint(color + (pixels[own] - color.astype(np.float64)) * share * share * (3 - 2 * share))
        nearest[own] = away[own]
    return result


def _apart(first: Bytes, second: Bytes) -> Bytes:
    """The largest difference of two images in a channel, [S, S]."""
    red, green, blue = cv2.split(cv2.absdiff(first, second))
    return np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)


def _flat_colors(image: Bytes, kept: Bools) -> Bytes:
    """The colors [M, 3] of kept squares that have one color alone, the most frequent first."""
    square = np.ones((FLAT_SIDE, FLAT_SIDE), np.uint8)
    one_color = (cv2.dilate(image, square) == cv2.erode(image, square)).all(2)
    flat = image[one_color & (cv2.erode(kept.astype(np.uint8), square) > 0)]
    packed, counts = np.unique(flat @ np.array((1 << 16, 1 << 8, 1)), return_counts=True)
    packed = packed[np.argsort(-counts, kind="stable")][: min(FLAT_COLORS, int((counts >= FLAT_LEAST).sum()))]
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1).astype(np.uint8)
