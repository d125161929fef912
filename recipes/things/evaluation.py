"""How good the model of things is: the figures of its card; and the page's examples.

    python -m recipes.things evaluate --samples 300 --seed 82 --grids FOLDER

Outlines drawn freehand and rectangles at any place, long ones for several things, strokes over half of a thing, and
loose strokes over a thing that is to go; then whole images, and places found by words. All settings are those that the
page begins with. The detector that ships, which was trained on scenes alone, says what images show.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice

import numpy as np
import torch.nn.functional as F
from PIL import Image

from imagebart.core.errors import InputError
from imagebart.evaluation.metrics import Measure, median_of, share_of
from imagebart.imaging.crop import Box
from imagebart.imaging.files import to_tensor
from imagebart.pipeline import Pipeline
from imagebart.text.prompts import articled
from imagebart.worlds.things import Found, ThingScorer
from recipes import evaluation as shared
from recipes import generator
from recipes.things.artwork import CELL, GROUNDS, NOUNS, SIZE, Ground, Placed, Scene, render
from recipes.things.scenes import COUNT_WORDS, Caption, SceneOptions, describe, sample
from recipes.things.training import COLORS, NOTHING

SERIES = 5_000_000  # of scenes, plus the seed
WHOLE = (SIZE, SIZE)
FAR = 24  # levels in a channel from which a pixel differs from the ground
SPECK = 4  # pixels a side of a square that differs from the ground
GONE = 8  # levels: the ground's mean color in a mask from which a thing was removed


@dataclass(frozen=True)
class ThingCase(shared.Case):
    """An edit, and where which thing is to be seen after."""

    shown: tuple[tuple[shared.Bounds, int, str], ...] = ()  # a square, the noun's number or NOTHING, its color
    ground: Image.Image | None = None  # of a removal, what is left


def _drawn(scene: Scene) -> Image.Image:
    return Image.fromarray(render(scene))


def _square(x: float, y: float, side: float) -> shared.Bounds:
    """The square around a point."""
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def _bounds(mask: Image.Image) -> shared.Bounds:
    bounds = mask.getbbox()
    assert bounds is not None
    return bounds


def one_thing(number: int, seed: int) -> ThingCase:
    """An outline or a rectangle at any place, over other things too, and a noun."""
    random = generator(number, seed, 11)
    scene = sample(number, SERIES + seed, SceneOptions(things=int(random.integers(0, 4))))
    if number % 2:
        across = random.uniform(56, 150)
        down = float(np.clip(across * random.uniform(1 / 1.4, 1.4), 56, 150))
        left, top = random.uniform(0, SIZE - across), random.uniform(0, SIZE - down)
        mask = shared.rectangle((left, top, left + across, top + down), WHOLE)
    else:
        radius, longer = random.uniform(30, 64), random.uniform(0.8, 1.25) ** 0.5
        x, y = random.uniform(0.8 * radius, SIZE - 0.8 * radius, 2)
        mask = shared.freehand(x, y, radius * longer, radius / longer, WHOLE, random)
    noun = int(random.integers(len(NOUNS)))
    left, top, right, bottom = _bounds(mask)
    square = _square((left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top))
    return ThingCase(_drawn(scene), mask, articled(f"a {NOUNS[noun].name}"), shown=((square, noun, ""),))


def several_things(number: int, seed: int) -> ThingCase:
    """A long mask, and two or three of a noun or two nouns, on a plain ground."""
    random = generator(number, seed, 12)
    scene = sample(number, SERIES + seed, SceneOptions(things=0))
    count = 2 + number % 2
    short = random.uniform(50, 78)
    long = min(short * count * random.uniform(0.85, 1.15), SIZE - 8)
    across, down = (long, short) if random.random() < 0.6 else (short, long)
    left, top = random.uniform(0, SIZE - across), random.uniform(0, SIZE - down)
    if random.random() < 0.5:
        mask = shared.rectangle((left, top, left + across, top + down), WHOLE)
    else:
        mask = shared.freehand(left + across / 2, top + down / 2, across / 2, down / 2, WHOLE, random)
    nouns = [int(noun) for noun in random.choice(len(NOUNS), 2, replace=False)]
    if count == 3 or random.random() < 0.5:
        nouns = nouns[:1] * count
        words = f"{COUNT_WORDS[count]} {NOUNS[nouns[0]].plural}"
    else:
        words = " and ".join(articled(f"a {NOUNS[noun].name}") for noun in nouns)
    left, top, right, bottom = _bounds(mask)
    across, down = right - left, bottom - top
    side = min(across, down, max(across, down) / count)
    shown = []
    for place, noun in enumerate(nouns):
        along = (place + 0.5) / count
        x, y = (along, 0.5) if across > down else (0.5, along)
        shown.append((_square(left + x * across, top + y * down, side), noun, ""))
    return ThingCase(_drawn(scene), mask, words, shown=tuple(shown))


def _one_placed(number: int, seed: int, colored: float = 0.0) -> tuple[Scene, Placed, shared.Bounds]:
    """A scene, one of its things, and the box of that."""
    options = SceneOptions(things=1 + number % 3, first=(4, 6, 8)[number % 3], colored=colored)
    scene = sample(number, SERIES + seed, options)
    thing = next(thing for thing in scene.things if thing.side == options.first)
    left, top = thing.left * CELL, thing.top * CELL
    return scene, thing, (left, top, left + thing.side * CELL, top + thing.side * CELL)


def half_painted(number: int, seed: int, hidden: bool = False) -> ThingCase:
    """About half of a thing painted, from one side, without words or with its name; hidden: by a slab of any color."""
    random = generator(number, seed, 13)
    scene, thing, bounds = _one_placed(number, seed, colored=0.3)
    left, top, right, bottom = bounds
    part = random.uniform(0.35, 0.55) * (right - left)
    over = (
        (left - 4, top - 4, left + part, bottom + 4),
        (right - part, top - 4, right + 4, bottom + 4),
        (left - 4, top - 4, right + 4, top + part),
        (left - 4, bottom - part, right + 4, bottom + 4),
    )[int(random.integers(4))]
    image, mask = _drawn(scene), shared.rectangle(over, WHOLE)
    if hidden:
        image.paste(GROUNDS[str(random.choice(list(GROUNDS)))], mask=mask)
    words = "" if number % 2 else NOUNS[thing.noun].name
    return ThingCase(image, mask, words, shown=((bounds, thing.noun, thing.color or NOUNS[thing.noun].color),))


def loose_removal(number: int, seed: int) -> ThingCase:
    """A loose stroke over a thing that is to go."""
    random = generator(number, seed, 14)
    scene, thing, bounds = _one_placed(number, seed)
    left, top, right, bottom = bounds
    inset = random.uniform(0, 0.2, 4) * (right - left)
    place = (left + inset[0], top + inset[1], right - inset[2], bottom - inset[3])
    mask = shared.zigzag(place, random.uniform(6, 14), WHOLE, random)
    after = Scene(scene.ground, tuple(other for other in scene.things if other != thing))
    return ThingCase(_drawn(scene), mask, "", True, ((bounds, NOTHING, ""),), _drawn(after))


KINDS: dict[str, tuple[Callable[[int, int], ThingCase], str, str]] = {  # cases, the measure, its goal
    "outlines": (one_thing, "outlines and rectangles at any place: the thing asked for", "≥ 97 %"),
    "several": (several_things, "long masks: two or three things, right number and kind", "≥ 90 %"),
    "half-painted": (half_painted, "half of a thing painted: completed, same kind and color", "≥ 95 %"),
    "half-hidden": (
        partial(half_painted, hidden=True),
        "half of a thing hidden by a slab, painted: completed, same kind and color",
        "≥ 95 %",
    ),
    "removals": (loose_removal, "loose strokes: removed, with the shadow", "≥ 97 %"),
}


def is_right(scorer: ThingScorer, case: ThingCase, result: Image.Image) -> bool:
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


def measures(pipe: Pipeline, samples: int, seed: int, grids: dict[str, Image.Image]) -> Iterator[Measure]:
    """All measures of a model, each of so many cases; grids: takes images to look at, unchosen."""
    if not isinstance(pipe.scorer, ThingScorer):
        raise InputError("This model has no detector of things, which says what images show.")
    all_cases, all_results = [], []
    for kind, (make, name, goal) in KINDS.items():
        cases = [make(number, seed) for number in range(samples)]
        results = shared.edit_all(pipe, cases, seed)
        right = [is_right(pipe.scorer, case, last.image) for case, last in zip(cases, results, strict=True)]
        yield Measure(name, *share_of(right), samples, "%", goal)
        grids[f"painted-{kind}"] = shared.edit_grid(cases, results)
        all_cases += cases
        all_results += results
    yield from shared.common_measures(all_cases, all_results)
    yield from whole_images(pipe, pipe.scorer, samples, seed, grids)
    yield from places_by_words(pipe, samples, seed)


def whole_images(
    pipe: Pipeline, scorer: ThingScorer, samples: int, seed: int, grids: dict[str, Image.Image]
) -> Iterator[Measure]:
    """Images from captions; the same questions to the scenes' renders say what the detector misses."""
    cases = [(scene, describe(scene, generator(i, SERIES + seed, 1))) for i, scene in _scenes(samples, seed)]
    texts = [said.text for _, said in cases]
    images = shared.generate_all(pipe, texts, seed)
    grids["prompts"] = shared.prompt_grid(images, texts)
    for kind, shown in (("renders", [_drawn(scene) for scene, _ in cases]), ("whole images", images)):
        things = [scorer.things(to_tensor(image)[0]) for image in shown]
        named, counted = zip(*(shows(one, said) for one, (_, said) in zip(things, cases, strict=True)), strict=True)
        yield Measure(f"{kind}: all things named", *share_of(named), samples, "%", "≥ 92 %")
        yield Measure(f"{kind}: right number", *share_of(counted), samples, "%", "≥ 85 %")


