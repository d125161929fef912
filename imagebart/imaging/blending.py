"""Blending what was generated with what is kept: without a seam.

Tokens bring an image back only nearly. The residual is known where pixels are kept; continued from the mask's edge
into what was generated, it makes both meet there and fades inwards. It is the membrane of Pérez et al., Poisson Image
Editing (2003), section 2, with a screen (Bhat et al., Fourier Analysis of the 2D Screened Poisson Equation for
Gradient Domain Problems, 2008), for a residual says little of what is far.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

REACH = 8.0  # pixels of the model's after which e times less is left of a residual along a straight edge
STEPS, ENOUGH = 200, 1e-8  # of conjugate gradients, at most; mean square of what is left, in levels

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def blend(drawn: Image.Image, before: Image.Image, painted: Bools) -> Image.Image:
    """A generated "RGB" square that meets the square as it was where that is kept.

    painted: bool [size, size], True where nothing is known of it. All else comes out as it was before.
    """
    residual = np.asarray(before, np.float32) - np.asarray(drawn, np.float32)
    whole = np.asarray(drawn, np.float32) + membrane(residual, painted)
    return Image.fromarray(whole.round().clip(0, 255).astype(np.uint8))


def membrane(residual: Floats, painted: Bools, reach: float = REACH) -> Floats:
    """Values [S, S, C] that are known where nothing is painted, bool [S, S], continued over the painted part.

    There they solve (Laplacian - 1 / reach²) v = 0; at the square's edge nothing flows.
    A square of which all is painted knows nothing: 0 everywhere.
    """
    if painted.all():
        return np.zeros_like(residual)
    if not painted.any():
        return residual
    result, near = residual.copy(), tuple(_extent(np.asarray(painted.any(axis))) for axis in (1, 0))
    result[near] = _solve(residual[near], painted[near], reach)
    return result


def _extent(painted: Bools) -> slice:
    """From one before the first that is painted, of values in a row, to one after the last, as far as there are."""
    places = np.flatnonzero(painted)
    return slice(max(0, int(places[0]) - 1), int(places[-1]) + 2)


def _solve(residual: Floats, painted: Bools, reach: float) -> Floats:
    """`membrane` of a part of the square, with all that is painted and its neighbours."""
    # What makes exp(-1 / reach) of a value a pixel further from a straight edge.
    share = 2 / (1 + math.cosh(1 / reach))
    inside = painted[..., None].astype(np.float32)
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) * (share / 4)

    def from_neighbours(values: Floats) -> Floats:
        around = cv2.filter2D(values, -1, cross, borderType=cv2.BORDER_REPLICATE)
        return np.multiply(around.reshape(values.shape), inside, dtype=np.float32)

    known = residual * (1 - inside)
    return known + _conjugate_gradients(lambda values: values - from_neighbours(values), from_neighbours(known))


def _conjugate_gradients(applied: Callable[[Floats], Floats], right: Floats) -> Floats:
    """v with applied(v) = right, for a symmetric, positive definite map: by conjugate gradients from 0 on."""
    solution, rest = np.zeros_like(right), right.copy()
    way, size = rest.copy(), float(np.vdot(rest, rest))
    for _ in range(STEPS):
        if size <= ENOUGH * right.size:
            break
        along = applied(way)
        step = size / float(np.vdot(way, along))
        solution += step * way
        rest -= step * along
        before, size = size, float(np.vdot(rest, rest))
        way = rest + (size / before) * way
    return solution
