"""The networks of the reverse chain: a denoiser for all of its steps, or a stage for each.

ImageBART (Esser et al. 2021) trains one transformer p(x_{t-1} | x_t) for each step of a fixed schedule:
`Stage`, the published kinds. In the shipped models one network serves all steps: `Denoiser`. It predicts p(x_0 | x_t),
as in D3PM (Austin et al. 2021), and x_s follows from the diffusion (`models.diffusion.reverse_step`), so that T can be
chosen when sampling. Each token has a noise level of its own, as in diffusion forcing (Chen et al. 2024): the
probability that it was replaced by a uniform sample, 0 where a mask keeps it. The encoder sees all tokens and levels.
"""

import math
from copy import deepcopy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagebart.core.settings import HintGrid, Length, Offset, Positive, Settings, Share, Steps, Vocabulary
from imagebart.models.diffusion import log_likelihood
from imagebart.models.transformer import Cache, TextEncoder, TextEncoderConfig, Transformer, TransformerConfig
from imagebart.models.vqgan import FirstStageConfig

MIN_NOISE = 0.002  # of a token that is sampled: log q(x_t | x_0) has to stay finite
OCTAVES = 6


class DenoiserConfig(Settings):
    """Shapes. The transformers' vocabulary: image tokens, then conditioning or query tokens, then a start token."""

    vocab_size: Vocabulary  # K, image tokens
    tokens: Length  # N, tokens of an image
    decoder: TransformerConfig
    encoder: TransformerConfig
    cond_length: Length = 0  # conditioning tokens
    text: TextEncoderConfig | None = None  # encodes the conditioning tokens; None: they precede the image tokens
    partial_patches: bool = False  # trained on patches that masks cover in part (see `imagebart.sampling.inpainting`)
    tied_embeddings: bool = False  # those of both transformers and the heads are one table, which is stored once
    color_hint_grid: HintGrid = 0  # P: the encoder sees the colors of P x P parts of a patch; 0: it sees tokens alone


def check_color_hint_grid(parts: int, first_stage: FirstStageConfig) -> None:
    """Raises ValueError unless a first stage's patches have P x P parts and are encoded one by one."""
    if parts and (first_stage.encoder != "patch" or first_stage.downsampling % parts):
        raise ValueError(
            f"color_hint_grid is {parts}; it needs a first stage with encoder 'patch', and a divisor of "
            f"{first_stage.downsampling}, the pixels along a patch"
        )


