"""How good a model of a folder of images is, measured on those that were held back.

The two-sample test (Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, 2017) asks whether a small network
trained for it can tell real images from generated ones: it is right in 50 % where it cannot. Images are split in two
halves; a network learns from one and is tested on the other, and the other way round (two-fold cross-validation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

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

STEPS = 200  # of the two-sample test's networks
BATCH = 16  # real images a step, and as many generated ones
LEAST = 4  # images: two a half
CHANNELS = (32, 48, 64, 96)
PAIRS, PAIRS_A_ROW = 40, 4  # of the blind test's sheet
RADIUS = 3  # pixels that OpenCV's inpainting looks at
OPENCV = {"Telea": cv2.INPAINT_TELEA, "Navier-Stokes": cv2.INPAINT_NS}
HOLES = {"centre box": "centre", "lower half": "lower half"}  # presets of masks
REFERENCE = 2000  # training images that distances are to, at most
COLUMNS = 12  # of the sheet


def two_sample_test(real: Tensor, made: Tensor, steps: int = STEPS, seed: int = 0) -> Interval:
    """The share of images that are classified rightly as real or made: 0.5 where they cannot be told apart.

    real, made: float [B, 3, H, W] in [-1, 1], row i of the one made of row i of the other. Raises ValueError for B < 4.
    """
    of_real, of_made = (logits[0] for logits in fake_logits(real, [made], steps, seed))
    right = (of_real < 0).int() + (of_made >= 0).int()
    return share_of(right.tolist(), [2] * len(real))


def fake_logits(real: Tensor, made: Sequence[Tensor], steps: int = STEPS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of being made, of the real images, [1, B], and of each kind of made ones, [M, B].

    The networks learn to tell real images from made ones of every kind.
    """
    count = len(real)
    if count < LEAST:
        raise ValueError(f"{count} images to tell apart, expected at least {LEAST}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    halves = (order[: count // 2], order[count // 2 :])
    found = torch.zeros(1 + len(made), count)
    for training, test in (halves, halves[::-1]):
        network = _train_classifier(real[training], [kind[training] for kind in made], steps, seed)
        for row, images in zip(found, (real, *made), strict=True):
            with torch.no_grad():
                logits = torch.cat([network(part)[0] for part in images[test].split(64)])
            row[test] = logits[:, 1] - logits[:, 0]
    return found[:1], found[1:]


def _train_classifier(real: Tensor, made: Sequence[Tensor], steps: int, seed: int) -> Classifier:
    """A network trained to tell real images from made ones. The global RNG is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Classifier(ClassifierConfig({"made": ("no", "yes")}, real.shape[-1], CHANNELS))
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
        labels = torch.tensor([0, 1]).repeat_interleave(min(BATCH, len(real)))
        for _ in range(steps):
            rows = torch.randperm(len(real))[:BATCH]
            kinds = torch.randint(len(made), (len(rows),)).tolist()
            # Each image beside what was made of it: they differ in nothing else.
            others = [made[kind][row] for kind, row in zip(kinds, rows.tolist(), strict=True)]
            images = torch.cat([real[rows], torch.stack(others)])
            flipped = (torch.rand(len(rows)) < 0.5).repeat(2)[:, None, None, None]
            loss = F.cross_entropy(network(torch.where(flipped, images.flip(-1), images))[0], labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        # The running statistics of batch normalisation are still those of weights some steps ago.
        mixed = torch.cat([real, *made])[torch.randperm((1 + len(made)) * len(real))]
        update_bn(mixed.split(64), network)
    return network.eval()


@dataclass(frozen=True)
class Pairs:
    """A blind test of two first stages: images and both reconstructions, float [B, 3, H, W] in [-1, 1]."""

    real: Tensor
    ours: Tensor
    theirs: Tensor
    seed: int = 0

    @property
    def first(self) -> list[bool]:
        """In which pairs ours stands first."""
        generator = torch.Generator().manual_seed(self.seed)
        return (torch.rand(min(PAIRS, len(self.real)), generator=generator) < 0.5).tolist()

    def key(self) -> dict[str, str]:
        """Which reconstruction of each pair, by its number, is ours: "A" or "B"."""
        return {str(number): "A" if first else "B" for number, first in enumerate(self.first, 1)}

    def sheet(self) -> Image.Image:
        """The pairs, each image between its reconstructions: A, the image, B."""
        cells, captions = [], []
        for i, first in enumerate(self.first):
            a, b = (self.ours, self.theirs) if first else (self.theirs, self.ours)
            cells += to_images(torch.stack([a[i], self.real[i], b[i]]))
            captions.append(f"{i + 1}: A, the image, B")
        rows = [cells[i : i + 3 * PAIRS_A_ROW] for i in range(0, len(cells), 3 * PAIRS_A_ROW)]
        named = [captions[i : i + PAIRS_A_ROW] for i in range(0, len(captions), PAIRS_A_ROW)]
        return sheet(rows, self.real.shape[-1], captions=named)


def preference_test(pairs: Pairs, steps: int = STEPS) -> tuple[Interval, Interval, Interval]:
    """What a network says that was trained to tell real images from both kinds of reconstructions.

    The share of the pairs in which ours looks more real; of all images, the shares of ours and of theirs that are taken
    for real.
    """
    _, (ours, theirs) = fake_logits(pairs.real, [pairs.ours, pairs.theirs], steps, pairs.seed)
    count = len(pairs.first)
    better = (ours[:count] < theirs[:count]).float().mean()
    fooled = [share_of((kind < 0).int().tolist()) for kind in (ours, theirs)]
    return wilson(float(better), count), fooled[0], fooled[1]


def opencv_inpaint(images: Tensor, hole: np.ndarray, method: int) -> Tensor:
    """Images float [B, 3, H, W] in [-1, 1] with the hole, bool [H, W], filled by OpenCV."""
    pixels = denormalize(images).permute(0, 2, 3, 1).numpy()
    mask = hole.astype(np.uint8)
    filled = np.stack([cv2.inpaint(np.ascontiguousarray(one), mask, RADIUS, method) for one in pixels])
    return normalize(torch.from_numpy(filled).permute(0, 3, 1, 2))


def edge_distance(images: Tensor, hole: np.ndarray) -> Tensor:
    """The mean difference of neighbours over the hole's edge, in levels of 255, [B].

    images: float [B, 3, H, W] in [-1, 1]; hole: bool [H, W], neither empty nor everything.
    """
    mask = torch.from_numpy(hole)
    # A neighbour lies over the edge where one of the two is in the hole.
    over = torch.cat([images.diff(dim=axis).abs().mean(1)[:, mask.diff(dim=axis)] for axis in (-1, -2)], 1)
    if not over.shape[1]:
        raise ValueError("the hole has no edge in the image, expected some pixels in it and some not")
    return 127.5 * over.mean(1)


@dataclass(frozen=True)
class FolderStudy:
    """A model, the images it is measured on, and what measures them."""

    sampler: ImageSampler
    store: ImageStore
    classifier: Classifier
    features: Features
    samples: int  # held-back images of each measure, at most
    seed: int = 0
    beside: FirstStage | None = None  # another, whose reconstructions are compared with the model's
    baseline: ImageSampler | None = None  # samples from left to right; fills the same holes
    test_steps: int = STEPS  # of each network of the two-sample test

    def __post_init__(self) -> None:
        sizes = {}
        if self.baseline is not None:
            sizes["baseline"] = left_to_right(self.baseline).size
        if self.beside is not None:
            sizes["other first stage"] = self.beside.config.resolution
        for name, size in sizes.items():
            if size != self.sampler.size:
                raise ValueError(f"the {name} is of {size} pixels a side, expected the model's {self.sampler.size}")

    @cached_property
    def held(self) -> list[int]:
        """The numbers of the held-back images that are measured on: evenly spread over the folder's order."""
        return spread(self.store.index.numbers(True), self.samples)

    @cached_property
    def images(self) -> Tensor:
        """These images, float [B, 3, H, W] in [-1, 1]."""
        return self.store.images(self.held)

    @cached_property
    def texts(self) -> list[str]:
        return [self.store.index.texts[i] for i in self.held]

    @cached_property
    def trained_on(self) -> list[int]:
        """The numbers of the training images that distances are to, evenly spread."""
        return spread(self.store.index.numbers(False), REFERENCE)

    @cached_property
    def reference(self) -> Tensor:
        """Features of these, [M, F]."""
        parts = [self.trained_on[i : i + 256] for i in range(0, len(self.trained_on), 256)]
        return torch.cat([self.features(self.store.images(part)) for part in parts])

    @cached_property
    def real(self) -> Tensor:
        """Features of the held-back images, [B, F]."""
        return self.features(self.images)

    @cached_property
    def generated(self) -> Tensor:
        """An image of each held-back image's text, as far as the model takes texts."""
        takes = self.sampler.model.conditioner.kind != "none"
        return self.sampler.generate([text if takes and text else None for text in self.texts], self.seed)

    @cached_property
    def decoded(self) -> Tensor:
        """Reconstructions of the held-back images."""
        return self.sampler.reconstruct(self.images)

    @cached_property
    def pairs(self) -> Pairs | None:
        """These beside the other first stage's; None where there is none."""
        if self.beside is None:
            return None
        theirs = [reconstruct(self.beside, part) for part in self.images.split(self.sampler.batch)]
        return Pairs(self.images, self.decoded, torch.cat(theirs), self.seed)

    @cached_property
    def filled(self) -> dict[str, dict[str, Tensor]]:
        """The images with each hole filled by each method, without a prompt."""
        samplers = {"model": self.sampler} | ({} if self.baseline is None else {BASELINE: self.baseline})
        count, found = len(self.images), {}
        for name, preset in HOLES.items():
            hole = preset_array(preset, self.sampler.size)
            found[name] = {
                who: sampler.edit(self.images, np.stack([hole] * count), [None] * count, self.seed)
                for who, sampler in samplers.items()
            }
            found[name] |= {method: opencv_inpaint(self.images, hole, flag) for method, flag in OPENCV.items()}
        return found


def spread(numbers: list[int], most: int) -> list[int]:
    """`most` numbers at most, evenly spread over all."""
    count = min(most, len(numbers))
    return [numbers[i * len(numbers) // count] for i in range(count)]


def evaluate_folder(study: FolderStudy) -> Iterator[Measure]:
    """All measures of a model, each as soon as it is known."""
    floor = _distance(study, study.real)
    yield measure("held-back images: distance to training images, the floor", floor, len(study.real))
    yield from _reconstruction(study)
    for name, methods in study.filled.items():
        yield from _inpainting(study, name, methods)
    if study.baseline is not None:
        for name, sampler in (("model", study.sampler), (BASELINE, study.baseline)):
            size = sampling_parameters(sampler)
            yield replace(size, name=f"{name}: {size.name}")
    features = study.features(study.generated)
    count = len(features)
    yield measure("generated images: distance to training images", _distance(study, features), count)
    yield measure("generated images: precision", share_of(inside(features, study.real).tolist()), count, "%")
    yield measure("generated images: recall", share_of(inside(study.real, features).tolist()), count, "%")
    for name, points in (("generated", features), ("held-back", study.real)):
        distance = mean_of(nearest(points, study.reference)[0].flatten().tolist())
        yield measure(f"{name} images: distance to the nearest training image", distance, count)
    yield from _classified(study)


def _distance(study: FolderStudy, features: Tensor) -> Interval:
    groups = min(10, len(features))
    return jackknife(replicates(lambda rows: frechet_distance(features[rows], study.reference), len(features), groups))


def _two_sample(study: FolderStudy, name: str, made: Tensor) -> Measure:
    """How often a network trained for it tells made images from the held-back ones: 50 % is best."""
    interval = two_sample_test(study.images, made, study.test_steps, study.seed)
    return measure(f"{name}: two-sample test", interval, len(made), "%")


def _reconstruction(study: FolderStudy) -> Iterator[Measure]:
    """The model's reconstructions, and those of the other first stage."""
    decoded, pairs, count = study.decoded, study.pairs, len(study.decoded)
    yield measure("reconstruction: PSNR", mean_of(psnr(study.images, decoded).tolist()), count, "dB")
    away = (study.features(decoded) - study.real).norm(dim=1) / study.real.norm(dim=1).clamp_min(1e-6)
    yield measure("reconstruction: feature distance, share of the features", mean_of(away.tolist()), count)
    yield _two_sample(study, "reconstruction", decoded)
    if pairs is None:
        return
    yield measure("reconstruction, the other: PSNR", mean_of(psnr(pairs.real, pairs.theirs).tolist()), count, "dB")
    yield _two_sample(study, "reconstruction, the other", pairs.theirs)
    better, ours, theirs = preference_test(pairs, study.test_steps)
    yield measure("pairs: looks more real than the other", better, min(PAIRS, count), "%")
    yield measure("pairs: taken for real", ours, count, "%")
    yield measure("pairs: the other taken for real", theirs, count, "%")


def _inpainting(study: FolderStudy, name: str, methods: dict[str, Tensor]) -> Iterator[Measure]:
    """A hole filled by each method, beside the images as they were."""
    hole = preset_array(HOLES[name], study.sampler.size)
    for method, filled in methods.items():
        value = _distance(study, study.features(filled))
        yield measure(f"{name}, {method}: distance to training images", value, len(filled))
    for method, filled in {**methods, "as it was": study.images}.items():
        distances = mean_of(edge_distance(filled, hole).tolist())
        yield measure(f"{name}, {method}: color difference over the edge", distances, len(filled), "levels")
    for method, filled in methods.items():
        yield _two_sample(study, f"{name}, {method}", filled)


def _classified(study: FolderStudy) -> Iterator[Measure]:
    """How much of the prompts the classifier finds in generated images, and in the real images of these prompts."""
    labels = Labels(study.classifier.config.groups)
    wanted = torch.tensor([labels.numbers(study.store.index.kind, text) for text in study.texts])
    for name, images in (("prompts", study.generated), ("real images", study.images)) if labels.groups else ():
        with torch.no_grad():
            logits = [torch.cat(parts) for parts in zip(*map(study.classifier, images.split(64)), strict=True)]
        for i, group in enumerate(labels.groups):
            right = (logits[i].argmax(1) == wanted[:, i])[wanted[:, i] != NO_LABEL].tolist()
            if right:
                yield measure(f"{name}: {group} classified right", share_of(right), len(right), "%")


def folder_sheet(study: FolderStudy) -> Image.Image:
    """Held-back images, reconstructions, filled holes, generated images, and the training images nearest to these."""
    shown = spread(list(range(len(study.images))), COLUMNS)
    _, index = nearest(study.features(study.generated[shown]), study.reference)
    rows = {
        "held back": study.images,
        "through tokens": study.decoded,
        **{f"{hole}, {who}": images for hole, methods in study.filled.items() for who, images in methods.items()},
        "generated": study.generated,
    }
    images = [to_images(row[shown]) for row in rows.values()]
    images.append(to_images(study.store.images([study.trained_on[i] for i in index[:, 0].tolist()])))
    return sheet(images, study.sampler.size, names=[*rows, "nearest in training"])
