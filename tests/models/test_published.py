from __future__ import annotations

import dataclasses
import math
import random

import pytest
import torch
from oracles import KINDS, plain_transformer, random_cond, random_stage
from torch import Tensor

from imagebart.diffusion import log_likelihood
from imagebart.models.published import AlignedStage, Kind, ResidualStage, Stage, StageRun, build_stage

every_kind = pytest.mark.parametrize("kind", KINDS)
with_and_without_cond = pytest.mark.parametrize(("cond_length", "slots"), [(0, 0), (2, 0), (5, 3)])


def tokens_of(stage: Stage, batch: int) -> Tensor:
    return torch.randint(stage.config.vocab_size, (batch, stage.config.tokens))


def log_q(k: int, c: int, beta: float, vocab_size: int) -> float:
    """log q(x_t = c | x_{t-1} = k)"""
    return math.log((1 - beta) * (k == c) + beta / vocab_size)


def plain_logits(stage: Stage, x: list[int], c: list[int], cond: list[int]) -> Tensor:
    """The stage of one row, written out from the reference notes: logits [N, K]."""
    config = stage.config
    weights = stage.state_dict()
    decoder = {name[8:]: value for name, value in weights.items() if name.startswith("decoder.")}
    encoder = {name[8:]: value for name, value in weights.items() if name.startswith("encoder.")}
    read = read_slots(stage, cond) if config.text is not None else None
    ids = list(range(config.text.slots)) if config.text is not None else cond
    prefix = [config.t] + [token + config.cond_offset for token in ids]
    context = extra = None
    if config.encoder is not None:
        told = None if read is None else torch.cat([read, torch.zeros(len(c), read.shape[1])])
        context = plain_transformer(encoder, config.encoder, torch.tensor(prefix + c), extra=told)
    if config.kind in ("decoder_only", "aligned"):
        extra = torch.zeros(len(prefix) + len(x) - 1, config.decoder.width, dtype=torch.float64)
        if context is not None:
            extra[len(prefix) - 1 :] += context[len(prefix) :] @ weights["align.weight"].T + weights["align.bias"]
        if read is not None:
            extra[: len(prefix)] += read
    before = [config.start_token] if config.kind in ("encoder_decoder", "residual") else prefix
    fed = torch.tensor(before + x[:-1])
    hidden = plain_transformer(decoder, config.decoder, fed, context, extra)[len(before) - 1 :]
    logits = hidden @ decoder["head.weight"].T + decoder.get("head.bias", torch.zeros(()))
    likelihood = torch.tensor(
        [[log_q(k, seen, config.beta, config.vocab_size) for k in range(config.vocab_size)] for seen in c]
    )
    if config.kind == "residual":
        return logits * weights["log_scalors"][config.t - 1].exp() + likelihood
    if config.kind == "aligned":
        return logits + weights["residual"] * likelihood
    return logits


def read_slots(stage: Stage, cond: list[int]) -> Tensor:
    """What the text encoder of a stage adds to its prefix of one row, written out: [1 + slots, width]."""
    config, weights = stage.config.text, stage.state_dict()
    assert config is not None
    inner = {name[17:]: value for name, value in weights.items() if name.startswith("text.transformer.")}
    words = config.transformer.vocab_in - config.slots
    extra = torch.zeros(len(cond) + config.slots, config.transformer.width, dtype=torch.float64)
    for i in range(len(cond)):
        extra[i] += weights["text.phrase.convolution.bias"]
        for back in range(min(config.phrase, i + 1)):
            kernel = weights["text.phrase.convolution.weight"][:, :, config.phrase - 1 - back]
            extra[i] += kernel @ inner["token_embedding.weight"][cond[i - back]]
    fed = torch.tensor(cond + [words + i for i in range(config.slots)])
    slots = plain_transformer(inner, config.transformer, fed, extra=extra)[len(cond) :]
    mapped = slots @ weights["text_map.weight"].T + weights["text_map.bias"]
    return torch.cat([torch.zeros(1, mapped.shape[1]), mapped])


@with_and_without_cond
@every_kind
def test_logits_equal_a_plain_implementation(kind: Kind, cond_length: int, slots: int) -> None:
    stage = random_stage(kind, cond_length=cond_length, slots=slots)
    x, c, cond = tokens_of(stage, 2), tokens_of(stage, 2), random_cond(stage, 2)
    found = stage.logits(x, c, cond)
    assert found.shape == (2, 6, 7)
    for b in range(2):
        row = [] if cond is None else cond[b].tolist()
        expected = plain_logits(stage, x[b].tolist(), c[b].tolist(), row)
        # The likelihood is float32, in the package as well as here.
        torch.testing.assert_close(found[b], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stage(x, c, cond), found)


