"""One network for every noise rate: p(x_0 | x_t), told of each token how noisy it is.

ImageBART (Esser et al. 2021) trains a transformer for each step of the diffusion (section 3.2). Here one
encoder-decoder serves them all. Its encoder sees all tokens, each with its own noise rate, the chance that a uniform
draw stands in its place: 0 where a mask keeps it. So it knows what is kept on every side from the first step on, and
any rates can be stepped through, in any number of steps. It predicts x_0; the step to x_s then follows from the
diffusion (`imagebart.diffusion.reverse_step`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.config import Glances, Length, Vocabulary
from imagebart.diffusion import log_likelihood
from imagebart.models.text_encoder import TextEncoder, TextEncoderConfig, replacement
from imagebart.models.transformer import Context, CrossAttention, Encode, Transformer, TransformerConfig, check_cond
from imagebart.models.vqgan import FirstStageConfig

LEAST_RATE = 0.002  # of a token that is drawn: log q(c | x_0) has to stay finite
OCTAVES = 6


@dataclass(frozen=True)
class DenoiserConfig:
    """Shapes. The transformers' vocabulary is image tokens, conditioning tokens (or slots), and a start token."""

    vocab_size: Vocabulary  # K, image tokens
    tokens: Length  # N, image tokens a picture
    decoder: TransformerConfig
    encoder: TransformerConfig
    cond_length: Length = 0  # conditioning tokens
    text: TextEncoderConfig | None = None  # reads the conditioning tokens; None: they stand before the image tokens
    knows_cut_cells: bool = False  # it was trained with what masks leave of cells (see `imagebart.inpainting`)
    glances: Glances = 0  # P, parts a side of cells, whose colours are told as tokens, too (see `masked.glance`); 0: no


def check_glances(parts: int, first_stage: FirstStageConfig) -> None:
    """Raises ValueError where cells of a first stage do not fall into P x P parts, or are not seen one by one."""
    side, kind = first_stage.downsampling, first_stage.encoder
    if parts and kind != "cells":
        raise ValueError(
            f"glances is {parts}, but the first stage's encoder is of {kind}; for the colours of cells to be told, "
            "the first stage's encoder has to see each alone"
        )
    if parts and side % parts:
        raise ValueError(f"the denoiser glances at {parts} parts a side of cells of {side} pixels, expected a divisor")


