"""Independent, slow and plain versions of what the package computes, and statistics to compare draws with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from imagebart.models.published import Kind, Stage, StageConfig, build_stage
from imagebart.models.text_encoder import TextEncoderConfig
from imagebart.models.transformer import TransformerConfig
from imagebart.settings import SamplingSettings


def chi_squared_p(counts: Tensor, probabilities: Tensor) -> float:
    """How likely counts [M] at least this far from the probabilities [M] are; rare outcomes are pooled.

    Outcomes of probability 0 must not occur: then the result is 0.
    """
    counts, expected = counts.double(), probabilities.double() / probabilities.sum() * counts.sum()
    if (counts[expected == 0] > 0).any():
        return 0.0
    rare = expected < 5
    if rare.any():
        counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts, expected = counts[expected > 0], expected[expected > 0]
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor((len(counts) - 1) / 2, dtype=torch.double)
    return float(torch.special.gammaincc(freedom, statistic / 2))


def binomial_z(successes: int, trials: int, probability: float) -> float:
    """Standard deviations between what was counted and what was expected."""
    return (successes - trials * probability) / math.sqrt(trials * probability * (1 - probability))


def joint_index(x: Tensor, vocab_size: int) -> Tensor:
    """Sequences [..., N] -> the index of each among all K^N."""
    powers = vocab_size ** torch.arange(x.shape[-1] - 1, -1, -1)
    return (x * powers).sum(-1)


def all_sequences(length: int, vocab_size: int) -> Tensor:
    """Every sequence, int64 [K^N, N], in the order of `joint_index`."""
    return torch.cartesian_prod(*[torch.arange(vocab_size)] * length).reshape(-1, length)


# Transformer


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def plain_attention(q: Tensor, k: Tensor, v: Tensor, sees: Callable[[int, int], bool]) -> Tensor:
    """q [S, d], k and v [M, d] of one head, one query after the other."""
    rows = []
    for i in range(len(q)):
        seen = [j for j in range(len(k)) if sees(i, j)]
        weights = [math.exp(float(q[i] @ k[j]) / math.sqrt(q.shape[1])) for j in seen]
        rows.append(sum(w / sum(weights) * v[j] for w, j in zip(weights, seen, strict=True)))
    return torch.stack(rows)


def plain_transformer(
    weights: Mapping[str, Tensor],
    config: TransformerConfig,
    tokens: Tensor,
    context: Tensor | None = None,
    extra: Tensor | None = None,
) -> Tensor:
    """One sequence of tokens [S] -> hidden states [S, width]; context [M, width]; extra [S, width]."""

    def linear(name: str, x: Tensor) -> Tensor:
        out = x @ weights[f"{name}.weight"].T
        return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def sees(i: int, j: int) -> bool:
        return not config.causal or j <= i or (i < config.unmasked and j < config.unmasked)

    def heads(x: Tensor, part: int) -> list[Tensor]:
        inner = config.heads * config.head_size
        x = x[:, part * inner : (part + 1) * inner]
        return [x[:, h * config.head_size : (h + 1) * config.head_size] for h in range(config.heads)]

    x = torch.stack([weights["token_embedding.weight"][token] for token in tokens])
    x = x + weights["position_embedding"][: len(tokens)]
    x = x if extra is None else x + extra
    for layer in range(config.depth):
        block = f"blocks.{layer}"
        qkv = linear(f"{block}.attention.qkv", norm(f"{block}.attention.norm", x))
        triples = zip(heads(qkv, 0), heads(qkv, 1), heads(qkv, 2), strict=True)
        attended = torch.cat([plain_attention(q, k, v, sees) for q, k, v in triples], 1)
        x = x + linear(f"{block}.attention.out", attended)
        if config.cross:
            assert context is not None
            q = linear(f"{block}.cross.q", norm(f"{block}.cross.norm", x))
            kv = linear(f"{block}.cross.kv", context)
            triples = zip(heads(q, 0), heads(kv, 0), heads(kv, 1), strict=True)
            attended = torch.cat([plain_attention(q, k, v, lambda i, j: True) for q, k, v in triples], 1)
            x = x + linear(f"{block}.cross.out", attended)
        up = linear(f"{block}.feed_forward.up", norm(f"{block}.feed_forward.norm", x))
        x = x + linear(f"{block}.feed_forward.down", up * (1 + torch.erf(up / math.sqrt(2))) / 2)
    return norm("norm", x)


# Stages

KINDS: tuple[Kind, ...] = ("decoder_only", "encoder_decoder", "residual", "aligned")


def random_stage(
    kind: Kind,
    tokens: int = 6,
    vocab_size: int = 7,
    cond_length: int = 2,
    beta: float = 0.4,
    seed: int = 0,
    slots: int = 0,
) -> Stage:
    """A float64 stage with large random weights, so that its logits differ clearly; T = 3.

    slots: those of its text encoder; 0: it has none, and reads the conditioning tokens themselves.
    """
    decoder_only = kind == "decoder_only"
    prefixed = kind in ("decoder_only", "aligned")  # the decoder's prefix is [t, cond...] or [t, slots...]
    cond_vocab = 5 if cond_length else 0
    text = None
    if slots:
        words = TransformerConfig(6, 2, 2, cond_vocab + slots, cond_length + slots, 3, causal=False)
        text = TextEncoderConfig(words, slots, phrase=3)
    prefix = slots or cond_length
    vocab = vocab_size + (slots or cond_vocab)
    positions = 1 + prefix + tokens
    decoder = TransformerConfig(
        width=8,
        depth=2,
        heads=2,
        vocab_in=max(vocab, 4) if prefixed else vocab_size,
        positions=positions if prefixed else tokens,
        head_size=4,
        vocab_out=vocab_size,
        unmasked=1 + prefix if kind == "aligned" else 0,
        cross=not decoder_only,
        attention_bias=decoder_only,
        head_bias=not decoder_only,
    )
    encoder = TransformerConfig(8, 2, 2, max(vocab, 4), positions, 4, causal=False)
    config = StageConfig(
        kind=kind,
        t=3 if decoder_only else 2,
        vocab_size=vocab_size,
        tokens=tokens,
        beta=1.0 if decoder_only else beta,
        decoder=decoder,
        encoder=None if decoder_only else encoder,
        cond_length=cond_length,
        cond_offset=vocab_size if cond_length else 0,
        start_token=0 if prefixed else 1,
        text=text,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stage = build_stage(config, 3)
        for parameter in stage.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return stage.double().eval().requires_grad_(False)


def random_cond(stage: Stage, batch: int) -> Tensor | None:
    """Conditioning tokens [B, L] for a random stage, or None where it takes none."""
    length = stage.config.cond_length
    return torch.randint(5, (batch, length)) if length else None


# Decoding


def plain_filter(logits: list[float], settings: SamplingSettings) -> list[float]:
    """Temperature, top-k and top-p of K logits, by sorting."""
    scaled = [value / settings.temperature for value in logits]
    ranked = sorted(range(len(scaled)), key=lambda k: -scaled[k])
    if settings.top_k is not None:
        ranked = ranked[: settings.top_k]
    if settings.top_p is not None:
        total = sum(math.exp(scaled[k] - scaled[ranked[0]]) for k in ranked)
        nucleus: list[int] = []
        reached = 0.0
        for k in ranked:
            if reached >= settings.top_p:
                break
            nucleus.append(k)
            reached += math.exp(scaled[k] - scaled[ranked[0]]) / total
        ranked = nucleus
    return [value if k in ranked else -math.inf for k, value in enumerate(scaled)]


def plain_decode(
    stage: Stage,
    c: Tensor,
    x: Tensor,
    keep: Tensor,
    cond: Tensor | None,
    null: Tensor | None,
    settings: SamplingSettings,
    noise: Tensor,
) -> Tensor:
    """One row after the other, one token after the other, the whole stage computed anew for each."""
    rows = []
    for b in range(len(x)):
        row = x[b : b + 1].clone()
        for i in range(x.shape[1]):
            if keep[b, i]:
                continue
            one = c[b : b + 1]
            logits = stage.logits(row, one, None if cond is None else cond[b : b + 1])[0, i]
            if settings.guidance != 1 and null is not None:
                without = stage.logits(row, one, null[b : b + 1])[0, i]
                logits = without + settings.guidance * (logits - without)
            filtered = plain_filter(logits.tolist(), settings)
            scores = [value + float(g) for value, g in zip(filtered, noise[b, i], strict=True)]
            row[0, i] = scores.index(max(scores))
        rows.append(row)
    return torch.cat(rows)
