"""Scenes by number, what is said of them, and what is masked. Nothing is stored; a number is always the same scene.

Most edits are one thing: its box is masked, and the prompt names it and nothing else, as people paint and type.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imagebart.models.denoiser import context_window
from imagebart.text.prompts import articled
from imagebart.training.masks import PARTS_PER_PATCH, random_masks
from recipes import generator
from recipes.things.artwork import GRID, GROUNDS, HUES, NOUNS, Ground, Placed, Scene, render
from recipes.training import pixels_first

SIDES = (4, 6, 8, 12)  # of boxes, in tokens
SIDE_WEIGHTS = {1: (15, 25, 30, 30), 2: (25, 35, 30, 10)}  # by the number of things; of more than two:
CROWDED = (45, 40, 15, 0)
COUNTS = (8, 34, 26, 15, 8, 5, 4)  # weights of none to six things
COLORED = [number for number, noun in enumerate(NOUNS) if noun.color]  # nouns that have several colors
PLACING_TRIES = 20
COUNT_WORDS = ("", "a", "two", "three", "four", "five", "six")


def _pick(random: np.random.Generator, weights: Sequence[int]) -> int:
    return int(random.choice(len(weights), p=np.array(weights) / sum(weights)))


@dataclass(frozen=True)
class SceneOptions:
    """What scenes are like."""

    things: int | None = None  # how many are tried; None: by COUNTS
    sides: Sequence[int] | None = None  # weights of their boxes' sides; None: by the number of things
    first: int | None = None  # one's side
    colored: float = 0.0  # share of things that are chosen among those that have several colors alone
    two_tone: float = 0.3  # share of grounds that are a wall and a floor of different colors
    at_left: bool = False  # whether one lies at the image's left edge


def _color(random: np.random.Generator, noun: int) -> str:
    """A color for a noun; "" for the artwork's."""
    recolored = NOUNS[noun].color and random.random() < 0.7
    return str(random.choice([c for c in HUES if c != NOUNS[noun].color])) if recolored else ""


def sample(index: int, seed: int = 0, options: SceneOptions = SceneOptions()) -> Scene:
    """The scene of a number."""
    random = generator(index, seed, 0)
    wall = floor = str(random.choice(list(GROUNDS)))
    horizon = GRID
    if random.random() < options.two_tone:
        floor, horizon = str(random.choice([name for name in GROUNDS if name != wall])), int(random.integers(9, 13))
    shade = int(random.choice([0, 0, 8]))
    count = _pick(random, COUNTS) if options.things is None else options.things
    count = max(count, 0 if options.first is None else 1)
    sides = options.sides or SIDE_WEIGHTS.get(count, CROWDED)
    same_noun = 1 < count <= 6 and random.random() < 0.2  # so that things are counted
    placed: list[Placed] = []
    free = np.ones((GRID, GRID), bool)
    for _ in range(count):
        if same_noun and placed:
            noun, color, side = placed[0].noun, placed[0].color, placed[0].side
        else:
            noun, side = int(random.integers(len(NOUNS))), SIDES[_pick(random, sides)]
            side = side if options.first is None or placed else options.first
            if options.colored and random.random() < options.colored:
                noun = int(random.choice(COLORED))
            color = _color(random, noun)
        for _ in range(PLACING_TRIES):
            top, left = (int(random.integers(GRID - side + 1)) for _ in range(2))
            left = 0 if options.at_left and not placed else left
            thing = Placed(noun, color, top, left, side)
            if free[thing.box.cells].all():
                free[thing.box.cells] = False
                placed.append(thing)
                break
    return Scene(Ground(wall, floor, horizon, shade), tuple(sorted(placed, key=lambda t: (t.left, t.top))))


@dataclass(frozen=True)
class Mention:
    """Things that a caption names together: so many of a noun, all of a color ("": not said)."""

    noun: int
    color: str
    count: int


@dataclass(frozen=True)
class Caption:
    """text; what it says: of things in its order, of where the first lies beside the second, and of the ground."""

    text: str
    mentions: tuple[Mention, ...] = ()
    place: str = ""  # a key of PLACES
    ground: tuple[str, str] | None = None  # wall and floor


