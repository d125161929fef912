"""The networks of a first stage: pixels to latents, and latents to pixels.

Esser, Rombach, Ommer: Taming Transformers for High-Resolution Image Synthesis (2021), section 3.1. Parameter names are
those of the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from imagebart.config import Factor, Vocabulary, Width

Levels = Annotated[tuple[Factor, ...], Field(max_length=8)]
Layers = Annotated[int, Field(ge=2, le=64)]


@dataclass(frozen=True)
class FirstStageConfig:
    """Shape of a first stage. The defaults are those of the published FFHQ model (f = 16)."""

    resolution: Width = 256  # nominal width and height in pixels; other multiples of f work too
    channels: Width = 128  # width of the finest level
    multipliers: Levels = (1, 1, 2, 2, 4)  # width of each level, finest first, over `channels`
    res_blocks: Factor = 2  # residual blocks a level (the decoder has one more)
    attention_resolutions: tuple[Width, ...] = (16,)  # levels with self-attention, by their nominal width
    latent_channels: Width = 256
    code_dim: Width = 256
    codebook_size: Vocabulary = 1024  # entries stored
    used_codes: Vocabulary | None = None  # entries in use, where only some are: tokens count these
    fold: Factor = 1  # squares of fold x fold pixels become channels before the first convolution
    unit_codes: bool = False  # latents and codes lie on the unit sphere
    encoder: Literal["convolutions", "cells"] = "convolutions"  # what a token sees: all around it, or its cell alone
    shrink: Factor = 1  # the encoder of cells sees the means of squares of shrink x shrink pixels
    decoder: Literal["convolutions", "patterns"] = "convolutions"  # patterns: see `PatternDecoder`, which has
    layers: Layers = 8  # that a pixel is mixed of: a picture, and plain colours
    patterns: Width = 16  # that a cell has of its own

    def __post_init__(self) -> None:
        if self.shrink > 1 and (self.encoder, self.decoder) != ("cells", "patterns"):
            raise ValueError(
                f"shrink is {self.shrink} with an encoder of {self.encoder} and a decoder of {self.decoder}; "
                "only cells and patterns can do with more than 1"
            )

    @property
    def downsampling(self) -> int:
        """f: pixels along one side of a token's cell."""
        return self.shrink * self.fold * 2 ** (len(self.multipliers) - 1)

    @property
    def side(self) -> int:
        """Tokens along one side of a picture of the nominal size."""
        return self.resolution // self.downsampling

    @property
    def tokens(self) -> int:
        """N: tokens of such a picture."""
        return self.side**2

    @property
    def vocab_size(self) -> int:
        """K: number of different tokens."""
        return self.codebook_size if self.used_codes is None else self.used_codes


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResBlock(nn.Module):
    """Two normalised 3 x 3 convolutions around a shortcut: [B, C, H, W] -> [B, C', H, W]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions: [B, C, H, W] -> [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (rearrange(layer(h), "b c h w -> b 1 (h w) c") for layer in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(out, "b 1 (h w) c -> b c h w", h=x.shape[2]))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # right and bottom only, as the published weights expect


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """One resolution: residual blocks, each followed by attention where the level has it."""

    def __init__(self, channels_in: int, channels: int, blocks: int, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResBlock(channels_in if i == 0 else channels, channels) for i in range(blocks))
        self.attn = nn.ModuleList(AttentionBlock(channels) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return x


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


def _level_widths(config: FirstStageConfig) -> list[tuple[int, bool]]:
    """Channels of each level, finest first, and whether it has attention."""
    finest = config.resolution // config.fold
    return [
        (config.channels * m, finest // 2**i in config.attention_resolutions) for i, m in enumerate(config.multipliers)
    ]


class Encoder(nn.Module):
    """Pixels [B, 3, H, W] to latents [B, latent_channels, H/f, W/f]."""

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        self.fold = nn.PixelUnshuffle(config.fold)
        self.conv_in = nn.Conv2d(3 * config.fold**2, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        width = config.channels
        levels = _level_widths(config)
        for i, (channels, attention) in enumerate(levels):
            level = Level(width, channels, config.res_blocks, attention)
            if i < len(levels) - 1:
                level.downsample = Downsample(channels)
            self.down.append(level)
            width = channels
        self.mid = Middle(width)
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(self.fold(x))
        for level in self.down:
            x = level(x)
            resample = getattr(level, "downsample", None)
            x = x if resample is None else resample(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class CellEncoder(nn.Module):
    """Pixels [B, 3, H, W] to latents [B, latent_channels, H/f, W/f], each from the f x f pixels of its own cell.

    With `shrink` over 1, from the means of squares of so many pixels: as from the picture made that much smaller.

    So a token says nothing of other cells: those that a mask keeps cannot betray what was painted over, and they
    are a simple function of the picture, which stages learn sooner.
    """

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        width = 2 * config.latent_channels
        side = config.downsampling // config.shrink
        self.shrink = config.shrink
        self.fold = nn.PixelUnshuffle(side)
        self.layers = nn.Sequential(
            nn.Linear(3 * side**2, width),
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Linear(width, config.latent_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.shrink > 1:
            x = F.avg_pool2d(x, self.shrink)
        cells = rearrange(self.fold(x), "b c h w -> b h w c")
        return rearrange(self.layers(cells), "b h w c -> b c h w")


class Decoder(nn.Module):
    """Latents [B, latent_channels, h, w] to pixels [B, 3, h f, w f]."""

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        levels = _level_widths(config)
        width = levels[-1][0]
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.mid = Middle(width)
        ups: list[nn.Module] = []
        for i, (channels, attention) in reversed(list(enumerate(levels))):
            level = Level(width, channels, config.res_blocks + 1, attention)
            if i > 0:
                level.upsample = Upsample(channels)
            ups.insert(0, level)
            width = channels
        self.up = nn.ModuleList(ups)  # finest first, as in the encoder; run from the coarsest
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, 3 * config.fold**2, 3, padding=1)
        self.unfold = nn.PixelShuffle(config.fold)

    def forward(self, z: Tensor) -> Tensor:
        return self.fine(self.coarse(z))

    def enter(self, z: Tensor) -> Tensor:
        """Latents to the trunk's channels, [B, C, h, w]."""
        return self.conv_in(z)

    def coarse(self, z: Tensor) -> Tensor:
        """Latents to features at their own resolution, [B, C, h, w]."""
        x: Tensor = self.up[-1](self.mid(self.enter(z)))
        return x

    def fine(self, x: Tensor) -> Tensor:
        """Those features to pixels."""
        for level, finer in pairwise(reversed(self.up)):
            x = finer(level.get_submodule("upsample")(x))
        return self.unfold(self.conv_out(F.silu(self.norm_out(x))))
