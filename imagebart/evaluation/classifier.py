"""A small classifier of a folder of images, for its predictions, and for its features, in which images are compared.

It learns the labels of captions or classes, or, where there are none, rotations by 90 degrees (Gidaris et al., 2018).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.imaging.files import normalize
from imagebart.training.config import LoopConfig
from imagebart.training.data import MAX_VIEWS, AugmentedViews, ImageStore, grid
from imagebart.training.loop import Batch, Task, train

COLOURS = frozenset(
    ("red", "orange", "yellow", "green", "blue", "purple", "violet", "pink", "brown", "black", "white", "grey", "gray")
    + ("golden", "silver", "beige", "dark", "light")
)
STOP_WORDS = frozenset(["a", "an", "the", "of", "some", "with", "and", "in", "on"])
MIN_COUNT, MIN_SHARE = 4, 0.004  # images that have a label, whichever is more
NO_LABEL = -1
ROTATIONS = 4
SMOOTHING = 0.05  # of labels: some captions are wrong
CHANNELS = (64, 128, 192, 256)
DROPOUT = 0.3  # of features
MAX_ANGLE, MAX_ZOOM, MAX_STRETCH = 0.35, 0.4, 0.2  # radians; share of the side; logarithm of the width
MAX_CONTRAST, MAX_BRIGHTNESS = 0.15, 0.1


def parse_caption(text: str) -> dict[str, str]:
    """Class, colour and surroundings of a caption: "red roses, green background" has roses, red, green background."""
    first, *others = [phrase.strip() for phrase in re.split(r"[,;.]", text.lower())] or [""]
    words = [word for word in first.split() if word not in STOP_WORDS]
    colours = [word for word in words if word in COLOURS]
    thing = " ".join(word for word in words if word not in COLOURS)
    return {"class": thing, "colour": colours[0] if colours else "", "around": others[0] if others else ""}


@dataclass(frozen=True)
class Labels:
    """Groups of labels, of which an image has at most one each; no groups where there are no texts."""

    groups: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, kind: str, texts: Iterable[str]) -> Labels:
        """The labels that enough of these texts have; kind: "text", "class" or "none"."""
        parts = [_parts(kind, text) for text in texts]
        least = max(MIN_COUNT, MIN_SHARE * len(parts))
        groups = {}
        for name in ("class", "colour", "around"):
            counts = Counter(part[name] for part in parts if part.get(name))
            groups[name] = tuple(sorted(label for label, count in counts.items() if count >= least))
        return cls({name: labels for name, labels in groups.items() if len(labels) > 1})

    def numbers(self, kind: str, text: str) -> list[int]:
        """The index of a text's label in each group; NO_LABEL where it has none of them."""
        parts = _parts(kind, text)
        return [
            labels.index(parts[name]) if parts.get(name) in labels else NO_LABEL for name, labels in self.groups.items()
        ]


def _parts(kind: str, text: str) -> dict[str, str]:
    if kind == "class":
        return {"class": text}
    return parse_caption(text) if kind == "text" else {}


@dataclass(frozen=True)
class ClassifierConfig:
    """groups: the labels of each group that it predicts; none: it predicts rotations."""

    groups: dict[str, tuple[str, ...]]
    size: int = 64  # pixels a side of its input
    channels: tuple[int, ...] = (32, 64, 96, 128)
    features: int = 128
    drop: float = 0.0  # dropout of the features


