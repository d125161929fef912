"""The first stage: a VQGAN that turns pixels into tokens and back.

Esser, Rombach, Ommer: Taming Transformers for High-Resolution Image Synthesis (2021), section 3.1; it is the
first stage of ImageBART (section 3.1 there). Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from imagebart.autoencoder import CellEncoder, Decoder, Encoder, FirstStageConfig
from imagebart.pattern_decoder import PatternDecoder

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
        self.encoder = Encoder(config) if config.encoder == "convolutions" else CellEncoder(config)
        self.decoder = Decoder(config) if config.decoder == "convolutions" else PatternDecoder(config)
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
