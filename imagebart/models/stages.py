"""The published kinds of stage: one transformer for one reverse step, p(x_{t-1} | x_t), in raster order.

ImageBART (Esser et al. 2021), section 3.2: the coarsest stage is decoder-only, for x_T is pure noise; the
others are an encoder over x_t and an autoregressive decoder over x_{t-1} that attends to it.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.core.settings import (
    Count,
    Length,
    Offset,
    Positive,
    SamplingSettings,
    Settings,
    Share,
    Steps,
    Vocabulary,
)
from imagebart.models.diffusion import log_likelihood
from imagebart.models.transformer import Cache, TextEncoder, TextEncoderConfig, Transformer, TransformerConfig

Kind = Literal["decoder_only", "encoder_decoder", "residual"]


class StageConfig(Settings):
    """Shapes of a stage."""

    kind: Kind
    t: Steps  # 1 is the finest
    vocab_size: Vocabulary  # K, image tokens
    tokens: Length  # N, tokens of an image
    beta: Share  # share of tokens that become noise from x_{t-1} to x_t
    decoder: TransformerConfig
    encoder: TransformerConfig | None = None
    cond_length: Length = 0  # conditioning tokens
    cond_offset: Offset = 0  # added to conditioning tokens: 0 where they share the image tokens' embeddings
    start_token: Offset = 0  # before the first image token in an encoder-decoder stage's decoder
    text: TextEncoderConfig | None = None  # encodes the conditioning tokens; None: they precede the image tokens
    temperature: Positive = 1.0  # times a run's
    top_k: Count | None = None  # where a run gives none

    def sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """A run's settings at this stage."""
        return settings.replace(temperature=settings.temperature * self.temperature, top_k=settings.top_k or self.top_k)


class Stage(nn.Module):
    """The decoder-only stage; the base of the others. x_s, x_t: int64 [B, N]; cond: int64 [B, cond_length]."""

    def __init__(self, config: StageConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Transformer(config.decoder)
        if config.text is not None:
            self.text = TextEncoder(config.text)
            self.text_map = nn.Linear(config.text.transformer.width, config.decoder.width)

    def prefix(self, batch: int, cond: Tensor | None) -> Tensor:
        """[t, cond...] or [t, query tokens...], int64 [B, P]."""
        device = self.decoder.position_embedding.device
        t = torch.full((batch, 1), self.config.t, dtype=torch.long, device=device)
        if self.config.text is not None:
            cond = torch.arange(self.config.text.query_tokens).expand(batch, -1)
        return t if cond is None else torch.cat([t, cond.to(device) + self.config.cond_offset], 1)

    def prompt_embeds(self, cond: Tensor | None) -> Tensor | None:
        """What the text encoder adds to the embeddings of the prefix, [B, P, width]; None without one."""
        if self.config.text is None or cond is None:
            return None
        words = self.text(cond.to(self.decoder.position_embedding.device))
        return F.pad(self.text_map(words), (0, 0, 1, 0))

    def prepare(self, x_t: Tensor, cond: Tensor | None = None) -> Cache:
        """What is computed once a step."""
        prompt = self.prompt_embeds(cond)
        added_embeds = None if prompt is None else F.pad(prompt, (0, 0, 0, self.config.tokens - 1))
        return Cache(self.prefix(len(x_t), cond), added_embeds=added_embeds)

    def logits(self, x_s: Tensor, x_t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Teacher-forced logits of p(x_{t-1} = x_s | x_t), float [B, N, K]."""
        assert self.decoder.head is not None
        return self.add_x_t_evidence(self.decoder.head(self.decoder.hidden(x_s, self.prepare(x_t, cond))), x_t)

    forward = logits  # for training wrappers

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor) -> Tensor:
        """The decoder's logits [B, S, K] and x_t [B, S] at their positions -> the stage's logits [B, S, K]."""
        return logits


class EncoderDecoderStage(Stage):
    """Encoder over [t, cond..., x_t]; decoder over [start, x_{t-1}...] with cross-attention to it."""

    def __init__(self, config: StageConfig) -> None:
        super().__init__(config)
        assert config.encoder is not None, "an encoder-decoder stage needs an encoder"
        self.encoder = Transformer(config.encoder)

    def prepare(self, x_t: Tensor, cond: Tensor | None = None) -> Cache:
        prompt = self.prompt_embeds(cond)
        added_embeds = None if prompt is None else F.pad(prompt, (0, 0, 0, self.config.tokens))
        encoded = self.encoder(torch.cat([self.prefix(len(x_t), cond), x_t], 1), added_embeds)
        return Cache(torch.full_like(x_t[:, :1], self.config.start_token), self.decoder.cross_kv(encoded))


class ResidualStage(EncoderDecoderStage):
    """Adds log q(x_t | x_{t-1}) to scaled logits: logits exp(s) + log(alpha onehot(x_t) + (1 - alpha) / K)."""

    def __init__(self, config: StageConfig, stages: int) -> None:
        super().__init__(config)
        self.log_scalors = nn.Parameter(torch.zeros(stages))  # the published name; entry t - 1 is used

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor) -> Tensor:
        logits = logits * self.log_scalors[self.config.t - 1].exp()
        return logits + log_likelihood(x_t, self.config.beta, self.config.vocab_size)


def build_stage(config: StageConfig, stages: int) -> Stage:
    """The module of a stage's kind; `stages` is T."""
    if config.kind == "decoder_only":
        return Stage(config)
    return EncoderDecoderStage(config) if config.kind == "encoder_decoder" else ResidualStage(config, stages)
