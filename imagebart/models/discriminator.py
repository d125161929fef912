"""A PatchGAN discriminator and its losses, for training a first stage.

Isola et al., Image-to-Image Translation with Conditional Adversarial Networks (2017), section 3.2.2; hinge loss and
adaptive weight: Esser et al., Taming Transformers for High-Resolution Image Synthesis (2021), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, autograd, nn

GROUPS = 8  # of channels that are normalized together
MAX_WEIGHT = 1e4


class Discriminator(nn.Module):
    """Images [B, 3, H, W] -> features of each layer, finest first; the last are logits [B, 1, h, w], over 0 for real.

    A logit sees 70 x 70 pixels. Group norms, in place of batch norms, allow small batches.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        if channels < GROUPS or channels % GROUPS:
            raise ValueError(f"the discriminator has {channels} channels, expected a multiple of {GROUPS}")
        layers = [nn.Sequential(nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2))]
        for stride in (2, 2, 1):
            block = [nn.Conv2d(channels, 2 * channels, 4, stride, 1), nn.GroupNorm(GROUPS, 2 * channels)]
            layers.append(nn.Sequential(*block, nn.LeakyReLU(0.2)))
            channels *= 2
        layers.append(nn.Sequential(nn.Conv2d(channels, 1, 4, 1, 1)))
        self.layers = nn.ModuleList(layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images]
        for layer in self.layers:
            features.append(layer(features[-1]))
        return features[1:]


def d_hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's hinge loss on its logits."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def generator_loss(fake: Tensor) -> Tensor:
    """The first stage's adversarial loss, from the discriminator's logits of its images."""
    return -fake.mean()


def feature_matching_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of the discriminator's features before its logits; all layers count the same.

    Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs (2018), eq. 4.
    """
    pairs = list(zip(real[:-1], fake[:-1], strict=True))
    return sum((F.l1_loss(y.float(), x.detach().float()) for x, y in pairs), real[0].new_zeros(())) / len(pairs)


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, output: Tensor) -> Tensor:
    """The weight that gives both losses gradients of the same size (Taming Transformers, eq. 7).

    The gradients are those of the output's pixels, which every decoder has; the original takes the last layer's
    weights.
    """
    ours, theirs = (autograd.grad(loss, output, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial))
    return (ours / (theirs + 1e-6)).clamp(max=MAX_WEIGHT).detach()
