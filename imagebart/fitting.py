"""What an edit changes, from what is painted and what is asked for.

A model draws whole patches, in the sizes and places that things have in its training images; people paint neither. So
what they paint is fitted to the model before it is drawn, and shown to them.

A model of images gets every patch that is painted by a tenth, and the place that the words need where it touches
these. Its prompt is completed by what else the image shows.

A model that draws layers lays each thing on a square of the image, of any place and any size. What was there before is
filled with the ground around it.
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
from PIL import Image, ImageChops

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings
from imagebart.imaging import crop, masks
from imagebart.imaging.blending import is_textured
from imagebart.imaging.crop import Box, Region
from imagebart.imaging.files import Recipe, to_tensor
from imagebart.imaging.masks import Bytes, Size
from imagebart.models.vqgan import FirstStageConfig
from imagebart.sampling.inpainting import ADVICE, fill_nearest, suggest_mask
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
DETAIL, HIDING = 24, 0.7  # levels from a color; share of what is painted that has one color, from which it hides
REPLACED = 0.5  # share of a thing's box that another takes, from which it goes
COVERED = 0.85  # … on a ground with texture, where it may be no drawing, and what is filled is seen
GONE = 0.6  # … from which it goes where nothing is asked for
UNKNOWN = 'This model knows no thing in "{:.60}"; name one that it draws, such as "a cat" or "a red car".'
NO_PLACE = f"Without words there is no place to find; say what should be there, or {ADVICE}."
NOTHING_HERE = "There is no thing that this model knows where you painted; say what should be there."
NO_ROOM = 'There is no room for "{:.60}" on this image; paint where it should be.'
FIT_NOTE = "There is room for {} of the {} things."
VIEW = 256  # pixels a side of a whole image for the scorer of a model that draws layers
CANVAS, HORIZON = 512, 0.7  # pixels a side of a new image that layers are laid on; where its floor begins, if any
AROUND, PAST = 0.03, 0.25  # of a thing's side: what goes with it around its box; where the rest of it is looked for
PLAIN = 3  # levels from the ground's color, from which something stands out
MEASURED = 512  # pixels of the longer side of a mask whose shape is measured


@dataclass(frozen=True)
class Pass:
    """What a chain draws: the region's patches, by a prompt. Without a region it draws a whole new image."""

    prompt: Prompt
    region: Region | None = None
    color: str = ""  # of a layer, see `imagebart.worlds.things`; "": its own
    mirrored: bool | None = None  # whether a layer is; None: chosen by the seed


@dataclass(frozen=True)
class FittedMask:
    mask: Image.Image  # "L", of the image's size: no pixel outside of it changes
    passes: tuple[Pass, ...]  # one after the other, each within what those before drew
    settings: SamplingSettings
    notes: tuple[str, ...] = ()  # sentences for the user
    filled: Image.Image | None = None  # "L": where the ground goes on before the first pass, without a network
    elsewhere: Image.Image | None = None  # the place that the words are about, where it is another one

    @classmethod
    def of(
        cls, passes: Sequence[Pass], settings: SamplingSettings, *notes: str, filled: Image.Image | None = None
    ) -> "FittedMask":
        """The mask of passes on an image, and of what is filled before."""
        changed = [step.region.mask for step in passes if step.region is not None] + ([filled] if filled else [])
        return cls(reduce(ImageChops.lighter, changed), tuple(passes), settings, notes, filled)

    def within(self, mask: Image.Image) -> "FittedMask":
        """The same, but nothing changes outside of an "L" mask."""

        def inside(step: Pass) -> Pass:
            region = step.region
            return replace(step, region=region and replace(region, mask=ImageChops.darker(region.mask, mask)))

        filled = self.filled and ImageChops.darker(self.filled, mask)
        passes = tuple(inside(step) for step in self.passes)
        return replace(self, mask=ImageChops.darker(self.mask, mask), passes=passes, filled=filled)


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
    """All of an image as the scorer sees it: its square, and its things, at the mask if any."""

    image: Image.Image
    box: Box
    things: list[Found]
    grid: int
    hides: bool = False  # whether what is painted has one color

    def square(self, place: Found | Box) -> Box:
        """Where a thing stands, or a box of the grid, in the pixels of the image."""
        cell = self.box.side / self.grid
        left, top = round(self.box.left + place.left * cell), round(self.box.top + place.top * cell)
        return Box(left, top, max(2 * round(place.side * cell / 2), 2))

    def cleared(self, things: Sequence[Found], mask: Image.Image | None = None) -> Image.Image | None:
        """Where things stand, and a mask: "L"; None for neither."""
        if not things and mask is None:
            return None
        filled = Image.new("L", self.image.size) if mask is None else mask.copy()
        for found in things:
            left, top, right, bottom = self.square(found).edges
            more = round(AROUND * (right - left))
            filled.paste(255, (left - more, top - more, right + more, bottom + more))
            self._add_what_stands_out(filled, found)
        return filled

    def _add_what_stands_out(self, filled: Image.Image, found: Found) -> None:
        """Adds what is joined to a thing around its square, if the ground there is plain."""
        box = self.square(found)
        more = round(PAST * box.side)
        around = Box(box.left - more, box.top - more, box.side + 2 * more)
        pixels = np.asarray(crop.extract(self.image, around, around.side).convert("RGB"), np.int16)
        edge = np.ones(pixels.shape[:2], bool)
        edge[1:-1, 1:-1] = False
        apart = np.abs(pixels - np.median(pixels[edge], 0)).max(2) > PLAIN
        if apart[edge].mean() < 0.5:
            _, labels = cv2.connectedComponents(cv2.dilate(apart.astype(np.uint8), np.ones((3, 3), np.uint8)))
            inside, beyond = labels[Box(more, more, box.side).cells], labels[edge]  # what goes on is another thing
            joined = (labels > 0) & np.isin(labels, inside) & ~np.isin(labels, beyond)
            filled.paste(255, (around.left, around.top), Image.fromarray((joined * 255).astype(np.uint8)))


