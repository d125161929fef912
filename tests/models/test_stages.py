from __future__ import annotations

import pytest
import torch
from oracles import log_q, part, plain_slots, plain_transformer
from random_networks import KINDS, random_cond, random_stage
from torch import Tensor

from imagebart.models.denoiser import Kind, Stage
from imagebart.models.diffusion import log_likelihood

every_kind = pytest.mark.parametrize("kind", KINDS)
with_and_without_cond = pytest.mark.parametrize(("cond_length", "query_tokens"), [(0, 0), (2, 0), (5, 3)])


def tokens_of(stage: Stage, batch: int) -> Tensor:
    return torch.randint(stage.config.vocab_size, (batch, stage.config.tokens))


def plain_logits(stage: Stage, x: list[int], c: list[int], cond: list[int]) -> Tensor:
    """The stage of one row, written out from the reference notes: logits [N, K]."""
    config = stage.config
    weights = stage.state_dict()
    decoder, encoder = part(weights, "decoder"), part(weights, "encoder")
    read = None
    if config.text is not None:
        query_tokens = plain_slots(weights, config.text, cond)
        read = torch.cat([torch.zeros(1, query_tokens.shape[1]), query_tokens])  # nothing is added to t
    ids = list(range(config.text.query_tokens)) if config.text is not None else cond
    prefix = [config.t] + [token + config.cond_offset for token in ids]
    context = extra = None
    if config.encoder is not None:
        told = None if read is None else torch.cat([read, torch.zeros(len(c), read.shape[1])])
        context = plain_transformer(encoder, config.encoder, torch.tensor(prefix + c), extra=told)
    if config.kind == "decoder_only" and read is not None:
        extra = torch.cat([read, torch.zeros(len(x) - 1, read.shape[1])])
    before = prefix if config.kind == "decoder_only" else [config.start_token]
    fed = torch.tensor(before + x[:-1])
    hidden = plain_transformer(decoder, config.decoder, fed, context, extra)[len(before) - 1 :]
    logits = hidden @ decoder["head.weight"].T + decoder.get("head.bias", torch.zeros(()))
    likelihood = torch.tensor(
        [[log_q(k, seen, config.beta, config.vocab_size) for k in range(config.vocab_size)] for seen in c]
    )
    if config.kind == "residual":
        return logits * weights["log_scalors"][config.t - 1].exp() + likelihood
    return logits


@with_and_without_cond
@every_kind
def test_logits_equal_a_plain_implementation(kind: Kind, cond_length: int, query_tokens: int) -> None:
    stage = random_stage(kind, cond_length=cond_length, query_tokens=query_tokens)
    x, c, cond = tokens_of(stage, 2), tokens_of(stage, 2), random_cond(2, cond_length)
    found = stage(x, c, cond)
    assert found.shape == (2, 6, 7)
    for b in range(2):
        row = [] if cond is None else cond[b].tolist()
        expected = plain_logits(stage, x[b].tolist(), c[b].tolist(), row)
        # The likelihood is float32, in the package as well as here.
        torch.testing.assert_close(found[b], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stage(x, c, cond), found)


@every_kind
def test_causal_in_x(kind: Kind) -> None:
    """x at i changes no logits at or before i, and all after it."""
    stage = random_stage(kind)
    x, c, cond = tokens_of(stage, 1), tokens_of(stage, 1), random_cond(1)
    before = stage(x, c, cond)
    for i in range(stage.config.tokens):
        changed = x.clone()
        changed[0, i] = (changed[0, i] + 1) % stage.config.vocab_size
        difference = (stage(changed, c, cond) - before).abs().amax(-1)[0]
        assert (difference[: i + 1] == 0).all() and (difference[i + 1 :] > 0).all()


@every_kind
def test_what_x_t_and_the_condition_change(kind: Kind) -> None:
    """x_t is noise to the decoder-only stage, and reaches every position of the others; the condition all."""
    stage = random_stage(kind)
    x, c, cond = tokens_of(stage, 1), tokens_of(stage, 1), random_cond(1)
    assert cond is not None
    before = stage(x, c, cond)
    changed = c.clone()
    changed[0, -1] = (changed[0, -1] + 1) % stage.config.vocab_size
    difference = (stage(x, changed, cond) - before).abs().amax(-1)[0]
    assert (difference == 0).all() if kind == "decoder_only" else (difference > 0).all()
    other = (cond + torch.tensor([0, 1])) % 5
    assert ((stage(x, c, other) - before).abs().amax(-1) > 0).all()


@every_kind
def test_a_text_encoder_tells_the_words_and_their_order(kind: Kind) -> None:
    stage = random_stage(kind, cond_length=3, query_tokens=2)
    x, c = tokens_of(stage, 1), tokens_of(stage, 1)
    before = stage(x, c, torch.tensor([[1, 2, 3]]))
    for other in ([2, 1, 3], [1, 2, 4]):
        assert ((stage(x, c, torch.tensor([other])) - before).abs().amax(-1) > 0).all()


@every_kind
def test_rows_are_independent(kind: Kind) -> None:
    stage = random_stage(kind)
    x, c, cond = tokens_of(stage, 3), tokens_of(stage, 3), random_cond(3)
    assert cond is not None
    rows = [stage(x[b : b + 1], c[b : b + 1], cond[b : b + 1]) for b in range(3)]
    torch.testing.assert_close(stage(x, c, cond), torch.cat(rows), rtol=0, atol=1e-12)


def test_residual_scale_is_that_of_its_step() -> None:
    stage = random_stage("residual")
    assert stage.config.kind == "residual" and stage.log_scalors.shape == (3,)
    x, c, cond = tokens_of(stage, 1), tokens_of(stage, 1), random_cond(1)
    before = stage(x, c, cond)
    stage.log_scalors[0] += 1
    stage.log_scalors[2] += 1
    assert torch.equal(stage(x, c, cond), before)
    stage.log_scalors[1] = -1e9  # the network's part vanishes: what x_t says remains
    expected = log_likelihood(c, stage.config.beta, 7).double()
    torch.testing.assert_close(stage(x, c, cond), expected)


@every_kind
def test_every_parameter_is_used(kind: Kind) -> None:
    """Distributed training fails on parameters without gradients."""
    stage = random_stage(kind).requires_grad_(True)
    x, c, cond = tokens_of(stage, 2), tokens_of(stage, 2), random_cond(2)
    stage(x, c, cond).square().sum().backward()
    assert [name for name, p in stage.named_parameters() if p.grad is None] == []
