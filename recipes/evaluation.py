"""What both recipes measure: masks as people paint them, edits of these as the page makes them, and places by words."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from imagebart.evaluation.metrics import Measure, median_of, share_of
from imagebart.imaging.figures import sheet
from imagebart.pipeline import Pipeline, PipelineEvent

Bounds = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
PAGE_SCALES, PAGE_FEATHER = 4, 4  # what the page begins with
SHOWN = 40  # in a grid, the first ones


@dataclass(frozen=True)
class Case:
    """An image, what is painted on it, and the words."""

    image: Image.Image
    mask: Image.Image  # "L"
    words: str
    remove: bool = False


def edit_all(pipe: Pipeline, cases: Sequence[Case], seed: int) -> list[PipelineEvent]:
    """The result of each case, with the page's settings."""
    edit = partial(pipe.edit, settings=pipe.defaults.replace(scales=PAGE_SCALES), feather=PAGE_FEATHER)
    runs = (edit(c.image, c.mask, c.words or None, seed=n, remove=c.remove) for n, c in enumerate(cases, seed))
    return [list(run)[-1] for run in runs]


def generate_all(pipe: Pipeline, prompts: Sequence[str], seed: int) -> list[Image.Image]:
    """A whole image of each prompt, with the page's settings."""
    settings = pipe.defaults.replace(scales=PAGE_SCALES)
    runs = (pipe.generate(prompt, seed=number, settings=settings) for number, prompt in enumerate(prompts, seed))
    return [list(run)[-1].image for run in runs]


def changed_pixels(result: PipelineEvent) -> np.ndarray:
    """Where an edit may have changed the image, as it says: bool [H, W]."""
    assert result.mask is not None
    return np.asarray(result.mask) > 0


def common_measures(cases: Sequence[Case], results: Sequence[PipelineEvent]) -> Iterator[Measure]:
    """What holds of every edit: all else stays; and how long edits take."""
    stayed = []
    for case, last in zip(cases, results, strict=True):
        kept = ~changed_pixels(last)
        stayed.append(bool((np.asarray(last.image)[kept] == np.asarray(case.image)[kept]).all()))
    yield Measure("no pixel changed outside the mask", *share_of(stayed), len(cases), "%", "100 %")
    yield Measure("time of an edit, median", *median_of([last.elapsed for last in results]), len(cases), "s")


def zigzag(bounds: Bounds, radius: float, size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """A brush of a radius that goes to and fro over a place, roughly: an "L" mask of `size` (width, height).

    Rows are up to one and a half diameters apart, so that some of the place shows between them.
    """
    left, top, right, bottom = bounds
    rows = max(1, math.ceil((bottom - top) / (radius * random.uniform(1.4, 2.4))))
    points = []
    for row in range(rows):
        y = top + (row + 0.5) * (bottom - top) / rows
        ends = (left + radius * 0.6, right - radius * 0.6)
        for x in ends if row % 2 == 0 else ends[::-1]:
            points.append((x + random.normal(0, radius / 3), y + random.normal(0, radius / 4)))
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    for (ax, ay), (bx, by) in zip(points, points[1:], strict=False):
        steps = max(1, math.ceil(math.hypot(bx - ax, by - ay)))
        for step in range(steps + 1):
            x, y = ax + (bx - ax) * step / steps, ay + (by - ay) * step / steps
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return mask


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


def edit_grid(cases: Sequence[Case], results: Sequence[PipelineEvent]) -> Image.Image:
    """The first edits, four a row: what is painted, in red; what may change, in blue; the result; over the words."""
    groups = []
    for case, last in zip(cases[:SHOWN], results, strict=False):
        assert last.mask is not None
        tinted = [
            Image.composite(Image.new("RGB", case.image.size, color), case.image, mask.point(lambda v: v // 2))
            for mask, color in ((case.mask, (255, 61, 113)), (last.mask, (61, 113, 255)))
        ]
        groups.append(([*tinted, last.image], case.words))
    return _caption_grid(groups, columns=4)


def prompt_grid(images: Sequence[Image.Image], prompts: Sequence[str]) -> Image.Image:
    """The first whole images over their prompts, eight a row."""
    return _caption_grid([([image], prompt) for image, prompt in zip(images[:SHOWN], prompts, strict=False)], columns=8)


def _caption_grid(groups: Sequence[tuple[Sequence[Image.Image], str]], columns: int) -> Image.Image:
    lines = [groups[i : i + columns] for i in range(0, len(groups), columns)]
    rows = [[image for images, _ in line for image in images] for line in lines]
    return sheet(rows, 128, captions=[[caption for _, caption in line] for line in lines])
