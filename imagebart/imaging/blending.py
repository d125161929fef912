"""Blending a generated square with what is kept, without a seam.

Decoded tokens differ from the image by a residual, which is known where pixels are kept. Continued from the mask's edge
into what was generated, it makes both meet there, and fades inwards: the membrane of Pérez et al., Poisson Image
Editing (2003), section 2, screened (Bhat et al., Fourier Analysis of the 2D Screened Poisson Equation, 2008).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

REACH = 8.0  # pixels over which a residual decays by a factor of e along a straight edge
STEPS, TOLERANCE = 200, 1e-8  # of conjugate gradients, at most; mean square error, in levels

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


def blend(generated: Image.Image, before: Image.Image, painted: Bools) -> Image.Image:
    """A generated "RGB" square blended with the square before; painted: bool [size, size], False where it is kept."""
    generated_ = np.asarray(generated, np.float32)
    whole = generated_ + membrane(np.asarray(before, np.float32) - generated_, painted)
    return Image.fromarray(whole.round().clip(0, 255).astype(np.uint8))


def membrane(residual: Floats, painted: Bools, reach: float = REACH) -> Floats:
    """Values [S, S, C], known where `painted`, bool [S, S], is False, continued over the painted part.

    There they solve (Laplacian - 1 / reach²) v = 0, with a derivative of 0 at the square's edge. Where all is painted
    they are 0.
    """
    if painted.all():
        return np.zeros_like(residual)
    if not painted.any():
        return residual
    places = [np.flatnonzero(painted.any(axis)) for axis in (1, 0)]
    near = tuple(slice(max(0, int(found[0]) - 1), int(found[-1]) + 2) for found in places)  # with its neighbours
    # The weight with which a value decays to exp(-1 / reach) a pixel further from a straight edge.
    weight = 2 / (1 + math.cosh(1 / reach))
    inside = painted[near][..., None].astype(np.float32)
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) * (weight / 4)

    def from_neighbours(values: Floats) -> Floats:
        around = cv2.filter2D(values, -1, cross, borderType=cv2.BORDER_REPLICATE)
        return np.multiply(around.reshape(values.shape), inside, dtype=np.float32)

    result, known = residual.copy(), residual[near] * (1 - inside)
    result[near] = known + _conjugate_gradients(lambda values: values - from_neighbours(values), from_neighbours(known))
    return result


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
