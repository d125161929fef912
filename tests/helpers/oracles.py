"""Independent, slow and plain versions of what the package computes, and statistics to compare draws with."""

import itertools
import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from imagebart.core.settings import SamplingSettings
from imagebart.models.denoiser import Denoiser, Stage
from imagebart.models.transformer import TextEncoderConfig, TransformerConfig
from imagebart.sampling.steps import Step


def chi_squared_p(counts: Tensor, probabilities: Tensor) -> float:
    """How likely counts [M] at least this far from probabilities [M] are, rare ones pooled; 0 for impossible ones."""
    counts, expected = counts.double(), probabilities.double() / probabilities.sum() * counts.sum()
    if (counts[expected == 0] > 0).any():
        return 0.0
    rare = expected < 5
    counts, expected = (torch.cat([each[~rare], each[rare].sum()[None]]) for each in (counts, expected))
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor((len(counts) - 1) / 2, dtype=torch.double)
    return float(torch.special.gammaincc(freedom, statistic / 2))


def binomial_z(successes: int, trials: int, probability: float) -> float:
    """Standard deviations between what was counted and what was expected."""
    return (successes - trials * probability) / math.sqrt(trials * probability * (1 - probability))


# Networks


def linear(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    out = x @ weights[f"{name}.weight"].T
    return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out


def part(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights of one module of a network."""
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def plain_attention(q: Tensor, k: Tensor, v: Tensor, sees: Callable[[int, int], bool]) -> Tensor:
    """q [S, d], k and v [M, d] of one head."""
    hidden = torch.tensor([[not sees(i, j) for j in range(len(k))] for i in range(len(q))])
    return (q @ k.T / math.sqrt(q.shape[1])).masked_fill(hidden, -math.inf).softmax(-1) @ v


def plain_transformer(
    weights: Mapping[str, Tensor],
    config: TransformerConfig,
    tokens: Tensor,
    context: Tensor | None = None,
    extra: Tensor | None = None,
) -> Tensor:
    """One sequence of tokens [S] -> hidden states [S, width]; context [M, width]; extra [S, width]."""

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def sees(i: int, j: int) -> bool:
        return not config.causal or j <= i or (i < config.unmasked and j < config.unmasked)

    x = torch.stack([weights["token_embedding.weight"][token] for token in tokens])
    x = x + weights["position_embedding"][: len(tokens)]
    x = x if extra is None else x + extra
    for layer in range(config.depth):
        block = f"blocks.{layer}"
        qkv = linear(weights, f"{block}.attention.qkv", norm(f"{block}.attention.norm", x))
        heads = zip(*(t.split(config.head_size, 1) for t in qkv.chunk(3, 1)), strict=True)
        attended = torch.cat([plain_attention(q, k, v, sees) for q, k, v in heads], 1)
        x = x + linear(weights, f"{block}.attention.out", attended)
        if config.cross:
            assert context is not None
            q = linear(weights, f"{block}.cross.q", norm(f"{block}.cross.norm", x))
            kv = linear(weights, f"{block}.cross.kv", context).chunk(2, 1)
            heads = zip(*(t.split(config.head_size, 1) for t in (q, *kv)), strict=True)
            attended = torch.cat([plain_attention(q, k, v, lambda i, j: True) for q, k, v in heads], 1)
            x = x + linear(weights, f"{block}.cross.out", attended)
        up = linear(weights, f"{block}.feed_forward.up", norm(f"{block}.feed_forward.norm", x))
        x = x + linear(weights, f"{block}.feed_forward.down", up * (1 + torch.erf(up / math.sqrt(2))) / 2)
    return norm("norm", x)


def plain_slots(weights: Mapping[str, Tensor], config: TextEncoderConfig, cond: list[int]) -> Tensor:
    """What a network's text encoder reads in one row of words, mapped to the width of its decoder: [slots, width]."""
    inner = part(weights, "text.transformer")
    words = config.transformer.vocab_in - config.query_tokens
    extra = torch.zeros(len(cond) + config.query_tokens, config.transformer.width, dtype=torch.float64)
    for i in range(len(cond)):
        extra[i] += weights["text.phrase.convolution.bias"]
        for back in range(min(config.conv_width, i + 1)):
            kernel = weights["text.phrase.convolution.weight"][:, :, config.conv_width - 1 - back]
            extra[i] += kernel @ inner["token_embedding.weight"][cond[i - back]]
    fed = torch.tensor(cond + [words + i for i in range(config.query_tokens)])
    slots = plain_transformer(inner, config.transformer, fed, extra=extra)[len(cond) :]
    return linear(weights, "text_map", slots)


# Diffusion


def transition(noise: float, vocab_size: int) -> Tensor:
    """Entry [i, j] is the probability that token i becomes j at a noise level: float64 [K, K]."""
    return (1 - noise) * torch.eye(vocab_size, dtype=torch.float64) + noise / vocab_size


def log_likelihoods(c: list[int], noise_t: list[float], vocab_size: int) -> Tensor:
    """log q(x_t = c_n | x = k), of N tokens at their noise levels and every k: float64 [N, K]."""
    return torch.stack([transition(noise, vocab_size)[:, seen] for seen, noise in zip(c, noise_t, strict=True)]).log()


def plain_reverse(p0: list[float], c: int, noise_t: float, noise_s: float) -> list[float]:
    """p(x_s = k | x_t = c) of K tokens: the sum over x_0 of p0(x_0) q(x_s = k | x_t = c, x_0), Bayes written out."""
    step = transition(1 - (1 - noise_t) / (1 - noise_s), len(p0))  # x_s to x_t
    joint = transition(noise_s, len(p0)) * step[:, c]  # of x_s and of x_t = c, given x_0: [x_0, x_s]
    return (torch.tensor(p0, dtype=torch.float64) @ (joint / joint.sum(1, keepdim=True))).tolist()


def plain_denoiser(
    denoiser: Denoiser,
    x: list[int],
    c: list[int],
    noise_t: list[float],
    noise_s: list[float],
    cond: list[int],
    color_hints: list[list[bool]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits of p(x_0) of one row, the decoder's and the encoder's own: float64 [N, K] each."""
    config, weights, size = denoiser.config, denoiser.state_dict(), denoiser.config.vocab_size

    def embed(name: str, levels: list[float]) -> Tensor:
        angles = torch.tensor([[math.pi * 2**i * level for i in range(6)] for level in levels], dtype=torch.float64)
        return linear(weights, f"{name}.map", torch.cat([angles.sin(), angles.cos()], 1))

    slots = (
        torch.zeros(len(cond), config.encoder.width) if config.text is None else plain_slots(weights, config.text, cond)
    )
    ids = cond if config.text is None else range(len(slots))
    prefix = [config.encoder.vocab_in - 1, *(size + token for token in ids)]
    prompt = torch.cat([torch.zeros(1, config.encoder.width), slots])  # nothing is added to the start token
    of_tokens = embed("encoder_rates", noise_t)
    if color_hints is not None:
        of_tokens = of_tokens + torch.tensor(color_hints).double() @ weights["color_hint_embedding.weight"].T
    to_encoder = torch.cat([prompt, of_tokens])
    encoded = plain_transformer(part(weights, "encoder"), config.encoder, torch.tensor(prefix + c), extra=to_encoder)
    first = len(prefix) - 1  # the decoder's position `first + n` gets x_s at n - 1 and predicts x_0 at n
    to_decoder = torch.cat([prompt, embed("decoder_rates", noise_s[:-1])])
    to_decoder[first:] += linear(weights, "align", encoded[len(prefix) :])
    fed = torch.tensor(prefix + x[:-1])
    hidden = plain_transformer(part(weights, "decoder"), config.decoder, fed, encoded, to_decoder)[first:]
    likelihood = weights["likelihood"] * log_likelihoods(c, [max(noise, 0.002) for noise in noise_t], size)
    drafts = linear(weights, "draft_head", encoded[len(prefix) :])
    return linear(weights, "decoder.head", hidden) + likelihood, drafts + likelihood


# Sampling


def teacher_forced(
    step: Step, x: Tensor, c: Tensor, noise_level: Tensor, cond: Tensor | None, color_hints: Tensor | None = None
) -> Tensor:
    """Logits [B, N, K] that temperature and filters act on, all positions at once; kept ones are of no use."""
    if isinstance(step.network, Stage):
        return step.network(x, c, cond)
    noise_t, noise_s = (noise_level.clamp(max=level) for level in (step.noise_t, step.noise_s))
    hints = step.network.embed_hints(color_hints)
    return step.network.logits(x, c, noise_t, noise_s, cond=cond, hint_embeds=hints)


def plain_filter(logits: list[float], settings: SamplingSettings) -> list[float]:
    """Temperature, top-k and top-p of K logits, by sorting."""
    scaled = [value / settings.temperature for value in logits]
    ranked = sorted(range(len(scaled)), key=lambda k: -scaled[k])[: settings.top_k]
    weights = [math.exp(scaled[k] - scaled[ranked[0]]) for k in ranked]
    reached = [0.0, *itertools.accumulate(weight / sum(weights) for weight in weights)]  # before each
    kept = {k for k, before in zip(ranked, reached, strict=False) if before < (settings.top_p or math.inf)}
    return [value if k in kept else -math.inf for k, value in enumerate(scaled)]


def plain_weights(
    step: Step, logits: list[float], c: int, settings: SamplingSettings, level: float = 1.0
) -> list[float]:
    """p(x_s = k | x_t = c) of K tokens from logits, filtered."""
    filtered = plain_filter(logits, settings)
    weights = [math.exp(value - max(filtered)) for value in filtered]
    p0 = [weight / sum(weights) for weight in weights]
    if isinstance(step.network, Stage):
        return p0
    return plain_reverse(p0, c, min(step.noise_t, level), step.noise_s)


def plain_draw(
    step: Step,
    c: Tensor,
    x: Tensor,
    noise_level: Tensor,
    cond: Tensor | None,
    unconditional: Tensor | None,
    settings: SamplingSettings,
    noise: Tensor,
    color_hints: Tensor | None = None,
) -> Tensor:
    """One row after the other, one token after the other, the whole step computed again for each."""
    rows = []
    for b in range(len(x)):
        row, one = x[b : b + 1].clone(), slice(b, b + 1)
        for i in range(x.shape[1]):
            if noise_level[b, i] <= step.noise_s:
                continue
            hints = None if color_hints is None else color_hints[one]
            given = None if cond is None else cond[one]
            logits = teacher_forced(step, row, c[one], noise_level[one], given, hints)[0, i]
            if settings.guidance != 1 and unconditional is not None:
                without = teacher_forced(step, row, c[one], noise_level[one], unconditional[one], hints)[0, i]
                logits = without + settings.guidance * (logits - without)
            weights = plain_weights(step, logits.tolist(), int(c[b, i]), settings, float(noise_level[b, i]))
            row[0, i] = (torch.tensor(weights, dtype=torch.float64).log() + noise[b, i]).argmax()
        rows.append(row)
    return torch.cat(rows)
