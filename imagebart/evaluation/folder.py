"""How good a model of someone's own pictures is, on those that were held back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagebart.evaluation.baseline import BASELINE, left_to_right, weights_that_draw
from imagebart.evaluation.coverage import inside, nearest
from imagebart.evaluation.distance import frechet_distance, psnr
from imagebart.evaluation.drawing import Artist, through_tokens
from imagebart.evaluation.features import Features
from imagebart.evaluation.fills import CLASSICAL, HOLES, edge_distance, inpainted
from imagebart.evaluation.intervals import Interval, jackknife, mean_of, replicates, share_of
from imagebart.evaluation.pairs import PAIRS, Pairs, judged
from imagebart.evaluation.report import Measure, measure
from imagebart.evaluation.told_apart import STEPS, told_apart
from imagebart.imaging.files import to_images
from imagebart.imaging.sheet import sheet as sheet_of
from imagebart.models.first_stage import FirstStage
from imagebart.pictures.classifier import Classifier
from imagebart.pictures.labels import UNSAID, Labels
from imagebart.pictures.store import Store

REFERENCE = 2000  # training pictures that distances are to, at most
COLUMNS = 12  # of the sheet


@dataclass(frozen=True)
class FolderStudy:
    """A model, the pictures it is measured on, and what measures them."""

    artist: Artist
    store: Store
    classifier: Classifier
    features: Features
    samples: int  # held-back pictures of each measure, at most
    seed: int = 0
    beside: FirstStage | None = None  # another, whose reconstructions are compared with the model's
    baseline: Artist | None = None  # draws from left to right; fills the same holes
    telling: int = STEPS  # steps that each network learns that tells real pictures from made ones

    def __post_init__(self) -> None:
        if self.baseline is not None:
            left_to_right(self.baseline)
            self._check_size("baseline", self.baseline.size)
        if self.beside is not None:
            self._check_size("other first stage", self.beside.config.resolution)

    def _check_size(self, name: str, size: int) -> None:
        if size != self.artist.size:
            raise ValueError(f"the {name} is of {size} pixels a side, expected the model's {self.artist.size}")

    @cached_property
    def held(self) -> list[int]:
        """The held-back pictures that are measured on: evenly spread, for a folder's order is seldom chance."""
        return spread(self.store.pictures.numbers(True), self.samples)

    @cached_property
    def images(self) -> Tensor:
        """They themselves, float [B, 3, H, W] in [-1, 1]."""
        return self.store.images(self.held)

    @property
    def texts(self) -> list[str]:
        return [self.store.pictures.texts[i] for i in self.held]

    @cached_property
    def trained_on(self) -> list[int]:
        """Training pictures that distances are to: evenly spread."""
        return spread(self.store.pictures.numbers(False), REFERENCE)

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
        takes = self.artist.model.conditioner.kind != "none"
        return [text if takes and text else None for text in self.texts]

    @cached_property
    def drawn(self) -> Tensor:
        """A picture of what each of them says."""
        return self.artist.generate(self.prompts, self.seed)

    @cached_property
    def decoded(self) -> Tensor:
        """How the pictures come back from the model's tokens."""
        return self.artist.reconstruct(self.images)

    @cached_property
    def pairs(self) -> Pairs | None:
        """They beside how they come back from the other first stage's; None where there is none."""
        if self.beside is None:
            return None
        theirs = [through_tokens(self.beside, part) for part in self.images.split(self.artist.batch)]
        return Pairs(self.images, self.decoded, torch.cat(theirs), self.seed)

    @cached_property
    def fills(self) -> dict[str, dict[str, Tensor]]:
        """The pictures with each hole filled in each way, without a prompt."""
        return {name: self._filled(hole(self.artist.size)) for name, hole in HOLES.items()}

    def _filled(self, hole: np.ndarray) -> dict[str, Tensor]:
        count = len(self.images)
        artists = {"model": self.artist} | ({} if self.baseline is None else {BASELINE: self.baseline})
        drawn = {
            name: artist.edit(self.images, np.stack([hole] * count), [None] * count, self.seed)
            for name, artist in artists.items()
        }
        return drawn | {way: inpainted(self.images, hole, flag) for way, flag in CLASSICAL.items()}


