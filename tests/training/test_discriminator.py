"""The discriminator's layers, and the losses that come from it, against what they are made of."""

import pytest
import torch

from imagebart.training.vqgan import Discriminator, adaptive_weight, feature_matching_loss


def test_a_logit_sees_seventy_pixels() -> None:
    torch.manual_seed(0)
    model = Discriminator(8)
    images = torch.randn(1, 3, 256, 256, requires_grad=True)
    *features, logits = model(images)
    assert [f.shape[1:] for f in features] == [(8, 128, 128), (16, 64, 64), (32, 32, 32), (64, 31, 31)]
    assert logits.shape == (1, 1, 30, 30)
    for module in model.modules():  # a norm sees the whole image
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x  # type: ignore[method-assign]
    model(images)[-1][0, 0, 15, 15].backward()
    assert images.grad is not None
    seen = images.grad[0].abs().sum(0).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]


def test_feature_matching_weighs_layers_equally_without_logits() -> None:
    real = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 2, 2), torch.zeros(1)]
    fake = [torch.full((1, 2, 4, 4), 0.5), torch.full((1, 4, 2, 2), -1.5), torch.full((1,), 9.0)]
    assert feature_matching_loss(real, fake).item() == pytest.approx(1.0)


def test_the_adaptive_weight_makes_both_gradients_as_large() -> None:
    torch.manual_seed(0)
    output = torch.randn(2, 3, 4, 4, requires_grad=True)
    reconstruction, fooling = output.square().sum(), 1e-3 * output.sin().sum()
    weight = adaptive_weight(reconstruction, fooling, output)
    (gradient,) = torch.autograd.grad(weight * fooling, output)
    assert gradient.norm().item() == pytest.approx((2 * output).norm().item(), rel=1e-3)
    assert not weight.requires_grad
    assert adaptive_weight(output.sum(), 1e-9 * output.sum(), output) <= 1e4
