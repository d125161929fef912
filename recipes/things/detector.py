"""The detector of layers: what a square of any picture shows. It measures the model, and ships as its scorer.

It is trained on squares of pictures that are put together from drawings and grounds, never on what a model drew.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.imaging.files import normalize
from imagebart.training.loop import Batch, train
from imagebart.worlds.ranking import DETECTOR
from imagebart.worlds.things import COLORS, SIDE, ThingDetector, ThingNames, save_detector
from recipes import generator
from recipes.things.artwork import GROUNDS
from recipes.things.layers import NOUNS, colored, ground, laid, plain
from recipes.training import CaptionsRun, LossTask, Series, pixels_first

NOTHING = len(NOUNS)  # the label of a square without a whole thing
COLOR_NAMES = ("", *COLORS)  # "": of nouns that have one color
GROUPS = sorted({group for noun in NOUNS for group in noun.groups})
NAMES = ThingNames(
    nouns=tuple((noun.name, noun.plural, *noun.synonyms) for noun in NOUNS),
    noun_colors=tuple(noun.color for noun in NOUNS), colors=COLOR_NAMES, grounds=GROUNDS,
    sides=(3, 4, 6, 8, 12), counts=("", "a", "two", "three", "four", "five", "six"),
    own_colors={noun.name: noun.own_color for noun in NOUNS if noun.own_color},
    groups={group: tuple(number for number, noun in enumerate(NOUNS) if group in noun.groups) for group in GROUPS},
)  # fmt: skip
DRAWN = 96  # pixels a side of a square before it is made as small as things in pictures are
SMALLEST = 20
FAR, SCALES = 0.22, (0.75, 1.3)  # how far from a square's middle a thing in it may be, and how large
P_NOTHING, P_OTHER, P_OVER, P_SLAB, P_COLORED = 0.35, 0.4, 0.25, 0.25, 0.6
SEED = 8102  # of its squares; no other part of the recipe draws from it


@lru_cache(maxsize=8192)
def _small(noun: int, color: str) -> np.ndarray:
    layer = cv2.resize(colored(noun, color), (DRAWN, DRAWN), interpolation=cv2.INTER_AREA)
    return np.asarray(layer * 255 + 0.5, np.uint8)


def _moved(noun: int, color: str, scale: float, x: float, y: float, mirrored: bool) -> np.ndarray:
    """A thing so large, its middle so far from that of the square; 1 is the square's side."""
    layer = _small(noun, color)[:, ::-1] if mirrored else _small(noun, color)
    shift = [DRAWN * (0.5 + away - scale / 2) for away in (x, y)]
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return np.asarray(cv2.warpAffine(np.ascontiguousarray(layer), matrix, (DRAWN, DRAWN)) / np.float32(255))