def shows(things: list[Found], said: Caption) -> tuple[bool, bool]:
    """Whether an image with these things shows all that a caption names, and of each as many and no others."""
    seen, named = Counter(found.noun for found in things), Counter[int]()
    for mention in said.mentions:
        named[mention.noun] += mention.count
    return named.keys() <= seen.keys(), named == seen


def _scenes(samples: int, seed: int) -> Iterator[tuple[int, Scene]]:
    """Scenes with things, and their numbers."""
    numbered = ((number, sample(number, SERIES + seed)) for number in count())
    return islice((pair for pair in numbered if pair[1].things), samples)


def places_by_words(pipe: Pipeline, samples: int, seed: int) -> Iterator[Measure]:
    """Where things are that scenes show, found by their names."""
    shares = []
    for number, scene in _scenes(samples, seed):
        noun = scene.things[number % len(scene.things)].noun
        place = np.zeros((SIZE, SIZE), bool)
        for thing in scene.things:
            if thing.noun == noun:
                place[thing.pixels] = True
        shares.append(shared.suggestion_iou(pipe, _drawn(scene), NOUNS[noun].name, place))
    yield Measure("places by words: IoU, median", *median_of(shares), samples, goal="≥ 0.7")
    yield Measure("places by words: the right one", *share_of([share > 0.5 for share in shares]), samples, "%")


