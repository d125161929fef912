"""What an edit changes, from what is painted and what is asked for.

A model draws whole patches, in the sizes and places that things have in its training images; people paint neither. So
what they paint is fitted to the model before it is drawn, and shown to them.

A model without a frame gets every patch that is painted by a tenth, and the place that the words need where it touches
these. Its prompt is completed by what else the image shows.

A model with a frame was trained on boxes of one size. Each thing is drawn in a square of the image, which is brought to
the middle of the model's view; the image's edge goes on beyond its border. So a thing may have any place and any size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import itemgetter
from random import Random

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops
from torch import Tensor

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.imaging import crop, masks
from imagebart.imaging.crop import Box, Region
from imagebart.imaging.files import Recipe, to_tensor
from imagebart.imaging.masks import Bools, Bytes, Size
from imagebart.models.imagebart import ImageBARTModel
from imagebart.sampling.inpainting import fill_nearest, suggest_mask
from imagebart.sampling.sampler import Sampler
from imagebart.text.prompts import Prompt
from imagebart.worlds.ranking import Describer, Scorer
from imagebart.worlds.things import Asked, Found, ThingScorer, relation

MIN_COVERAGE = 0.1  # share of a patch that is painted, from which it is regenerated
COMPLETE_PROMPT_GUIDANCE = 1.0  # at most, with a prompt that describes all of an image; 2.5 gave smears
ELSEWHERE = "Your words are about another place than the one that is painted."

MIN_SIDE = 24  # pixels of a square, at least
TOUCHED = 0.15  # share of a thing's box that is painted, from which it is completed or removed
BESIDE = 0.2  # share of what is painted that lies beside a thing, from which that goes
DETAIL = 24  # levels within a patch, from which it has more than one color
REPLACED, WHOLE = 0.5, 0.95  # share of a thing's box that another takes, from which it goes; from which nothing is left
GONE = 0.6  # … from which it goes where nothing is asked for
FIT_NOTE = "There is room for {} of the {} things."
MEASURED = 512  # pixels of the longer side of a mask whose shape is measured


@dataclass(frozen=True)
class Pass:
    """What a chain draws: the region's patches, by a prompt. Without a region it draws a whole new image."""

    prompt: Prompt
    region: Region | None = None
    frame: int | None = None  # patches along the box in the middle that counts; None: all of it

    def framed(self, squares: Tensor) -> Tensor:
        """What counts of squares [B, 3, S, S]."""
        if self.frame is None or self.region is None:
            return squares
        side = squares.shape[-1] * self.frame // self.region.grid
        first = (squares.shape[-1] - side) // 2
        return squares[..., first : first + side, first : first + side]


@dataclass(frozen=True)
class FittedMask:
    mask: Image.Image  # "L", of the image's size: no pixel outside of it changes
    passes: tuple[Pass, ...]  # one after the other, each within what those before drew
    settings: SamplingSettings
    notes: tuple[str, ...] = ()  # sentences for the user
    elsewhere: Image.Image | None = None  # the place that the words are about, where it is another one

    @classmethod
    def of(cls, passes: Sequence[Pass], settings: SamplingSettings, *notes: str) -> "FittedMask":
        drawn = [step.region.mask for step in passes if step.region is not None]
        return cls(reduce(ImageChops.lighter, drawn), tuple(passes), settings, notes)


