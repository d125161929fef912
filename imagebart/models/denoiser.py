"""The networks of the reverse chain: a denoiser for all of its steps, or a stage for each.

ImageBART (Esser et al. 2021) trains one transformer p(x_{t-1} | x_t) for each step of a fixed schedule:
`Stage`, the published kinds. In the shipped models one network serves all steps: `Denoiser`. It predicts p(x_0 | x_t),
as in D3PM (Austin et al. 2021), and x_s follows from the diffusion (`models.diffusion.reverse_step`), so that T can be
chosen when sampling. Each token has a noise level of its own, as in diffusion forcing (Chen et al. 2024): the
probability that it was replaced by a uniform sample, 0 where a mask keeps it. The encoder sees all tokens and their
levels, or those around a mask alone if it was trained on them (`context_window`).
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
    color_hint_grid: HintGrid = 0  # P: the encoder sees the colors of P x P parts of a patch; 0: it sees tokens alone
    mask_sides: bool = False  # the encoder gets how far masked tokens lie from the sides of their mask
    context_margin: Length | None = None  # see `context_window`; None: all tokens are given


def check_color_hint_grid(parts: int, first_stage: FirstStageConfig) -> None:
    """Raises ValueError unless a first stage's patches have P x P parts and are encoded one by one."""
    if parts and (first_stage.encoder != "patch" or first_stage.downsampling % parts):
        raise ValueError(
            f"color_hint_grid is {parts}; it needs a first stage with encoder 'patch', and a divisor of "
            f"{first_stage.downsampling}, the pixels along a patch"
        )


def mask_sides(masked: Tensor) -> Tensor:
    """How far masked tokens, bool [B, N] of a square grid, lie from the sides of what they are connected to.

    int64 [B, N, 4]: rows to the top and to the bottom, columns to the left and to the right, of the smallest box around
    a token's connected part of the mask, 1 in the outermost ones; 0 for tokens that are not masked.
    """
    side = math.isqrt(masked.shape[1])
    inside = masked.view(-1, 1, side, side).float()
    count = torch.arange(1.0, side + 1, device=masked.device)
    row, column = torch.meshgrid(count, count, indexing="ij")
    place = torch.stack([row, column, side + 1 - row, side + 1 - column])  # counted from each side of the image
    farthest = place * inside
    while not torch.equal(wider := F.max_pool2d(farthest, 3, 1, 1) * inside, farthest):
        farthest = wider  # until each token has the largest of its connected part
    to_sides = (farthest - place + 1) * inside  # to the bottom, the right, the top, the left
    return to_sides[:, [2, 0, 3, 1]].flatten(2).transpose(1, 2).long()


def context_window(masked: Tensor, margin: int) -> Tensor:
    """The tokens in the smallest box around what is masked, bool [B, N] of a square grid, and up to a margin around it.

    Bool [B, N]. Where the image ends, the window has as many more rows or columns on the other side, so that masks of
    a size have windows of a size. All tokens where nothing is masked.
    """
    side = math.isqrt(masked.shape[1])
    grid = masked.view(-1, side, side)
    place, inside = torch.arange(side, device=masked.device), []
    for held in (grid.any(2), grid.any(1)):  # rows, columns
        first, last = held.int().argmax(1), side - 1 - held.flip(1).int().argmax(1)
        length = (last + 1 - first + 2 * margin).clamp(max=side)
        start = torch.minimum((first - margin).clamp(min=0), side - length)[:, None]
        inside.append((place >= start) & (place < start + length[:, None]))
    rows, columns = inside
    return (rows[:, :, None] & columns[:, None]).flatten(1)