def spread(numbers: list[int], most: int) -> list[int]:
    """So many of some numbers at most, from the first on evenly spread over all."""
    count = min(most, len(numbers))
    return [numbers[i * len(numbers) // count] for i in range(count)]


def evaluate_folder(study: FolderStudy) -> Iterator[Measure]:
    """All measures of a model, each as soon as it is known."""
    floor = _distance(study, study.real)
    yield measure("held-back pictures: distance to training pictures, the floor", floor, len(study.real))
    yield from _reconstruction(study)
    for name, ways in study.fills.items():
        yield from _filled(study, name, ways)
    if study.baseline is not None:
        for name, artist in (("model", study.artist), (BASELINE, study.baseline)):
            size = weights_that_draw(artist)
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
    yield _told(study, "reconstruction: told from the picture", decoded)
    if study.pairs is not None:
        yield from _compared(study, study.pairs)


def _compared(study: FolderStudy, pairs: Pairs) -> Iterator[Measure]:
    """The other first stage, and both in the eyes of a network."""
    count = len(pairs.real)
    yield measure("reconstruction, the other: PSNR", mean_of(psnr(pairs.real, pairs.theirs).tolist()), count, "dB")
    yield _told(study, "reconstruction, the other: told from the picture", pairs.theirs)
    better, ours, theirs = judged(pairs, study.telling)
    yield measure("pairs: looks more real than the other", better, min(PAIRS, count), "%")
    yield measure("pairs: taken for real", ours, count, "%")
    yield measure("pairs: the other taken for real", theirs, count, "%")


def _told(study: FolderStudy, name: str, made: Tensor) -> Measure:
    """How well a network trained for it tells made pictures from the held-back ones: 50 % is best."""
    return measure(name, told_apart(study.images, made, study.telling, study.seed), len(made), "%")


def _filled(study: FolderStudy, name: str, ways: dict[str, Tensor]) -> Iterator[Measure]:
    """A hole filled by the model, beside other ways and the pictures as they were."""
    hole = HOLES[name](study.artist.size)
    for way, filled in ways.items():
        value = _distance(study, study.features(filled))
        yield measure(f"{name}, {way}: distance to training pictures", value, len(filled))
    for way, filled in {**ways, "as it was": study.images}.items():
        jumps = mean_of(edge_distance(filled, hole).tolist())
        yield measure(f"{name}, {way}: colour over the edge", jumps, len(filled), "levels")
    for way, filled in ways.items():
        yield _told(study, f"{name}, {way}: told from real", filled)


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
    answers = torch.tensor([labels.numbers(study.store.pictures.kind, text) for text in study.texts])
    if not labels.groups:
        return
    for name, images in (("prompts", study.drawn), ("real pictures", study.images)):
        with torch.no_grad():
            logits = [torch.cat(parts) for parts in zip(*map(study.classifier, images.split(64)), strict=True)]
        for i, group in enumerate(labels.groups):
            asked = answers[:, i] != UNSAID
            right = (logits[i].argmax(1) == answers[:, i])[asked].tolist()
            if right:
                yield measure(f"{name}: {group} read right", share_of(right), len(right), "%")


def sheet(study: FolderStudy) -> Image.Image:
    """Held-back pictures, how they come back, both holes filled, what is drawn, and training pictures nearest to it."""
    shown = spread(list(range(len(study.images))), COLUMNS)
    _, index = nearest(study.features(study.drawn[shown]), study.reference)
    rows = {
        "held back": study.images,
        "through tokens": study.decoded,
        **{f"{hole}, {way}": images for hole, ways in study.fills.items() for way, images in ways.items()},
        "drawn": study.drawn,
    }
    pictures = [to_images(row[shown]) for row in rows.values()]
    pictures.append(to_images(study.store.images([study.trained_on[i] for i in index[:, 0].tolist()])))
    return sheet_of(pictures, study.artist.size, names=[*rows, "nearest in training"])
