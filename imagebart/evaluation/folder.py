"""How good a model of a folder of images is, on those that were held back.

The two-sample test (Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, 2017) asks whether a small network
trained for it can tell real images from generated ones: at chance where it cannot. Images are halved at random; a
network learns from one half and is asked about the other, and the other way round, so that each image is judged once,
by a network that has seen neither it nor what was made of it (two-fold cross-validation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.optim.swa_utils import update_bn

from imagebart.evaluation.classifier import NO_LABEL, Classifier, ClassifierConfig, Labels
from imagebart.evaluation.image_sampler import BASELINE, ImageSampler, left_to_right, reconstruct, sampling_parameters
from imagebart.evaluation.metrics import (
    Features,
    Interval,
    Measure,
    frechet_distance,
    inside,
    jackknife,
    mean_of,
    measure,
    nearest,
    replicates,
    share_of,
    wilson,
)
from imagebart.imaging.figures import sheet
from imagebart.imaging.files import denormalize, normalize, to_images
from imagebart.imaging.masks import preset_array
from imagebart.models.vqgan import FirstStage, psnr
from imagebart.training.data import ImageStore

STEPS = 200
BATCH = 16  # real pictures a step, and as many made ones
LEAST = 4  # pictures: two a half
CHANNELS = (32, 48, 64, 96)


def two_sample_test(real: Tensor, made: Tensor, steps: int = STEPS, seed: int = 0) -> Interval:
    """The share of images, real and made, that are classified rightly: 0.5 where they cannot be told apart.

    real, made: float [B, 3, H, W] in [-1, 1], row i of the one made of row i of the other.
    """
    of_real, of_made = (logits[0] for logits in fake_logits(real, [made], steps, seed))
    right = (of_real < 0).int() + (of_made >= 0).int()
    return share_of(right.tolist(), [2] * len(real))


def fake_logits(real: Tensor, made: Sequence[Tensor], steps: int = STEPS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of being made, of the real images, [1, B], and of those of each kind of made ones, [M, B].

    The network learns to tell real images from generated ones of every kind. Raises ValueError for under 4 pictures.
    """
    count = len(real)
    if count < LEAST:
        raise ValueError(f"{count} pictures to tell apart, expected at least {LEAST}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    halves = (order[: count // 2], order[count // 2 :])
    found = torch.zeros(1 + len(made), count)
    for learnt, asked in (halves, halves[::-1]):
        network = _train_classifier(real[learnt], [kind[learnt] for kind in made], steps, seed)
        for row, images in zip(found, (real, *made), strict=True):
            with torch.no_grad():
                logits = torch.cat([network(part)[0] for part in images[asked].split(64)])
            row[asked] = logits[:, 1] - logits[:, 0]
    return found[:1], found[1:]


def _train_classifier(real: Tensor, made: Sequence[Tensor], steps: int, seed: int) -> Classifier:
    """A network that has learnt to tell real pictures from made ones. The global RNG is left alone."""
    side = real.shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Classifier(ClassifierConfig({"made": ("no", "yes")}, side, CHANNELS))
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
        answers = torch.tensor([0, 1]).repeat_interleave(min(BATCH, len(real)))
        for _ in range(steps):
            rows = torch.randperm(len(real))[:BATCH]
            kinds = torch.randint(len(made), (len(rows),)).tolist()
            # A picture beside what was made of it: nothing but the making tells the two apart.
            others = [made[kind][row] for kind, row in zip(kinds, rows.tolist(), strict=True)]
            shown = torch.cat([real[rows], torch.stack(others)])
            turned = (torch.rand(len(rows)) < 0.5).repeat(2)[:, None, None, None]
            loss = F.cross_entropy(network(torch.where(turned, shown.flip(-1), shown))[0], answers)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        # What its layers take for usual is still that of weights some steps ago.
        mixed = torch.cat([real, *made])[torch.randperm((1 + len(made)) * len(real))]
        update_bn(mixed.split(64), network)
    return network.eval()


# Two first stages in a blind test: pairs of reconstructions in an order that only the key tells.


PAIRS = 40
ABREAST = 4  # pairs in a row of the sheet


@dataclass(frozen=True)
class Pairs:
    """Pictures, and how each came back from two first stages: float [B, 3, H, W] in [-1, 1]."""

    real: Tensor
    ours: Tensor
    theirs: Tensor
    seed: int = 0

    @property
    def first(self) -> list[bool]:
        """Of which pairs ours stands first."""
        generator = torch.Generator().manual_seed(self.seed)
        return (torch.rand(min(PAIRS, len(self.real)), generator=generator) < 0.5).tolist()

    def key(self) -> dict[str, str]:
        """The number of each pair, and which of its pictures is ours: "A" or "B"."""
        return {str(number): "A" if first else "B" for number, first in enumerate(self.first, 1)}

    def sheet(self) -> Image.Image:
        """The pairs, each picture between what came back of it: A, the picture, B."""
        cells, captions = [], []
        for number, first in enumerate(self.first, 1):
            a, b = (self.ours, self.theirs) if first else (self.theirs, self.ours)
            cells += to_images(torch.stack([a[number - 1], self.real[number - 1], b[number - 1]]))
            captions.append(f"{number}: A, the picture, B")
        rows = [cells[i : i + 3 * ABREAST] for i in range(0, len(cells), 3 * ABREAST)]
        named = [captions[i : i + ABREAST] for i in range(0, len(captions), ABREAST)]
        return sheet(rows, self.real.shape[-1], captions=named)


def preference_test(pairs: Pairs, steps: int = STEPS) -> tuple[Interval, Interval, Interval]:
    """What a network says that was trained to tell real pictures from both kinds of reconstructions.

    The share of the pairs in which ours looks more real, and the shares of all pictures of which ours, and of which
    theirs, is taken for real.
    """
    _, (ours, theirs) = fake_logits(pairs.real, [pairs.ours, pairs.theirs], steps, pairs.seed)
    count = len(pairs.first)
    better = (ours[:count] < theirs[:count]).float().mean()
    fooled = [share_of((kind < 0).int().tolist()) for kind in (ours, theirs)]
    return wilson(float(better), count), fooled[0], fooled[1]


# Filling a hole without a prompt: the holes, two classical ways of filling them, and how well a filling joins.


RADIUS = 3  # pixels around that OpenCV's ways look at
OPENCV = {"Telea": cv2.INPAINT_TELEA, "Navier-Stokes": cv2.INPAINT_NS}


HOLE_MASKS = {"centre box": partial(preset_array, "centre"), "lower half": partial(preset_array, "lower half")}


def opencv_inpaint(images: Tensor, hole: np.ndarray, way: int) -> Tensor:
    """Images float [B, 3, H, W] in [-1, 1] with the hole, bool [H, W], filled by OpenCV."""
    pixels = denormalize(images).permute(0, 2, 3, 1).numpy()
    mask = hole.astype(np.uint8)
    filled = np.stack([cv2.inpaint(np.ascontiguousarray(one), mask, RADIUS, way) for one in pixels])
    return normalize(torch.from_numpy(filled).permute(0, 3, 1, 2))


def edge_distance(images: Tensor, hole: np.ndarray) -> Tensor:
    """How much colours jump over the hole's edge: mean difference of neighbours, in levels of 255, [B].

    images: float [B, 3, H, W] in [-1, 1]; hole: bool [H, W], neither empty nor everything.
    """
    mask = torch.from_numpy(hole)
    jumps = []
    for axis in (-1, -2):
        over = mask.diff(dim=axis)  # True where one of two neighbours is in the hole
        difference = images.diff(dim=axis).abs().mean(1)
        jumps.append(difference[:, over])
    every = torch.cat(jumps, 1)
    if not every.shape[1]:
        raise ValueError("the hole has no edge in the picture, expected some pixels in it and some not")
    return 127.5 * every.mean(1)


# How good a model of someone's own pictures is, on those that were held back.


REFERENCE = 2000  # training pictures that distances are to, at most
COLUMNS = 12  # of the sheet


@dataclass(frozen=True)
class FolderStudy:
    """A model, the pictures it is measured on, and what measures them."""

    sampler: ImageSampler
    store: ImageStore
    classifier: Classifier
    features: Features
    samples: int  # held-back pictures of each measure, at most
    seed: int = 0
    beside: FirstStage | None = None  # another, whose reconstructions are compared with the model's
    baseline: ImageSampler | None = None  # samples from left to right; fills the same holes
    test_steps: int = STEPS  # of each network of the two-sample test

    def __post_init__(self) -> None:
        if self.baseline is not None:
            left_to_right(self.baseline)
            self._check_size("baseline", self.baseline.size)
        if self.beside is not None:
            self._check_size("other first stage", self.beside.config.resolution)

    def _check_size(self, name: str, size: int) -> None:
        if size != self.sampler.size:
            raise ValueError(f"the {name} is of {size} pixels a side, expected the model's {self.sampler.size}")

    @cached_property
    def held(self) -> list[int]:
        """The held-back pictures that are measured on: evenly spread, for a folder's order is seldom chance."""
        return spread(self.store.index.numbers(True), self.samples)

    @cached_property
    def images(self) -> Tensor:
        """They themselves, float [B, 3, H, W] in [-1, 1]."""
        return self.store.images(self.held)

    @property
    def texts(self) -> list[str]:
        return [self.store.index.texts[i] for i in self.held]

    @cached_property
    def trained_on(self) -> list[int]:
        """Training pictures that distances are to: evenly spread."""
        return spread(self.store.index.numbers(False), REFERENCE)

    @cached_property
    def reference(self) -> Tensor:
        """Features of these, [M, F]."""
        parts = [self.trained_on[i : i + 256] for i in range(0, len(self.trained_on), 256)]
        return torch.cat([self.features(self.store.images(part)) for part in parts])

    @cached_property
    def real(self) -> Tensor:
        """Features of the held-back pictures, [B, F]."""
        return self.features(self.images)

    @cached_property
    def prompts(self) -> list[str | None]:
        """What the held-back pictures say, as far as the model takes it."""
        takes = self.sampler.model.conditioner.kind != "none"
        return [text if takes and text else None for text in self.texts]

    @cached_property
    def drawn(self) -> Tensor:
        """A picture of what each of them says."""
        return self.sampler.generate(self.prompts, self.seed)

    @cached_property
    def decoded(self) -> Tensor:
        """How the pictures come back from the model's tokens."""
        return self.sampler.reconstruct(self.images)

    @cached_property
    def pairs(self) -> Pairs | None:
        """They beside how they come back from the other first stage's; None where there is none."""
        if self.beside is None:
            return None
        theirs = [reconstruct(self.beside, part) for part in self.images.split(self.sampler.batch)]
        return Pairs(self.images, self.decoded, torch.cat(theirs), self.seed)

    @cached_property
    def inpaint_baselines(self) -> dict[str, dict[str, Tensor]]:
        """The pictures with each hole filled in each way, without a prompt."""
        return {name: self._filled(hole(self.sampler.size)) for name, hole in HOLE_MASKS.items()}

    def _filled(self, hole: np.ndarray) -> dict[str, Tensor]:
        count = len(self.images)
        samplers = {"model": self.sampler} | ({} if self.baseline is None else {BASELINE: self.baseline})
        drawn = {
            name: sampler.edit(self.images, np.stack([hole] * count), [None] * count, self.seed)
            for name, sampler in samplers.items()
        }
        return drawn | {way: opencv_inpaint(self.images, hole, flag) for way, flag in OPENCV.items()}


def spread(numbers: list[int], most: int) -> list[int]:
    """So many of some numbers at most, from the first on evenly spread over all."""
    count = min(most, len(numbers))
    return [numbers[i * len(numbers) // count] for i in range(count)]


def evaluate_folder(study: FolderStudy) -> Iterator[Measure]:
    """All measures of a model, each as soon as it is known."""
    floor = _distance(study, study.real)
    yield measure("held-back pictures: distance to training pictures, the floor", floor, len(study.real))
    yield from _reconstruction(study)
    for name, ways in study.inpaint_baselines.items():
        yield from _filled(study, name, ways)
    if study.baseline is not None:
        for name, sampler in (("model", study.sampler), (BASELINE, study.baseline)):
            size = sampling_parameters(sampler)
            yield replace(size, name=f"{name}: {size.name}")
    features = study.features(study.drawn)
    yield measure("drawn pictures: distance to training pictures", _distance(study, features), len(features))
    yield from _coverage(study, features)
    yield from _read_right(study)


def _distance(study: FolderStudy, features: Tensor) -> Interval:
    groups = min(10, len(features))
    return jackknife(replicates(lambda rows: frechet_distance(features[rows], study.reference), len(features), groups))


def _reconstruction(study: FolderStudy) -> Iterator[Measure]:
    decoded, count = study.decoded, len(study.decoded)
    yield measure("reconstruction: PSNR", mean_of(psnr(study.images, decoded).tolist()), count, "dB")
    away = (study.features(decoded) - study.real).norm(dim=1) / study.real.norm(dim=1).clamp_min(1e-6)
    yield measure("reconstruction: feature distance, share of the features", mean_of(away.tolist()), count)
    yield _two_sample(study, "reconstruction: told from the picture", decoded)
    if study.pairs is not None:
        yield from _compared(study, study.pairs)


def _compared(study: FolderStudy, pairs: Pairs) -> Iterator[Measure]:
    """The other first stage, and both in the eyes of a network."""
    count = len(pairs.real)
    yield measure("reconstruction, the other: PSNR", mean_of(psnr(pairs.real, pairs.theirs).tolist()), count, "dB")
    yield _two_sample(study, "reconstruction, the other: told from the picture", pairs.theirs)
    better, ours, theirs = preference_test(pairs, study.test_steps)
    yield measure("pairs: looks more real than the other", better, min(PAIRS, count), "%")
    yield measure("pairs: taken for real", ours, count, "%")
    yield measure("pairs: the other taken for real", theirs, count, "%")


def _two_sample(study: FolderStudy, name: str, made: Tensor) -> Measure:
    """How well a network trained for it tells made pictures from the held-back ones: 50 % is best."""
    return measure(name, two_sample_test(study.images, made, study.test_steps, study.seed), len(made), "%")


def _filled(study: FolderStudy, name: str, ways: dict[str, Tensor]) -> Iterator[Measure]:
    """A hole filled by the model, beside other ways and the pictures as they were."""
    hole = HOLE_MASKS[name](study.sampler.size)
    for way, filled in ways.items():
        value = _distance(study, study.features(filled))
        yield measure(f"{name}, {way}: distance to training pictures", value, len(filled))
    for way, filled in {**ways, "as it was": study.images}.items():
        jumps = mean_of(edge_distance(filled, hole).tolist())
        yield measure(f"{name}, {way}: colour over the edge", jumps, len(filled), "levels")
    for way, filled in ways.items():
        yield _two_sample(study, f"{name}, {way}: told from real", filled)


def _coverage(study: FolderStudy, features: Tensor) -> Iterator[Measure]:
    """Precision, recall, and how near what is drawn comes to training pictures, beside how near real ones do."""
    count = len(features)
    precise, recalled = inside(features, study.real).tolist(), inside(study.real, features).tolist()
    yield measure("drawn pictures: precision", share_of(precise), count, "%")
    yield measure("drawn pictures: recall", share_of(recalled), count, "%")
    for name, points in (("drawn", features), ("held-back", study.real)):
        distance = mean_of(nearest(points, study.reference)[0].flatten().tolist())
        yield measure(f"{name} pictures: distance to the nearest training picture", distance, count)


def _read_right(study: FolderStudy) -> Iterator[Measure]:
    """Of what prompts say, what the classifier reads in the pictures; and in the real pictures of the same captions."""
    labels = Labels(study.classifier.config.groups)
    answers = torch.tensor([labels.numbers(study.store.index.kind, text) for text in study.texts])
    if not labels.groups:
        return
    for name, images in (("prompts", study.drawn), ("real pictures", study.images)):
        with torch.no_grad():
            logits = [torch.cat(parts) for parts in zip(*map(study.classifier, images.split(64)), strict=True)]
        for i, group in enumerate(labels.groups):
            asked = answers[:, i] != NO_LABEL
            right = (logits[i].argmax(1) == answers[:, i])[asked].tolist()
            if right:
                yield measure(f"{name}: {group} read right", share_of(right), len(right), "%")


def folder_sheet(study: FolderStudy) -> Image.Image:
    """Held-back pictures, how they come back, both holes filled, what is drawn, and training pictures nearest to it."""
    shown = spread(list(range(len(study.images))), COLUMNS)
    _, index = nearest(study.features(study.drawn[shown]), study.reference)
    rows = {
        "held back": study.images,
        "through tokens": study.decoded,
        **{f"{hole}, {way}": images for hole, ways in study.inpaint_baselines.items() for way, images in ways.items()},
        "drawn": study.drawn,
    }
    pictures = [to_images(row[shown]) for row in rows.values()]
    pictures.append(to_images(study.store.images([study.trained_on[i] for i in index[:, 0].tolist()])))
    return sheet(pictures, study.sampler.size, names=[*rows, "nearest in training"])
