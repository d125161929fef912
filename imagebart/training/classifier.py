"""Training the classifier that people's pictures, and what a model makes of them, are measured with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.pictures.classifier import TURNS, Classifier, ClassifierConfig, load_classifier, save_classifier
from imagebart.pictures.labels import UNSAID, Labels
from imagebart.pictures.store import MOST_VIEWS, Store, Views
from imagebart.training.config import LoopConfig
from imagebart.training.data import grid
from imagebart.training.first_stage import to_float
from imagebart.training.loop import Batch, Task, train

FILE = "classifier.safetensors"
SMOOTHING = 0.05  # of labels: captions are wrong here and there
CHANNELS = (64, 128, 192, 256)
DROP = 0.3  # of features, in training
TURN, ZOOM, SQUEEZE = 0.35, 0.4, 0.2  # at most: radians; share of the side; logarithm of the width
CONTRAST, LIGHT = 0.15, 0.1  # at most, too


class Labelled(Dataset[dict[str, Any]]):
    """Some pictures of a store in several views: image, and the label of each group."""

    def __init__(self, store: Store, numbers: Sequence[int], labels: Labels) -> None:
        self.views = Views(store, numbers, MOST_VIEWS)
        kind = store.pictures.kind
        self.answers = [labels.numbers(kind, store.pictures.texts[number]) for number in numbers]

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, answers = self.views[index]["image"], self.answers[index % len(self.answers)]
        if not answers:
            turn = (index // len(self.answers) + index) % TURNS
            image, answers = image.rot90(turn, (1, 2)), [turn]
        return {"image": image, "answers": torch.tensor(answers)}


class ClassifierTask(Task):
    """Say what is said of pictures."""

    def __init__(self, model: Classifier, dataset: Labelled) -> None:
        self.model: nn.Module = model
        self.dataset: Dataset[Any] = dataset

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        images = to_float(batch["image"])
        losses, right = [], []
        for logits, answers in zip(model(varied(images)), batch["answers"].T, strict=True):
            known = answers != UNSAID
            if known.any():
                losses.append(F.cross_entropy(logits[known].float(), answers[known], label_smoothing=SMOOTHING))
                right.append((logits[known].argmax(1) == answers[known]).float().mean())
        if not losses:  # a batch of which nothing is said
            return {"loss": 0.0 * model(images)[0].sum(), "right": torch.tensor(0.0)}
        return {"loss": torch.stack(losses).sum(), "right": torch.stack(right).mean()}

    def sample(self, model: nn.Module) -> Image.Image:
        """Pictures that it learns from."""
        return grid(to_float(torch.stack([self.dataset[i]["image"] for i in range(6)])), columns=6)


def varied(images: Tensor) -> Tensor:
    """Pictures float [B, 3, S, S] in [-1, 1], each as another camera might have taken it: nearer, turned, lighter.

    Few pictures are learnt by heart else. Colours stay what they are called.
    """
    count, device = len(images), images.device
    turn, zoom, squeeze, across, down, contrast, light = 2 * torch.rand(7, count, device=device) - 1
    angle, size, wide = TURN * turn, 1 - ZOOM * (1 + zoom) / 2, torch.exp(SQUEEZE * squeeze)
    rows = [
        [size * wide * angle.cos(), -size * angle.sin(), (1 - size) * across],
        [size * angle.sin(), size / wide * angle.cos(), (1 - size) * down],
    ]
    way = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(way, list(images.shape), align_corners=False)
    seen = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return seen * (1 + CONTRAST * contrast)[:, None, None, None] + (LIGHT * light)[:, None, None, None]


def classifier_of(store: Store, folder: Path, steps: int) -> Classifier:
    """The classifier in a folder; trained there on a store's training part where there is none yet."""
    if not (folder / FILE).is_file():
        numbers = store.pictures.numbers(False)
        labels = Labels.of(store.pictures.kind, [store.pictures.texts[i] for i in numbers])
        config = ClassifierConfig(labels.groups, min(64, store.pictures.resolution), CHANNELS, drop=DROP)
        torch.manual_seed(0)
        model = Classifier(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        loop = LoopConfig(steps=steps, batch_size=32, lr=2e-3, warmup=max(1, steps // 20), ema=0.98, sample_every=steps)
        trained = train(ClassifierTask(model, Labelled(store, numbers, labels)), loop, folder)
        assert isinstance(trained, Classifier)
        save_classifier(trained, folder / FILE)
    return load_classifier(folder / FILE)
