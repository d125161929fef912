"""The reader: a small network that classifies the attributes of an avatar in an image.

It is trained on rendered avatars only (`recipes.avatars.training`), never on a model's samples, which it evaluates.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from imagebart.atomic_io import write_bytes
from imagebart.settings import from_dict
from imagebart.weights.folder import checked_header
from imagebart.worlds.attributes import VALUES, Attributes

SIZE = 128  # pixels a side of the network's input
Size = Annotated[int, Field(ge=1, le=512)]  # of a layer: larger than here, and a few megabytes at most


@dataclass(frozen=True)
class ReaderConfig:
    """Size of the network."""

    channels: tuple[Size, Size, Size] = (48, 64, 96)  # at 32 x 32, 16 x 16 and 8 x 8
    squeeze: Size = 32  # channels that are flattened
    features: Size = 192  # of the layer before the logits, the space of the Fréchet distance


@dataclass(frozen=True)
class Reading:
    """The attributes of each of B images, and their features, float [B, F]."""

    attributes: list[Attributes]
    features: Tensor


class Reader(nn.Module):
    """Pixels in squares of 4 x 4 to channels, convolutions at 32 x 32, 16 x 16 and 8 x 8, flattened.

    An avatar's parts are always at the same places: there is no pooling, and each position's coordinates are an input.
    """

    where: Tensor

    def __init__(self, config: ReaderConfig | None = None) -> None:
        super().__init__()
        self.config = config or ReaderConfig()
        first, second, third = self.config.channels
        cells = SIZE // 4
        line = torch.linspace(-1, 1, cells)
        where = torch.stack([line.expand(cells, cells), line[:, None].expand(cells, cells)])
        self.register_buffer("where", where, persistent=False)
        self.body = nn.Sequential(
            _block(3 * 16 + 2, first),
            _block(first, second, stride=2),
            _block(second, second),
            _block(second, third, stride=2),
            _block(third, third),
            nn.Conv2d(third, self.config.squeeze, 1),
            nn.Flatten(),
            nn.Linear(self.config.squeeze * (SIZE // 16) ** 2, self.config.features),
            nn.ReLU(),
        )
        self.heads = nn.Linear(self.config.features, sum(map(len, VALUES.values())))

    def features(self, images: Tensor) -> Tensor:
        """Images float [B, 3, H, W] in [-1, 1], square and of any size -> features [B, F], 0 or more."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"images have shape {list(images.shape)}, expected [B, 3, size, size]")
        if images.shape[-1] != SIZE:
            images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
        folded = F.pixel_unshuffle(images, 4)
        folded = torch.cat([folded, self.where.expand(len(images), -1, -1, -1)], 1)
        features: Tensor = self.body(folded.to(memory_format=torch.channels_last))
        return features

    def answers(self, features: Tensor) -> dict[str, Tensor]:
        """Logits [B, number of values] of each attribute of `VALUES`."""
        parts = self.heads(features).split([len(values) for values in VALUES.values()], 1)
        return dict(zip(VALUES, parts, strict=True))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.answers(self.features(images))

    @torch.no_grad()
    def read(self, images: Tensor, batch: int = 64) -> Reading:
        """Reads images float [B, 3, H, W] in [-1, 1], `batch` at a time.

        An attribute that an image does not show has a value all the same; `Attributes.visible` says which show.
        """
        features = torch.cat([self.features(part.float()) for part in images.split(batch)])
        columns = {name: logits.argmax(1).tolist() for name, logits in self.answers(features).items()}
        chosen = [{name: VALUES[name][column[i]] for name, column in columns.items()} for i in range(len(images))]
        return Reading([Attributes(**values) for values in chosen], features)


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def save_reader(reader: Reader, path: Path) -> None:
    """Writes a reader as one safetensors file of 16-bit numbers, its size and values in the header."""
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in reader.state_dict().items()}
    about = {"config": json.dumps(asdict(reader.config)), "values": json.dumps(VALUES)}
    write_bytes(path, save({k: v.contiguous().cpu() for k, v in tensors.items()}, about))


def load_reader(path: Path) -> Reader:
    """The reader in a file, ready to read. Raises ValueError where it was trained for other attributes."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; `python -m recipes.avatars train reader` makes it")
    with safe_open(checked_header(path), "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if json.loads(about["values"]) != {name: list(values) for name, values in VALUES.items()}:
        raise ValueError(f"the reader in {path} knows other attributes than avatars have now; train it again")
    reader = Reader(from_dict(ReaderConfig, json.loads(about["config"])))
    reader.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return reader.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
