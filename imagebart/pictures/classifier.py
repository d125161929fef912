"""A small classifier of someone's pictures, for its answers and for its features, in which pictures are compared."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from imagebart.config import from_dict
from imagebart.writing import write_bytes

TURNS = 4  # quarter turns that it tells where nothing is said of pictures (Gidaris et al., 2018)


@dataclass(frozen=True)
class ClassifierConfig:
    """groups: the labels of each group that it tells; none: it tells quarter turns."""

    groups: dict[str, tuple[str, ...]]
    size: int = 64  # pixels a side that it looks at
    channels: tuple[int, ...] = (32, 64, 96, 128)
    features: int = 128
    drop: float = 0.0  # share of the features that an answer does without, in training

    @property
    def answers(self) -> list[int]:
        """Labels of each head."""
        return [len(labels) for labels in self.groups.values()] or [TURNS]


class Classifier(nn.Module):
    """Pictures float [B, 3, H, W] in [-1, 1], square and of any size -> logits of each group."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        layers, width = [], 3 * 4
        for channels in config.channels:
            layers += [_block(width, channels, 1), _block(channels, channels, 2)]
            width = channels
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(width, config.features)
        self.heads = nn.ModuleList(nn.Linear(config.features, count) for count in config.answers)

    def features(self, images: Tensor) -> Tensor:
        """Pictures -> features [B, F]."""
        size = self.config.size
        if images.shape[-1] != size:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
        folded = F.pixel_unshuffle(images, 2).to(memory_format=torch.channels_last)
        return torch.relu(self.last(self.body(folded).mean((2, 3))))

    def forward(self, images: Tensor) -> list[Tensor]:
        features = F.dropout(self.features(images), self.config.drop, self.training)
        return [head(features) for head in self.heads]


def _block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU())


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Writes a classifier as one safetensors file, its configuration in the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().contiguous().cpu() for k, v in classifier.state_dict().items()}
    write_bytes(path, save(tensors, {"config": json.dumps(asdict(classifier.config))}))


def load_classifier(path: Path) -> Classifier:
    """A classifier from its file, ready to be asked."""
    with safe_open(path, "pt") as file:
        config = from_dict(ClassifierConfig, json.loads(file.metadata()["config"]))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    classifier = Classifier(config)
    classifier.load_state_dict(tensors)
    return classifier.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