class Classifier(nn.Module):
    """Images float [B, 3, H, W] in [-1, 1], square and of any size -> logits of each group."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        layers, width = [], 3 * 4
        for channels in config.channels:
            layers += [_block(width, channels, 1), _block(channels, channels, 2)]
            width = channels
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(width, config.features)
        counts = [len(labels) for labels in config.groups.values()] or [ROTATIONS]
        self.heads = nn.ModuleList(nn.Linear(config.features, count) for count in counts)

    def features(self, images: Tensor) -> Tensor:
        """Images -> features [B, F]."""
        size = self.config.size
        if images.shape[-1] != size:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
        pixels = F.pixel_unshuffle(images, 2).to(memory_format=torch.channels_last)
        return torch.relu(self.last(self.body(pixels).mean((2, 3))))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = F.dropout(self.features(images), self.config.drop, self.training)
        return [head(features) for head in self.heads]


def _block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


class LabelledViews(Dataset[dict[str, Any]]):
    """Augmented views of some images of a store: image, and the label of each group."""

    def __init__(self, store: ImageStore, numbers: Sequence[int], labels: Labels) -> None:
        self.views = AugmentedViews(store, numbers, MAX_VIEWS)
        kind = store.index.kind
        self.labels = [labels.numbers(kind, store.index.texts[number]) for number in numbers]

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, labels = self.views[index]["image"], self.labels[index % len(self.labels)]
        if not labels:
            rotation = (index // len(self.labels) + index) % ROTATIONS
            image, labels = image.rot90(rotation, (1, 2)), [rotation]
        return {"image": image, "labels": torch.tensor(labels)}


class ClassifierTask(Task):
    """Cross-entropy of the labels of images."""

    def __init__(self, model: Classifier, dataset: LabelledViews) -> None:
        self.model: nn.Module = model
        self.dataset: Dataset[Any] = dataset

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        images = normalize(batch["image"])
        losses, right = [], []
        for logits, labels in zip(model(augment(images)), batch["labels"].T, strict=True):
            known = labels != NO_LABEL
            if known.any():
                losses.append(F.cross_entropy(logits[known].float(), labels[known], label_smoothing=SMOOTHING))
                right.append((logits[known].argmax(1) == labels[known]).float().mean())
        if not losses:  # a batch without labels
            return {"loss": 0.0 * model(images)[0].sum(), "right": torch.tensor(0.0)}
        return {"loss": torch.stack(losses).sum(), "right": torch.stack(right).mean()}

    def sample(self, model: nn.Module) -> Image.Image:
        """Images that it learns from."""
        return grid(normalize(torch.stack([self.dataset[i]["image"] for i in range(6)])), columns=6)


def augment(images: Tensor) -> Tensor:
    """Images float [B, 3, S, S] in [-1, 1] rotated, zoomed, moved and lighter, so that a few are not memorised.

    Colours keep their names.
    """
    angle, zoom, stretch, right, down, contrast, light = 2 * torch.rand(7, len(images), device=images.device) - 1
    angle, size, wide = MAX_ANGLE * angle, 1 - MAX_ZOOM * (1 + zoom) / 2, torch.exp(MAX_STRETCH * stretch)
    rows = [
        [size * wide * angle.cos(), -size * angle.sin(), (1 - size) * right],
        [size * angle.sin(), size / wide * angle.cos(), (1 - size) * down],
    ]
    affine = torch.stack([torch.stack(row, 1) for row in rows], 1)
    places = F.affine_grid(affine, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, places, padding_mode="reflection", align_corners=False)
    return moved * (1 + MAX_CONTRAST * contrast)[:, None, None, None] + (MAX_BRIGHTNESS * light)[:, None, None, None]


def train_classifier(store: ImageStore, folder: Path, steps: int) -> Classifier:
    """A classifier of a store's training images. One that was trained for so many steps in this folder is loaded."""
    numbers = store.index.numbers(False)
    labels = Labels.of(store.index.kind, [store.index.texts[i] for i in numbers])
    config = ClassifierConfig(labels.groups, min(64, store.index.resolution), CHANNELS, drop=DROPOUT)
    torch.manual_seed(0)
    model = Classifier(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loop = LoopConfig(steps=steps, batch_size=32, lr=2e-3, warmup=max(1, steps // 20), ema=0.98)
    trained = train(ClassifierTask(model, LabelledViews(store, numbers, labels)), loop, folder)
    assert isinstance(trained, Classifier)
    return trained.requires_grad_(False)
