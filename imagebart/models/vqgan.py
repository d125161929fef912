"""The first stage: a VQGAN that turns pixels into tokens and back.

Esser, Rombach, Ommer: Taming Transformers for High-Resolution Image Synthesis (2021), section 3.1.
The convolutional encoder and decoder are those of the published checkpoints, parameter names included. Our own models
use an encoder that sees one patch at a time (`PatchEncoder`) and a decoder of flat layers (`LayeredDecoder`).
"""

import math
from collections import OrderedDict
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from imagebart.core.settings import Factor, Settings, Vocabulary, Width

Levels = Annotated[tuple[Factor, ...], Field(max_length=8)]


class FirstStageConfig(Settings):
    """Shape of a first stage. The defaults are those of the published FFHQ model (f = 16)."""

    resolution: Width = 256  # width and height in pixels of the images
    channels: Width = 128  # width of the finest level
    multipliers: Levels = (1, 1, 2, 2, 4)  # width of each level, finest first, over `channels`
    res_blocks: Factor = 2  # residual blocks a level (the decoder has one more)
    attention_resolutions: tuple[Width, ...] = (16,)  # levels with self-attention, by their width
    latent_channels: Width = 256
    code_dim: Width = 256
    codebook_size: Vocabulary = 1024  # entries stored
    used_codes: Vocabulary | None = None  # entries in use, where only some are: tokens count these
    pixel_unshuffle: Factor = 1  # squares of this many pixels a side become channels before the first convolution
    unit_codes: bool = False  # latents and codes lie on the unit sphere
    encoder: Literal["convolutions", "patch"] = "convolutions"  # patch: `PatchEncoder`
    downscale: Factor = 1  # of "patch" and "layered": they encode and decode the image this much smaller
    # layered: `LayeredDecoder`, with the following; alpha: `AlphaDecoder`
    decoder: Literal["convolutions", "layered", "alpha"] = "convolutions"
    layers: Annotated[int, Field(ge=2, le=64)] = 8  # that a pixel is a mixture of: the decoded image and flat colors
    patterns: Width = 16  # of each patch's own, which masks are made of

    @model_validator(mode="after")
    def _check(self) -> "FirstStageConfig":
        if self.downscale > 1 and (self.encoder, self.decoder) != ("patch", "layered"):
            raise ValueError(f"downscale is {self.downscale}; more than 1 needs encoder 'patch' and decoder 'layered'")
        return self

    @property
    def downsampling(self) -> int:
        """f: pixels along one side of a token's patch."""
        return self.downscale * self.pixel_unshuffle * 2 ** (len(self.multipliers) - 1)

    @property
    def side(self) -> int:
        """Tokens along one side of an image."""
        return self.resolution // self.downsampling

    @property
    def tokens(self) -> int:
        """N: tokens of an image."""
        return self.side**2

    @property
    def vocab_size(self) -> int:
        """K: number of different tokens."""
        return self.codebook_size if self.used_codes is None else self.used_codes

    @property
    def draws_layers(self) -> bool:
        """Whether tokens stand for a layer that is laid on an image, not for the image."""
        return self.decoder == "alpha"

    @property
    def levels(self) -> list[tuple[int, bool]]:
        """Channels of each level, finest first, and whether it has attention."""
        size = self.resolution // self.pixel_unshuffle
        return [(self.channels * m, size // 2**i in self.attention_resolutions) for i, m in enumerate(self.multipliers)]


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, [B], of images or parts of them [B, ...] in [-1, 1]; at most 100."""
    return -10 * ((x - y).square().flatten(1).mean(1) / 4).clamp_min(1e-10).log10()


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResBlock(nn.Module):
    """Two normalized 3 x 3 convolutions around a shortcut: [B, C, H, W] -> [B, C', H, W]."""

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
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (rearrange(layer(h), "b c h w -> b 1 (h w) c") for layer in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(out, "b 1 (h w) c -> b c h w", h=x.shape[2]))


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


def middle(channels: int) -> nn.Sequential:
    blocks = (ResBlock(channels, channels), AttentionBlock(channels), ResBlock(channels, channels))
    return nn.Sequential(OrderedDict(zip(("block_1", "attn_1", "block_2"), blocks, strict=True)))


class Encoder(nn.Module):
    """Pixels [B, 3, H, W] to latents [B, latent_channels, H/f, W/f]."""

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        self.pixel_unshuffle = nn.PixelUnshuffle(config.pixel_unshuffle)
        self.conv_in = nn.Conv2d(3 * config.pixel_unshuffle**2, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        width = config.channels
        for i, (channels, attention) in enumerate(config.levels):
            level = Level(width, channels, config.res_blocks, attention)
            if i < len(config.levels) - 1:
                pad = nn.ZeroPad2d((0, 1, 0, 1))  # right and bottom only, as the published weights expect
                conv = nn.Conv2d(channels, channels, 3, stride=2)
                level.downsample = nn.Sequential(OrderedDict(pad=pad, conv=conv))
            self.down.append(level)
            width = channels
        self.mid = middle(width)
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(self.pixel_unshuffle(x))
        for level in self.down:
            x = level(x)
            x = level.get_submodule("downsample")(x) if hasattr(level, "downsample") else x
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class PatchEncoder(nn.Module):
    """Pixels [B, 3, H, W] to latents [B, latent_channels, H/f, W/f], each from the f x f pixels of its own patch.

    So a token says nothing of other patches: those that a mask keeps cannot reveal what was painted over. With
    `downscale` over 1 it encodes the image made that much smaller, by averaging.
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
        patches = rearrange(self.pixel_unshuffle(F.avg_pool2d(x, self.downscale)), "b c h w -> b h w c")
        return rearrange(self.layers(patches), "b h w c -> b c h w")


class Decoder(nn.Module):
    """Latents [B, latent_channels, h, w] to pixels [B, 3, h f, w f]."""

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        width = config.levels[-1][0]
        self.conv_in = nn.Conv2d(config.latent_channels, width, 3, padding=1)
        self.mid = middle(width)
        self.up = nn.ModuleList()  # finest first, as in the encoder; run from the coarsest
        for i, (channels, attention) in reversed(list(enumerate(config.levels))):
            level = Level(width, channels, config.res_blocks + 1, attention)
            if i > 0:
                conv = nn.Conv2d(channels, channels, 3, padding=1)
                level.upsample = nn.Sequential(OrderedDict(enlarge=nn.Upsample(scale_factor=2.0), conv=conv))
            self.up.insert(0, level)
            width = channels
        self.norm_out = group_norm(width)
        self.conv_out = nn.Conv2d(width, 3 * config.pixel_unshuffle**2, 3, padding=1)
        self.pixel_shuffle = nn.PixelShuffle(config.pixel_unshuffle)

    def forward(self, z: Tensor) -> Tensor:
        return self.fine(self.coarse(z))

    def coarse(self, z: Tensor) -> Tensor:
        """Latents to features of the same resolution, [B, C, h, w]."""
        return self.up[-1](self.mid(self.conv_in(z)))

    def fine(self, x: Tensor) -> Tensor:
        """Those features to pixels."""
        for level, finer in pairwise(reversed(self.up)):
            x = finer(level.get_submodule("upsample")(x))
        return self.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))))


NOTHING = 0  # the token of patches without any opacity
LAYER_CHANNELS = 5  # color times opacity (3), opacity, and how much of it takes a color that is asked for


class AlphaDecoder(nn.Module):
    """Codes [B, code_dim, h, w] to a layer [B, LAYER_CHANNELS, h f, w f], each channel in [0, 1] before rounding.

    A code says what its patch looks like, by a linear map. Convolutions see it with its neighbors, at the codes'
    resolution and at that of the encoder's finest level, and add what the map leaves out.
    """

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        fine, coarse = (config.channels * multiplier for multiplier in (config.multipliers[0], config.multipliers[-1]))
        self.patch_size, self.unshuffle = config.downsampling, config.pixel_unshuffle
        self.enlarge = self.patch_size // self.unshuffle
        pixels = LAYER_CHANNELS * self.unshuffle**2
        self.patch = nn.Conv2d(config.code_dim, LAYER_CHANNELS * self.patch_size**2, 1)
        self.conv_in = nn.Conv2d(config.code_dim, coarse, 3, padding=1)
        self.coarse = Level(coarse, coarse, config.res_blocks + 1, attention=False)
        self.expand = nn.Conv2d(coarse, fine // 2 * self.enlarge**2, 1)
        self.join = nn.Conv2d(fine // 2 + pixels, fine, 3, padding=1)
        self.fine = Level(fine, fine, config.res_blocks, attention=False)
        self.norm_out = group_norm(fine)
        self.conv_out = nn.Conv2d(fine, pixels, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, codes: Tensor) -> Tensor:
        patches = F.pixel_shuffle(self.patch(codes), self.patch_size)
        context = F.pixel_shuffle(self.expand(self.coarse(self.conv_in(codes))), self.enlarge)
        seen = torch.cat([context, F.pixel_unshuffle(patches, self.unshuffle)], 1)
        features = self.fine(self.join(seen))
        return patches + F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(features))), self.unshuffle)


SHARED = 32  # patterns that all patches have in common
GAIN = 8.0  # patterns are stored this much smaller, which suits the steps of an optimizer
INITIAL_LOGIT = 2.0  # of the lowest layer, everywhere


class LayeredDecoder(Decoder):
    """Latents [B, latent_channels, h, w] to pixels [B, 3, h f, w f], each a mixture of layers: for flat artwork.

    The lowest layer is the output of a `Decoder` of images `downscale` times smaller, enlarged. The others are flat
    colors, one a patch. Their weights are the softmax over masks, which each patch mixes from patterns, some of all
    patches and some of its own: where one mask is far above the others the image is flat, and where two cross it has an
    edge as sharp as a pixel. Nearly all work is done at the resolution of the tokens.
    """

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__(config)
        width, side = config.channels * config.multipliers[-1], config.side
        self.patch_size, self.layers, self.downscale = config.downsampling, config.layers, config.downscale
        self.position = nn.Parameter(torch.zeros(width, side, side))
        self.norm = group_norm(width)
        self.colour = nn.Conv2d(width, 3 * (config.layers - 1), 3, padding=1)
        self.mix = nn.Conv2d(width, config.layers * (SHARED + config.patterns), 1)
        nn.init.normal_(self.mix.weight, std=0.5 / math.sqrt(width * (SHARED + config.patterns)))
        self.plain = nn.Parameter(torch.tensor([INITIAL_LOGIT] + [0.0] * (config.layers - 1)))
        self.shared = nn.Parameter(torch.empty(SHARED, self.patch_size**2))
        self.own = nn.Parameter(torch.empty(side, side, config.patterns, self.patch_size**2))
        for patterns in (self.shared, self.own):
            nn.init.normal_(patterns, std=1 / GAIN)

    def forward(self, z: Tensor) -> Tensor:
        coarse = self.coarse(z)
        features = F.silu(self.norm(coarse))
        masks = self._masks(features).softmax(2)
        colors = rearrange(self.colour(features).float(), "b (c m) h w -> (h w) b c m", c=3)
        base = self.fine(coarse).float()
        if self.downscale > 1:
            base = F.interpolate(base, scale_factor=float(self.downscale), mode="bilinear", align_corners=False)
        return self._image(colors @ masks[:, :, 1:]) + self._image(masks[:, :, :1]) * base

    def coarse(self, z: Tensor) -> Tensor:
        return self.up[-1](self.mid(self.conv_in(z) + self.position))

    def _masks(self, features: Tensor) -> Tensor:
        """Features [B, C, h, w] -> logits [h w, B, layers, f f]."""
        mix = rearrange(self.mix(features), "b (m k) h w -> (h w) (b m) k", m=self.layers)
        shared, own = mix.split([SHARED, mix.shape[2] - SHARED], 2)
        logits = shared @ self.shared + own @ self.own.flatten(0, 1)
        return rearrange(GAIN * logits.float(), "n (b m) p -> n b m p", m=self.layers) + self.plain.float()[:, None]

    def _image(self, patches: Tensor) -> Tensor:
        """[h w, B, C, f f] -> [B, C, h f, w f]"""
        side = self.own.shape[1]
        return rearrange(patches, "(h w) b c (y x) -> b c (h y) (w x)", w=side, y=self.patch_size)


class Quantizer(nn.Module):
    """The codebook: maps each latent to its nearest entry (Taming Transformers, eq. 2).

    `used` lists the stored entries that are in use, ascending; token i stands for entry used[i]. A latent whose nearest
    entry is not in use becomes the nearest that is; the original takes a random one.
    """

    used: Tensor

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codebook_size, config.code_dim)
        nn.init.uniform_(self.embedding.weight, -1 / config.codebook_size, 1 / config.codebook_size)
        self.register_buffer("used", torch.arange(config.vocab_size))
        self.unit_codes = config.unit_codes

    def project(self, z: Tensor) -> Tensor:
        """Latents on the unit sphere, where codes lie there."""
        return F.normalize(z, dim=-1) if self.unit_codes else z

    def codes(self) -> Tensor:
        """Entries in use, [K, code_dim]."""
        return self.project(self.embedding.weight[self.used])

    def tokens(self, z: Tensor) -> Tensor:
        """Latents [..., code_dim] -> nearest tokens, int64 [...]."""
        with torch.autocast(z.device.type, enabled=False):
            codes = self.codes().float()
            z = self.project(z.float())
            distances = codes.square().sum(-1) - 2 * z @ codes.T  # |z|^2 is the same for all codes
        return distances.argmin(-1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Straight-through quantization: latents [..., d] -> (codes [..., d] with z's gradient, tokens [...])."""
        tokens = self.tokens(z)
        z = self.project(z)
        return z + (self.codes()[tokens] - z).detach(), tokens


class FirstStage(nn.Module):
    """A VQGAN. Images are float in [-1, 1]; tokens are int64 in raster order."""

    def __init__(self, config: FirstStageConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config) if config.encoder == "convolutions" else PatchEncoder(config)
        self.decoder: Decoder | AlphaDecoder
        if config.decoder == "convolutions":
            self.decoder = Decoder(config)
        else:
            self.decoder = LayeredDecoder(config) if config.decoder == "layered" else AlphaDecoder(config)
        self.quantize = Quantizer(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.code_dim, 1)
        if not config.draws_layers:
            self.post_quant_conv = nn.Conv2d(config.code_dim, config.latent_channels, 1)

    def latents(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> latents before quantizing, [B, H/f, W/f, code_dim]."""
        images = images.to(self.quantize.embedding.weight.dtype)
        with torch.autocast(images.device.type, enabled=False):  # in bfloat16, one token in sixty would be another
            return rearrange(self.quant_conv(self.encoder(images)), "b d h w -> b h w d")

    def pixels(self, codes: Tensor, tokens: Tensor) -> Tensor:
        """Codes [B, h, w, code_dim] of tokens [B, h, w] -> images [B, 3, h f, w f], not clamped; or layers."""
        if self.config.draws_layers:
            there = F.interpolate((tokens != NOTHING)[:, None].to(codes.dtype), scale_factor=self.config.downsampling)
            return self.decoder(rearrange(codes, "b h w d -> b d h w")) * there
        return self.decoder(self.post_quant_conv(rearrange(codes, "b h w d -> b d h w")))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For training: images -> (reconstruction [B, 3, H, W], latents [B, h, w, code_dim], tokens [B, h, w])."""
        z = self.latents(images)
        codes, tokens = self.quantize(z)
        return self.pixels(codes, tokens), z, tokens

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> tokens int64 [B, N], N = (H/f) (W/f)."""
        return self.quantize.tokens(self.latents(images)).flatten(1)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [B, N] of square images -> images [B, 3, H, W], about [-1, 1]; or layers, see `AlphaDecoder`."""
        grid = rearrange(tokens, "b (h w) -> b h w", h=math.isqrt(tokens.shape[1]))
        return self.pixels(self.quantize.codes()[grid], grid)