class NoiseEmbedding(nn.Module):
    """Noise levels [...] in [0, 1] -> [..., width]: Fourier features through a linear map, zero at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(2 * OCTAVES, width)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, noise: Tensor) -> Tensor:
        angles = noise[..., None] * (math.pi * 2.0 ** torch.arange(OCTAVES, device=noise.device))
        return self.map(torch.cat([angles.sin(), angles.cos()], -1).to(self.map.weight.dtype))


class Denoiser(nn.Module):
    """p(x_0 | x_t), position by position; the decoder sees x_s before each position."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Transformer(config.encoder), Transformer(config.decoder)
        self.encoder_rates = NoiseEmbedding(config.encoder.width)
        self.decoder_rates = NoiseEmbedding(config.decoder.width)
        if config.color_hint_grid:
            self.color_hint_embedding = nn.Linear(config.vocab_size, config.encoder.width, bias=False)
            nn.init.zeros_(self.color_hint_embedding.weight)
        self.align = nn.Linear(config.encoder.width, config.decoder.width)  # encoder output at the position predicted
        self.likelihood = nn.Parameter(torch.zeros(()))  # w, the weight of log q(x_t | x_0)
        self.draft_head = nn.Linear(config.encoder.width, config.vocab_size)  # x_0 at all positions at once
        if config.text is not None:
            self.text = TextEncoder(config.text)
            self.text_map = nn.Linear(config.text.transformer.width, config.decoder.width)
        for module in (self.align, *(block.cross.out for block in self.decoder.blocks if block.cross is not None)):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    @property
    def device(self) -> torch.device:
        return self.decoder.position_embedding.device

    def encode_prompt(self, cond: Tensor | None) -> Tensor | None:
        """Conditioning tokens [B, L] -> prompt embeddings [B, query_tokens, width]; None without a text encoder."""
        return None if self.config.text is None or cond is None else self.text(cond.to(self.device))

    def set_text_encoder(self, encoder: TextEncoder) -> None:
        """Replaces the text encoder by a copy of one that may know other words; raises ValueError for another shape."""
        text = encoder.config
        expected = self.text.config.transformer.replace(vocab_in=text.transformer.vocab_in)
        if self.text.config.replace(transformer=expected) != text:
            raise ValueError(f"the text encoder is {text}, expected the shape of the network's own, {self.text.config}")
        self.text, self.config = deepcopy(encoder), self.config.replace(text=text)

    def encode(
        self,
        x_t: Tensor,
        noise_t: Tensor,
        cond: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        hint_embeds: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The prefix [start, cond...] or [start, query tokens...], int64 [B, P], what the prompt adds to it,
        [B, P, width], and the encoder's output, [B, P + N, width].

        x_t: int64 [B, N]. noise_t: noise level of each token of it, float [B, N] in [0, 1]. cond: conditioning tokens,
        int64 [B, cond_length]. prompt_embeds: of cond, see `encode_prompt`; None: they are computed. hint_embeds: see
        `embed_hints`.
        """
        start = torch.full_like(x_t[:, :1], self.config.decoder.vocab_in - 1)
        ids = cond if self.config.text is None else torch.arange(self.config.text.query_tokens).expand(len(x_t), -1)
        prefix = start if ids is None else torch.cat([start, ids.to(x_t.device) + self.config.vocab_size], 1)
        length = prefix.shape[1]
        added_embeds = self.encoder_rates(noise_t) + (0 if hint_embeds is None else hint_embeds)
        added_embeds = F.pad(added_embeds, (0, 0, length, 0))
        prompt_embeds = self.encode_prompt(cond) if prompt_embeds is None else prompt_embeds
        prompt = None if prompt_embeds is None else F.pad(self.text_map(prompt_embeds), (0, 0, 1, 0))
        if prompt is not None:
            added_embeds = added_embeds + F.pad(prompt, (0, 0, 0, x_t.shape[1]))
        return prefix, prompt, self.encoder(torch.cat([prefix, x_t], 1), added_embeds)

    def prepare(self, x_t: Tensor, noise_t: Tensor, noise_s: Tensor, **given: Tensor | None) -> tuple[Cache, Tensor]:
        """What is computed once a step: the decoder's input, and the encoder's output at the tokens, [B, N, width].

        noise_s: noise level of each token of x_s, float [B, N] in [0, 1]; given: the rest, as for `encode`. The
        decoder's position P - 1 + n gets token n - 1 of x_s with its noise level, and the encoder's output at position
        n, which it predicts.
        """
        prefix, prompt, encoded = self.encode(x_t, noise_t, **given)
        length, at_tokens = prefix.shape[1], encoded[:, prefix.shape[1] :]
        added_embeds = F.pad(self.decoder_rates(noise_s[:, :-1]), (0, 0, length, 0))
        if prompt is not None:
            added_embeds = added_embeds + F.pad(prompt, (0, 0, 0, x_t.shape[1] - 1))
        added_embeds = added_embeds + F.pad(self.align(at_tokens), (0, 0, length - 1, 0))
        return Cache(prefix, self.decoder.cross_kv(encoded), added_embeds), at_tokens

    def draft_logits(self, x_t: Tensor, noise_t: Tensor, **given: Tensor | None) -> Tensor:
        """Logits of p(x_0) by the encoder alone, of every position at once, float [B, N, K]; given: as for `encode`."""
        prefix, _, encoded = self.encode(x_t, noise_t, **given)
        return self.add_x_t_evidence(self.draft_head(encoded[:, prefix.shape[1] :]), x_t, noise_t)

    def embed_hints(self, color_hints: Tensor | None) -> Tensor | None:
        """What color hints [B, N, K] add to the encoder's embeddings; None: nothing."""
        if color_hints is None or not self.config.color_hint_grid:
            return None
        return self.color_hint_embedding(color_hints.to(self.color_hint_embedding.weight.dtype))

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor, noise_t: Tensor) -> Tensor:
        """Logits [..., K] + w log q(x_t | x_0), of tokens [...] and their noise levels; of fewer codes, [..., C]."""
        noise_t = noise_t.clamp(min=MIN_NOISE)
        return logits + self.likelihood * log_likelihood(x_t, noise_t, self.config.vocab_size, logits.shape[-1])

    def logits(self, x_s: Tensor, x_t: Tensor, noise_t: Tensor, noise_s: Tensor, **given: Tensor | None) -> Tensor:
        """Teacher-forced logits of p(x_0), float [B, N, K]; given: as for `encode`."""
        cache, _ = self.prepare(x_t, noise_t, noise_s, **given)
        return self.add_x_t_evidence(self.decoder.head(self.decoder.hidden(x_s, cache)), x_t, noise_t)

    def forward(
        self,
        x_s: Tensor,
        wanted: Tensor,
        x_t: Tensor,
        noise_t: Tensor,
        noise_s: Tensor,
        codes: Tensor | None = None,
        **given: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """For training: logits at the wanted positions, bool [B, N] -> [W, K], of decoder and draft head.

        codes: those whose logits are wanted, ascending, int64 [C], x_t's among them -> [W, C]; None: all.
        """
        cache, encoded = self.prepare(x_t, noise_t, noise_s, **given)
        x_t, noise_t = x_t[wanted], noise_t[wanted]
        states, heads = (self.decoder.hidden(x_s, cache)[wanted], encoded[wanted]), (self.decoder.head, self.draft_head)
        if codes is None:
            logits, drafts = (head(state) for head, state in zip(heads, states, strict=True))
        else:
            rows = [(head.weight[codes], head.bias[codes]) for head in heads if isinstance(head, nn.Linear)]
            logits, drafts = (F.linear(state, *part) for state, part in zip(states, rows, strict=True))
            x_t = torch.searchsorted(codes, x_t)
        return self.add_x_t_evidence(logits, x_t, noise_t), self.add_x_t_evidence(drafts, x_t, noise_t)


Kind = Literal["decoder_only", "encoder_decoder", "residual"]


class StageConfig(Settings):
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