# The page's examples: `python -m recipes.things examples --out checkpoints/things/examples`.

NUMBERS = {noun.name: number for number, noun in enumerate(NOUNS)}


def _arranged(ground: Ground, *things: tuple[str, int, int, int]) -> Scene:
    """Things by their names, each with its top, left and side."""
    return Scene(ground, tuple(Placed(NUMBERS[name], "", *place) for name, *place in things))


EXAMPLES = (
    ("1-a-cat", _arranged(Ground("green", "green"), ("cat", 6, 1, 6)), Box(9, 6, 6), "a lion"),
    ("2-fruit", _arranged(Ground("white", "white"), ("apple", 8, 0, 4), ("banana", 8, 12, 4)), Box(5, 6, 6),
     "a pineapple"),
    ("3-a-house", _arranged(Ground("yellow", "yellow"), ("house", 5, 0, 8)), Box(9, 5, 6), "a tree"),
    ("4-a-frog-without-a-crown", _arranged(Ground("pink", "pink"), ("frog", 7, 4, 8)), Box(5, 1, 6), "a crown"),
    ("5-a-car-to-remove", _arranged(Ground("beige", "brown", 11), ("teddy bear", 6, 1, 6), ("car", 8, 9, 6)),
     Box(9, 8, 6), ""),
    ("6-a-night-sky", _arranged(Ground("black", "black"), ("snowman", 6, 1, 8)), Box(10, 1, 6), "a star"),
    ("7-two-cupcakes", _arranged(Ground("purple", "purple"), ("cupcake", 8, 0, 4), ("cupcake", 8, 12, 4)), Box(5, 6, 6),
     "a donut"),
    ("8-a-dolphin", _arranged(Ground("blue", "blue"), ("dolphin", 8, 1, 6)), Box(8, 3, 8), "a sailboat"),
)  # fmt: skip


def examples() -> Iterator[tuple[str, shared.Case]]:
    """Scenes, each with a box to draw in and what should be there; "" where the thing there goes."""
    for name, scene, box, words in EXAMPLES:
        left, top, side = box.left * CELL, box.top * CELL, box.side * CELL
        mask = shared.rectangle((left, top, left + side - 1, top + side - 1), WHOLE)
        yield name, shared.Case(_drawn(scene), mask, words, remove=not words)
