"""One reverse step of the diffusion, p(x_{t-1} | x_t): a transformer that draws tokens in raster order.

ImageBART (Esser et al. 2021), section 3.2: the coarsest stage is decoder-only, for x_T is pure noise; the
others are an encoder over x_t and an autoregressive decoder over x_{t-1} that attends to it.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.inference import Network
from imagebart.matrices import Precision
from imagebart.preparation import Preparation, Prepared, threads
from imagebart.text_encoder import TextEncoder, TextEncoderConfig
from imagebart.transformer import CrossAttention, KeyValue, Transformer, TransformerConfig

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
    text: TextEncoderConfig | None = None  # reads the conditioning tokens; None: they stand before the image tokens


@dataclass
class Context:
    """What is computed once a stage."""

    noisy: Tensor  # x_t, [B, N]
    prefix: Tensor  # decoder tokens before the first image token, [B, P]
    memory: list[KeyValue] | None = None
    extra: Tensor | None = None  # [B, P - 1 + N, width]

    def select(self, rows: Tensor) -> None:
        self.noisy, self.prefix = self.noisy[rows], self.prefix[rows]
        self.memory = self.memory and [(k[rows], v[rows]) for k, v in self.memory]
        self.extra = None if self.extra is None else self.extra[rows]

    def of_types(self, kept: torch.dtype, given: torch.dtype) -> Context:
        """The same with memory of a type, each part in one piece, and what is added to embeddings of another."""
        memory = self.memory and [(k.to(kept).contiguous(), v.to(kept).contiguous()) for k, v in self.memory]
        return Context(self.noisy, self.prefix, memory, None if self.extra is None else self.extra.to(given))


class Stage(nn.Module):
    """The decoder-only stage; the base of the others. x, c: int64 [B, N]; cond: int64 [B, cond_length]."""

    def __init__(self, config: StageConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Transformer(config.decoder)
        if config.text is not None:
            self.text = TextEncoder(config.text)
            self.text_map = nn.Linear(config.text.transformer.width, config.decoder.width)
        self.preparation = Preparation()
        self.precision: Precision = "exact"  # what may be done to weights while drawing, where that is faster

    def prefix(self, batch: int, cond: Tensor | None) -> Tensor:
        """[t, cond...] or [t, slots...], int64 [B, P]; raises ValueError where cond does not fit."""
        expected = (batch, self.config.cond_length)
        given = (batch, 0) if cond is None else tuple(cond.shape)
        if given != expected:
            raise ValueError(f"cond has shape {list(given)}, expected {list(expected)}")
        device = self.decoder.position_embedding.device
        t = torch.full((batch, 1), self.config.t, dtype=torch.long, device=device)
        if self.config.text is not None:
            cond = torch.arange(self.config.text.slots).expand(batch, -1)
        return t if cond is None else torch.cat([t, cond.to(device) + self.config.cond_offset], 1)

    def read(self, cond: Tensor | None) -> Tensor | None:
        """What the text encoder adds to the prefix's embeddings, [B, P, width]; None where there is none."""
        if self.config.text is None or cond is None:
            return None
        slots = self.text(cond.to(self.decoder.position_embedding.device))
        return F.pad(self.text_map(slots), (0, 0, 1, 0))

    def read_with(self, encoder: TextEncoder) -> None:
        """Takes another text encoder, which may know other words; raises ValueError where its slots do not fit."""
        own, other = self.config.text, encoder.config
        if own is None or replace(own.transformer, vocab_in=other.transformer.vocab_in) != other.transformer:
            raise ValueError(f"the text encoder is {other}, expected the shape of the stage's own, {own}")
        self.config = replace(self.config, text=other)
        self.text = deepcopy(encoder)

    def prepared(self) -> Prepared:
        """What draws this stage, made at the first call and when weights have changed."""
        return self.preparation.get(self.precision, self.decoder)

    def start(self, c: Tensor, cond: Tensor | None = None, encoder: Network | None = None) -> Context:
        """Everything that is computed once a stage; encoder: computes what the stage's own would."""
        self._check(c)
        prefix, read = self.prefix(len(c), cond), self.read(cond)
        return Context(c, prefix, extra=None if read is None else F.pad(read, (0, 0, 0, self.config.tokens - 1)))

    def logits(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """Teacher-forced logits of p(x_{t-1} = x | x_t = c), float [B, N, K]; raises ValueError for bad shapes."""
        self._check(x)
        if len(x) != len(c):
            raise ValueError(f"{len(x)} rows of x_{{t-1}}, but {len(c)} of x_t")
        context = self.start(c, cond)
        tokens = torch.cat([context.prefix, x[:, :-1]], 1)
        hidden = self.decoder(tokens, context.memory, context.extra)
        assert self.decoder.head is not None
        return self.finish(self.decoder.head(hidden[:, context.prefix.shape[1] - 1 :]), c)

    def forward(self, x: Tensor, c: Tensor, cond: Tensor | None = None) -> Tensor:
        """As `logits`, for training wrappers."""
        return self.logits(x, c, cond)

    def finish(self, logits: Tensor, c: Tensor) -> Tensor:
        """The decoder's logits [B, S, K] and x_t [B, S] at their positions -> the stage's logits [B, S, K]."""
        return logits

    def _check(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or tokens.shape[1] != self.config.tokens:
            raise ValueError(f"tokens have shape {list(tokens.shape)}, expected [B, {self.config.tokens}]")


class EncoderDecoderStage(Stage):
    """Encoder over [t, cond..., x_t]; decoder over [start, x_{t-1}...] with cross-attention to it."""

    def __init__(self, config: StageConfig) -> None:
        super().__init__(config)
        assert config.encoder is not None, "an encoder-decoder stage needs an encoder"
        self.encoder = Transformer(config.encoder)

    def prepared(self) -> Prepared:
        return self.preparation.get(self.precision, self.decoder, self.encoder)

    def encode(self, c: Tensor, prefix: Tensor, read: Tensor | None, encoder: Network | None) -> Tensor:
        """Of x_t, after the prefix and what was read there: [B, P + N, width]."""
        extra = None if read is None else F.pad(read, (0, 0, 0, self.config.tokens))
        tokens = torch.cat([prefix, c], 1)
        if encoder is None:
            return self.encoder(tokens, extra=extra)
        return encoder.forward(tokens, [0] * len(tokens), encoder.new_cache(len(tokens)), extra=extra)

    def start(self, c: Tensor, cond: Tensor | None = None, encoder: Network | None = None) -> Context:
        self._check(c)
        memory = self.decoder.memory(self.encode(c, self.prefix(len(c), cond), self.read(cond), encoder))
        return Context(c, torch.full_like(c[:, :1], self.config.start_token), memory)


class ResidualStage(EncoderDecoderStage):
    """Adds what x_t alone says of x_{t-1}: logits exp(s) + log(alpha onehot(x_t) + (1 - alpha) / K)."""

    def __init__(self, config: StageConfig, stages: int) -> None:
        super().__init__(config)
        self.log_scalors = nn.Parameter(torch.zeros(stages))  # the published name; entry t - 1 is used

    def finish(self, logits: Tensor, c: Tensor) -> Tensor:
        logits = logits * self.log_scalors[self.config.t - 1].exp()
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

    def start(self, c: Tensor, cond: Tensor | None = None, encoder: Network | None = None) -> Context:
        self._check(c)
        prefix, read = self.prefix(len(c), cond), self.read(cond)
        encoded = self.encode(c, prefix, read, encoder)
        aligned = self.align(encoded[:, -self.config.tokens :])
        extra = F.pad(aligned, (0, 0, prefix.shape[1] - 1, 0))
        if read is not None:
            extra = extra + F.pad(read, (0, 0, 0, self.config.tokens - 1))
        return Context(c, prefix, self.decoder.memory(encoded), extra)

    def finish(self, logits: Tensor, c: Tensor) -> Tensor:
        return logits + self.residual * log_likelihood(c, self.config.beta, self.config.vocab_size)


def log_likelihood(c: Tensor, beta: float, vocab_size: int) -> Tensor:
    """log q(x_t = c | x_{t-1} = k) for every k: tokens [...] -> float [..., K] (section 3.1, eq. 3)."""
    off = torch.full((*c.shape, vocab_size), math.log(beta / vocab_size), device=c.device)
    return off.scatter_(-1, c[..., None], math.log(1 - beta + beta / vocab_size))


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


class StageRun:
    """A stage being drawn, a window of positions at a time.

    The decoder takes steps: step i feeds token i of [prefix, x], and step `first` + n predicts x at position n.
    """

    def __init__(self, stage: Stage, c: Tensor, cond: Tensor | None) -> None:
        self.prepared = stage.prepared()
        self.stage, self.decoder = stage, self.prepared.decoder
        with torch.autocast(c.device.type, torch.bfloat16, enabled=self.prepared.rounds):
            context = stage.start(c, cond, self.prepared.encoder)
        self.context = context.of_types(self.decoder.kept.dtype, stage.decoder.position_embedding.dtype)
        self.cache = self.decoder.new_cache(len(c))
        self.first = self.context.prefix.shape[1] - 1

    def logits(self, x: Tensor, begins: list[int], length: int, skip: int = 0) -> Tensor:
        """Takes `length` steps, row b's from step begins[b] on; x int64 [B, N] holds what they feed.

        Returns what all but the first `skip` steps predict, logits [B, length - skip, K]. Steps before a row's first
        must have been taken with the tokens that x has now; a step can be taken again, and then counts anew.
        """
        context, device = self.context, x.device
        steps = torch.tensor(begins, device=device)[:, None] + torch.arange(length, device=device)
        fed = torch.cat([context.prefix, x[:, :-1]], 1).gather(1, steps)
        rows = torch.arange(len(x), device=device)[:, None]
        extra = None if context.extra is None else context.extra[rows, steps]
        assert self.decoder.head is not None
        with threads(self.prepared.threads(steps.numel())):
            hidden = self.decoder.forward(fed, begins, self.cache, context.memory, extra)[:, skip:]
            logits = self.decoder.head(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)
        logits = logits.to(hidden.dtype)
        noisy = context.noisy.gather(1, (steps[:, skip:] - self.first).clamp(min=0))
        return self.stage.finish(logits, noisy)

    def select(self, rows: Tensor) -> None:
        """Goes on with some of the rows, int64 [B']."""
        self.context.select(rows)
        self.cache.select(rows)
