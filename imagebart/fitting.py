"""What an edit changes, from what is painted and what is asked for.

A model draws whole patches, in the sizes and places that things have in its training images; people paint neither. So
what they paint is fitted to the model before it is drawn, and shown to them.

A model without a frame gets every patch that is painted by a tenth, and the place that the words need where it touches
these. Its prompt is completed by what else the image shows.

A model with a frame was trained on boxes of one size. Each thing is drawn in a square of the image, which is brought to
the middle of the model's view; the image's edge goes on beyond its border. So a thing may have any place and any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from random import Random
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageChops
from torch import Tensor

from imagebart.conditioning.prompts import Prompt
from imagebart.errors import InputError
from imagebart.imaging import crop, masks
from imagebart.imaging.crop import Box, Region
from imagebart.imaging.files import to_tensor
from imagebart.imaging.masks import Bytes, Size
from imagebart.models.imagebart import ImageBARTModel
from imagebart.ranking import Scorer, complete_prompt, contrast
from imagebart.sampling.mask_suggestion import suggest_mask
from imagebart.settings import SamplingSettings
from imagebart.things import Asked, Found, ThingScorer
from imagebart.things import Box as Tokens

MIN_COVERAGE = 0.1  # share of a patch that is painted, from which it is regenerated
COMPLETE_PROMPT_GUIDANCE = 1.0  # at most, with a prompt that describes all of an image; 2.5 gave smears
ELSEWHERE = "Your words are about another place than the one that is painted."

MIN_SIDE = 24  # pixels of a square, at least
TOUCHED = 0.15  # share of a thing's box that is painted, from which it is completed or removed
REPLACED, WHOLE = 0.5, 0.95  # share of a thing's box that another takes, from which it goes; from which nothing is left
GONE = 0.6  # … from which it goes where nothing is asked for
FIT_NOTE = "There is room for {} of the {} things."
MEASURED = 512  # pixels of the longer side of a mask whose shape is measured


@dataclass(frozen=True)
class EditOptions:
    """How an edit takes its mask: see `Pipeline.edit`."""

    exact: bool = False  # nothing changes but what is painted
    movable: bool = False  # nobody painted the mask: words about another place move it
    remove: bool = False  # what is painted goes, and the words are not used
    feather: int = 0  # pixels over which the change fades in at the mask's edge, inwards
    context: float = math.inf  # how much around the mask the model sees, over the mask's longer side


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
    """What an edit will change, and how."""

    mask: Image.Image  # "L", of the image's size: no pixel outside of it changes
    passes: tuple[Pass, ...]  # one after the other, each within what those before drew
    settings: SamplingSettings
    notes: tuple[str, ...] = ()  # sentences for the user
    elsewhere: Image.Image | None = None  # the place that the words are about, where it is another one

    @property
    def prompt(self) -> Prompt:
        """What is drawn first, as the model is asked for it."""
        return self.passes[0].prompt

    @classmethod
    def of(cls, passes: Sequence[Pass], settings: SamplingSettings, *notes: str) -> FittedMask:
        """The mask of passes on an image."""
        drawn = [one.region.mask for one in passes if one.region is not None]
        return cls(reduce(ImageChops.lighter, drawn), tuple(passes), settings, notes)


def fit_patches(
    model: ImageBARTModel,
    scorer: Scorer | None,
    upload: Image.Image,
    mask: Image.Image | None,
    words: str,
    settings: SamplingSettings,
    options: EditOptions,
) -> FittedMask:
    """Whole patches, joined with the place that the words need. mask: "L", the image's size; None: that place alone.

    Raises InputError where there is neither a mask nor such a place.
    """
    config = model.first_stage.config
    everything = mask or masks.preset("everything", upload.size)
    box = crop.crop_box(everything, config.resolution, math.inf if mask is None else options.context)
    pixels = to_tensor(crop.extract(upload, box, config.resolution)).to(model.device)
    place = _place_of_words(model, scorer, pixels, words, required=mask is None)
    notes, elsewhere, patches = list[str](), None, place
    if mask is not None:
        patches = painted_patches(mask, box, config.side)
        if place.any() and not place[cv2.dilate(patches, np.ones((3, 3), np.uint8)) > 0].any():
            if options.movable:
                patches = place
            else:
                notes, elsewhere = [ELSEWHERE], crop.paint_patches(place, box, upload.size)
        else:
            patches = np.maximum(patches, np.minimum(place, patches.max()))
    completed = complete_prompt(scorer, pixels, words) if words else words
    if completed != words and settings.guidance == model.about.sampling.guidance:  # not where somebody set another
        settings = replace(settings, guidance=min(settings.guidance, COMPLETE_PROMPT_GUIDANCE))
    region = Region.of_patches(patches, box, upload.size, config.resolution, options.feather)
    return replace(FittedMask.of([Pass(completed or None, region)], settings, *notes), elsewhere=elsewhere)


def painted_patches(mask: Image.Image, box: Box, grid: int) -> Bytes:
    """The strength of each patch of a square that is painted by MIN_COVERAGE, or else the most: [grid, grid]."""
    share = crop.coverage(mask, box, grid)
    strength = crop.paint_in(masks.strengths(mask), box, (grid, grid))
    return np.where(share >= min(MIN_COVERAGE, share.max()), strength, np.uint8(0))


def _place_of_words(model: ImageBARTModel, scorer: Scorer | None, pixels: Tensor, words: str, required: bool) -> Bytes:
    """The patches that the words need, 255 or 0: [grid, grid]. Raises InputError where one is required."""
    try:
        found = suggest_mask(model, pixels, words, contrast(scorer, pixels, words))
    except InputError:
        if required:
            raise
        return np.zeros((model.first_stage.config.side,) * 2, np.uint8)
    return np.where(found.numpy(), np.uint8(255), np.uint8(0))


class Shape(NamedTuple):
    """What is painted, without its gaps: the center of its convex hull, and its width and height, in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def side(self) -> float:
        """Of a square as large as the box around it."""
        return math.sqrt(self.width * self.height)


