"""Training the detector of things (`imagebart.worlds.things`), which measures the model, and which it ships with.

    python -m recipes.things train detector --run runs/things/detector

It is trained on scenes only, never on what a model drew.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from imagebart.imaging.crop import Box
from imagebart.imaging.files import normalize
from imagebart.training.config import LoopConfig
from imagebart.training.loop import Batch, train
from imagebart.worlds.ranking import DETECTOR
from imagebart.worlds.things import SIDE, ThingDetector, ThingNames, save_detector
from recipes import generator
from recipes.things.artwork import CELL, GRID, GROUNDS, HUES, NOUNS, Placed, render
from recipes.things.scenes import COUNT_WORDS, SIDES, SceneOptions, sample
from recipes.training import LossTask, Series, pixels_first

NOTHING = len(NOUNS)  # the label of a square without a whole thing
COLORS = ("", *HUES)  # "": the artwork's, of nouns that have one color
GROUPS = sorted({group for noun in NOUNS for group in noun.groups})
NAMES = ThingNames(
    nouns=tuple((noun.name, noun.plural, *noun.synonyms) for noun in NOUNS),
    noun_colors=tuple(noun.color for noun in NOUNS), colors=COLORS, grounds=GROUNDS, sides=SIDES, counts=COUNT_WORDS,
    own_colors={noun.name: noun.own_color for noun in NOUNS if noun.own_color},
    groups={group: tuple(number for number, noun in enumerate(NOUNS) if group in noun.groups) for group in GROUPS},
)  # fmt: skip
LOOP = LoopConfig(steps=900, batch_size=64, optimizer="muon", lr=2e-3, warmup=50, ema=0.99, log_every=20)
P_NOTHING = 0.4  # share of squares without a whole thing
MIN_SEEN = 0.4  # intersection over union of a square and a thing's box, from which the square may be said to show it
BEYOND = 24
SEED = 8101  # of its scenes; no other part of the recipe draws from it


def crop(image: np.ndarray, top: float, left: float, side: float) -> np.ndarray:
    """A square of an image, in pixels, at most BEYOND of them outside of it: uint8 [SIDE, SIDE, 3]."""
    padded = np.pad(image, ((BEYOND, BEYOND), (BEYOND, BEYOND), (0, 0)), "edge")
    box = (left + BEYOND, top + BEYOND, left + side + BEYOND, top + side + BEYOND)
    return np.array(Image.fromarray(padded).resize((SIDE, SIDE), Image.Resampling.BICUBIC, box))


def square_item(number: int, seed: int = SEED) -> dict[str, Any]:
    """A square of the scene of a number: image, uint8 [3, SIDE, SIDE]; noun and color."""
    random, scene = generator(number, seed, 4), sample(number, seed, SceneOptions(6, (35, 35, 20, 10)))
    image = render(scene)
    if scene.things and random.random() > P_NOTHING:
        thing = scene.things[int(random.integers(len(scene.things)))]
        pixels = thing.side * CELL * random.uniform(0.92, 1.12)
        spare = thing.side * CELL - pixels
        y, x = (start * CELL + spare * random.uniform(0, 1) for start in (thing.top, thing.left))
        square, noun = crop(image, y, x, pixels), thing.noun
        color = COLORS.index(thing.color or NOUNS[noun].color)
    else:
        box = empty_box(scene.things, random)
        square = crop(image, box.top * CELL, box.left * CELL, box.side * CELL)
        noun, color = NOTHING, 0
    return {"image": pixels_first(square), "noun": noun, "color": color}


def empty_box(things: tuple[Placed, ...], random: np.random.Generator) -> Box:
    """A box that holds no whole thing, or one that is much smaller: ground, parts of things, several of them."""
    boxes = [thing.box for thing in things]
    while True:
        side = int(random.choice(SIDES))
        if boxes and random.random() < 0.5:  # near a thing, where a detector errs
            near = boxes[int(random.integers(len(boxes)))]
            top, left = (
                min(max(start + int(random.integers(-side, near.side + 1)), 0), GRID - side)
                for start in (near.top, near.left)
            )
        else:
            top, left = (int(random.integers(GRID - side + 1)) for _ in range(2))
        box = Box(left, top, side)
        if all(iou(box, other) < MIN_SEEN for other in boxes):
            return box


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    both = one.overlap(other)
    return both / (one.side**2 + other.side**2 - both)


def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Cross-entropy of noun and color."""
    nouns, colors = model(augmented(normalize(batch["image"])))
    thing = batch["noun"] != NOTHING
    loss = F.cross_entropy(nouns, batch["noun"]) + 0.5 * F.cross_entropy(colors[thing], batch["color"][thing])
    right = (nouns.argmax(1) == batch["noun"]).float().mean()
    return {"loss": loss, "right": right, "colors": (colors.argmax(1) == batch["color"])[thing].float().mean()}


def augmented(squares: Tensor) -> Tensor:
    """Squares as a model may draw them, each half of them: blurred, shifted in color, stretched, noisy."""
    half = torch.rand(4, len(squares), 1, 1, 1) < 0.5
    size = int(torch.randint(SIDE // 3, SIDE, ()))
    small = F.interpolate(squares, (size, size), mode="area")
    blurred = F.interpolate(small, squares.shape[2:], mode="bilinear", align_corners=False)
    squares = torch.where(half[0], blurred, squares)
    shift = (torch.rand(len(squares), 3, 1, 1) - 0.5) * 0.12
    squares = torch.where(half[1], squares + shift, squares)
    squares = torch.where(half[2], squares * (0.9 + 0.2 * torch.rand(len(squares), 1, 1, 1)), squares)
    return torch.where(half[3], squares + 0.05 * torch.randn_like(squares), squares)


def train_detector(folder: Path, loop: LoopConfig = LOOP) -> ThingDetector:
    """Trains (or resumes) a detector in a run's folder and writes it there as `detector.safetensors`."""
    torch.manual_seed(loop.seed)
    trained = train(LossTask(ThingDetector(len(NOUNS), len(COLORS)), Series(square_item), losses), loop, folder)
    assert isinstance(trained, ThingDetector)
    save_detector(trained, NAMES, folder / DETECTOR)
    return trained