def fit_patches(
    sampler: Sampler, scorer: Scorer | None, upload: Image.Image, mask: Image.Image | None, words: str, recipe: Recipe
) -> FittedMask:
    """Whole patches, joined with the place that the words need. mask: "L", the image's size; None: that place alone.

    Raises InputError where there is neither a mask nor such a place.
    """
    model, settings = sampler.model, recipe.settings
    config, denoiser = model.first_stage.config, None if model.denoiser is None else sampler.packed(model.denoiser)
    whole = crop.whole_box(upload.size)
    box = whole if mask is None else crop.crop_box(mask, config.resolution, recipe.context)
    pixels = to_tensor(crop.extract(upload, box, config.resolution)).to(model.device)
    texts = scorer.contrast(pixels, words) if words and isinstance(scorer, Describer) else None
    place = np.zeros((config.side, config.side), np.uint8)  # 255 where the words need it
    try:
        place[suggest_mask(model, denoiser, pixels, words, texts).numpy()] = 255
    except InputError:
        if mask is None:
            raise
    notes, elsewhere, patches = list[str](), None, place
    if mask is not None:
        patches = painted_patches(mask, box, config.side)
        if place.any() and not place[cv2.dilate(patches, np.ones((3, 3), np.uint8)) > 0].any():
            if recipe.movable:
                patches = place
            else:
                notes, elsewhere = [ELSEWHERE], crop.paint_patches(place, box, upload.size)
        else:
            patches = np.maximum(patches, np.minimum(place, patches.max()))
    completed = words if texts is None else texts[0]
    if completed != words and settings.guidance == model.about.sampling.guidance:  # not where somebody set another
        settings = settings.replace(guidance=min(settings.guidance, COMPLETE_PROMPT_GUIDANCE))
    region = Region.of_patches(patches, box, upload.size, config.resolution, recipe.feather)
    return replace(FittedMask.of([Pass(completed or None, region)], settings, *notes), elsewhere=elsewhere)


def painted_patches(mask: Image.Image, box: Box, grid: int) -> Bytes:
    """The strength of each patch of a square that is painted by MIN_COVERAGE, or else the most: [grid, grid]."""
    inside = mask.crop(box.edges).point([0] + [255] * 255)
    share = np.asarray(inside.resize((grid, grid), Image.Resampling.BOX)) / 255
    strength = crop.paint_in(masks.strengths(mask), box, grid)
    return np.where(share >= min(MIN_COVERAGE, share.max()), strength, np.uint8(0))


def shape_of(mask: Image.Image) -> tuple[float, float, float]:
    """The center (x, y) of what is painted, and the side of a square as large as the box around it, in pixels.

    The center is that of the convex hull, as strokes have gaps.
    """
    scale, small = min(1.0, MEASURED / max(mask.size)), np.asarray(mask)
    if scale < 1:
        rows, columns = (masks.spans(0, side, max(1, round(side * scale))) for side in small.shape)
        small = masks.cover(small, rows, columns)
    points = cv2.findNonZero(small)
    hull = np.zeros_like(small)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    y, x = hull.nonzero()
    *_, width, height = cv2.boundingRect(points)
    return (x.mean() + 0.5) / scale, (y.mean() + 0.5) / scale, math.sqrt(width * height) / scale


def square(x: float, y: float, side: float, size: Size) -> Box:
    """A square around a point, inside an image of `size` (width, height) where it can be; its side is even."""
    side = max(MIN_SIDE, 2 * round(side / 2))
    if side > min(size) >= MIN_SIDE:
        side = min(size) // 2 * 2

    def start(center: float, length: int) -> int:
        if side > length:
            return (length - side) // 2
        return min(max(round(center - side / 2), 0), length - side)

    return Box(start(x, size[0]), start(y, size[1]), side)


@dataclass(frozen=True)
class View:
    """All of an image of `size` as the model sees it: its square, pixels [3, S, S] and things, at the mask if any."""

    size: Size
    box: Box
    pixels: Tensor
    things: list[Found]
    grid: int

    @property
    def detailed(self) -> Bools:
        """The patches with more than one color: bool [grid, grid]."""
        side = self.pixels.shape[1] // self.grid
        most, least = F.max_pool2d(self.pixels, side), F.max_pool2d(-self.pixels, side)
        detailed: Bools = ((most + least).amax(0) * 127.5 > DETAIL).cpu().numpy()
        return detailed

    def in_pixels(self, box: Box) -> Box:
        """A box of tokens in the pixels of the image."""
        cell = self.box.side / self.grid
        left, top = round(self.box.left + box.left * cell), round(self.box.top + box.top * cell)
        return Box(left, top, max(2 * round(box.side * cell / 2), 2))


