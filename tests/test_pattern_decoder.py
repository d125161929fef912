"""The decoder of patterns: what it is made of, its place in a first stage, and what it refuses."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imagebart.first_stage import FirstStage, FirstStageConfig
from imagebart.pattern_decoder import GAIN, SHARED, PatternDecoder

CONFIG = FirstStageConfig(
    resolution=64,
    channels=64,
    multipliers=(1,),
    res_blocks=1,
    attention_resolutions=(),
    latent_channels=32,
    code_dim=8,
    codebook_size=16,
    fold=8,
    unit_codes=True,
    encoder="cells",
    shrink=2,
    decoder="patterns",
    colours=3,
    patterns=4,
)


def one_by_one(decoder: PatternDecoder, features: Tensor) -> Tensor:
    """Pixels of features [1, C, h, w], each by itself."""
    mix, colour = decoder.mix(features)[0], decoder.colour(features)
    cell, tile = decoder.cell, decoder.tile
    colours = F.interpolate(colour, scale_factor=cell // tile, mode="bilinear", align_corners=False)[0]
    height, width = features.shape[2:]
    image = torch.empty(3, height * cell, width * cell)
    for y in range(height * cell):
        for x in range(width * cell):
            row, column = y // cell, x // cell
            ty, py, tx, px = y % cell // tile, y % tile, x % cell // tile, x % tile
            place = ((ty * (cell // tile) + tx) * tile + py) * tile + px
            patterns = torch.cat([decoder.shared[:, place], decoder.own[row, column, :, place]])
            weights = mix[:, row, column].view(decoder.colours, SHARED + 4)
            masks = (GAIN * weights @ patterns).softmax(0)
            image[:, y, x] = colours[:, y // tile, x // tile].view(3, decoder.colours) @ masks
    return image


def test_pixels_are_colours_weighted_by_masks_of_patterns() -> None:
    torch.manual_seed(0)
    decoder = PatternDecoder(replace(CONFIG, resolution=32)).eval()
    caught: list[Tensor] = []
    decoder.colour.register_forward_hook(lambda _, inputs, __: caught.append(inputs[0]))
    with torch.no_grad():
        decoder.mix.weight.mul_(5)
        image = decoder(torch.randn(1, 32, 2, 2))
        torch.testing.assert_close(image[0], one_by_one(decoder, caught[0]), rtol=1e-4, atol=1e-4)


def test_a_mask_far_above_the_others_gives_one_plain_colour() -> None:
    torch.manual_seed(0)
    decoder = PatternDecoder(CONFIG).eval()
    with torch.no_grad():
        decoder.mix.weight.zero_()
        decoder.mix.bias.zero_()
        decoder.mix.bias[SHARED + 4] = 100.0  # of the second colour's masks
        decoder.shared[0] = 1.0
        decoder.colour.weight.zero_()
        image = decoder(torch.randn(1, 32, 4, 4))
    expected = decoder.colour.bias.detach().view(3, 3)[:, 1, None, None].expand(3, 64, 64)
    torch.testing.assert_close(image[0], expected)


def test_a_position_changes_the_picture_of_the_same_code() -> None:
    torch.manual_seed(0)
    model = FirstStage(CONFIG).eval()
    with torch.no_grad():
        image = model.decode(torch.zeros(1, 16, dtype=torch.long))
    assert image.shape == (1, 3, 64, 64) and image.isfinite().all()
    middle = image[..., 16:48, 16:48]
    assert not torch.allclose(middle[..., :16, :16], middle[..., 16:, 16:], atol=1e-3)


def test_grids_of_other_sizes_have_their_patterns_enlarged() -> None:
    torch.manual_seed(0)
    model = FirstStage(CONFIG).eval()
    with torch.no_grad():
        wide = model.decode(torch.randint(16, (2, 15)), rows=3)
        assert wide.shape == (2, 3, 48, 80) and wide.isfinite().all()
        decoder = model.decoder
        assert isinstance(decoder, PatternDecoder)
        decoder.own.copy_(torch.randn(4).view(1, 1, 4, 1).expand_as(decoder.own))  # enlarged, these stay what they are
        torch.testing.assert_close(decoder._patterns(3, 5), decoder.own[0, 0].expand(15, 4, 256))


def test_tokens_are_those_of_the_picture_made_smaller() -> None:
    torch.manual_seed(0)
    large, small = FirstStage(CONFIG), FirstStage(replace(CONFIG, resolution=32, shrink=1, decoder="convolutions"))
    assert (large.config.downsampling, small.config.downsampling) == (16, 8)
    parts = ("encoder", "quant_conv", "quantize")
    for name in parts:
        getattr(large, name).load_state_dict(getattr(small, name).state_dict())
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(large.latents(images), small.latents(F.avg_pool2d(images, 2)))
    assert torch.equal(large.encode(images), small.encode(F.avg_pool2d(images, 2)))


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="shrink is 2 with an encoder of convolutions"):
        replace(CONFIG, encoder="convolutions")
    with pytest.raises(ValueError, match="shrink is 2 .* a decoder of convolutions"):
        replace(CONFIG, decoder="convolutions")
    with pytest.raises(ValueError, match="shrink is 0"):
        replace(CONFIG, shrink=0)
    with pytest.raises(ValueError, match="decoder is 'paint'"):
        replace(CONFIG, decoder="paint")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="48 channels"):
        PatternDecoder(replace(CONFIG, channels=48))
    with pytest.raises(ValueError, match="colours is 0"):
        replace(CONFIG, colours=0)
