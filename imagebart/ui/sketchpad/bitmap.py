"""Masks as text, as the sketchpad sends and takes them: values and how often each follows itself, "0 300 255 12 …".

Both sides read it at once: the browser decodes pictures only later, when something else may have been painted.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from imagebart.errors import InputError

LONGEST_RUN = len("255 1 ")  # of one pixel: longer ones take fewer letters a pixel


def pack(mask: Image.Image) -> str:
    """An "L" picture as text, by rows from the top; "" where nothing is painted."""
    pixels = np.asarray(mask).ravel()
    if not pixels.any():
        return ""
    starts = np.flatnonzero(np.diff(pixels, prepend=int(pixels[0]) ^ 1))
    runs = np.diff(starts, append=pixels.size)
    return " ".join(map(str, np.column_stack([pixels[starts], runs]).ravel().tolist()))


def unpack(text: str, size: tuple[int, int]) -> Image.Image:
    """The "L" picture of `size` (width, height) that was packed. Raises InputError for anything else."""
    count = size[0] * size[1]
    try:
        if len(text) > LONGEST_RUN * count:
            raise ValueError(f"longer than any mask of {size[0]} x {size[1]} pixels")
        values, runs = np.array(text.split() if text else [0, count], np.int64).reshape(-1, 2).T
        if values.min() < 0 or values.max() > 255 or runs.min() < 1 or runs.max() > count or runs.sum() != count:
            raise ValueError(f"not a mask of {size[0]} x {size[1]} pixels")
    except (ValueError, OverflowError) as error:
        raise InputError("The mask cannot be read, or belongs to another picture; load the page again.") from error
    return Image.fromarray(np.repeat(values.astype(np.uint8), runs).reshape(size[1], size[0]))