class Layers:
    """Fits masks for a model that draws layers."""

    def __init__(self, config: FirstStageConfig, scorer: ThingScorer) -> None:
        self.config, self.scorer, self.grid = config, scorer, scorer.grid

    def draw(self, box: Box, prompt: Prompt, size: Size, color: str = "") -> Pass:
        """A layer on a square of an image of `size` (width, height). color: see `Pass`."""
        everything = np.full((self.config.side, self.config.side), 255, np.uint8)
        return Pass(prompt, Region.of_patches(everything, box, size, self.config.resolution), color)

    def draw_asked(self, box: Box, asked: Asked, size: Size) -> Pass:
        """One of the things that are asked for."""
        return self.draw(box, self._text(asked), size, self.color(asked.nouns, asked.color))

    def color(self, nouns: Sequence[int], color: int | None) -> str:
        """The color of a layer for one of these nouns in a color; a noun's own has no name."""
        said = self.scorer.names.colors[color or 0]
        return "" if said in {self.scorer.names.noun_colors[noun] for noun in nouns} else said

    def fit(self, upload: Image.Image, mask: Image.Image | None, words: str, recipe: Recipe) -> FittedMask:
        """The squares of what is asked for. Raises InputError where words or mask are about no thing."""
        asked, settings = self.scorer.asked(words), recipe.settings  # of a removal there are no words
        if not asked and (words or mask is None):
            raise InputError(UNKNOWN.format(words) if words else NO_PLACE)
        view = self._view(upload, None if recipe.remove else mask, asked)  # what goes must not take others with it
        if mask is None:
            return self._where_found(view, asked, words, settings)
        shares = {found: _share(mask, view.square(found)) for found in view.things}
        touched = [found for found, share in shares.items() if share >= TOUCHED]
        if not asked and not touched and not recipe.remove:
            raise InputError(NOTHING_HERE)
        if recipe.remove or (not asked and max(shares.values()) >= GONE):
            gone = [found for found in touched if recipe.remove or shares[found] >= GONE]
            return FittedMask.of([], settings, filled=view.cleared(gone, mask))
        each = [thing for thing in asked for _ in range(thing.count)]
        if len(each) <= 1:
            for found in sorted(touched, key=shares.__getitem__, reverse=True):
                if not each or self.scorer.is_a(found.noun, found.color, each[0]):
                    return self._completed(found, mask, view, settings)
        squares = squares_in(mask, len(each), relation(asked))
        drawn = [self.draw_asked(box, thing, view.image.size) for thing, box in zip(each, squares, strict=False)]
        # What these cover for the most part goes with all of it.
        taken = FittedMask.of(drawn, settings).mask
        shares = {found: _share(taken, view.square(found)) for found in view.things}
        cut = [found for found, share in shares.items() if share >= REPLACED]
        filled = view.cleared(cut)
        if filled is not None and is_textured(upload, filled):
            filled = view.cleared([found for found in cut if shares[found] >= COVERED])
        notes = (FIT_NOTE.format(len(squares), len(each)),) if len(squares) < len(each) else ()
        return FittedMask.of(drawn, settings, *notes, filled=filled)

    def _completed(self, found: Found, mask: Image.Image, view: View, settings: SamplingSettings) -> FittedMask:
        """A thing that is painted in part, drawn again where it is; it goes before, and what is painted beside it."""
        box = view.square(found)
        beside = mask.copy()
        beside.paste(0, box.edges)
        painted, rest = (np.count_nonzero(np.asarray(part)) for part in (mask, beside))
        words, color = self.scorer.phrase(found.noun, found.color), self.color([found.noun], found.color)
        drawn = replace(self.draw(box, words, view.image.size, color), mirrored=found.mirrored)
        filled = view.cleared([found], mask if view.hides or rest > BESIDE * painted else None)
        return FittedMask.of([drawn], settings, filled=filled)

    def _where_found(self, view: View, asked: list[Asked], words: str, settings: SamplingSettings) -> FittedMask:
        """Where the things are that are asked for, which go before, or free places for them."""
        passes, taken, gone = list[Pass](), [found.box for found in view.things], list[Found]()
        for thing in asked:
            there = [found for found in view.things if found.noun in thing.nouns]
            squares = [view.square(found) for found in there]
            if not there:
                taken += (free := self.scorer.free_boxes(taken, thing))
                squares = [view.square(box) for box in free]
            passes += [self.draw_asked(square, thing, view.image.size) for square in squares]
            gone += there
        if not passes:
            raise InputError(NO_ROOM.format(words))
        return FittedMask.of(passes, settings, filled=view.cleared(gone))

    def plan(self, prompt: str, seed: int) -> tuple[Image.Image, tuple[Pass, ...]]:
        """The ground of a whole image, and the passes of its things."""
        (wall, floor), things = self.scorer.plan(prompt, seed)
        image = Image.new("RGB", (CANVAS, CANVAS), self.scorer.names.grounds[wall])
        image.paste(self.scorer.names.grounds[floor], (0, round(HORIZON * CANVAS), CANVAS, CANVAS))
        cell, passes = CANVAS // self.grid, list[Pass]()
        for name, box in things:
            pixels = Box(box.left * cell, box.top * cell, box.side * cell)
            passes.append(self.draw_asked(pixels, self.scorer.asked(name)[0], image.size))
        return image, self.choose(passes, seed)

    def choose(self, passes: Sequence[Pass], seed: int) -> tuple[Pass, ...]:
        """The same with one noun of each group of things that is asked for, mirrored or not."""
        random = Random(seed)

        def chosen(prompt: Prompt) -> Prompt:
            asked = self.scorer.asked(prompt)[:1] if isinstance(prompt, str) else []
            return self._text(self.scorer.choose(asked[0], random)) if asked else prompt

        def mirrored(step: Pass) -> bool:
            return random.random() < 0.5 if step.mirrored is None else step.mirrored

        return tuple(replace(step, prompt=chosen(step.prompt), mirrored=mirrored(step)) for step in passes)

    def _text(self, asked: Asked) -> str:
        """One of the things that are asked for, as the model knows it; of a group, what the words say."""
        return asked.text if len(asked.nouns) > 1 else self.scorer.phrase(asked.nouns[0], asked.color)

    def _view(self, upload: Image.Image, mask: Image.Image | None, asked: Sequence[Asked]) -> View:
        whole = crop.whole_box(upload.size)
        pixels = to_tensor(crop.extract(upload, whole, VIEW))[0]
        expected = {noun for thing in asked for noun in thing.nouns}
        if mask is None:
            return View(upload, whole, self.scorer.things(pixels, expected=expected), self.grid)
        near = torch.from_numpy(painted_patches(mask, whole, self.grid) > 0)
        paint = torch.from_numpy(crop.paint_in(np.asarray(mask), whole, VIEW) > 0)
        colors = pixels[:, paint]
        share = ((colors - colors.median(1, keepdim=True).values).abs().amax(0) * 127.5 < DETAIL).float().mean()
        hides = bool(share > HIDING)
        # Photographs show much that looks a little like what the words name, which then is not what they are about.
        things = self.scorer.things(pixels, near, expected if hides else ())
        if hides:  # what is painted may hide a thing, which is looked for with the colors around it there
            hidden = self.scorer.things(fill_nearest(pixels[None], paint[None])[0], near, expected)
            things = hidden + [one for one in things if not any(one.box.overlap(other.box) for other in hidden)]
        return View(upload, whole, things, self.grid, hides)


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
