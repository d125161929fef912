"""Blemishes and flats: faults that a person sees at once, and that the reader of attributes does not see.

Blemishes: an image beside its render, both at 256 pixels. Pixels that differ by more than 48 levels in a channel are
opened with a square of 4 x 4, so that anti-aliased edges and thin lines do not count. A connected region of 96 pixels
or more is a blemish; smaller ones are hardly seen. Of edits and completions, masked pixels alone count: what is kept is
as it was, and `boundary_consistency` says whether both fit.

Flats: of the masked pixels of an edit whose surroundings have one color in the render, those that are more than 4
levels off it in a channel.

The render of a generated image is the nearest one among those of the likeliest readings. Where none of them is right,
the misreading counts as a blemish. The same measures on reconstructions say how often that happens: this is the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from imagebart.cli.options import value_type
from imagebart.errors import InputError
from imagebart.evaluation.folder import two_sample_test
from imagebart.evaluation.metrics import Measure, jackknife, mean_of, measure, replicates, share_of
from imagebart.imaging.figures import sheet
from imagebart.imaging.files import normalize
from imagebart.worlds.attribute_classifier import AttributeClassifier
from imagebart.worlds.avatars import VALUES, Attributes
from recipes.avatars.artwork import pixels_of, render, rendered
from recipes.avatars.dataset import caption, sample
from recipes.avatars.evaluation import COMPLETED, FLAT, SHOWN, Study, complete, edited_cases

SIDE = 256  # pixels a side of the images that are compared
DIFFERENCE, OPENING, LEAST = 48, 4, 96  # levels of 255, pixels a side, pixels
OFF = 4  # levels of 255 that a flat pixel may be off its color
LIKELY = 0.003  # probability from which a value is tried
IMAGES_EACH = 3  # images that `faults_by_kind` takes for each sample
PARTLY_HIDDEN = ("eyes", "eyebrows", "clothing", "clothing_color")
"""Attributes that hijabs and accessories hide in part. There, the reader does not know them: all values are tried."""


def blemish_mask(image: np.ndarray, reference: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Where an image has blemishes, bool [H, W]; image, its render: uint8 [H, W, 3]; mask: what counts, bool [H, W]."""
    different = (cv2.absdiff(image, reference).max(2) > DIFFERENCE).astype(np.uint8)
    if mask is not None:
        different &= mask
    square = np.ones((OPENING, OPENING), np.uint8)
    # OpenCV's own opening moves the image by a pixel where the square's side is even.
    opened = cv2.dilate(cv2.erode(different, square), square, anchor=(OPENING // 2 - 1,) * 2)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= LEAST
    large[0] = False  # the background
    return large[labels]


def flats(image: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> tuple[int, int]:
    """How many masked flat pixels are off their color, and how many there are; mask: bool [H, W]."""
    kernel = np.ones((FLAT, FLAT), np.uint8)
    flat = (cv2.dilate(reference, kernel) == cv2.erode(reference, kernel)).all(2) & mask
    off = (cv2.absdiff(image, reference) > OFF).any(2) & flat
    return int(off.sum()), int(flat.sum())


def nearest_render(
    image: np.ndarray, probabilities: Mapping[str, np.ndarray], starts: Sequence[Attributes] = ()
) -> np.ndarray:
    """The render nearest to an image, both uint8 [SIDE, SIDE, 3], by mean absolute difference.

    probabilities: of each attribute's values, as read. The search begins from the likeliest reading, or a nearer one of
    `starts`; values are changed one by one for as long as that brings the render nearer.
    """

    def distance(avatar: Attributes) -> float:
        return float(cv2.norm(image, render(avatar, SIDE), cv2.NORM_L1))

    likeliest = Attributes(**{name: VALUES[name][int(p.argmax())] for name, p in probabilities.items()})
    least, best = min(((distance(one), one) for one in (likeliest, *starts)), key=lambda pair: pair[0])
    improved = True
    while improved:
        improved = False
        for name, shares in probabilities.items():
            every = name in PARTLY_HIDDEN and name not in best.visible()
            for value, share in zip(VALUES[name], shares, strict=True):
                other = replace(best, **{name: value})
                if other != best and (every or share > LIKELY) and (away := distance(other)) < least:
                    least, best, improved = away, other, True
    return render(best, SIDE)


@dataclass(frozen=True)
class Faults:
    """Of B images: pixels of blemishes, masked flat pixels that are off, all masked flat pixels, float64 [B]."""

    areas: Tensor
    off: Tensor
    flat: Tensor
    images: np.ndarray  # uint8 [B, SIDE, SIDE, 3]
    renders: np.ndarray
    blemishes: np.ndarray  # bool [B, SIDE, SIDE]

    def blemished(self, rows: Tensor) -> float:
        """The share of these images with a blemish."""
        return float((self.areas[rows] > 0).double().mean())

    def area(self, rows: Tensor) -> float:
        """Mean pixels of blemishes."""
        return float(self.areas[rows].mean())

    def off_color(self, rows: Tensor) -> float:
        """The share of masked flat pixels that are off their color; 0 where there are none."""
        return float(self.off[rows].sum() / self.flat[rows].sum().clamp_min(1))

    def worst(self, count: int) -> list[list[Image.Image]]:
        """The images with the largest blemishes: each, its render, and the image with its blemishes in red."""
        rows = self.areas.argsort(descending=True, stable=True)[:count].tolist()
        red = np.where(self.blemishes[..., None], np.array((255, 0, 0), np.uint8), self.images)
        return [[Image.fromarray(kind[i]) for kind in (self.images, self.renders, red)] for i in rows]


def find_faults(
    images: Tensor,
    reader: AttributeClassifier,
    masks: np.ndarray | None = None,
    starts: Sequence[Sequence[Attributes]] | None = None,
    references: Tensor | None = None,
) -> Faults:
    """The faults of images [B, 3, size, size] in [-1, 1]; masks: bool [B, size, size], of what counts.

    starts: avatars whose renders may be the nearest, of each image; references: the renders themselves, if known.
    """
    count, known = len(images), references is not None
    pixels, probabilities = pixels_of(images, SIDE), _probabilities(images, reader)
    renders = pixels_of(references, SIDE) if references is not None else np.empty_like(pixels)
    blemishes, off, flat = np.zeros(pixels.shape[:3], bool), [], []
    for i in range(count):
        if not known:
            own = {name: shares[i] for name, shares in probabilities.items()}
            renders[i] = nearest_render(pixels[i], own, starts[i] if starts else ())
        mask = np.zeros((1, 1), bool) if masks is None else masks[i]
        mask = cv2.resize(mask.astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST).astype(bool)
        blemishes[i] = blemish_mask(pixels[i], renders[i], None if masks is None else mask)
        wrong, all_flat = flats(pixels[i], renders[i], mask)
        off.append(wrong)
        flat.append(all_flat)
    areas = torch.from_numpy(blemishes).sum((1, 2)).double()
    return Faults(areas, torch.tensor(off).double(), torch.tensor(flat).double(), pixels, renders, blemishes)


@torch.no_grad()
def _probabilities(images: Tensor, reader: AttributeClassifier) -> dict[str, np.ndarray]:
    """Of each attribute the probabilities of its values as read, [B, values]."""
    parts = [reader(part.float()) for part in images.split(64)]
    return {name: torch.cat([part[name] for part in parts]).softmax(1).numpy() for name in VALUES}


def with_settings(study: Study, text: str) -> Study:
    """A study with other sampling settings, written as name=value with commas between them.

    Raises InputError for a setting that there is not, or a value that it cannot have.
    """
    given: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            given[name] = value_type(name)(value)
        except (KeyError, ValueError) as error:
            raise InputError(f"{part!r} is no sampling setting; write name=value, such as scales=4.") from error
    return replace(study, sampler=replace(study.sampler, settings=study.sampler.settings.replace(**given)))


def faults_by_kind(study: Study) -> Iterator[tuple[str, Faults]]:
    """The faults of whole images of captions, of completed upper halves, and of edits."""
    prompts = [caption(i, study.series).text for i in range(study.samples)]
    yield "prompts", find_faults(study.sampler.generate(prompts, study.seed), study.reader)
    avatars = study.avatars(COMPLETED)
    masks, completed = complete(study, avatars)
    yield "completions", find_faults(completed, study.reader, masks, [[avatar] for avatar in avatars])
    cases, masks, edited = edited_cases(study)
    yield "edits", find_faults(edited, study.reader, masks, [[case.before, case.after] for case in cases])


def reconstruction_faults(study: Study) -> Iterator[tuple[str, Faults]]:
    """The faults of reconstructed renders, beside the renders themselves and beside the nearest, which is the floor."""
    size = study.sampler.size
    originals = rendered(study.avatars(SHOWN), size)
    decoded = study.sampler.reconstruct(originals)
    everything = np.ones((len(decoded), size, size), bool)
    yield "reconstructions", find_faults(decoded, study.reader, everything, None, originals)
    yield "floor (nearest render)", find_faults(decoded, study.reader, everything)


def evaluate_faults(
    study: Study, kinds: Callable[[Study], Iterator[tuple[str, Faults]]], found: dict[str, Faults], steps: int = 0
) -> Iterator[Measure]:
    """The measures of each kind of images, whose faults are put into `found`.

    steps: of a network that learns to tell images of captions from reconstructions; 0: there is none.
    """
    for kind, faults in kinds(study):
        found[kind] = faults
        count = len(faults.areas)
        yield measure(f"{kind}: with a blemish", share_of((faults.areas > 0).int().tolist()), count, "%")
        yield measure(f"{kind}: area of blemishes", mean_of(faults.areas.tolist()), count, "px")
        if faults.flat.any():
            share = jackknife(replicates(faults.off_color, count, count))
            yield measure(f"{kind}: flat pixels off their color", share, count, "%")
    if steps:
        count = len(found["prompts"].areas)
        real = study.sampler.reconstruct(rendered([sample(i, study.series) for i in range(count)], study.sampler.size))
        made = normalize(torch.from_numpy(found["prompts"].images).permute(0, 3, 1, 2))
        # At half the size, which takes a quarter of the time.
        real, made = (F.interpolate(x, (SIDE // 2,) * 2, mode="bilinear", antialias=True) for x in (real, made))
        yield measure("prompts: two-sample test", two_sample_test(real, made, steps, study.seed), count, "%")


def fault_differences(faults: Mapping[str, Faults], base: Mapping[str, Faults], name: str) -> Iterator[Measure]:
    """How much the measures exceed a base of the same cases and seeds; the intervals are of pairs of images."""
    statistics = {"with a blemish": Faults.blemished, "area of blemishes": Faults.area}
    for kind, own in faults.items():
        other, count = base[kind], len(own.areas)
        masked = {"flat pixels off their color": Faults.off_color} if own.flat.any() else {}
        for statistic, of in (statistics | masked).items():
            pairs = replicates(partial(_difference, of, own, other), count, count)
            unit = "px" if of is Faults.area else "%"
            yield measure(f"{kind}: {statistic}", jackknife(pairs), count, unit, group=f"{name} less as given")


def _difference(of: Callable[[Faults, Tensor], float], own: Faults, other: Faults, rows: Tensor) -> float:
    return of(own, rows) - of(other, rows)


def fault_sheet(faults: Mapping[str, Faults], count: int = 5) -> Image.Image:
    """The images of each kind with the largest blemishes, each with its render and its blemishes in red."""
    rows = [[image for triple in found.worst(count) for image in triple] for found in faults.values()]
    return sheet(rows, SIDE // 2, names=list(faults))