class Frames:
    """Fits masks for a model with a frame: a box of `patches` x `patches` in the middle of its view."""

    def __init__(self, model: ImageBARTModel, scorer: ThingScorer, patches: int) -> None:
        self.scorer, self.patches = scorer, patches
        self.resolution, self.grid = model.first_stage.config.resolution, model.first_stage.config.side

    def draw(self, box: Box, prompt: Prompt, size: Size) -> Pass:
        """A square of an image of `size` (width, height), drawn in the frame."""
        side = box.side * self.grid // self.patches
        margin = (side - box.side) // 2
        first = (self.grid - self.patches) // 2
        inside = np.zeros((self.grid, self.grid), np.uint8)
        inside[Box(first, first, self.patches).cells] = 255
        view = Box(box.left - margin, box.top - margin, side)
        return Pass(prompt, Region.of_patches(inside, view, size, self.resolution), self.patches)

    def erase(self, patches: Bools, view: View) -> Pass:
        """The ground goes on in these patches of all of an image, bool [grid, grid]."""
        return Pass(None, Region.of_patches(patches * np.uint8(255), view.box, view.size, self.resolution))

    def with_rest(self, found: Found, view: View) -> Bools:
        """The patches of a thing's box, and those up to two beyond it in which the thing goes on."""
        patches, detailed = np.zeros((self.grid, self.grid), bool), view.detailed
        for other in view.things:
            if other != found:
                detailed[other.box.cells] = False
        patches[found.box.cells] = True
        for _ in range(2):
            patches |= (cv2.dilate(patches.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & detailed
        return patches

    def fit(self, upload: Image.Image, mask: Image.Image | None, words: str, recipe: Recipe) -> FittedMask | None:
        """The squares of what is asked for; None where words or mask are about no thing."""
        asked, settings = self.scorer.asked(words), recipe.settings  # of a removal there are no words
        if not asked and (words or mask is None):
            return None
        view = self._view(upload, None if recipe.remove else mask, asked)  # what goes must not take others with it
        if mask is None:
            passes = self._where_found(view, asked)
            return FittedMask.of(passes, settings) if passes else None
        painted = painted_patches(mask, view.box, self.grid) > 0
        shares = {found: _share(mask, view.in_pixels(found.box)) for found in view.things}
        touched = [found for found, share in shares.items() if share >= TOUCHED]
        if not asked and not touched:
            return None
        gone = [found for found in touched if recipe.remove or (shares[found] >= GONE and not asked)]
        if gone:
            boxes = [self.with_rest(found, view) for found in gone]
            rest = painted & view.detailed & ~np.any(boxes, 0)
            erased = [self.erase(patches, view) for patches in (*boxes, rest) if patches.any()]
            return FittedMask.of(erased, settings)
        each = [thing for thing in asked for _ in range(thing.count)]
        if len(each) <= 1:
            for found in sorted(touched, key=shares.__getitem__, reverse=True):
                if not each or self.scorer.is_a(found.noun, found.color, each[0]):
                    return FittedMask.of(self._completed(found, painted, view), settings)
        squares = squares_in(mask, len(each), relation(asked))
        drawn = [self.draw(box, self._text(thing), view.size) for thing, box in zip(each, squares, strict=False)]
        # What these cover for the most part goes with all of it.
        taken = FittedMask.of(drawn, settings).mask
        shares = {found: _share(taken, view.in_pixels(found.box)) for found in view.things}
        cut = [self.with_rest(found, view) for found, share in shares.items() if REPLACED <= share < WHOLE]
        notes = (FIT_NOTE.format(len(squares), len(each)),) if len(squares) < len(each) else ()
        return FittedMask.of([*(self.erase(patches, view) for patches in cut), *drawn], settings, *notes)

    def _completed(self, found: Found, painted: Bools, view: View) -> list[Pass]:
        """A thing that is painted in part, drawn again in its box; what else is painted goes before."""
        beside = painted.copy()
        beside[found.box.cells] = False
        passes = [self.erase(beside, view)] if beside.sum() > BESIDE * painted.sum() else []
        return [*passes, self.draw(view.in_pixels(found.box), self.scorer.phrase(found.noun, found.color), view.size)]

    def _where_found(self, view: View, asked: list[Asked]) -> list[Pass]:
        """Where the things are that are asked for, or free places for them."""
        passes, taken = [], [found.box for found in view.things]
        for thing in asked:
            boxes = [found.box for found in view.things if found.noun in thing.nouns]
            if not boxes:
                boxes = self.scorer.free_boxes(taken, thing)
                taken += boxes
            passes += [self.draw(view.in_pixels(box), self._text(thing), view.size) for box in boxes]
        return passes

    def plan(self, prompt: str, seed: int) -> tuple[Pass, ...] | None:
        """The passes of a whole image: its ground, then each thing; None where the prompt names none."""
        plan = self.scorer.plan(prompt, seed)
        if plan is None:
            return None
        (ground, things), cell = plan, self.resolution // self.grid
        squares = [(name, Box(box.left * cell, box.top * cell, box.side * cell)) for name, box in things]
        return Pass(ground), *(self.draw(box, name, (self.resolution, self.resolution)) for name, box in squares)

    def choose(self, passes: Sequence[Pass], seed: int) -> tuple[Pass, ...]:
        """The same with one noun of each group of things that is asked for."""
        random = Random(seed)

        def chosen(prompt: Prompt) -> Prompt:
            asked = self.scorer.asked(prompt)[:1] if isinstance(prompt, str) else []
            return self._text(self.scorer.choose(asked[0], random)) if asked else prompt

        return tuple(replace(step, prompt=chosen(step.prompt)) for step in passes)

    def _text(self, asked: Asked) -> str:
        """One of the things that are asked for, as the model knows it; of a group, what the words say."""
        return asked.text if len(asked.nouns) > 1 else self.scorer.phrase(asked.nouns[0], asked.color)

    def _view(self, upload: Image.Image, mask: Image.Image | None, asked: Sequence[Asked]) -> View:
        whole = crop.whole_box(upload.size)
        pixels = to_tensor(crop.extract(upload, whole, self.resolution))[0]
        near = None if mask is None else torch.from_numpy(painted_patches(mask, whole, self.grid) > 0)
        expected = {noun for thing in asked for noun in thing.nouns}
        view = View(upload.size, whole, pixels, self.scorer.things(pixels, near, expected), self.grid)
        if mask is None or near is None or view.things or not view.detailed[near.numpy()].any():
            return view
        # What is painted may hide a thing: it is looked for with the colors around in its place.
        paint = torch.from_numpy(crop.paint_in(np.asarray(mask), whole, self.resolution) > 0)
        (filled,) = fill_nearest(pixels[None].cpu(), paint[None])
        return replace(view, things=self.scorer.things(filled, near, expected))


def _share(mask: Image.Image, box: Box) -> float:
    """How much of a square is painted, 0 to 1."""
    return float((np.asarray(mask.crop(box.edges)) > 0).mean())


def squares_in(mask: Image.Image, count: int, relation: str = "") -> list[Box]:
    """The squares of `count` things within what is painted, in their order; fewer where there is no room for all.

    Where it has as many parts, one in each. relation: see `imagebart.worlds.things.relation`; "": as makes them large.
    """
    if count == 1:
        return [square(*shape_of(mask), mask.size)]
    parts, labels = cv2.connectedComponents((np.asarray(mask) > 0).astype(np.uint8), connectivity=8)
    if parts - 1 == count and not relation:
        shapes = [shape_of(Image.fromarray((labels == part).astype(np.uint8))) for part in range(1, parts)]
        return [square(*shape, mask.size) for shape in sorted(shapes, key=itemgetter(0))]
    left, top, right, bottom = masks.bounds(mask)

    def side(columns: int) -> float:
        return min((right - left) / columns, (bottom - top) / math.ceil(count / columns))

    columns = max(range(1, count + 1), key=side)
    if relation:
        columns = 2 if relation in ("left", "right") else 1
    rows, length = math.ceil(count / columns), max(side(columns), MIN_SIDE)
    across, down = max((right - left) / columns, length), max((bottom - top) / rows, length)
    boxes: list[Box] = []
    for number in range(count):
        row, column = divmod(number, columns)
        x = (left + right) / 2 + (column - (min(columns, count - row * columns) - 1) / 2) * across
        y = (top + bottom) / 2 + (row - (rows - 1) / 2) * down
        boxes.append(square(x, y, length, mask.size))

    def near(a: Box, b: Box) -> bool:
        return max(abs(a.left - b.left), abs(a.top - b.top)) < min(a.side, b.side) / 2

    boxes = [box for i, box in enumerate(boxes) if not any(near(box, earlier) for earlier in boxes[:i])]
    return boxes[::-1] if relation in ("right", "below") else boxes
