"""The detector of things, and the scorer of images that is built on it.

A small network says what a square of an image shows. It looks at all squares of a grid in the sizes that things have;
of those that overlap, the surest counts. It is trained on drawings laid on pictures (`recipes.things.detector`),
never on what a model drew. The scorer also reads which things a prompt asks for, and says where in an image each is
drawn.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.core.settings import Settings
from imagebart.imaging.crop import Box
from imagebart.models.imagebart import ImageBARTModel
from imagebart.text.conditioners import TextConditioner
from imagebart.text.prompts import articled
from imagebart.worlds import load_half, save_half

SIDE = 64  # pixels a side of the network's input
MIN_PROBABILITY = 0.6  # of a noun, from which a thing counts as found
EXPECTED = 10.0  # how many times as likely a noun is whose words are said
MAX_OVERLAP = 0.2  # of the smaller box: things lie apart
MAX_GROUND_DISTANCE = 30.0  # levels from a named color
MIN_PLAIN = 0.9  # share of the ground that has its color, in images that are described
BATCH = 128  # squares
GRID = 16  # parts along an image, in which things are looked for and placed
PLACES = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0), "on": (-1, 0)}  # down, across
RELATIONS = {  # what is said between two things: a key of PLACES
    "left of": "left", "next to": "left", "beside": "left", "right of": "right", "on": "on", "on top of": "on",
    "above": "above", "over": "above", "below": "below", "under": "below", "beneath": "below",
}  # fmt: skip
NUMBER_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBERS = {word: number for number, word in enumerate(NUMBER_WORDS.split(), 1)}
NUMBERS |= {"a": 1, "an": 1, "pair": 2, "couple": 2, "some": 3, "few": 3, "several": 3, "many": 6, "dozen": 12}
MAX_COUNT = 20  # of a thing
SIZES = {"tiny": 0.5, "small": 0.7, "little": 0.7, "big": 1.4, "large": 1.4, "huge": 1.7, "giant": 1.7}  # × usual side
GROUND_WORDS = ("ground", "background", "wall", "floor")
MAX_FILLED = 0.55  # share of an image that things are planned to fill
LAYOUT_TRIES = 50

COLORS = {  # of layers: the pure color, and how light what is white becomes
    "red": ((1.0, 0.05, 0.1), 1.0), "orange": ((1.0, 0.5, 0.0), 1.0), "yellow": ((1.0, 0.85, 0.0), 1.0),
    "green": ((0.12, 1.0, 0.2), 0.72), "blue": ((0.1, 0.45, 1.0), 1.0), "purple": ((0.6, 0.2, 1.0), 0.9),
    "pink": ((1.0, 0.45, 0.75), 1.0), "brown": ((1.0, 0.55, 0.25), 0.62), "black": ((1.0, 1.0, 1.0), 0.26),
    "grey": ((1.0, 1.0, 1.0), 0.68), "white": ((1.0, 1.0, 1.0), 1.05),
}  # fmt: skip
MIN_CHROMA = 0.5  # of a pixel's lightness: gray becomes colored


def recolored(layers: Tensor, colors: Sequence[str]) -> Tensor:
    """Layers [B, 5, H, W] in their own color ("") or others: color times opacity, and opacity, [B, 4, H, W].

    The fifth channel says how much of a pixel takes the color. Its lightest and darkest channel tell how light it is
    and how much color it has.
    """
    own, opacity, paint = layers[:, :3], layers[:, 3:4], layers[:, 4:5]
    lightest, darkest = own.amax(1, keepdim=True), own.amin(1, keepdim=True)
    chroma = torch.maximum(lightest - darkest, MIN_CHROMA * lightest)
    pure = layers.new_tensor([COLORS[c][0] if c else (0.0, 0.0, 0.0) for c in colors])[:, :, None, None]
    light = layers.new_tensor([COLORS[c][1] if c else 1.0 for c in colors])[:, None, None, None]
    asked = layers.new_tensor([float(bool(c)) for c in colors])[:, None, None, None]
    target = torch.minimum((lightest - chroma * (1 - pure)) * light, opacity)
    return torch.cat([own + asked * paint * (target - own), opacity], 1)


class ThingNames(Settings):
    """What the network's answers mean, and the sizes of things."""

    nouns: tuple[tuple[str, ...], ...]  # of each its name, its plural, other words for it
    noun_colors: tuple[str, ...]  # of each the color that it has where none is said; "": its name says enough
    colors: tuple[str, ...]  # the first, "", is that of nouns whose name says enough
    grounds: dict[str, tuple[int, int, int]]
    sides: tuple[int, ...]  # tokens along a box
    counts: tuple[str, ...]  # words for 0, 1, 2 and so on things
    own_colors: dict[str, str] = {}  # "black and white", of nouns whose name says enough
    groups: dict[str, tuple[int, ...]] = {}  # "animal": its nouns

    @property
    def understood(self) -> set[str]:
        """Words of prompts that are read beside nouns and colors."""
        groups = {word for name in self.groups for word in (name, f"{name}s")}
        return {*NUMBERS, *SIZES, *" ".join(RELATIONS).split(), *groups, "the", "of", "with", "and"}