def shape_of(mask: Image.Image) -> Shape:
    """The shape of the convex hull of what is painted: strokes have gaps."""
    scale = min(1.0, MEASURED / max(mask.size))
    small = mask.point([0] + [255] * 255)
    if scale < 1:
        small = small.resize([max(1, round(side * scale)) for side in mask.size], Image.Resampling.BOX)
    points = cv2.findNonZero(np.asarray(small))
    hull = np.zeros((small.height, small.width), np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    rows, columns = hull.nonzero()
    *_, width, height = cv2.boundingRect(points)
    return Shape((columns.mean() + 0.5) / scale, (rows.mean() + 0.5) / scale, width / scale, height / scale)


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
class Frames:
    """Fits masks for a model with a frame: a box of `patches` x `patches` in the middle of its view."""

    model: ImageBARTModel
    scorer: ThingScorer
    patches: int

    @property
    def grid(self) -> int:
        return self.model.first_stage.config.side

    def draw(self, box: Box, prompt: Prompt, size: Size, feather: int, paint: Image.Image | None = None) -> Pass:
        """A square of an image drawn in the frame; of it what is painted by MIN_COVERAGE, where paint is given."""
        side = box.side * self.grid // self.patches
        margin = (side - box.side) // 2
        view = Box(box.left - margin, box.top - margin, side)
        first = (self.grid - self.patches) // 2
        inside = np.zeros((self.grid, self.grid), np.uint8)
        inside[first : first + self.patches, first : first + self.patches] = 255
        if paint is not None:
            inside = np.minimum(inside, painted_patches(paint, view, self.grid))
        region = Region.of_patches(inside, view, size, self.model.first_stage.config.resolution, feather)
        return Pass(prompt, region, self.patches)

    def erase(self, found: Sequence[Box], size: Size, feather: int) -> list[Pass]:
        """The ground goes on where these things were."""
        return [self.draw(box, None, size, feather) for box in found]

    def fit(
        self,
        upload: Image.Image,
        mask: Image.Image | None,
        words: str,
        settings: SamplingSettings,
        options: EditOptions,
    ) -> FittedMask | None:
        """The squares of what is asked for; None where words or mask are about no thing."""
        size, feather = upload.size, options.feather
        asked = self.scorer.asked(self.scorer.words(words))  # of a removal there are no words
        if not asked and (words or mask is None):
            return None
        things = self._things(upload, mask)
        if mask is None:
            return self._without_mask(upload, asked, words, things, settings, options)
        touched = [(share, found, box) for found, box in things if (share := _share(mask, box)) >= TOUCHED]
        if options.remove:
            boxes = [box for _, _, box in touched]
            return FittedMask.of(self.erase(boxes, size, feather), settings) if boxes else None
        shape = shape_of(mask)
        if not asked:
            if not touched:
                return None
            passes = [self.draw(box, None, size, feather, mask if share < GONE else None) for share, _, box in touched]
            return FittedMask.of(passes, settings)
        each = [one for one in asked for _ in range(one.count)]
        if len(each) == 1:
            for _, found, box in sorted(touched, key=lambda one: -one[0]):
                if self.scorer.is_a(found, each[0]):
                    return FittedMask.of(
                        [self.draw(box, self._text(words, each[0], found), size, feather, mask)], size, settings
                    )
            where = [square(shape.x, shape.y, shape.side, size)]
        else:
            where = side_by_side(mask, shape, len(each), size)
        drawn = FittedMask.of([self.draw(box, "", size, 0) for box in where], settings).mask
        # What a square covers for the most part goes with all of it.
        cut = [box for _, box in things if REPLACED <= _share(drawn, box) < WHOLE]
        passes = self.erase(cut, size, feather)
        passes += [self.draw(box, self._text(words, one), size, feather) for one, box in zip(each, where, strict=False)]
        notes = (FIT_NOTE.format(len(where), len(each)),) if len(where) < len(each) else ()
        return FittedMask.of(passes, settings, *notes)

    def _without_mask(
        self,
        upload: Image.Image,
        asked: list[Asked],
        words: str,
        things: list[tuple[Found, Box]],
        settings: SamplingSettings,
        options: EditOptions,
    ) -> FittedMask | None:
        """Where the things are that are asked for, or free places for them; None without any."""
        passes = []
        whole = crop.crop_box(masks.preset("everything", upload.size), self.model.first_stage.config.resolution)
        taken = [found.box for found, _ in things]
        for one in asked:
            boxes = [box for found, box in things if found.noun in one.nouns]
            if not boxes:
                free = self.scorer.free_boxes(taken, [one] * one.count)
                boxes, taken = [self._in_pixels(box, whole) for box in free], taken + free
            passes += [self.draw(box, self._text(words, one), upload.size, options.feather) for box in boxes]
        return FittedMask.of(passes, settings) if passes else None

    def plan(self, prompt: str, seed: int) -> tuple[Pass, ...] | None:
        """The passes of a whole image: its ground, then each thing; None where the prompt names none."""
        side = self.model.first_stage.config.resolution
        parts = self.scorer.plan(prompt, seed) or []
        whole = Box(0, 0, side)
        return (
            tuple(
                Pass(part.prompt)
                if part.box is None
                else self.draw(self._in_pixels(part.box, whole), part.prompt, (side, side), 0)
                for part in parts
            )
            or None
        )

    def choose(self, passes: Sequence[Pass], seed: int) -> tuple[Pass, ...]:
        """The same with one noun of each group of things that is asked for."""
        random = Random(seed)

        def chosen(prompt: Prompt) -> Prompt:
            asked = self.scorer.asked(self.scorer.words(prompt))[:1] if isinstance(prompt, str) else []
            return self.scorer.named(self.scorer.choose(asked[0], random)) if asked else prompt

        return tuple(replace(one, prompt=chosen(one.prompt)) for one in passes)

    def _text(self, words: str, asked: Asked, found: Found | None = None) -> str:
        """One of the things that words ask for, in words: of a group, what they say; of what is there, what it is."""
        if found is not None:
            return self.scorer.named(replace(asked, nouns=(found.noun,), color=found.color))
        if len(asked.nouns) == 1:
            return self.scorer.named(asked)
        return " ".join(self.scorer.words(words)[asked.start : asked.end])

    def _things(self, upload: Image.Image, mask: Image.Image | None) -> list[tuple[Found, Box]]:
        """The things of an image, those that the mask touches where there is one, and their squares in its pixels."""
        resolution = self.model.first_stage.config.resolution
        whole = crop.crop_box(masks.preset("everything", upload.size), resolution)
        pixels = to_tensor(crop.extract(upload, whole, resolution))
        near = None if mask is None else torch.from_numpy(painted_patches(mask, whole, self.grid) > 0)
        return [(found, self._in_pixels(found.box, whole)) for found in self.scorer.things(pixels[0], near)]

    def _in_pixels(self, box: Tokens, whole: Box) -> Box:
        """A box of tokens in the pixels of the image, whose square `whole` is seen."""
        cell = whole.side / self.grid
        left, top = round(whole.left + box.left * cell), round(whole.top + box.top * cell)
        return Box(left, top, max(2 * round(box.side * cell / 2), 2))


def _share(mask: Image.Image, box: Box) -> float:
    """How much of a square is painted, 0 to 1."""
    return float((np.asarray(mask.crop((box.left, box.top, box.left + box.side, box.top + box.side))) > 0).mean())


def side_by_side(mask: Image.Image, shape: Shape, count: int, size: Size) -> list[Box]:
    """As many squares within what is painted, in reading order; fewer where there is no room for all.

    Where it has as many parts, one in each.
    """
    parts, labels = cv2.connectedComponents((np.asarray(mask) > 0).astype(np.uint8), connectivity=8)
    if parts - 1 == count:
        shapes = [
            shape_of(Image.fromarray(np.where(labels == part, np.uint8(255), np.uint8(0)))) for part in range(1, parts)
        ]
        return [square(one.x, one.y, one.side, size) for one in sorted(shapes, key=lambda one: one.x)]

    def side(columns: int) -> float:
        return min(shape.width / columns, shape.height / math.ceil(count / columns))

    columns = max(range(1, count + 1), key=side)
    rows, length = math.ceil(count / columns), max(side(columns), MIN_SIDE)
    found = []
    for number in range(count):
        row, column = divmod(number, columns)
        x = shape.x + (column - (min(columns, count - row * columns) - 1) / 2) * length
        y = shape.y + (row - (rows - 1) / 2) * length
        found.append(square(x, y, length, size))
    return [box for i, box in enumerate(found) if not any(_overlap(box, other) for other in found[:i])]


def _overlap(a: Box, b: Box) -> bool:
    return max(abs(a.left - b.left), abs(a.top - b.top)) < min(a.side, b.side) / 2