class RateEmbedding(nn.Module):
    """Noise rates [...] in [0, 1] -> [..., width]: Fourier features through a linear map that begins at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(2 * OCTAVES, width)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, rates: Tensor) -> Tensor:
        angles = rates[..., None] * (math.pi * 2.0 ** torch.arange(OCTAVES, device=rates.device))
        return self.map(torch.cat([angles.sin(), angles.cos()], -1).to(self.map.weight.dtype))


class Denoising(NamedTuple):
    """What is computed once a step."""

    context: Context
    encoded: Tensor  # the encoder's output at the image tokens, [B, N, width]


class Denoiser(nn.Module):
    """p(x_0 | x_t = c, rates), position by position, given x_s before it.

    c: x_t, int64 [B, N], and its noise rates [B, N]; x: x_s, int64 [B, N], whose tokens before a position the decoder
    is fed, with their noise rates [B, N]. cond: int64 [B, cond_length].
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Transformer(config.encoder), Transformer(config.decoder)
        self.encoder_rates = RateEmbedding(config.encoder.width)
        self.decoder_rates = RateEmbedding(config.decoder.width)
        if config.glances:
            self.glance = nn.Linear(config.vocab_size, config.encoder.width, bias=False)
            nn.init.zeros_(self.glance.weight)
        self.align = nn.Linear(config.encoder.width, config.decoder.width)  # the encoder at the position predicted
        self.likelihood = nn.Parameter(torch.zeros(()))  # w, the weight of log q(c | x_0)
        self.draft_head = nn.Linear(config.encoder.width, config.vocab_size)  # x_0 at every position at once
        if config.text is not None:
            self.text = TextEncoder(config.text)
            self.text_map = nn.Linear(config.text.transformer.width, config.decoder.width)
        for module in (self.align, *(m.out for m in self.decoder.modules() if isinstance(m, CrossAttention))):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    @property
    def device(self) -> torch.device:
        return self.decoder.position_embedding.device

    def read(self, cond: Tensor | None) -> Tensor | None:
        """What the text encoder reads in conditioning tokens, slots [B, slots, width]; None where there is none."""
        return None if self.config.text is None or cond is None else self.text(cond.to(self.device))

    def read_with(self, encoder: TextEncoder) -> None:
        """Takes another text encoder, which may know other words; raises ValueError where its slots do not fit."""
        self.text = replacement(self.config.text, encoder)
        self.config = replace(self.config, text=encoder.config)

    def prefix(self, batch: int, cond: Tensor | None) -> Tensor:
        """[start, cond...] or [start, slots...], int64 [B, P]; raises ValueError where cond does not fit."""
        check_cond(cond, batch, self.config.cond_length)
        start = torch.full((batch, 1), self.config.decoder.vocab_in - 1, device=self.device)
        if self.config.text is not None:
            cond = torch.arange(self.config.text.slots, device=self.device).expand(batch, -1)
        return start if cond is None else torch.cat([start, cond.to(self.device) + self.config.vocab_size], 1)

    def start(
        self,
        c: Tensor,
        rates: Tensor,
        fed_rates: Tensor,
        cond: Tensor | None = None,
        slots: Tensor | None = None,
        encode: Encode | None = None,
        seen: Tensor | None = None,
    ) -> Denoising:
        """Everything that is computed once a step.

        slots: what was read in cond; encode: computes what the encoder would; seen: the tokens of colours that kept
        cells show, bool [B, N, K] (see `masked.glance`), None for nothing. The decoder's step P - 1 + n is fed token
        n - 1 of x_s, is told its rate, and predicts position n, of which it is given the encoder's output.
        """
        prefix, tokens = self.prefix(len(c), cond), c.shape[1]
        length = prefix.shape[1]
        told = F.pad(self.encoder_rates(rates) + self._glanced(c, seen), (0, 0, length, 0))
        fed = F.pad(self.decoder_rates(fed_rates[:, :-1]), (0, 0, length, 0))
        if slots is not None:
            described = F.pad(self.text_map(slots), (0, 0, 1, 0))  # [B, P, width]
            told = told + F.pad(described, (0, 0, 0, tokens))
            fed = fed + F.pad(described, (0, 0, 0, tokens - 1))
        encoded = (encode or self.encoder)(torch.cat([prefix, c], 1), told)
        extra = fed + F.pad(self.align(encoded[:, length:]), (0, 0, length - 1, 0))
        return Denoising(Context(c, prefix, self.decoder.memory(encoded), extra), encoded[:, length:])

    def _glanced(self, c: Tensor, seen: Tensor | None) -> Tensor | float:
        """What the encoder is told of colours, [B, N, width]; raises ValueError where they do not fit."""
        if seen is None or not self.config.glances:
            return 0.0
        shape = (*c.shape, self.config.vocab_size)
        if tuple(seen.shape) != shape:
            raise ValueError(f"seen has shape {list(seen.shape)}, expected {list(shape)}")
        return self.glance(seen.to(self.glance.weight.dtype))

    def hidden(
        self,
        x: Tensor,
        c: Tensor,
        rates: Tensor,
        fed_rates: Tensor,
        cond: Tensor | None,
        slots: Tensor | None,
        seen: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What p(x_0) is read off, [B, N, width]: the decoder's states, and the encoder's."""
        begun = self.start(c, rates, fed_rates, cond, slots, seen=seen)
        context, encoded = begun.context, begun.encoded
        hidden = self.decoder(torch.cat([context.prefix, x[:, :-1]], 1), context.extra, context.memory)
        return hidden[:, context.prefix.shape[1] - 1 :], encoded

    def finish(self, logits: Tensor, c: Tensor, rates: Tensor | float) -> Tensor:
        """Logits [..., K] with what x_t [...], at its rates, says of x_0: + w log q(c | x_0)."""
        rates = torch.as_tensor(rates, device=c.device).clamp(min=LEAST_RATE)
        return logits + self.likelihood * log_likelihood(c, rates, self.config.vocab_size)

    def logits(
        self,
        x: Tensor,
        c: Tensor,
        rates: Tensor,
        fed_rates: Tensor,
        cond: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Teacher-forced logits of p(x_0), float [B, N, K]; raises ValueError for bad shapes and rates."""
        shape = (len(c), self.config.tokens)
        for name, given in (("x", x), ("c", c), ("rates", rates), ("fed_rates", fed_rates)):
            if tuple(given.shape) != shape:
                raise ValueError(f"{name} has shape {list(given.shape)}, expected {list(shape)}")
        for name, given in (("rates", rates), ("fed_rates", fed_rates)):
            if not (given.min() >= 0 and given.max() <= 1):
                raise ValueError(f"{name} are from {given.min():g} to {given.max():g}, expected 0 to 1")
        hidden, _ = self.hidden(x, c, rates, fed_rates, cond, self.read(cond), seen)
        assert self.decoder.head is not None
        return self.finish(self.decoder.head(hidden), c, rates)

    def forward(
        self,
        x: Tensor,
        c: Tensor,
        rates: Tensor,
        fed_rates: Tensor,
        cond: Tensor | None,
        slots: Tensor | None,
        seen: Tensor | None,
        wanted: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """For training: logits at the wanted positions, bool [B, N] -> [W, K], the decoder's and the encoder's own.

        slots, seen: as for `start`.
        """
        hidden, encoded = self.hidden(x, c, rates, fed_rates, cond, slots, seen)
        assert self.decoder.head is not None
        parts = self.decoder.head(hidden[wanted]), self.draft_head(encoded[wanted])
        own, drafts = (self.finish(part, c[wanted], rates[wanted]) for part in parts)
        return own, drafts