class ThingDetector(nn.Module):
    """Squares float [B, 3, SIDE, SIDE] in [-1, 1] -> logits of nouns, the last is "nothing", [B, nouns + 1], and of
    colors [B, colors]; how the thing stands, [B, 4]: the logit that it is mirrored; how far its box's middle lies
    right of and below the square's, in sides of the square; the logarithm of its box's side."""

    def __init__(self, nouns: int, colors: int, width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        channels_in = 12
        for channels in (width, 2 * width, 4 * width):
            for stride in (1, 2):
                layers += [nn.Conv2d(channels_in, channels, 3, stride, 1), nn.GroupNorm(8, channels), nn.ReLU()]
                channels_in = channels
        self.blocks = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width * (SIDE // 16) ** 2, 256), nn.ReLU())
        self.nouns, self.colors, self.place = nn.Linear(256, nouns + 1), nn.Linear(256, colors), nn.Linear(256, 4)

    def forward(self, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.blocks(squares)
        return self.nouns(features), self.colors(features), self.place(features)


def save_detector(detector: ThingDetector, names: ThingNames, path: Path) -> None:
    """Writes a detector, its names in the file's header."""
    save_half(detector, path, {"names": names.model_dump_json()})


def load_detector(path: Path) -> tuple[ThingDetector, ThingNames]:
    """The detector in a file, and its names."""
    about, tensors = load_half(path)
    names = ThingNames.from_json(about["names"])
    detector = ThingDetector(len(names.nouns), len(names.colors), len(tensors["blocks.1.weight"]))
    detector.load_state_dict(tensors)
    return detector.eval().requires_grad_(False), names


@dataclass(frozen=True)
class Found:
    """A thing in an image: the noun's and the color's number, and where it is, in parts of the image's grid."""

    noun: int
    color: int
    box: Box
    left: float  # of the box that it would be drawn in
    top: float
    side: float
    mirrored: bool


@dataclass(frozen=True)
class Asked:
    """Things that a prompt asks for."""

    nouns: tuple[int, ...]  # one, or those of a group ("fruit") that come in the color
    color: int | None  # of nouns that have several; None: any
    count: int  # 1 to MAX_COUNT
    size: float  # of the usual side
    text: str  # its words, number and article included
    lead: str  # the words between the things asked for before and these
    ignored_color: str  # that it does not come in; "": none


def relation(asked: Sequence[Asked]) -> str:
    """Where the first of two things lies from the second: a key of PLACES; "" where nothing is said, or more asked."""
    if [things.count for things in asked] != [1, 1]:
        return ""
    return next((key for said, key in RELATIONS.items() if f" {asked[1].lead}".endswith(f" {said}")), "")


@dataclass(frozen=True)
class ThingScorer:
    """Scores images by the probability that they show what a prompt names; describes them; finds things by words; says
    in which parts images are drawn."""

    detector: ThingDetector
    names: ThingNames
    conditioner: TextConditioner
    grid: int  # parts along an image in which it looks for things

    @classmethod
    def load(cls, path: Path, model: ImageBARTModel) -> "ThingScorer":
        """The detector in a file. Raises ValueError where the model draws no layers, or takes no prompts in words."""
        if not model.first_stage.config.draws_layers:
            raise ValueError("it finds things that are drawn as layers, but the model beside it draws none")
        if not isinstance(model.conditioner, TextConditioner):
            raise ValueError("it scores by prompts, but the model beside it takes none in words")
        return cls(*load_detector(path), model.conditioner, GRID)

    # What a prompt asks for.

    def asked(self, prompt: str) -> list[Asked]:
        """What a prompt asks for, in its order. "orange" before a thing or a ground is its color, no fruit."""
        words = self.conditioner.corrected_words(prompt)
        asked: list[Asked] = []
        first = at = 0  # the first word after the last thing
        while at < len(words):
            end = at + self._name_length(words, at)
            if end == at + 1 and words[at] in self.names.grounds and end < len(words):
                named = words[end] != words[at] and self._name_length(words, end)  # "an orange, orange background"
                end = at if named or words[end] in GROUND_WORDS else end
            if end > at:
                asked.append(self._with_modifiers(words, first, at, end))
                first = end
            at = max(end, at + 1)
        return asked

    def _with_modifiers(self, words: Sequence[str], first: int, at: int, end: int) -> Asked:
        """The things that words `at` to `end` name, with the number, size and color before them, from `first` on."""
        start, numbers, size, color = at, list[int](), 1.0, ""
        while start > first:
            word = words[start - 1]
            if word in NUMBERS or word.isdecimal():
                numbers.append(NUMBERS.get(word) or int(word[:3]))
            elif word in SIZES:
                size = SIZES[word]
            elif not color and (word in self.names.colors or word in self.names.grounds):
                color = word
            elif word != "the" and not (word == "of" and words[start - 2] in NUMBERS):
                break
            start -= 1
        nouns, plural = self._nouns[tuple(words[at:end])]
        count = min(max(math.prod(numbers), 1), MAX_COUNT) if numbers else 2 if plural else 1
        colored = tuple(noun for noun in nouns if color in self._colors_of(noun))
        several = any(self.names.noun_colors[noun] for noun in colored)
        number = self.names.colors.index(color) if several else None
        text, lead = " ".join(words[start:end]), " ".join(words[first:start])
        return Asked(colored or nouns, number, count, size, text, lead, "" if colored else color)

    def _colors_of(self, noun: int) -> Sequence[str]:
        if self.names.noun_colors[noun]:
            return self.names.colors[1:]
        return self.names.own_colors.get(self.names.nouns[noun][0], "").split()

    def _name_length(self, words: Sequence[str], at: int) -> int:
        """How many words from a place on are the longest name of a thing that they begin with; 0 for none."""
        lengths = range(min(max(map(len, self._nouns)), len(words) - at), 0, -1)
        return next((length for length in lengths if tuple(words[at : at + length]) in self._nouns), 0)

    @cached_property
    def _nouns(self) -> dict[tuple[str, ...], tuple[tuple[int, ...], bool]]:
        """By the words of each name the nouns that it means, and whether it means several things."""
        nouns: dict[tuple[str, ...], tuple[tuple[int, ...], bool]] = {}
        for number, (name, plural, *others) in enumerate(self.names.nouns):
            for text in (name, plural, *others):
                nouns[tuple(re.findall(r"[a-z]+", text.lower()))] = ((number,), text == plural != name)
        for name, group in self.names.groups.items():
            nouns |= {(name,): (group, False), (f"{name}s",): (group, True)}
        return nouns

    def choose(self, asked: Asked, random: Random) -> Asked:
        """One noun of a group."""
        return asked if len(asked.nouns) == 1 else replace(asked, nouns=(random.choice(asked.nouns),))

    def phrase(self, noun: int, color: int | None, count: int = 1) -> str:
        """Things as the model knows them: "a red car", "two red cars"."""
        name, plural = self.names.nouns[noun][:2]
        said = self.names.colors[color or 0] if self.names.noun_colors[noun] else ""
        if count == 1:
            return articled(" ".join(filter(None, ("a", said, name))))
        number = self.names.counts[count] if count < len(self.names.counts) else str(count)
        return " ".join(filter(None, (number, said, plural)))

    def notes(self, prompt: str) -> list[str]:
        """Sentences for the user on colors that things do not come in."""
        notes = []
        for asked in self.asked(prompt):
            if asked.ignored_color:
                name, color = asked.text.split()[-1].removesuffix("s"), ""
                if len(asked.nouns) == 1:
                    name = self.names.nouns[asked.nouns[0]][0]
                    color = self.names.noun_colors[asked.nouns[0]] or self.names.own_colors.get(name, "")
                drawn = color or "in its own colors"
                notes.append(f"There is no {asked.ignored_color} {name} here; it is drawn {drawn}.")
        return list(dict.fromkeys(notes))

    # What an image shows.

    @torch.no_grad()
    def read(self, squares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of nouns and of colors in squares float [B, 3, S, S] in [-1, 1], and how things stand in
        them: see `ThingDetector`."""
        if squares.shape[-1] != SIDE:
            squares = F.interpolate(squares, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
        nouns, colors, places = self.detector(squares.clamp(-1, 1))
        return nouns.log_softmax(1), colors.log_softmax(1), places

    def is_a(self, noun: int, color: int, asked: Asked) -> bool:
        """Whether a thing is what is asked for."""
        return noun in asked.nouns and (asked.color in (None, color) or not self.names.noun_colors[noun])

    def shows(self, squares: Tensor, prompt: str) -> list[bool]:
        """See `imagebart.worlds.ranking.Checker`: whether squares show the first thing that a prompt names."""
        asked = self.asked(prompt)
        if not asked:
            return [True] * len(squares)
        nouns, colors = (logits.argmax(1).tolist() for logits in self.read(squares.float().cpu())[:2])
        return [self.is_a(noun, color, asked[0]) for noun, color in zip(nouns, colors, strict=True)]

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `ranking.Scorer`: the log-probability that squares show the first thing that a prompt names."""
        asked = self.asked(prompt)[:1]
        if not asked:
            return torch.zeros(len(images))
        nouns, colors, _ = self.read(images.float().cpu())
        chosen, color = nouns[:, asked[0].nouns], asked[0].color
        if color is not None:
            chosen = chosen + colors[:, [color]] * torch.tensor(
                [bool(self.names.noun_colors[n]) for n in asked[0].nouns]
            )
        return chosen.amax(1)

    def things(self, image: Tensor, near: Tensor | None = None, expected: Collection[int] = frozenset()) -> list[Found]:
        """The things of an image [3, H, W] in [-1, 1], from left to right.

        near: only those in boxes with one of these tokens, bool [grid, grid]. expected: nouns whose words are said,
        which are seen at less, as where they are hidden in part.
        """
        boxes, nouns, _, places = self._look(image, near)
        nouns[:, sorted(expected)] += math.log(EXPECTED)
        sure, noun = nouns.softmax(1)[:, :-1].max(1)
        chosen: list[Found] = []
        for number in sure.argsort(descending=True).tolist():
            box = boxes[number]
            apart = (box.overlap(o.box) <= MAX_OVERLAP * min(box.side, o.box.side) ** 2 for o in chosen)
            if sure[number] >= MIN_PROBABILITY and all(apart):
                chosen.append(self._found(image, box, places[number], int(noun[number])))
        return sorted(chosen, key=lambda found: (found.box.left, found.box.top))

    def _found(self, image: Tensor, box: Box, place: Tensor, noun: int) -> Found:
        """The thing of a box; how it stands is read once more, in the square where it is."""

        def moved(left: float, top: float, side: float, place: Tensor) -> tuple[float, float, float]:
            _, right, down, scale = place.tolist()
            larger = side * math.exp(scale)
            return left + right * side + (side - larger) / 2, top + down * side + (side - larger) / 2, larger

        left, top, side = moved(box.left, box.top, box.side, place)
        cell = image.shape[1] // self.grid
        x, y, length = (round(value * cell) for value in (left, top, side))
        pad = length  # beyond the image its edge goes on
        padded = F.pad(image[None].float().cpu(), [pad] * 4, mode="replicate")
        _, colors, (again,) = self.read(padded[..., y + pad : y + pad + length, x + pad : x + pad + length])
        left, top, side = moved(x / cell, y / cell, length / cell, again)
        return Found(noun, int(colors.argmax()), box, left, top, side, bool(again[0] > 0))

    def _look(self, image: Tensor, near: Tensor | None = None) -> tuple[list[Box], Tensor, Tensor, Tensor]:
        """All boxes, or those with one of these tokens, and what `read` says of each."""
        looked_at: list[Box] = []
        answers = [tuple(torch.empty(0, count) for count in (len(self.names.nouns) + 1, len(self.names.colors), 4))]
        for side in self.names.sides:  # the image so large that a box is the network's input
            size = round(self.grid * SIDE / side)
            (scaled,) = F.interpolate(image[None].float().cpu(), (size, size), mode="bicubic", antialias=True)
            chosen = [box for box in self._free([], side) if near is None or near[box.cells].any()]
            corners = [[round(at * SIDE / side) for at in (box.top, box.left)] for box in chosen]
            squares = [scaled[:, top : top + SIDE, left : left + SIDE] for top, left in corners]
            looked_at += chosen
            answers += [self.read(torch.stack(squares[at : at + BATCH])) for at in range(0, len(squares), BATCH)]
        nouns, colors, places = (torch.cat(parts) for parts in zip(*answers, strict=True))
        return looked_at, nouns, colors, places

    def describe(self, image: Tensor) -> str | None:
        """See `imagebart.worlds.ranking.Describer`: "a cat, two red apples on a pink background"."""
        things = self.things(image[0])
        ground = self.ground(image[0], things)
        if ground is None:
            return None
        counted = Counter((found.noun, found.color) for found in things)
        text = ", ".join(self.phrase(noun, color, count) for (noun, color), count in counted.items())
        wall, floor = ground
        if wall != floor:
            return ", ".join(filter(None, (text, f"{wall} wall", f"{floor} floor")))
        return articled(f"{text} on a {wall} background") if text else f"{wall} background"

    def contrast(self, image: Tensor, prompt: str) -> tuple[str, str] | None:
        """See `ranking.Describer`: a prompt says what is in the mask alone, so that nothing is added."""
        return None

    def ground(self, image: Tensor, things: list[Found]) -> tuple[str, str] | None:
        """The names of the colors of wall and floor around things; None where an image's ground is not plain."""
        levels = F.adaptive_avg_pool2d((image.float().cpu() + 1) * 127.5, self.grid).flatten(1).T  # [N, 3]
        free = ~self._cells([found.box for found in things])
        names = list(self.names.grounds)
        palette = torch.tensor([self.names.grounds[name] for name in names], dtype=torch.float32)
        distance, nearest = torch.cdist(levels, palette).min(1)
        plain = (distance < MAX_GROUND_DISTANCE).view(self.grid, self.grid) & free
        if plain.sum() < MIN_PLAIN * free.sum() or not plain.any():
            return None
        rows = nearest.view(self.grid, self.grid)
        filled = [row for row in range(self.grid) if plain[row].any()]
        wall, floor = (names[int(rows[row][plain[row]].mode().values)] for row in (filled[0], filled[-1]))
        return wall, floor

    # Where things are drawn.

    def plan(self, prompt: str, seed: int) -> tuple[tuple[str, str], list[tuple[str, Box]]]:
        """The colors of wall and floor, by chance where nothing is said; and the words for each thing with its own box.

        Things that find no place are left out.
        """
        asked, random = self.asked(prompt), Random(seed)
        each = [things for things in asked for _ in range(things.count)]
        boxes = self._layout([thing.size for thing in each], relation(asked), random) if each else []
        chosen = [self.choose(thing, random) for thing, _ in zip(each, boxes, strict=False)]
        things = [(self.phrase(c.nouns[0], c.color), box) for c, box in zip(chosen, boxes, strict=True)]
        words = self.conditioner.corrected_words(prompt)
        colors = {
            kind: color for color, kind in pairwise(words) if kind in GROUND_WORDS and color in self.names.grounds
        }
        whole = colors.get("background") or colors.get("ground") or random.choice(list(self.names.grounds))
        wall = colors.get("wall") or whole
        return (wall, colors.get("floor") or wall), things

    def _layout(self, sizes: Sequence[float], relation: str, random: Random) -> list[Box]:
        """Boxes apart from each other, as large as suits their number and sizes, those of the usual side.

        relation: a key of PLACES, where the first lies from the second; "": anywhere. On it, both touch.
        """
        usual = sorted(self.names.sides)
        filled = MAX_FILLED * self.grid**2 / sum(size**2 for size in sizes)
        most: list[Box] = []
        for side in reversed([side for side in usual if side**2 <= filled] or usual[:1]):
            for _ in range(LAYOUT_TRIES):
                boxes: list[Box] = []
                for size in sizes:
                    free = self._free(boxes, min(max(round(side * size), 2), self.grid - 2))
                    if not free:
                        break
                    boxes.append(random.choice(free))
                most = max(most, boxes, key=len)
                if len(boxes) < len(sizes):
                    continue
                if relation == "on":
                    over, under = boxes
                    left = under.left + (under.side - over.side) // 2
                    if under.top >= over.side and 0 <= left <= self.grid - over.side:
                        return [Box(left, under.top - over.side, over.side), under]
                elif not relation or _lies(boxes[0], boxes[1], PLACES[relation]):
                    return boxes
        return most

    def free_boxes(self, taken: Sequence[Box], asked: Asked) -> list[Box]:
        """Boxes for things where no other lies, as near to the middle as they can be; fewer where there is no room."""
        middle, placed = (self.grid - 1) / 2, list[Box]()
        for _ in range(asked.count):
            for usual in sorted(self.names.sides[:-1], reverse=True):
                half = (side := max(2, round(usual * asked.size))) / 2
                away = {
                    box: (box.top + half - middle) ** 2 + (box.left + half - middle) ** 2
                    for box in self._free([*taken, *placed], side)
                }
                if away:
                    placed.append(min(away, key=away.__getitem__))
                    break
        return placed

    def _free(self, taken: Sequence[Box], side: int) -> list[Box]:
        """The boxes of a side in which no taken one lies, row by row."""
        free = F.max_pool2d(self._cells(taken)[None].float(), side, 1)[0] == 0
        return [Box(left, top, side) for top, left in free.nonzero().tolist()]

    def _cells(self, boxes: Sequence[Box]) -> Tensor:
        """The tokens of boxes: bool [grid, grid]."""
        cells = torch.zeros(self.grid, self.grid, dtype=torch.bool)
        for box in boxes:
            cells[box.cells] = True
        return cells


def _lies(first: Box, second: Box, place: tuple[int, int]) -> bool:
    """Whether a box lies from another mostly in a direction, and past half of the smaller one."""
    larger = (first.side - second.side) / 2
    down, across = first.top - second.top + larger, first.left - second.left + larger
    along, beside = (down * place[0], across) if place[0] else (across * place[1], down)
    return along >= max(abs(beside), min(first.side, second.side) / 2)
