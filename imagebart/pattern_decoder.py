"""A decoder that draws areas of plain colour with sharp edges, from places that it knows.

Every cell of the grid of tokens chooses a few colours, and mixes masks for them out of patterns: some that all cells
have in common, some of its own. A pixel is the mean of the colours, weighted by the softmax over their masks: where
one mask is far above the others the picture is flat, and where two cross, it has an edge as sharp as a pixel.

What stands at the same place in every picture, as in portraits that are aligned, so has its outline in the weights;
tokens only have to tell which one it is. Nearly all work is done at the resolution of the tokens.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from imagebart.autoencoder import FirstStageConfig, Level, Middle, group_norm
from imagebart.models.transformer import Block, TransformerConfig

HEAD = 64  # channels of a head of attention
SHARED = 32  # patterns that all cells have in common
TILE = 4  # pixels a side that have the same colours to choose from
GAIN = 8.0  # patterns are stored this much smaller, which suits the steps of an optimiser


class Context(nn.Module):
    """A transformer over all positions, [B, C, h, w] -> [B, C, h, w]; the identity to begin with."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        config = TransformerConfig(
            width, depth, width // HEAD, vocab_in=1, positions=1, head_size=HEAD, causal=False
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(depth))
        for name, parameter in self.named_parameters():
            if name.endswith((".out.weight", ".down.weight", ".bias")):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        rows = rearrange(x, "b c h w -> b (h w) c")
        for block in self.blocks:
            rows = block(rows, None, False, None)
        return rearrange(rows, "b (h w) c -> b c h w", h=x.shape[2])


class PatternDecoder(nn.Module):
    """Latents [B, latent_channels, h, w] to pixels [B, 3, h f, w f]. What `Decoder` has, too, is named as there."""

    def __init__(self, config: FirstStageConfig) -> None:
        """Raises ValueError where the trunk's width is not a multiple of a head's."""
        super().__init__()
        width, side = config.channels * config.multipliers[-1], config.resolution // config.downsampling
        if width % HEAD:
            raise ValueError(f"a decoder of patterns has {width} channels, expected a multiple of {HEAD}")
        self.cell, self.colours = config.downsampling, config.colours
        self.tile = math.gcd(TILE, self.cell)
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(width, side, side))
        self.mid = Middle(width)
        self.context = Context(width, config.context)
        self.up = nn.ModuleList([Level(width, width, config.res_blocks, False)])
        self.norm_out = group_norm(width)
        self.colour = nn.Conv2d(width, 3 * config.colours, 1)
        self.mix = nn.Conv2d(width, config.colours * (SHARED + config.patterns), 1)
        self.shared = nn.Parameter(torch.randn(SHARED, self.cell**2) / GAIN)
        self.own = nn.Parameter(torch.randn(side, side, config.patterns, self.cell**2) / GAIN)
        nn.init.normal_(self.mix.weight, std=0.5 / math.sqrt(width * (SHARED + config.patterns)))

    def forward(self, z: Tensor) -> Tensor:
        height, width = z.shape[2:]
        x = self.conv_in(z) + _enlarged(self.position, height, width)
        x = F.silu(self.norm_out(self.up[0](self.context(self.mid(x)))))
        masks = rearrange(self._masks(x).softmax(2), "n b m (t p) -> n b t m p", p=self.tile**2)
        scale = self.cell // self.tile
        colours = F.interpolate(self.colour(x).float(), scale_factor=scale, mode="bilinear", align_corners=False)
        sizes = {"h": height, "w": width, "ty": scale, "tx": scale}
        colours = rearrange(colours, "b (c m) (h ty) (w tx) -> (h w) b (ty tx) c m", m=self.colours, ty=scale, tx=scale)
        return rearrange(
            colours @ masks, "(h w) b (ty tx) c (py px) -> b c (h ty py) (w tx px)", **sizes, py=self.tile
        )

    def _masks(self, x: Tensor) -> Tensor:
        """Features [B, C, h, w] -> logits [h w, B, colours, f f], the pixels of a cell tile by tile."""
        mix = rearrange(self.mix(x), "b (m k) h w -> (h w) (b m) k", m=self.colours)
        shared, own = mix.split([SHARED, mix.shape[2] - SHARED], 2)
        logits = shared @ self.shared + own @ self._patterns(*x.shape[2:])
        return rearrange(GAIN * logits.float(), "n (b m) p -> n b m p", m=self.colours)

    def _patterns(self, height: int, width: int) -> Tensor:
        """The cells' own patterns, [h w, patterns, f f]; enlarged where the grid is not the one of training."""
        if self.own.shape[:2] == (height, width):
            return self.own.flatten(0, 1)
        t = self.cell // self.tile
        inside = "(ty tx py px)"
        sizes = {"ty": t, "tx": t, "py": self.tile}
        image: Tensor = rearrange(self.own, f"h w k {inside} -> k (h ty py) (w tx px)", **sizes)
        image = _enlarged(image, height * self.cell, width * self.cell)
        return rearrange(image, f"k (h ty py) (w tx px) -> (h w) k {inside}", **sizes, px=self.tile)


def _enlarged(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps [C, h, w] at another size; themselves where it is their own."""
    if maps.shape[1:] == (height, width):
        return maps
    return F.interpolate(maps[None], size=(height, width), mode="bilinear", align_corners=False)[0]