@with_and_without_cond
@every_kind
def test_windows_predict_as_teacher_forcing(kind: Kind, cond_length: int, slots: int) -> None:
    """Rows at different steps, windows that overlap what was seen, whatever stands after them."""
    rng = random.Random(0)
    for trial in range(6):
        stage = random_stage(kind, cond_length=cond_length, seed=trial, slots=slots)
        n, k = stage.config.tokens, stage.config.vocab_size
        x, c, cond = tokens_of(stage, 3), tokens_of(stage, 3), random_cond(stage, 3)
        expected = stage.logits(x, c, cond)
        run = StageRun(stage, c, cond)
        last = run.first + n
        taken = [0, 0, 0]
        rows = [0, 1, 2]
        while min(taken) < last:
            length = rng.randint(1, last) if taken[0] else rng.randint(max(run.first, 1), last)
            begins = [min(rng.randint(max(0, t - 2), t), last - length) for t in taken]
            skip = rng.randint(0, length - 1)
            fed = x[rows].clone()
            for row, begin in enumerate(begins):
                end = begin + length - run.first - 1  # x from here on is not fed
                fed[row, max(end, 0) :] = torch.randint(k, (n - max(end, 0),))
            found = run.logits(fed, begins, length, skip)
            assert found.shape == (len(rows), length - skip, k)
            for row, begin in enumerate(begins):
                for offset in range(skip, length):
                    place = begin + offset - run.first
                    if place >= 0:
                        torch.testing.assert_close(found[row, offset - skip], expected[rows[row], place])
            taken = [max(t, b + length) for t, b in zip(taken, begins, strict=True)]
            if len(rows) == 3 and min(taken) > run.first:
                run.select(torch.tensor([2, 0]))
                rows, taken = [2, 0], [taken[2], taken[0]]


@every_kind
def test_steps_may_be_taken_again_with_other_tokens(kind: Kind) -> None:
    stage = random_stage(kind)
    x, c, cond = tokens_of(stage, 2), tokens_of(stage, 2), random_cond(stage, 2)
    run = StageRun(stage, c, cond)
    run.logits(tokens_of(stage, 2), [0, 0], run.first + 6)  # drafts
    right = run.logits(x, [run.first, run.first], 6)
    torch.testing.assert_close(right, stage.logits(x, c, cond))


@every_kind
def test_causal_in_x(kind: Kind) -> None:
    """x at i changes no logits at or before i, and all after it."""
    stage = random_stage(kind)
    x, c, cond = tokens_of(stage, 1), tokens_of(stage, 1), random_cond(stage, 1)
    before = stage.logits(x, c, cond)
    for i in range(stage.config.tokens):
        changed = x.clone()
        changed[0, i] = (changed[0, i] + 1) % stage.config.vocab_size
        difference = (stage.logits(changed, c, cond) - before).abs().amax(-1)[0]
        assert (difference[: i + 1] == 0).all() and (difference[i + 1 :] > 0).all()


@every_kind
def test_what_x_t_and_the_condition_change(kind: Kind) -> None:
    """x_t is noise to the decoder-only stage, and reaches every position of the others; the condition all."""
    stage = random_stage(kind)
    x, c, cond = tokens_of(stage, 1), tokens_of(stage, 1), random_cond(stage, 1)
    assert cond is not None
    before = stage.logits(x, c, cond)
    changed = c.clone()
    changed[0, -1] = (changed[0, -1] + 1) % stage.config.vocab_size
    difference = (stage.logits(x, changed, cond) - before).abs().amax(-1)[0]
    assert (difference == 0).all() if kind == "decoder_only" else (difference > 0).all()
    other = (cond + torch.tensor([0, 1])) % 5
    assert ((stage.logits(x, c, other) - before).abs().amax(-1) > 0).all()


@every_kind
def test_a_text_encoder_tells_the_words_and_their_order(kind: Kind) -> None:
    stage = random_stage(kind, cond_length=3, slots=2)
    x, c = tokens_of(stage, 1), tokens_of(stage, 1)
    before = stage.logits(x, c, torch.tensor([[1, 2, 3]]))
    for other in ([2, 1, 3], [1, 2, 4]):
        assert ((stage.logits(x, c, torch.tensor([other])) - before).abs().amax(-1) > 0).all()


