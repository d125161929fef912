"""One reverse step of the diffusion, p(x_{t-1} | x_t): a transformer that draws tokens in raster order.

ImageBART (Esser et al. 2021), section 3.2: the coarsest stage is decoder-only, for x_T is pure noise; the
others are an encoder over x_t and an autoregressive decoder over x_{t-1} that attends to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from imagebart.transformer import Cache, CrossAttention, KeyValue, Transformer, TransformerConfig

Kind = Literal["decoder_only", "encoder_decoder", "residual", "aligned"]


@dataclass(frozen=True)
class StageConfig:
    """What a stage predicts and the transformers that do it."""

    kind: Kind
    t: int  # 1 is the finest
    vocab_size: int  # K, image tokens
    tokens: int  # N, image tokens a picture
    beta: float  # share of tokens redrawn from x_{t-1} to x_t
    decoder: TransformerConfig
    encoder: TransformerConfig | None = None
    cond_length: int = 0  # conditioning tokens
    cond_offset: int = 0  # added to conditioning tokens: 0 where they share the image tokens' embeddings
    start_token: int = 0  # what precedes the first image token in an encoder-decoder stage's decoder


class StageState:
    """A stage being drawn: what the encoder said, once, and what the decoder has seen so far."""

    def __init__(
        self,
        noisy: Tensor,
        prefix: Tensor,
        cache: Cache,
        memory: list[KeyValue] | None,
        extra: Tensor | None,
    ) -> None:
        self.noisy = noisy  # x_t, [B, N]
        self.prefix = prefix  # decoder tokens before the first image token, [B, P]
        self.cache = cache
        self.memory = memory
        self.extra = extra  # [B, P - 1 + N, width]


class Stage(nn.Module):
    """The decoder-only stage; the base of the others. x, c: int64 [B, N]; cond: int64 [B, cond_length]."""

    def __init__(self, config: StageConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Transformer(config.decoder)

    def prefix(self, batch: int, cond: Tensor | None) -> Tensor:
        """[t, cond...], int64 [B, 1 + cond_length]; raises ValueError where cond does not fit."""
        expected = (batch, self.config.cond_length)
        given = (batch, 0) if cond is None else tuple(cond.shape)
        if given != expected:
            raise ValueError(f"cond has shape {list(given)}, expected {list(expected)}")
        device = self.decoder.position_embedding.device
        t = torch.full((batch, 1), self.config.t, dtype=torch.long, device=device)
        return t if cond is None else torch.cat([t, cond.to(device) + self.config.cond_offset], 1)

    def start(self, c: Tensor, cond: Tensor | None = None) -> StageState:
        """Everything that is computed once a stage. Nothing of x_{t-1} is known yet."""
        self._check(c)
        return StageState(c, self.prefix(len(c), cond), self.decoder.new_cache(len(c)), None, None)

    def advance(self, state: StageState, x: Tensor, position: int) -> Tensor:
        """Logits [B, K] of x_{t-1} at a position, given x before it: one forward over what was not yet fed.

        Positions are taken in ascending order, else ValueError; x[:, :position] must not change after it was fed.
        """
        if not 0 <= position < self.config.tokens:
            raise ValueError(f"position {position}, expected 0 to {self.config.tokens - 1}")
        begin, end = state.cache.length, state.prefix.shape[1] + position
        if end <= begin:
            raise ValueError(f"position {position} comes before what was drawn already")
        fed = torch.cat([state.prefix, x[:, :position]], 1)[:, begin:end]
        extra = None if state.extra is None else state.extra[:, begin:end]
        hidden = self.decoder(fed, state.memory, state.cache, extra)[:, -1:]
        return self.finish(hidden, state.noisy[:, position : position + 1])[:, 0]

    def logits(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """Teacher-forced logits of p(x_{t-1} = x | x_t = c), float [B, N, K]; raises ValueError for bad shapes."""
        self._check(x)
        if len(x) != len(c):
            raise ValueError(f"{len(x)} rows of x_{{t-1}}, but {len(c)} of x_t")
        state = self.start(c, cond)
        tokens = torch.cat([state.prefix, x[:, :-1]], 1)
        hidden = self.decoder(tokens, state.memory, None, state.extra)
        return self.finish(hidden[:, state.prefix.shape[1] - 1 :], c)

    def forward(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """As `logits`, for training wrappers."""
        return self.logits(x, c, cond)

    def finish(self, hidden: Tensor, c: Tensor) -> Tensor:
        """Hidden states [B, S, width] and x_t [B, S] at their positions -> logits [B, S, K]."""
        assert self.decoder.head is not None
        return self.decoder.head(hidden)

    def _check(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or tokens.shape[1] != self.config.tokens:
            raise ValueError(f"tokens have shape {list(tokens.shape)}, expected [B, {self.config.tokens}]")


class EncoderDecoderStage(Stage):
    """Encoder over [t, cond..., x_t]; decoder over [start, x_{t-1}...] with cross-attention to it."""

    def __init__(self, config: StageConfig) -> None:
        super().__init__(config)
        assert config.encoder is not None, "an encoder-decoder stage needs an encoder"
        self.encoder = Transformer(config.encoder)

    def encode(self, c: Tensor, cond: Tensor | None) -> Tensor:
        """[B, 1 + cond_length + N, width]"""
        return self.encoder(torch.cat([self.prefix(len(c), cond), c], 1))

    def start(self, c: Tensor, cond: Tensor | None = None) -> StageState:
        self._check(c)
        memory = self.decoder.memory(self.encode(c, cond))
        begin = torch.full_like(c[:, :1], self.config.start_token)
        return StageState(c, begin, self.decoder.new_cache(len(c)), memory, None)


class ResidualStage(EncoderDecoderStage):
    """Adds what x_t alone says of x_{t-1}: logits exp(s) + log(alpha onehot(x_t) + (1 - alpha) / K)."""

    def __init__(self, config: StageConfig, stages: int) -> None:
        super().__init__(config)
        self.log_scalors = nn.Parameter(torch.zeros(stages))  # the published name; entry t - 1 is used

    def finish(self, hidden: Tensor, c: Tensor) -> Tensor:
        logits = super().finish(hidden, c) * self.log_scalors[self.config.t - 1].exp()
        return logits + log_likelihood(c, self.config.beta, self.config.vocab_size)


class AlignedStage(EncoderDecoderStage):
    """A stage that starts as the next coarser decoder-only model and learns to use x_t.

    The decoder keeps the prefix [t, cond...]; the encoder's output at the position being predicted is added to
    the decoder's input there, and the log-likelihood of x_t to the logits with a learned weight. With both maps
    and the weight at zero it is the decoder-only model, so that training begins from a model of clean tokens.
    """

    def __init__(self, config: StageConfig) -> None:
        super().__init__(config)
        assert config.encoder is not None
        self.align = nn.Linear(config.encoder.width, config.decoder.width)
        self.residual = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.align.weight)
        nn.init.zeros_(self.align.bias)
        for module in self.decoder.modules():
            if isinstance(module, CrossAttention):
                nn.init.zeros_(module.out.weight)
                nn.init.zeros_(module.out.bias)

    def start(self, c: Tensor, cond: Tensor | None = None) -> StageState:
        self._check(c)
        context = self.encode(c, cond)
        prefix = self.prefix(len(c), cond)
        aligned = self.align(context[:, -self.config.tokens :])
        before = aligned.new_zeros(len(c), prefix.shape[1] - 1, aligned.shape[2])
        extra = torch.cat([before, aligned], 1)
        cache = self.decoder.new_cache(len(c))
        return StageState(c, prefix, cache, self.decoder.memory(context), extra)

    def finish(self, hidden: Tensor, c: Tensor) -> Tensor:
        logits = super().finish(hidden, c)
        return logits + self.residual * log_likelihood(c, self.config.beta, self.config.vocab_size)


def log_likelihood(c: Tensor, beta: float, vocab_size: int) -> Tensor:
    """log q(x_t = c | x_{t-1} = k) for every k: tokens [...] -> float [..., K] (section 3.1, eq. 3)."""
    off = torch.full((*c.shape, vocab_size), beta / vocab_size, device=c.device)
    return off.scatter_(-1, c[..., None], 1 - beta + beta / vocab_size).log()


def build_stage(config: StageConfig, stages: int) -> Stage:
    """The module of a stage's kind; `stages` is T."""
    if config.kind == "decoder_only":
        return Stage(config)
    if config.kind == "encoder_decoder":
        return EncoderDecoderStage(config)
    if config.kind == "residual":
        return ResidualStage(config, stages)
    if config.kind == "aligned":
        return AlignedStage(config)
    raise ValueError(
        f"stage kind {config.kind!r}, expected decoder_only, encoder_decoder, residual or aligned"
    )
