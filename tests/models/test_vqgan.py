"""The first stage: codes, images of any size, the patch encoder and the layered decoder."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_models import tiny_first_stage
from torch import Tensor

from imagebart.models.vqgan import GAIN, SHARED, FirstStage, FirstStageConfig, LayeredDecoder

SHAPE: dict[str, Any] = {"latent_channels": 32, "code_dim": 6, "codebook_size": 20, "resolution": 16}
LEVELS: dict[str, Any] = {"multipliers": (1, 2, 1), "res_blocks": 1, "attention_resolutions": (8,)}
BASE = FirstStageConfig(channels=32, **SHAPE, **LEVELS)
CONFIGS = {
    "plain": BASE,
    "unshuffled": BASE.replace(multipliers=(1, 1), pixel_unshuffle=2),
    "one level": BASE.replace(multipliers=(1,), pixel_unshuffle=4, attention_resolutions=()),
    "unit codes": BASE.replace(unit_codes=True),
    "some codes used": BASE.replace(used_codes=9),
    "patch": BASE.replace(encoder="patch"),
}
LAYERED = tiny_first_stage(
    channels=64, multipliers=(1,), pixel_unshuffle=8, encoder="patch", decoder="layered", layers=3, patterns=4
)


def build(config: FirstStageConfig) -> FirstStage:
    """Random weights; where some codes are used, not the first ones."""
    model = FirstStage(config)
    torch.nn.init.normal_(model.quantize.embedding.weight)
    if config.used_codes is not None:
        model.quantize.used.copy_(torch.randperm(config.codebook_size)[: config.used_codes].sort().values)
    return model.eval()


@pytest.mark.parametrize("name", ["plain", "unit codes", "some codes used"])
def test_tokens_are_the_nearest_codes_in_use(name: str) -> None:
    quantizer, config = build(CONFIGS[name]).quantize, CONFIGS[name]
    codes = quantizer.embedding.weight.detach()[quantizer.used[: config.vocab_size]]
    codes = F.normalize(codes, dim=1) if config.unit_codes else codes
    torch.testing.assert_close(quantizer.codes(), codes)
    assert torch.equal(quantizer.tokens(codes), torch.arange(config.vocab_size))
    z = 3 * torch.randn(3, 4, 5, config.code_dim)
    for latent, token in zip(z.flatten(0, 2), quantizer.tokens(z).flatten().tolist(), strict=True):
        latent = latent / latent.norm() if config.unit_codes else latent
        distances = (latent - codes).norm(dim=1).tolist()
        assert token == distances.index(min(distances))


@pytest.mark.parametrize("name", ["some codes used", "unit codes"])
def test_gradients_pass_straight_through(name: str) -> None:
    """As if codes were latents, on the unit sphere those projected onto it; the codebook learns from its own loss."""
    quantizer = build(CONFIGS[name]).quantize
    z, weights = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6)
    codes, tokens = quantizer(z)
    torch.testing.assert_close(codes, quantizer.codes()[tokens])
    (codes * weights).sum().backward()
    unit = F.normalize(z.detach(), dim=-1)
    tangent = (weights - (weights * unit).sum(-1, keepdim=True) * unit) / z.detach().norm(dim=-1, keepdim=True)
    torch.testing.assert_close(z.grad, tangent if quantizer.unit_codes else weights)
    assert quantizer.embedding.weight.grad is None


@pytest.mark.parametrize("name", ["plain", "patch"])
@torch.no_grad()
def test_tokens_do_not_depend_on_autocast(name: str) -> None:
    """What a network is trained on in bfloat16 are the tokens that it gets when it is used."""
    model, images = build(CONFIGS[name]), torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        found, trained_on = model.encode(images), model(images)[2]
    assert torch.equal(found, model.encode(images)) and torch.equal(trained_on.flatten(1), found)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@torch.no_grad()
def test_square_images_of_any_size(config: FirstStageConfig) -> None:
    model, f = build(config), config.downsampling
    for side in (1, 4):
        images = torch.rand(2, 3, side * f, side * f) * 2 - 1
        tokens = model.encode(images)
        assert tokens.shape == (2, side**2) and 0 <= int(tokens.min()) <= int(tokens.max()) < config.vocab_size
        decoded, (reconstruction, latents, grid) = model.decode(tokens), model(images)
        assert decoded.shape == images.shape
        assert torch.equal(grid.flatten(1), tokens) and latents.shape == (2, side, side, config.code_dim)
        torch.testing.assert_close(reconstruction, decoded, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", [*CONFIGS.values(), LAYERED], ids=[*CONFIGS, "layered"])
def test_every_weight_learns(config: FirstStageConfig) -> None:
    model = build(config)
    reconstruction, latents, tokens = model(torch.rand(2, 3, config.resolution, config.resolution) * 2 - 1)
    codebook_loss = (model.quantize.codes()[tokens] - latents.detach()).square().mean()
    (reconstruction.square().mean() + codebook_loss).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_a_patch_encoder_sees_its_patch_alone() -> None:
    """Other pixels change no other token, and a patch's token does not depend on its place."""
    model = build(CONFIGS["patch"])
    f = model.config.downsampling
    image, changed = torch.rand(2, 1, 3, 4 * f, 4 * f) * 2 - 1
    tokens = model.encode(image).view(4, 4)
    changed[..., f : 2 * f, 2 * f : 3 * f] = image[..., f : 2 * f, 2 * f : 3 * f]
    assert model.encode(changed).view(4, 4)[1, 2] == tokens[1, 2]
    assert torch.equal(model.encode(image.roll((f, f), (2, 3))).view(4, 4), tokens.roll((1, 1), (0, 1)))