@every_kind
def test_rows_are_independent(kind: Kind) -> None:
    stage = random_stage(kind)
    x, c, cond = tokens_of(stage, 3), tokens_of(stage, 3), random_cond(stage, 3)
    assert cond is not None
    rows = [stage.logits(x[b : b + 1], c[b : b + 1], cond[b : b + 1]) for b in range(3)]
    torch.testing.assert_close(stage.logits(x, c, cond), torch.cat(rows), rtol=0, atol=1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
def test_log_likelihood_over_every_pair(beta: float) -> None:
    found = log_likelihood(torch.arange(4).reshape(2, 2), beta, 4)
    assert found.shape == (2, 2, 4)
    expected = [[log_q(k, c, beta, 4) for k in range(4)] for c in range(4)]
    torch.testing.assert_close(found.reshape(4, 4), torch.tensor(expected))
    # As a function of x_t, the likelihood is a distribution.
    torch.testing.assert_close(found.reshape(4, 4).exp().sum(0), torch.ones(4))


def test_residual_scale_is_that_of_its_step() -> None:
    stage = random_stage("residual")
    assert isinstance(stage, ResidualStage) and stage.log_scalors.shape == (3,)
    x, c, cond = tokens_of(stage, 1), tokens_of(stage, 1), random_cond(stage, 1)
    before = stage.logits(x, c, cond)
    stage.log_scalors[0] += 1
    stage.log_scalors[2] += 1
    assert torch.equal(stage.logits(x, c, cond), before)
    stage.log_scalors[1] = -1e9  # the network's part vanishes: what x_t says remains
    expected = log_likelihood(c, stage.config.beta, 7).double()
    torch.testing.assert_close(stage.logits(x, c, cond), expected)


def test_fresh_aligned_stage_is_the_decoder_only_model() -> None:
    """As built, and given the same decoder weights, whatever x_t says."""
    gpt = random_stage("decoder_only")
    config = random_stage("aligned").config
    decoder = dataclasses.replace(config.decoder, attention_bias=True, head_bias=False, unmasked=0)
    config = dataclasses.replace(config, decoder=decoder, t=gpt.config.t)
    stage = build_stage(config, 3).double()
    missing, unexpected = stage.decoder.load_state_dict(gpt.decoder.state_dict(), strict=False)
    assert all(".cross." in name for name in missing) and not unexpected
    x, c, cond = tokens_of(stage, 2), tokens_of(stage, 2), random_cond(stage, 2)
    torch.testing.assert_close(stage.logits(x, c, cond), gpt.logits(x, c, cond), rtol=0, atol=1e-12)
    torch.testing.assert_close(stage.logits(x, tokens_of(stage, 2), cond), stage.logits(x, c, cond))


def test_fresh_aligned_stage_can_learn_to_use_x_t() -> None:
    """Zero maps still get gradients: none of them is behind another zero."""
    config = random_stage("aligned").config
    stage = build_stage(config, 3)
    assert isinstance(stage, AlignedStage)
    x, c, cond = tokens_of(stage, 2), tokens_of(stage, 2), random_cond(stage, 2)
    torch.nn.functional.cross_entropy(stage(x, c, cond).flatten(0, 1), x.flatten()).backward()
    maps = [stage.align.weight, stage.residual, stage.decoder.blocks[0].cross.out.weight]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in maps)


@every_kind
def test_every_parameter_is_used(kind: Kind) -> None:
    """Distributed training fails on parameters without gradients."""
    stage = random_stage(kind).requires_grad_(True)
    x, c, cond = tokens_of(stage, 2), tokens_of(stage, 2), random_cond(stage, 2)
    stage(x, c, cond).square().sum().backward()
    assert [name for name, p in stage.named_parameters() if p.grad is None] == []


@every_kind
def test_bad_conditions(kind: Kind) -> None:
    stage, bare = random_stage(kind), random_stage(kind, cond_length=0)
    x = tokens_of(stage, 2)
    with pytest.raises(ValueError, match=r"cond has shape \[2, 0\], expected \[2, 2\]"):
        stage.logits(x, x)
    with pytest.raises(ValueError, match=r"cond has shape \[2, 3\], expected \[2, 2\]"):
        stage.start(x, torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"cond has shape \[1, 2\], expected \[2, 2\]"):
        stage.start(x, torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"cond has shape \[2, 2\], expected \[2, 0\]"):
        bare.logits(x, x, torch.zeros(2, 2, dtype=torch.long))
    torch.testing.assert_close(bare.logits(x, x), bare.logits(x, x, torch.zeros(2, 0, dtype=torch.long)))


@every_kind
def test_bad_tokens(kind: Kind) -> None:
    stage = random_stage(kind, cond_length=0)
    x = tokens_of(stage, 2)
    for bad in (x[:, :5], x[0], torch.cat([x, x], 1)):
        with pytest.raises(ValueError, match=r"tokens have shape .* expected \[B, 6\]"):
            stage.logits(bad, x)
        with pytest.raises(ValueError, match=r"tokens have shape .* expected \[B, 6\]"):
            stage.start(bad)
    with pytest.raises(ValueError, match="2 rows of x_{t-1}, but 1 of x_t"):
        stage.logits(x, x[:1])


def test_unknown_kind() -> None:
    config = dataclasses.replace(random_stage("decoder_only").config, kind="unet")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'unet', expected decoder_only"):
        build_stage(config, 3)


