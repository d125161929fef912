"""The networks, transformer, denoiser and published stages, against plain implementations; words that are learned."""

import random
from typing import Any

import pytest
import torch
from oracles import linear, log_likelihoods, part, plain_denoiser, plain_slots, plain_transformer
from random_networks import KINDS, random_cond, random_denoiser, random_stage, with_random_weights
from torch import Tensor
from torch.nn import functional as F

from imagebart.models.denoiser import Denoiser, Kind, Stage
from imagebart.models.transformer import Cache, Transformer, TransformerConfig

# The transformer

BASE = TransformerConfig(width=8, depth=2, heads=2, vocab_in=11, positions=9, head_size=4)
CONFIGS = {
    "causal": BASE,
    "with biases": BASE.replace(attention_bias=True),
    "bidirectional": BASE.replace(causal=False),
    "unmasked prefix": BASE.replace(unmasked=4),
    "one unmasked": BASE.replace(unmasked=1),
    "cross-attending, prefix": BASE.replace(cross=True, unmasked=3),
    "one head, wider than the model": BASE.replace(heads=1, head_size=16, cross=True),
}


def context_of(config: TransformerConfig, batch: int) -> Tensor | None:
    return torch.randn(batch, 5, config.width, dtype=torch.float64) if config.cross else None


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_equals_a_plain_implementation(config: TransformerConfig) -> None:
    transformer = with_random_weights(Transformer(config))
    weights = transformer.state_dict()
    for length in (1, 4, config.positions):
        tokens, context = torch.randint(config.vocab_in, (2, length)), context_of(config, 2)
        cross_kv = None if context is None else transformer.cross_kv(context)
        for added in (None, torch.randn(2, length, config.width, dtype=torch.float64)):
            found = transformer(tokens, added, cross_kv)
            for b in range(2):
                given = (None if part is None else part[b] for part in (context, added))
                expected = plain_transformer(weights, config, tokens[b], *given)
                torch.testing.assert_close(found[b], expected, rtol=1e-9, atol=1e-9)


CAUSAL = {name: config for name, config in CONFIGS.items() if config.causal}


@pytest.mark.parametrize("config", CAUSAL.values(), ids=CAUSAL.keys())
def test_any_chunks_equal_the_whole(config: TransformerConfig) -> None:
    """Rows at positions of their own; chunks may begin before the end of the last; then some rows leave."""
    transformer, rng = with_random_weights(Transformer(config)), random.Random(0)
    for _ in range(8):
        tokens, context = torch.randint(config.vocab_in, (3, config.positions)), context_of(config, 3)
        added_embeds = torch.randn(3, config.positions, config.width, dtype=torch.float64)
        cross_kv = None if context is None else transformer.cross_kv(context)
        expected = transformer(tokens, added_embeds, cross_kv)
        cache = Cache(tokens[:, :0], cross_kv, added_embeds)
        cache.allocate(transformer)
        rows, seen = [0, 1, 2], [0, 0, 0]
        while min(seen) < config.positions:
            # The first chunk holds the whole unmasked prefix.
            length = rng.randint(1 if max(seen) else max(config.unmasked, 1), config.positions)
            begins = [min(rng.randint(max(0, s - 2), s), config.positions - length) for s in seen]
            columns = torch.tensor(begins)[:, None] + torch.arange(length)
            x_s = torch.cat([tokens, tokens[:, :1]], 1)[rows]  # of which the last is not read
            found = transformer.decode(x_s, cache, begins, length)
            torch.testing.assert_close(found, expected[torch.tensor(rows)[:, None], columns], rtol=0, atol=1e-12)
            seen = [max(s, b + length) for s, b in zip(seen, begins, strict=True)]
            if len(rows) == 3:
                cache.select(torch.tensor([2, 0]))
                rows, seen = [2, 0], [seen[2], seen[0]]


def test_weights_begin_as_gpt_2s() -> None:
    """What is added to the residual stream is smaller."""
    config = BASE.replace(width=64, depth=4, vocab_in=100, positions=50, head_size=32, vocab_out=100, cross=True)
    transformer = Transformer(config).requires_grad_(False)
    for name, matrix in transformer.named_parameters():
        if matrix.ndim == 2:
            expected = 0.02 / 8**0.5 if name.endswith(("out.weight", "down.weight")) else 0.02
            assert float(matrix.square().mean().sqrt()) == pytest.approx(expected, rel=0.1), name