PLACES = {"left": ("left of", "to the left of"), "right": ("right of", "to the right of"), "above": ("above", "over"),
          "below": ("below", "under")}  # fmt: skip


def mentions(things: Sequence[Placed]) -> list[Mention]:
    """Things in their order, equal ones counted together."""
    counted = Counter((thing.noun, thing.color or NOUNS[thing.noun].color) for thing in things)
    return [Mention(noun, color, count) for (noun, color), count in counted.items()]


def phrase(mention: Mention, random: np.random.Generator, articles: bool = True) -> tuple[str, Mention]:
    """ "a red car", "three kittens"; and what of the mention that says."""
    noun = NOUNS[mention.noun]
    color = mention.color if mention.color and (mention.color != noun.color or random.random() < 0.6) else ""
    if mention.count > 1:
        words = (COUNT_WORDS[mention.count], color, noun.plural)
        return " ".join(filter(None, words)), Mention(mention.noun, color, mention.count)
    name = str(random.choice(noun.synonyms)) if noun.synonyms and random.random() < 0.25 else noun.name
    named = f"{color} {name}" if color else name
    return articled(f"a {named}") if articles else named, Mention(mention.noun, color, 1)


def _joined(texts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def describe_things(things: Sequence[Placed], random: np.random.Generator) -> Caption:
    """What a mask holds: "a cat", "cat", "a cat and two apples"; "" for nothing."""
    said = [phrase(mention, random, articles=random.random() < 0.7) for mention in mentions(things)]
    texts = [text for text, _ in said]
    return Caption(_joined(texts), tuple(mention for _, mention in said))


def describe(scene: Scene, random: np.random.Generator) -> Caption:
    """A caption of all of a scene: its things from left to right, or two by their places, and mostly its ground."""
    counted = mentions(scene.things)
    place = ""
    if len(scene.things) == len(counted) == 2 and random.random() < 0.5:
        pair = [scene.things[i] for i in random.permutation(2)]
        first, second = ((t.top + t.side / 2, t.left + t.side / 2) for t in pair)
        down, across = first[0] - second[0], first[1] - second[1]
        if max(abs(down), abs(across)) >= 4:
            beside, over = "right" if across > 0 else "left", "below" if down > 0 else "above"
            place = beside if abs(across) >= abs(down) else over
            counted = mentions(pair)
    said = [phrase(mention, random) for mention in counted]
    texts, mentioned = [text for text, _ in said], tuple(mention for _, mention in said)
    if place:
        text = f"{texts[0]} {random.choice(PLACES[place])} {texts[1]}"
    elif len(texts) > 1 and random.random() < 0.5:
        text = _joined(texts)
    else:
        text = ", ".join(texts)
    if random.random() >= 0.75 and texts:
        return Caption(text, mentioned, place)
    wall, floor = scene.ground.wall, scene.ground.floor
    if wall != floor:
        ground = f"{wall} wall, {floor} floor"
        text = f"{text}, {ground}" if text else ground
    else:
        word = str(random.choice(["ground", "background"]))
        text = f"{text}{random.choice([' on', ', on'])} {articled(f'a {wall}')} {word}" if text else f"{wall} {word}"
    return Caption(text, mentioned, place, (wall, floor))


# What is masked, with weights: the box of one thing, a box of ground alone, any shape, everything.
TASKS = {"thing": 64, "ground": 14, "shape": 8, "everything": 14}
TASK_SIDES = (25, 35, 30, 10)  # weights of the sides of the one thing's box
MOSTLY = 0.6  # of a thing's box: a mask that covers as much has to draw the thing
TWO_TONE = {"thing": 0.5, "ground": 0.7}  # share of grounds of two colors: outlines and lines before them are harder
AT_LEFT_SHARE = 0.4  # of boxes of ground alone: there, kept tokens show the line between two grounds on one side only
COLORED_SHARE = 0.12  # see `sample`: seven nouns of 108 in all their colors are as much to learn as many others
SILENT = 0.1  # share of whole scenes without a caption; elsewhere, no words mean that the ground goes on
BLOCK = 16  # tasks in a row of one kind and size, so that a batch of them leaves out the same number of tokens
MARGIN = 2  # tokens that are given around what is masked: the denoiser's `context_margin`


@dataclass(frozen=True)
class EditTask:
    """What is drawn where: a scene, the prompt, the mask, and the tokens that are given."""

    scene: Scene
    caption: Caption
    mask: Tensor  # bool [side, side], PARTS_PER_PATCH parts along each patch
    places: Tensor = torch.arange(GRID**2)  # ascending, int64 [N]


def edit_task(index: int, seed: int = 0) -> EditTask:
    """The task of a number. Where a box is masked, only the tokens around it are given: a third of them."""
    shared, random = generator(index // BLOCK, seed, 3), generator(index, seed, 1)
    kind, size = list(TASKS)[_pick(shared, list(TASKS.values()))], SIDES[_pick(shared, TASK_SIDES)]
    grown = shared.integers(0, 2, 2) * (shared.random() < 0.3)  # rows and columns that the mask has beyond the box
    side = GRID * PARTS_PER_PATCH
    options = SceneOptions(colored=COLORED_SHARE)
    if kind == "everything":
        scene = sample(index, seed, options)
        said = Caption("") if random.random() < SILENT else describe(scene, random)
        return EditTask(scene, said, torch.ones(side, side, dtype=torch.bool))
    if kind == "shape":
        scene = sample(index, seed, options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(random.integers(2**62)))
            parts = random_masks(1, side).view(side, side)
        cells = parts.view(GRID, PARTS_PER_PATCH, GRID, PARTS_PER_PATCH).float().mean((1, 3)).numpy()
        held = [thing for thing in scene.things if cells[thing.box.cells].mean() >= MOSTLY]
        return EditTask(scene, describe_things(held, random), parts)
    at_left = kind == "ground" and random.random() < AT_LEFT_SHARE
    colored = COLORED_SHARE if kind == "thing" else 0.0  # where the thing is gone, its color teaches nothing
    options = replace(options, first=size, colored=colored, two_tone=TWO_TONE[kind], at_left=at_left)
    scene = sample(index, seed, options)
    thing = next(thing for thing in scene.things if thing.side == size)
    masked = np.zeros((GRID, GRID), bool)
    spans = []
    for start, more in ((thing.top, int(grown[0])), (thing.left, int(grown[1]))):
        length = min(size + more, GRID)
        spans.append((int(random.integers(max(0, start + size - length), min(start, GRID - length) + 1)), length))
    (top, height), (left, width) = spans
    masked[top : top + height, left : left + width] = True
    if kind == "ground":  # what was masked is gone; what lies in part in the mask stays
        scene = replace(scene, things=tuple(other for other in scene.things if other != thing))
    held = [other for other in scene.things if masked[other.box.cells].all()]
    parts = torch.from_numpy(masked.repeat(PARTS_PER_PATCH, 0).repeat(PARTS_PER_PATCH, 1))
    (window,) = context_window(torch.from_numpy(masked).flatten()[None], MARGIN)
    return EditTask(scene, describe_things(held, random), parts, window.nonzero()[:, 0])


def edit_item(number: int, seed: int = 0) -> dict[str, Any]:
    """The task of a number: image, uint8 [3, SIZE, SIZE]; text, the prompt; mask and places, see `EditTask`."""
    task = edit_task(number, seed)
    return {"image": image_of(task.scene), "text": task.caption.text, "mask": task.mask, "places": task.places}


def crowded(index: int, seed: int = 0) -> Scene:
    """The scene of a number, with as many things as fit: for tokens."""
    return sample(index, seed, SceneOptions(8, (40, 35, 20, 5)))


def of_every_size(index: int, seed: int = 0) -> Scene:
    """The scene of a number, crowded or as edits are of, with more large things: for decoders."""
    if index % 2:
        return sample(index, seed, SceneOptions(8, (35, 30, 20, 15)))
    return sample(index, seed, SceneOptions(first=SIDES[index // 2 % len(SIDES)]))


def image_of(scene: Scene) -> Tensor:
    """A scene as an image: uint8 [3, SIZE, SIZE]."""
    return pixels_first(render(scene))