def square_item(number: int, seed: int = SEED, part: str = "train") -> dict[str, Any]:
    """The square of a number: image, uint8 [3, SIDE, SIDE]; noun and color, see `NAMES`; place, see `ThingDetector`."""
    random = generator(number, seed, 41)
    canvas = cv2.resize(ground(random, part), (DRAWN, DRAWN), interpolation=cv2.INTER_AREA)

    def thing() -> tuple[int, str]:
        noun = int(random.integers(len(NOUNS)))
        other = NOUNS[noun].color and random.random() < P_COLORED
        return noun, str(random.choice([color for color in COLORS if color != NOUNS[noun].color])) if other else ""

    def put(what: tuple[int, str], scale: float, away: float) -> np.ndarray:
        angle = random.uniform(0, 2 * np.pi)
        layer = _moved(*what, scale, away * np.cos(angle), away * np.sin(angle), random.random() < 0.5)
        return laid(layer, canvas)

    if random.random() < P_OTHER:  # behind
        canvas = put(thing(), random.uniform(0.4, 1.4), random.uniform(0.5, 1.1))
    noun, color, place = NOTHING, 0, np.zeros(4, np.float32)
    if random.random() >= P_NOTHING:
        noun, said = thing()
        color = COLOR_NAMES.index(said or NOUNS[noun].color)
        x, y = random.uniform(-FAR, FAR, 2)
        scale, mirrored = np.exp(random.uniform(*np.log(SCALES))), random.random() < 0.5
        canvas = laid(_moved(noun, said, scale, x, y, mirrored), canvas)
        place = np.array([mirrored, x, y, np.log(scale)], np.float32)
        if random.random() < P_OVER:
            canvas = put(thing(), random.uniform(0.5, 1.2), random.uniform(0.65, 1.0))
        if random.random() < P_SLAB:  # up to half of it is hidden
            towards = random.uniform(0, 2 * np.pi)
            across, down = np.meshgrid(*[(np.arange(DRAWN) + 0.5) / DRAWN - 0.5] * 2)
            along = (across - x) * np.cos(towards) + (down - y) * np.sin(towards)
            canvas = np.where((along > scale * random.uniform(-0.05, 0.3))[..., None], plain(random), canvas)
    elif random.random() < 0.7:  # a part of a thing, or one that is much smaller or larger
        kind = random.random()
        if kind < 0.4:
            canvas = put(thing(), random.uniform(0.8, 1.3), random.uniform(0.5, 0.9))
        else:
            canvas = put(thing(), random.uniform(*((0.2, 0.5) if kind < 0.7 else (1.8, 2.6))), random.uniform(0, 0.4))
    small = round(np.exp(random.uniform(np.log(SMALLEST), np.log(DRAWN))))
    canvas = cv2.resize(canvas, (small, small), interpolation=cv2.INTER_AREA)
    canvas = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC if small < SIDE else cv2.INTER_AREA)
    canvas = canvas + random.normal(0, random.uniform(0, 0.03), canvas.shape)
    image = pixels_first((canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    return {"image": image, "noun": noun, "color": color, "place": torch.from_numpy(place)}


def detector_losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Cross-entropy of noun, color and side; how far off the box is, in sides of it."""
    nouns, colors, places = model(normalize(batch["image"]))
    thing = batch["noun"] != NOTHING
    place, said = batch["place"][thing], places[thing]
    away = (said[:, 1:] - place[:, 1:]).abs()
    loss = F.cross_entropy(nouns, batch["noun"]) + 0.5 * F.cross_entropy(colors[thing], batch["color"][thing])
    loss = loss + 0.3 * F.binary_cross_entropy_with_logits(said[:, 0], place[:, 0]) + 6 * away.mean()
    return {
        "loss": loss,
        "right": (nouns.argmax(1) == batch["noun"]).float().mean(),
        "color_right": (colors.argmax(1) == batch["color"])[thing].float().mean(),
        "side_right": ((said[:, 0] > 0) == (place[:, 0] > 0.5)).float().mean(),
        "away": away.mean(),
    }


class DetectorTask(LossTask):
    """Squares, and new ones on other grounds to measure it on."""

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        items = [square_item(number, SEED + 1, "test") for number in range(1000)]
        batch = {"image": torch.stack([item["image"] for item in items])}
        batch |= {name: torch.tensor([item[name] for item in items]) for name in ("noun", "color")}
        batch["place"] = torch.stack([item["place"] for item in items])
        return {name: float(value) for name, value in detector_losses(model, batch).items()}


def train_detector(run: CaptionsRun, folder: Path) -> ThingDetector:
    """Trains (or resumes) the detector in a run's folder and writes it there."""
    torch.manual_seed(run.loop.seed)
    detector = ThingDetector(len(NOUNS), len(COLOR_NAMES))
    trained = train(DetectorTask(detector, Series(square_item), detector_losses), run.loop, folder)
    assert isinstance(trained, ThingDetector)
    save_detector(trained, NAMES, folder / DETECTOR)
    return trained
