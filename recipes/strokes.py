"""Masks as people paint them: brush strokes to and fro, loose outlines, rectangles; and grids of their edits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from imagebart.imaging.figures import sheet
from imagebart.pipeline import PipelineEvent

Bounds = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


def zigzag(bounds: Bounds, radius: float, size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """A brush of a radius that goes to and fro over a place, roughly: an "L" mask of `size` (width, height).

    Rows are up to one and a half diameters apart, so that some of the place shows between them.
    """
    left, top, right, bottom = bounds
    mask = Image.new("L", size)
    rows = max(1, math.ceil((bottom - top) / (radius * random.uniform(1.4, 2.4))))
    points = []
    for row in range(rows):
        y = top + (row + 0.5) * (bottom - top) / rows
        ends = (left + radius * 0.6, right - radius * 0.6)
        for x in ends if row % 2 == 0 else ends[::-1]:
            points.append((x + random.normal(0, radius / 3), y + random.normal(0, radius / 4)))
    _stroke(mask, points, radius)
    return mask


def _stroke(mask: Image.Image, points: list[tuple[float, float]], radius: float) -> None:
    draw = ImageDraw.Draw(mask)
    for (ax, ay), (bx, by) in zip(points, points[1:] or points, strict=False):
        steps = max(1, math.ceil(math.hypot(bx - ax, by - ay)))
        for step in range(steps + 1):
            x, y = ax + (bx - ax) * step / steps, ay + (by - ay) * step / steps
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def freehand(
    x: float, y: float, across: float, down: float, size: tuple[int, int], random: np.random.Generator
) -> Image.Image:
    """A closed outline around a point, drawn freehand with these radii: an "L" mask of `size` (width, height)."""
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    reach = np.ones_like(angles)
    for waves in (2, 3, 5):
        reach += random.normal(0, 0.07) * np.cos(waves * angles + random.uniform(0, 2 * math.pi))
    mask = Image.new("L", size)
    outline = zip(x + across * reach * np.cos(angles), y + down * reach * np.sin(angles), strict=True)
    ImageDraw.Draw(mask).polygon([(float(a), float(b)) for a, b in outline], fill=255)
    return mask


def rectangle(bounds: Bounds, size: tuple[int, int]) -> Image.Image:
    """A rectangle: an "L" mask of `size` (width, height)."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle(bounds, fill=255)
    return mask


def edit_grid(edits: Sequence[tuple[Image.Image, Image.Image, str, PipelineEvent]], side: int = 128) -> Image.Image:
    """Of each edit (the image, what is painted, the words, the result) three images, over the words; four edits a row.

    What is painted is in red, what may change in blue.
    """
    rows, words = list[list[Image.Image]](), list[list[str]]()
    for number, (image, painted, prompt, last) in enumerate(edits):
        if number % 4 == 0:
            rows.append([])
            words.append([])
        assert last.mask is not None
        for mask, color in ((painted, (255, 61, 113)), (last.mask, (61, 113, 255))):
            half = mask.point(lambda value: value // 2)
            rows[-1].append(Image.composite(Image.new("RGB", image.size, color), image, half))
        rows[-1].append(last.image)
        words[-1].append(prompt)
    return sheet(rows, side, captions=words)