def test_tokens_are_those_of_the_downscaled_image() -> None:
    small, large = FirstStage(LAYERED), FirstStage(LAYERED.replace(resolution=64, downscale=2))
    assert (large.config.downsampling, small.config.downsampling) == (16, 8)
    large.load_state_dict({name: t for name, t in small.state_dict().items() if "decoder" not in name}, strict=False)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(large.latents(images), small.latents(F.avg_pool2d(images, 2)))


def pixel_by_pixel(decoder: LayeredDecoder, coarse: Tensor) -> Tensor:
    """The image of the trunk's features [1, C, h, w], each pixel by itself."""
    features = F.silu(decoder.norm(coarse))
    mix, colors = decoder.mix(features)[0], decoder.colour(features)[0]
    base = F.interpolate(decoder.fine(coarse), scale_factor=2, mode="bilinear", align_corners=False)[0]
    patch, (height, width) = decoder.patch_size, coarse.shape[2:]
    image = torch.empty(3, height * patch, width * patch)
    for y in range(height * patch):
        for x in range(width * patch):
            row, column, place = y // patch, x // patch, y % patch * patch + x % patch
            patterns = torch.cat([decoder.shared[:, place], decoder.own[row, column, :, place]])
            weights = mix[:, row, column].view(decoder.layers, SHARED + 4)
            masks = (GAIN * weights @ patterns + decoder.plain).softmax(0)
            flat = colors[:, row, column].view(3, decoder.layers - 1)
            image[:, y, x] = torch.cat([base[:, y, x, None], flat], 1) @ masks
    return image


@torch.no_grad()
def test_pixels_are_layers_weighted_by_masks_of_patterns() -> None:
    decoder = LayeredDecoder(LAYERED.replace(downscale=2, multipliers=(1, 2), channels=32, pixel_unshuffle=4)).eval()
    latents = torch.randn(1, 32, 2, 2)
    torch.nn.init.normal_(decoder.position)  # a code has other pixels at another place
    coarse = decoder.up[-1](decoder.mid(decoder.conv_in(latents) + decoder.position))
    decoder.mix.weight.mul_(5)
    torch.testing.assert_close(decoder(latents)[0], pixel_by_pixel(decoder, coarse), rtol=1e-4, atol=1e-4)


def test_what_does_not_go_together_is_refused() -> None:
    for config, wrong, said in (
        (LAYERED, {"downscale": 2, "encoder": "convolutions"}, "downscale is 2; more than 1 needs encoder 'patch'"),
        (LAYERED, {"layers": 1}, "layers is 1, expected 2 or more"),
    ):
        with pytest.raises(ValueError, match=said):
            config.replace(**wrong)
