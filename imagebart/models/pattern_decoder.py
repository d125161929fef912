"""A decoder whose pictures are sharp and plain where they should be, and that knows what stands where.

The convolutions of `Decoder` draw a picture pixel by pixel. Over it every cell lays a few plain colours, through masks
that it mixes from patterns: some that all cells have in common, some of its own. A pixel is the mean of all layers,
weighted by the softmax over their masks: where one is far above the others the picture is flat, and where two cross,
it has an edge as sharp as a pixel.

What stands at the same place in every picture, as in portraits that are aligned, so has its outline in the weights;
tokens only have to tell which one it is. Nearly all work is done at the resolution of the tokens.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from imagebart.models.autoencoder import Decoder, FirstStageConfig, group_norm

SHARED = 32  # patterns that all cells have in common
GAIN = 8.0  # patterns are stored this much smaller, which suits the steps of an optimiser
BEGIN = 2.0  # the lowest layer's logit everywhere, to begin with


class PatternDecoder(Decoder):
    """Latents [B, latent_channels, h, w] to pixels [B, 3, h f, w f].

    Has the weights of a `Decoder` of pictures `shrink` times smaller; what that draws is enlarged for the lowest layer.
    """

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__(config)
        width, side = config.channels * config.multipliers[-1], config.side
        self.cell, self.layers, self.shrink = config.downsampling, config.layers, config.shrink
        self.position = nn.Parameter(torch.zeros(width, side, side))
        self.norm = group_norm(width)
        self.colour = nn.Conv2d(width, 3 * (config.layers - 1), 3, padding=1)
        self.mix = nn.Conv2d(width, config.layers * (SHARED + config.patterns), 1)
        nn.init.normal_(self.mix.weight, std=0.5 / math.sqrt(width * (SHARED + config.patterns)))
        self.plain = nn.Parameter(torch.tensor([BEGIN] + [0.0] * (config.layers - 1)))
        self.shared = nn.Parameter(torch.empty(SHARED, self.cell**2))
        self.own = nn.Parameter(torch.empty(side, side, config.patterns, self.cell**2))
        for patterns in (self.shared, self.own):
            nn.init.normal_(patterns, std=1 / GAIN)

    def forward(self, z: Tensor) -> Tensor:
        coarse = self.coarse(z)
        features = F.silu(self.norm(coarse))
        masks = self._masks(features).softmax(2)
        colours = rearrange(self.colour(features).float(), "b (c m) h w -> (h w) b c m", c=3)
        drawn = self.fine(coarse).float()
        if self.shrink > 1:
            drawn = F.interpolate(drawn, scale_factor=float(self.shrink), mode="bilinear", align_corners=False)
        return self._image(colours @ masks[:, :, 1:], z.shape[3]) + self._image(masks[:, :, :1], z.shape[3]) * drawn

    def enter(self, z: Tensor) -> Tensor:
        return super().enter(z) + _enlarged(self.position, *z.shape[2:])

    def _masks(self, features: Tensor) -> Tensor:
        """Features [B, C, h, w] -> logits [h w, B, layers, f f]."""
        mix = rearrange(self.mix(features), "b (m k) h w -> (h w) (b m) k", m=self.layers)
        shared, own = mix.split([SHARED, mix.shape[2] - SHARED], 2)
        logits = shared @ self.shared + own @ self._patterns(*features.shape[2:])
        return rearrange(GAIN * logits.float(), "n (b m) p -> n b m p", m=self.layers) + self.plain[:, None]

    def _patterns(self, height: int, width: int) -> Tensor:
        """The cells' own patterns, [h w, patterns, f f]; enlarged where the grid is not the one of training."""
        if self.own.shape[:2] == (height, width):
            return self.own.flatten(0, 1)
        whole = rearrange(self.own, "h w k (y x) -> k (h y) (w x)", y=self.cell)
        image = _enlarged(whole, height * self.cell, width * self.cell)
        return rearrange(image, "k (h y) (w x) -> (h w) k (y x)", y=self.cell, x=self.cell)

    def _image(self, cells: Tensor, width: int) -> Tensor:
        """[h w, B, C, f f] -> [B, C, h f, w f]"""
        return rearrange(cells, "(h w) b c (y x) -> b c (h y) (w x)", w=width, y=self.cell)


def _enlarged(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps [C, h, w] at another size; themselves where it is their own."""
    if maps.shape[1:] == (height, width):
        return maps
    return F.interpolate(maps[None], size=(height, width), mode="bilinear", align_corners=False)[0]
