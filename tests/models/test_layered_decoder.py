"""The layered decoder: its pixels, its place in a first stage, and bad configurations."""

import pytest
import torch
import torch.nn.functional as F
from tiny_models import tiny_first_stage
from torch import Tensor

from imagebart.models.vqgan import GAIN, SHARED, FirstStage, LayeredDecoder

CONFIG = tiny_first_stage(
    resolution=64,
    channels=64,
    multipliers=(1,),
    codebook_size=16,
    pixel_unshuffle=8,
    encoder="patch",
    downscale=2,
    decoder="layered",
    layers=3,
    patterns=4,
)


@pytest.fixture
def small() -> FirstStage:
    """A first stage for images half as large."""
    return FirstStage(CONFIG.replace(resolution=32, downscale=1, decoder="convolutions")).eval()


def one_by_one(decoder: LayeredDecoder, coarse: Tensor) -> Tensor:
    """Pixels of the trunk's features [1, C, h, w], each by itself."""
    features = F.silu(decoder.norm(coarse))
    mix, colours = decoder.mix(features)[0], decoder.colour(features)[0]
    base = F.interpolate(decoder.fine(coarse), scale_factor=2, mode="bilinear", align_corners=False)[0]
    cell, (height, width) = decoder.patch_size, coarse.shape[2:]
    image = torch.empty(3, height * cell, width * cell)
    for y in range(height * cell):
        for x in range(width * cell):
            row, column, place = y // cell, x // cell, y % cell * cell + x % cell
            patterns = torch.cat([decoder.shared[:, place], decoder.own[row, column, :, place]])
            weights = mix[:, row, column].view(decoder.layers, SHARED + 4)
            masks = (GAIN * weights @ patterns + decoder.plain).softmax(0)
            plain = colours[:, row, column].view(3, decoder.layers - 1)
            image[:, y, x] = torch.cat([base[:, y, x, None], plain], 1) @ masks
    return image


def test_pixels_are_layers_weighted_by_masks_of_patterns() -> None:
    decoder = LayeredDecoder(CONFIG.replace(resolution=32)).eval()
    latents = torch.randn(1, 32, 2, 2)
    with torch.no_grad():
        decoder.mix.weight.mul_(5)
        expected = one_by_one(decoder, decoder.coarse(latents))
        torch.testing.assert_close(decoder(latents)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_mask_far_above_the_others_gives_one_plain_colour() -> None:
    decoder = LayeredDecoder(CONFIG).eval()
    with torch.no_grad():
        decoder.mix.weight.zero_()
        decoder.mix.bias.zero_()
        decoder.plain[2] = 100.0  # the second of two plain colours
        decoder.colour.weight.zero_()
        image = decoder(torch.randn(1, 32, 4, 4))
    expected = decoder.colour.bias.detach().view(3, 2)[:, 1, None, None].expand(3, 64, 64)
    torch.testing.assert_close(image[0], expected)


def test_the_lowest_layer_is_the_decoder_of_a_smaller_image(small: FirstStage) -> None:
    decoder = LayeredDecoder(CONFIG).eval()
    decoder.load_state_dict(small.decoder.state_dict(), strict=False)
    latents = torch.randn(2, 32, 4, 4)
    with torch.no_grad():
        decoder.plain[0] = 100.0
        expected = F.interpolate(small.decoder(latents), scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(decoder(latents), expected)


def test_a_code_has_other_pixels_at_another_position() -> None:
    model = FirstStage(CONFIG).eval()
    with torch.no_grad():
        image = model.decode(torch.zeros(1, 16, dtype=torch.long))
    assert image.shape == (1, 3, 64, 64) and image.isfinite().all()
    middle = image[..., 16:48, 16:48]
    assert not torch.allclose(middle[..., :16, :16], middle[..., 16:, 16:], atol=1e-3)


def test_the_lowest_layer_may_have_several_levels() -> None:
    model = FirstStage(CONFIG.replace(multipliers=(1, 2), channels=32, pixel_unshuffle=4)).eval()
    assert model.config.downsampling == 16
    with torch.no_grad():
        assert model.decode(torch.randint(16, (1, 16))).shape == (1, 3, 64, 64)


def test_tokens_are_those_of_the_downscaled_image(small: FirstStage) -> None:
    large = FirstStage(CONFIG)
    assert (large.config.downsampling, small.config.downsampling) == (16, 8)
    parts = ("encoder", "quant_conv", "quantize")
    for name in parts:
        getattr(large, name).load_state_dict(getattr(small, name).state_dict())
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(large.latents(images), small.latents(F.avg_pool2d(images, 2)))
    assert torch.equal(large.encode(images), small.encode(F.avg_pool2d(images, 2)))


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="downscale is 2; more than 1 needs encoder 'patch'"):
        CONFIG.replace(encoder="convolutions")
    with pytest.raises(ValueError, match="downscale is 2; more than 1 needs"):
        CONFIG.replace(decoder="convolutions")
    for name, value in (("downscale", 0), ("encoder", "cell"), ("decoder", "paint"), ("layers", 1), ("patterns", 0)):
        with pytest.raises(ValueError, match=f"{name} is {value!r}, expected"):
            CONFIG.replace(**{name: value})