def _after(length: int, places: Tensor) -> Tensor:
    """Position embeddings of a prefix of some length and of image tokens after it, int64 [B, length + N]."""
    prefix = torch.arange(length, device=places.device).expand(len(places), -1)
    return torch.cat([prefix, places + length], 1)


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
        if config.mask_sides:
            self.side_embedding = nn.Embedding(4 * (math.isqrt(config.tokens) + 1), config.encoder.width)
            nn.init.normal_(self.side_embedding.weight, std=0.02)
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
        places: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The prefix [start, cond...] or [start, query tokens...], int64 [B, P], what the prompt adds to it,
        [B, P, width], and the encoder's output, [B, P + N, width].

        x_t: int64 [B, N]. noise_t: noise level of each token of it, float [B, N] in [0, 1]. cond: conditioning tokens,
        int64 [B, cond_length]. prompt_embeds: of cond, see `encode_prompt`; None: they are computed. hint_embeds: see
        `embed_hints`; None: those of what is noisy in x_t, without color hints. places: where a part of an image is
        given, which tokens N are, ascending, int64 [B, N].
        """
        start = torch.full_like(x_t[:, :1], self.config.decoder.vocab_in - 1)
        ids = cond if self.config.text is None else torch.arange(self.config.text.query_tokens).expand(len(x_t), -1)
        prefix = start if ids is None else torch.cat([start, ids.to(x_t.device) + self.config.vocab_size], 1)
        length = prefix.shape[1]
        if hint_embeds is None and self.config.mask_sides:
            hint_embeds = self.embed_hints(None, mask_sides(noise_t > 0))
        added_embeds = self.encoder_rates(noise_t) + (0 if hint_embeds is None else hint_embeds)
        added_embeds = F.pad(added_embeds, (0, 0, length, 0))
        prompt_embeds = self.encode_prompt(cond) if prompt_embeds is None else prompt_embeds
        prompt = None if prompt_embeds is None else F.pad(self.text_map(prompt_embeds), (0, 0, 1, 0))
        if prompt is not None:
            added_embeds = added_embeds + F.pad(prompt, (0, 0, 0, x_t.shape[1]))
        tokens = torch.cat([prefix, x_t], 1)
        encoded = self.encoder(tokens, added_embeds, places=None if places is None else _after(length, places))
        return prefix, prompt, encoded

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
        places = given.get("places")
        if places is not None:  # a position is that of the token which it predicts
            places = _after(length, places[:, 1:] - 1)
        return Cache(prefix, self.decoder.cross_kv(encoded), added_embeds, places), at_tokens

    def draft_logits(self, x_t: Tensor, noise_t: Tensor, **given: Tensor | None) -> Tensor:
        """Logits of p(x_0) by the encoder alone, of every position at once, float [B, N, K]; given: as for `encode`."""
        prefix, _, encoded = self.encode(x_t, noise_t, **given)
        return self.add_x_t_evidence(self.draft_head(encoded[:, prefix.shape[1] :]), x_t, noise_t)

    def embed_hints(self, color_hints: Tensor | None, sides: Tensor | None) -> Tensor | None:
        """What color hints [B, N, K] and sides [B, N, 4] add to the encoder's embeddings; None: nothing."""
        embeds = None
        if color_hints is not None and self.config.color_hint_grid:
            embeds = self.color_hint_embedding(color_hints.to(self.color_hint_embedding.weight.dtype))
        if sides is not None and self.config.mask_sides:
            count = self.side_embedding.num_embeddings // 4
            of_sides = self.side_embedding(sides + count * torch.arange(4, device=sides.device)).sum(2)
            embeds = of_sides if embeds is None else embeds + of_sides
        return embeds

    def add_x_t_evidence(self, logits: Tensor, x_t: Tensor, noise_t: Tensor) -> Tensor:
        """Logits [..., K] + w log q(x_t | x_0), of tokens [...] and their noise levels."""
        return logits + self.likelihood * log_likelihood(x_t, noise_t.clamp(min=MIN_NOISE), self.config.vocab_size)

    def logits(self, x_s: Tensor, x_t: Tensor, noise_t: Tensor, noise_s: Tensor, **given: Tensor | None) -> Tensor:
        """Teacher-forced logits of p(x_0), float [B, N, K]; given: as for `encode`."""
        cache, _ = self.prepare(x_t, noise_t, noise_s, **given)
        return self.add_x_t_evidence(self.decoder.head(self.decoder.hidden(x_s, cache)), x_t, noise_t)

    def forward(
        self, x_s: Tensor, wanted: Tensor, x_t: Tensor, noise_t: Tensor, noise_s: Tensor, **given: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """For training: logits at the wanted positions, bool [B, N] -> [W, K], of decoder and draft head."""
        cache, encoded = self.prepare(x_t, noise_t, noise_s, **given)
        logits, drafts = self.decoder.head(self.decoder.hidden(x_s, cache)[wanted]), self.draft_head(encoded[wanted])
        x_t, noise_t = x_t[wanted], noise_t[wanted]
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
