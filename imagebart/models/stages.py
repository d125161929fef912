"""The published kinds of stage: one transformer for one reverse step, p(x_{t-1} | x_t), in raster order.

ImageBART (Esser et al. 2021), section 3.2: the coarsest stage is decoder-only, for x_T is pure noise; the
others are an encoder over x_t and an autoregressive decoder over x_{t-1} that attends to it.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.core.settings import Length, Offset, Positive, SamplingSettings, Settings, Share, Steps, Vocabulary
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
    top_k: Vocabulary | None = None  # where a run gives none

    def sampling(self, settings: SamplingSettings) -> SamplingSettings:
        """A run's settings at this stage."""
        return settings.replace(temperature=settings.temperature * self.temperature, top_k=settings.top_k or self.top_k)


class Stage(nn.Module):
    """A decoder over [t, cond..., x_s...], or an encoder over [t, cond..., x_t] and a decoder over [start, x_s...].

    x_s, x_t: int64 [B, N]; cond: int64 [B, cond_length]; stages: T. A residual stage adds log q(x_t | x_s) to scaled
    logits: logits exp(s) + log(alpha onehot(x_t) + (1 - alpha) / K).
    """

    def __init__(self, config: StageConfig, stages: int) -> None:
        super().__init__()
        self.config = config
        self.decoder = Transformer(config.decoder)
        if config.text is not None:
            self.text = TextEncoder(config.text)
            self.text_map = nn.Linear(config.text.transformer.width, config.decoder.width)
        if (config.kind == "decoder_only") != (config.encoder is None):
            raise ValueError(f"a stage of kind {config.kind} has {'no' if config.encoder is None else 'an'} encoder")
        self.encoder = None if config.encoder is None else Transformer(config.encoder)
        if config.kind == "residual":
            self.log_scalors = nn.Parameter(torch.zeros(stages))  # the published name; entry t - 1 is used

    def prepare(self, x_t: Tensor, cond: Tensor | None = None) -> Cache:
        """What is computed once a step."""
        start = torch.full_like(x_t[:, :1], self.config.t)
        if self.config.text is None or cond is None:
            prompt = None
        else:  # query tokens in place of the words
            prompt = F.pad(self.text_map(self.text(cond.to(x_t.device))), (0, 0, 1, 0))
            cond = torch.arange(self.config.text.query_tokens).expand(len(x_t), -1)
        prefix = start if cond is None else torch.cat([start, cond.to(x_t.device) + self.config.cond_offset], 1)
        if self.encoder is None:
            return Cache(prefix, added_embeds=None if prompt is None else F.pad(prompt, (0, 0, 0, x_t.shape[1] - 1)))
        added_embeds = None if prompt is None else F.pad(prompt, (0, 0, 0, x_t.shape[1]))
        encoded = self.encoder(torch.cat([prefix, x_t], 1), added_embeds)
        return Cache(torch.full_like(start, self.config.start_token), self.decoder.cross_kv(encoded))

    def forward(self, x_s: Tensor, x_t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Teacher-forced logits of p(x_{t-1} = x_s | x_t), float [B, N, K]."""
        return self.add_x_t_evidence(self.decoder.head(self.decoder.hidden(x_s, self.prepare(x_t, cond))), x_t)

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor) -> Tensor:
        """The decoder's logits [B, S, K] and x_t [B, S] at their positions -> the stage's logits [B, S, K]."""
        if self.config.kind != "residual":
            return logits
        logits = logits * self.log_scalors[self.config.t - 1].exp()
        return logits + log_likelihood(x_t, self.config.beta, self.config.vocab_size)
