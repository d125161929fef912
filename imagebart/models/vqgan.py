"""The networks of a first stage: pixels to latents, and latents to pixels.

Esser, Rombach, Ommer: Taming Transformers for High-Resolution Image Synthesis (2021), section 3.1. Parameter names are
those of the published checkpoints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
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
    pixel_unshuffle: Factor = 1  # squares of so many pixels a side become channels before the first convolution
    unit_codes: bool = False  # latents and codes lie on the unit sphere
    encoder: Literal["convolutions", "patch"] = "convolutions"  # what a token sees: all around it, or its patch alone
    downscale: Factor = 1  # "patch" sees the means of squares of downscale x downscale pixels
    decoder: Literal["convolutions", "layered"] = "convolutions"  # layered: see `LayeredDecoder`, which has
    layers: Layers = 8  # that a pixel is mixed of: a picture, and plain colours
    patterns: Width = 16  # that a cell has of its own

    def __post_init__(self) -> None:
        if self.downscale > 1 and (self.encoder, self.decoder) != ("patch", "layered"):
            raise ValueError(
                f"downscale is {self.downscale} with encoder {self.encoder!r} and decoder {self.decoder!r}; "
                "more than 1 needs 'patch' and 'layered'"
            )

    @property
    def downsampling(self) -> int:
        """f: pixels along one side of a token's cell."""
        return self.downscale * self.pixel_unshuffle * 2 ** (len(self.multipliers) - 1)

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


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, [B], of images or parts of them [B, ...] in [-1, 1]; at most 100."""
    return -10 * ((x - y).square().flatten(1).mean(1) / 4).clamp_min(1e-10).log10()


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
    finest = config.resolution // config.pixel_unshuffle
    return [
        (config.channels * m, finest // 2**i in config.attention_resolutions) for i, m in enumerate(config.multipliers)
    ]


class Encoder(nn.Module):
    """Pixels [B, 3, H, W] to latents [B, latent_channels, H/f, W/f]."""

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        self.pixel_unshuffle = nn.PixelUnshuffle(config.pixel_unshuffle)
        self.conv_in = nn.Conv2d(3 * config.pixel_unshuffle**2, config.channels, 3, padding=1)
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
        x = self.conv_in(self.pixel_unshuffle(x))
        for level in self.down:
            x = level(x)
            resample = getattr(level, "downsample", None)
            x = x if resample is None else resample(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class PatchEncoder(nn.Module):
    """Pixels [B, 3, H, W] to latents [B, latent_channels, H/f, W/f], each from the f x f pixels of its own cell.

    With `downscale` over 1, from the means of squares of so many pixels: as from the picture made that much smaller.

    So a token says nothing of other cells: those that a mask keeps cannot betray what was painted over, and they
    are a simple function of the picture, which stages learn sooner.
    """

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        width = 2 * config.latent_channels
        side = config.downsampling // config.downscale
        self.downscale = config.downscale
        self.pixel_unshuffle = nn.PixelUnshuffle(side)
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
        if self.downscale > 1:
            x = F.avg_pool2d(x, self.downscale)
        cells = rearrange(self.pixel_unshuffle(x), "b c h w -> b h w c")
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
        self.conv_out = nn.Conv2d(width, 3 * config.pixel_unshuffle**2, 3, padding=1)
        self.unfold = nn.PixelShuffle(config.pixel_unshuffle)

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


# A decoder whose pictures are sharp and plain where they should be, and that knows what stands where.
#
# The convolutions of `Decoder` draw a picture pixel by pixel. Over it every cell lays a few plain colours, through
# masks
# that it mixes from patterns: some that all cells have in common, some of its own. A pixel is the mean of all layers,
# weighted by the softmax over their masks: where one is far above the others the picture is flat, and where two cross,
# it has an edge as sharp as a pixel.
#
# What stands at the same place in every picture, as in portraits that are aligned, so has its outline in the weights;
# tokens only have to tell which one it is. Nearly all work is done at the resolution of the tokens.


SHARED = 32  # patterns that all cells have in common
GAIN = 8.0  # patterns are stored this much smaller, which suits the steps of an optimiser
BEGIN = 2.0  # the lowest layer's logit everywhere, to begin with


class LayeredDecoder(Decoder):
    """Latents [B, latent_channels, h, w] to pixels [B, 3, h f, w f].

    Has the weights of a `Decoder` of images `downscale` times smaller, whose output, enlarged, is the lowest layer.
    """

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__(config)
        width, side = config.channels * config.multipliers[-1], config.side
        self.cell, self.layers, self.downscale = config.downsampling, config.layers, config.downscale
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
        if self.downscale > 1:
            drawn = F.interpolate(drawn, scale_factor=float(self.downscale), mode="bilinear", align_corners=False)
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


# The first stage: a VQGAN that turns pixels into tokens and back.
#
# Esser, Rombach, Ommer: Taming Transformers for High-Resolution Image Synthesis (2021), section 3.1; it is the
# first stage of ImageBART (section 3.1 there). Parameter names are those of the published checkpoints.


__all__ = ["FirstStage", "FirstStageConfig", "Quantizer"]


class Quantizer(nn.Module):
    """The codebook: maps each latent to its nearest entry (Taming Transformers, eq. 2).

    `used` lists the stored entries that are in use, ascending; token i stands for entry used[i]. The original
    replaces a latent whose nearest entry is not in the list by a random token; here it becomes the nearest
    entry in use, which is one of the original's possible outcomes and always the same one.
    """

    used: Tensor

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codebook_size, config.code_dim)
        nn.init.uniform_(self.embedding.weight, -1 / config.codebook_size, 1 / config.codebook_size)
        self.register_buffer("used", torch.arange(config.vocab_size))
        self.unit_codes = config.unit_codes

    def project(self, z: Tensor) -> Tensor:
        """Where latents live: the unit sphere, or all of space."""
        return F.normalize(z, dim=-1) if self.unit_codes else z

    def codes(self) -> Tensor:
        """Entries in use, [K, code_dim]."""
        return self.project(self.embedding.weight[self.used])

    def tokens(self, z: Tensor) -> Tensor:
        """Latents [..., code_dim] -> nearest tokens, int64 [...]."""
        with torch.autocast(z.device.type, enabled=False):  # near ties need full precision
            codes = self.codes().float()
            z = self.project(z.float())
            distances = codes.square().sum(-1) - 2 * z @ codes.T  # |z|^2 is the same for all codes
        return distances.argmin(-1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Tokens [...] -> codes [..., code_dim]."""
        return self.codes()[tokens]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Straight-through quantisation: latents [..., d] -> (codes [..., d] with z's gradient, tokens [...])."""
        tokens = self.tokens(z)
        z = self.project(z)
        return z + (self.lookup(tokens) - z).detach(), tokens


class FirstStage(nn.Module):
    """A VQGAN. Images are float in [-1, 1]; tokens are int64 in raster order."""

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config) if config.encoder == "convolutions" else PatchEncoder(config)
        self.decoder = Decoder(config) if config.decoder == "convolutions" else LayeredDecoder(config)
        self.quantize = Quantizer(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.code_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.latent_channels, 1)

    def latents(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> latents before quantising, [B, H/f, W/f, code_dim].

        Raises ValueError where H or W is not a multiple of f.
        """
        f = self.config.downsampling
        if images.ndim != 4 or images.shape[1] != 3 or any(side < f or side % f for side in images.shape[2:]):
            raise ValueError(
                f"images have shape {tuple(images.shape)}, expected [B, 3, H, W] with H and W multiples of {f}"
            )
        return rearrange(self.quant_conv(self.encoder(images)), "b d h w -> b h w d")

    def pixels(self, codes: Tensor) -> Tensor:
        """Codes [B, h, w, code_dim] -> images [B, 3, h f, w f], not clamped."""
        return self.decoder(self.post_quant_conv(rearrange(codes, "b h w d -> b d h w")))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For training: images -> (reconstruction [B, 3, H, W], latents [B, h, w, code_dim], tokens [B, h, w])."""
        z = self.latents(images)
        codes, tokens = self.quantize(z)
        return self.pixels(codes), z, tokens

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> tokens int64 [B, N], N = (H/f) (W/f)."""
        return self.quantize.tokens(self.latents(images)).flatten(1)

    def decode(self, tokens: Tensor, rows: int | None = None) -> Tensor:
        """Tokens int64 [B, N] -> images [B, 3, H, W], about [-1, 1]; `rows` of tokens where not square.

        Raises ValueError where there are not that many equal rows, or a token is out of the codebook.
        """
        count = tokens.shape[1] if tokens.ndim == 2 else 0
        if count == 0:
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}, expected [B, N] with N over 0")
        square = rows is None
        rows = math.isqrt(count) if rows is None else rows
        if rows < 1 or count % rows or (square and rows != count // rows):
            expected = "as many columns as rows" if square else f"{rows} equal rows"
            raise ValueError(f"tokens have shape {tuple(tokens.shape)}, expected {expected}")
        if int(tokens.min()) < 0 or int(tokens.max()) >= self.config.vocab_size:
            raise ValueError(f"tokens must be in [0, {self.config.vocab_size}), the codebook in use")
        return self.pixels(self.quantize.lookup(rearrange(tokens, "b (h w) -> b h w", h=rows)))