# The denoiser

# Conditioning and query tokens: none, a class, words that stand before the image, words that are read.
CONDITIONS = {"none": (0, 0), "class": (1, 0), "words": (4, 0), "text": (5, 3)}
every_condition = pytest.mark.parametrize(("cond_length", "query_tokens"), CONDITIONS.values(), ids=CONDITIONS.keys())
every_hint_grid = pytest.mark.parametrize("color_hint_grid", [0, 2])


def inputs(denoiser: Denoiser, batch: int = 2) -> dict[str, Any]:
    """x_s, x_t, their noise levels (some tokens are known, at 0) and what the denoiser is conditioned on."""
    shape, size = (batch, denoiser.config.tokens), denoiser.config.vocab_size
    noise_t = torch.rand(shape, dtype=torch.float64)
    noise_t[:, 1], noise_t[:, 4] = 0, 1
    noise_s = noise_t * torch.rand(shape, dtype=torch.float64)
    x_s, x_t = torch.randint(size, shape), torch.randint(size, shape)
    cond = random_cond(batch, denoiser.config.cond_length)
    return {"x_s": x_s, "x_t": x_t, "noise_t": noise_t, "noise_s": noise_s, "cond": cond}


def in_training(denoiser: Denoiser, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Logits of the decoder and of the draft head at all positions; the prompt is encoded beforehand."""
    given = {"prompt_embeds": denoiser.encode_prompt(given["cond"]), **given}
    wanted = torch.rand(given["x_s"].shape) < 0.5
    every = [part.view(*wanted.shape, -1) for part in denoiser(wanted=torch.ones_like(wanted), **given)]
    codes = given["x_t"].unique()  # logits of some codes are those that they have among all
    parts, of_codes = denoiser(wanted=wanted, **given), denoiser(wanted=wanted, codes=codes, **given)
    for some, fewer, whole in zip(parts, of_codes, every, strict=True):
        torch.testing.assert_close(some, whole[wanted], rtol=0, atol=1e-12)
        torch.testing.assert_close(fewer, whole[wanted][:, codes], rtol=0, atol=1e-6)
    return every[0], every[1]


@every_hint_grid
@every_condition
def test_a_denoiser_equals_a_plain_implementation(cond_length: int, query_tokens: int, color_hint_grid: int) -> None:
    """The decoder's and the encoder's own logits, every token at a noise level of its own."""
    denoiser = random_denoiser(cond_length=cond_length, query_tokens=query_tokens, color_hint_grid=color_hint_grid)
    given, color_hints = inputs(denoiser), torch.rand(2, 6, 7) < 0.3
    given["hint_embeds"] = denoiser.embed_hints(color_hints)
    predicted = in_training(denoiser, given)
    torch.testing.assert_close(predicted[0], denoiser.logits(**given), rtol=0, atol=1e-12)
    given_to_encoder = {name: value for name, value in given.items() if name not in ("x_s", "noise_s")}
    torch.testing.assert_close(predicted[1], denoiser.draft_logits(**given_to_encoder), rtol=0, atol=1e-12)
    for b in range(2):
        rows = [given[name][b].tolist() for name in ("x_s", "x_t", "noise_t", "noise_s")]
        cond = [] if given["cond"] is None else given["cond"][b].tolist()
        expected = plain_denoiser(denoiser, *rows, cond, color_hints[b].tolist() if color_hint_grid else None)
        for ours, plain in zip(predicted, expected, strict=True):
            torch.testing.assert_close(ours[b], plain, rtol=1e-5, atol=1e-5)  # the likelihood is float32


def test_a_fresh_denoiser_can_learn_everything() -> None:
    """Maps that begin at zero get gradients: none of them is behind another zero."""
    denoiser = Denoiser(random_denoiser(cond_length=5, query_tokens=3, color_hint_grid=2).config)
    given = inputs(denoiser)
    given["hint_embeds"] = denoiser.embed_hints(torch.rand(2, 6, 7) < 0.3)
    sum(F.cross_entropy(logits.mT, given["x_s"]) for logits in in_training(denoiser, given)).backward()  # type: ignore
    zero = [name for name, parameter in denoiser.named_parameters() if parameter.ndim != 1 and (parameter == 0).all()]
    cross = [f"decoder.blocks.{layer}.cross.out.weight" for layer in range(2)]
    rates = ["encoder_rates.map.weight", "decoder_rates.map.weight"]
    conv = "text.phrase.convolution.weight"
    assert set(zero) == {*cross, *rates, conv, "color_hint_embedding.weight", "align.weight", "likelihood"}
    parameters = dict(denoiser.named_parameters())
    for name in {*zero} - {conv}:  # the text encoder's is behind the prompt, not behind a zero of the image's
        gradient = parameters[name].grad
        assert gradient is not None and gradient.abs().sum() > 0, name


@every_hint_grid
@every_condition
def test_every_parameter_of_a_denoiser_is_used(cond_length: int, query_tokens: int, color_hint_grid: int) -> None:
    """Distributed training fails on parameters without gradients."""
    more: dict[str, Any] = {"color_hint_grid": color_hint_grid, "tokens": 9}
    denoiser = random_denoiser(cond_length=cond_length, query_tokens=query_tokens, **more).requires_grad_(True)
    given = inputs(denoiser) | {"hint_embeds": denoiser.embed_hints(torch.rand(2, 9, 7) < 0.3)}
    sum(part.square().sum() for part in in_training(denoiser, given)).backward()  # type: ignore[union-attr]
    assert [name for name, p in denoiser.named_parameters() if p.grad is None] == []


# Published stages


def plain_stage(stage: Stage, x: list[int], c: list[int], cond: list[int]) -> Tensor:
    """The stage of one row, written out from the reference notes: logits [N, K]."""
    config, weights = stage.config, stage.state_dict()
    read = torch.zeros(len(cond), config.decoder.width)
    if config.text is not None:
        read = plain_slots(weights, config.text, cond)
        cond = list(range(config.text.query_tokens))
    prefix = [config.t] + [token + config.cond_offset for token in cond]
    prompt, context = torch.cat([torch.zeros(1, read.shape[1]), read]), None  # nothing is added to t
    extra = torch.cat([prompt, torch.zeros(len(x) - 1, read.shape[1])])
    if config.encoder is not None:
        told = torch.cat([prompt, torch.zeros(len(c), read.shape[1])])
        context = plain_transformer(part(weights, "encoder"), config.encoder, torch.tensor(prefix + c), extra=told)
        prefix, extra = [config.start_token], torch.zeros(len(x), read.shape[1])
    fed = torch.tensor(prefix + x[:-1])
    hidden = plain_transformer(part(weights, "decoder"), config.decoder, fed, context, extra)
    logits = linear(weights, "decoder.head", hidden[len(prefix) - 1 :])
    if config.kind != "residual":
        return logits
    likelihood = log_likelihoods(c, [config.beta] * len(c), config.vocab_size)
    return logits * weights["log_scalors"][config.t - 1].exp() + likelihood


@pytest.mark.parametrize(("cond_length", "query_tokens"), [(0, 0), (2, 0), (5, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_equals_a_plain_implementation(kind: Kind, cond_length: int, query_tokens: int) -> None:
    stage = random_stage(kind, cond_length=cond_length, query_tokens=query_tokens)
    x, c, cond = torch.randint(7, (2, 6)), torch.randint(7, (2, 6)), random_cond(2, cond_length)
    found = stage(x, c, cond)
    for b in range(2):
        expected = plain_stage(stage, x[b].tolist(), c[b].tolist(), [] if cond is None else cond[b].tolist())
        torch.testing.assert_close(found[b], expected, rtol=1e-5, atol=1e-5)  # the likelihood is float32


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_a_stage_is_used(kind: Kind) -> None:
    stage = random_stage(kind, cond_length=5, query_tokens=3).requires_grad_(True)
    x, c = torch.randint(7, (2, 2, 6))
    stage(x, c, random_cond(2, 5)).square().sum().backward()
    assert [name for name, p in stage.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("kind", ["decoder_only", "residual"])
def test_a_stage_has_an_encoder_if_its_kind_does(kind: Kind) -> None:
    config, other = random_stage(kind).config, random_stage("encoder_decoder").config
    with pytest.raises(ValueError, match=f"a stage of kind {kind} has "):
        Stage(config.replace(encoder=other.encoder if config.encoder is None else None), 3)
