"""Edits of masks as people paint them: how often they give what was asked for.

    python -m recipes.things evaluate painted --samples 300 --seed 81 --out figures.json --grids FOLDER

Outlines drawn freehand and rectangles at any place, long ones for several things, strokes over half of a thing, and
loose strokes over a thing that is to go. All settings are those that the page begins with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from PIL import Image

from imagebart.evaluation.metrics import Measure, measure, median_of, share_of
from imagebart.imaging.files import to_tensor
from imagebart.pipeline import Pipeline, PipelineEvent
from imagebart.text.prompts import articled
from imagebart.worlds.things import ThingScorer
from recipes import generator
from recipes.strokes import Bounds, edit_grid, freehand, rectangle, zigzag
from recipes.things.artwork import CELL, GROUNDS, NOUNS, SIZE, Placed, Scene, render
from recipes.things.evaluation import FAR, GONE, SPECK
from recipes.things.reader import COLORS
from recipes.things.scenes import COUNT_WORDS, SceneOptions, sample

SERIES = 5_000_000  # of scenes, plus the seed
WHOLE = (SIZE, SIZE)
PAGE_FEATHER = 4  # as the page begins


@dataclass(frozen=True)
class Case:
    """An image, what is painted on it, the words, and where which thing is to be seen after."""

    image: Image.Image
    mask: Image.Image
    words: str
    shown: tuple[tuple[Bounds, int, str], ...]  # a square, the noun's number (that after the last: nothing), its color
    remove: bool = False
    ground: Image.Image | None = None  # of a removal, what is left


def _square(mask: Image.Image) -> Bounds:
    """The square around what is painted."""
    left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
    half = max(right - left, bottom - top) / 2
    x, y = (left + right) / 2, (top + bottom) / 2
    return x - half, y - half, x + half, y + half


def one_thing(number: int, seed: int) -> Case:
    """An outline or a rectangle at any place, over other things too, and a noun."""
    random = generator(number, seed, 11)
    scene = sample(number, SERIES + seed, SceneOptions(things=int(random.integers(0, 4))))
    if number % 2:
        across = random.uniform(56, 150)
        down = float(np.clip(across * random.uniform(1 / 1.4, 1.4), 56, 150))
        left, top = random.uniform(0, SIZE - across), random.uniform(0, SIZE - down)
        mask = rectangle((left, top, left + across, top + down), WHOLE)
    else:
        radius, longer = random.uniform(30, 64), random.uniform(0.8, 1.25) ** 0.5
        x, y = random.uniform(0.8 * radius, SIZE - 0.8 * radius, 2)
        mask = freehand(x, y, radius * longer, radius / longer, WHOLE, random)
    noun = int(random.integers(len(NOUNS)))
    words = articled(f"a {NOUNS[noun].name}")
    return Case(Image.fromarray(render(scene)), mask, words, ((_square(mask), noun, ""),))


def several_things(number: int, seed: int) -> Case:
    """A long mask, and two or three of a noun or two nouns, on a plain ground."""
    random = generator(number, seed, 12)
    scene = sample(number, SERIES + seed, SceneOptions(things=0))
    count = 2 + number % 2
    short = random.uniform(50, 78)
    long = min(short * count * random.uniform(0.85, 1.15), SIZE - 8)
    across, down = (long, short) if random.random() < 0.6 else (short, long)
    left, top = random.uniform(0, SIZE - across), random.uniform(0, SIZE - down)
    if random.random() < 0.5:
        mask = rectangle((left, top, left + across, top + down), WHOLE)
    else:
        mask = freehand(left + across / 2, top + down / 2, across / 2, down / 2, WHOLE, random)
    nouns = [int(noun) for noun in random.choice(len(NOUNS), 2, replace=False)]
    if count == 3 or random.random() < 0.5:
        nouns = nouns[:1] * count
        words = f"{COUNT_WORDS[count]} {NOUNS[nouns[0]].plural}"
    else:
        words = " and ".join(articled(f"a {NOUNS[noun].name}") for noun in nouns)
    left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
    across, down = right - left, bottom - top
    side = min(across, down, max(across, down) / count)
    shown = []
    for place, noun in enumerate(nouns):
        along = (place + 0.5) / count
        x, y = (along, 0.5) if across > down else (0.5, along)
        x, y = left + x * across, top + y * down
        shown.append(((x - side / 2, y - side / 2, x + side / 2, y + side / 2), noun, ""))
    return Case(Image.fromarray(render(scene)), mask, words, tuple(shown))


def _one_placed(number: int, seed: int, colored: float = 0.0) -> tuple[Scene, Placed]:
    options = SceneOptions(things=1 + number % 3, first=(4, 6, 8)[number % 3], colored=colored)
    scene = sample(number, SERIES + seed, options)
    return scene, next(thing for thing in scene.things if thing.side == options.first)


def _bounds(thing: Placed) -> Bounds:
    left, top = thing.left * CELL, thing.top * CELL
    return left, top, left + thing.side * CELL, top + thing.side * CELL


def half_painted(number: int, seed: int, hidden: bool = False) -> Case:
    """About half of a thing painted, from one side, without words or with its name; hidden: by a slab of any color."""
    random = generator(number, seed, 13)
    scene, thing = _one_placed(number, seed, colored=0.3)
    left, top, right, bottom = _bounds(thing)
    part = random.uniform(0.35, 0.55) * (right - left)
    side = int(random.integers(4))
    over = (
        (left - 4, top - 4, left + part, bottom + 4),
        (right - part, top - 4, right + 4, bottom + 4),
        (left - 4, top - 4, right + 4, top + part),
        (left - 4, bottom - part, right + 4, bottom + 4),
    )[side]
    image = Image.fromarray(render(scene))
    if hidden:
        slab = rectangle(over, WHOLE)
        image.paste(GROUNDS[str(random.choice(list(GROUNDS)))], mask=slab)
    words = "" if number % 2 else NOUNS[thing.noun].name
    color = thing.color or NOUNS[thing.noun].color
    return Case(image, rectangle(over, WHOLE), words, ((_bounds(thing), thing.noun, color),))


def half_hidden(number: int, seed: int) -> Case:
    """The same of a thing that is hidden by a slab, which is what is painted."""
    return half_painted(number, seed, hidden=True)


def loose_removal(number: int, seed: int) -> Case:
    """A loose stroke over a thing that is to go."""
    random = generator(number, seed, 14)
    scene, thing = _one_placed(number, seed)
    left, top, right, bottom = _bounds(thing)
    inset = random.uniform(0, 0.2, 4) * (right - left)
    place = (left + inset[0], top + inset[1], right - inset[2], bottom - inset[3])
    mask = zigzag(place, random.uniform(6, 14), WHOLE, random)
    after = Scene(scene.ground, tuple(other for other in scene.things if other != thing))
    shown = ((_bounds(thing), len(NOUNS), ""),)
    return Case(Image.fromarray(render(scene)), mask, "", shown, True, Image.fromarray(render(after)))


KINDS: dict[str, tuple[Callable[[int, int], Case], str, str]] = {  # cases, the measure, its goal
    "outlines": (one_thing, "outlines and rectangles at any place: the thing asked for", "≥ 97 %"),
    "several": (several_things, "long masks: two or three things, right number and kind", "≥ 90 %"),
    "half-painted": (half_painted, "half of a thing painted: completed, same kind and color", "≥ 95 %"),
    "half-hidden": (half_hidden, "half of a thing hidden by a slab, painted: completed, same kind and color", "≥ 95 %"),
    "removals": (loose_removal, "loose strokes: removed, with the shadow", "≥ 97 %"),
}


def is_right(scorer: ThingScorer, case: Case, result: Image.Image) -> bool:
    """Whether all is seen that is to be seen, and nothing of what is to go."""
    for bounds, noun, color in case.shown:
        left, top, right, bottom = (round(edge) for edge in bounds)
        box = (left, top, right, bottom)
        square = F.interpolate(to_tensor(result.crop(box)), (64, 64), mode="bicubic", antialias=True)
        nouns, colors = scorer.read(square)
        if int(nouns.argmax(1)) != noun or (color and COLORS[int(colors.argmax(1))] != color):
            return False
        if case.ground is not None:
            error = np.asarray(result.crop(box), np.float32) - np.asarray(case.ground.crop(box), np.float32)
            far = np.abs(error).max(2) > FAR
            specks = np.lib.stride_tricks.sliding_window_view(far, (SPECK, SPECK)).all((2, 3)).any()
            if np.abs(error.mean((0, 1))).max() > GONE or specks:
                return False
    return True


@dataclass(frozen=True)
class Painted:
    """A case with its result."""

    case: Case
    last: PipelineEvent
    right: bool

    @property
    def outside(self) -> bool:
        """Whether no pixel outside the mask has changed."""
        assert self.last.mask is not None
        kept = np.asarray(self.last.mask) == 0
        return bool((np.asarray(self.last.image)[kept] == np.asarray(self.case.image)[kept]).all())


def paint(pipe: Pipeline, kind: str, samples: int, seed: int) -> Iterator[Painted]:
    """Cases of a kind, edited."""
    assert isinstance(pipe.scorer, ThingScorer)
    for number in range(samples):
        case = KINDS[kind][0](number, seed)
        events = pipe.edit(
            case.image, case.mask, case.words or None, seed=seed + number, remove=case.remove, feather=PAGE_FEATHER
        )
        *_, last = events
        yield Painted(case, last, is_right(pipe.scorer, case, last.image))


def measures(pipe: Pipeline, samples: int, seed: int, grids: dict[str, Image.Image]) -> Iterator[Measure]:
    """The share of each kind that is right; grids: takes forty of each, unchosen."""
    stayed, times = [], []
    for kind, (_, name, goal) in KINDS.items():
        painted = list(paint(pipe, kind, samples, seed))
        yield measure(name, share_of([one.right for one in painted]), samples, "%", goal)
        stayed += [one.outside for one in painted]
        times += [one.last.elapsed for one in painted]
        grids[kind] = edit_grid([(one.case.image, one.case.mask, one.case.words, one.last) for one in painted[:40]])
    yield measure("no pixel changed outside the mask", share_of(stayed), len(stayed), "%", "100 %")
    yield measure("time of an edit, median", median_of(times), len(times), "s")
