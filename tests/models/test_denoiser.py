"""One network for every noise level, against a plain implementation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from oracles import log_q, plain_denoiser
from random_networks import random_cond, random_denoiser
from torch import Tensor
from torch.nn import functional as F

from imagebart.models.denoiser import MIN_NOISE, Denoiser, NoiseEmbedding, mask_sides

# Conditioning and query tokens: none, a class, words that stand before the image, words that are read.
CONDITIONS = [(0, 0), (1, 0), (4, 0), (5, 3)]
HINT_GRIDS = pytest.mark.parametrize("color_hint_grid", [0, 2])
every_condition = pytest.mark.parametrize(
    ("cond_length", "query_tokens"), CONDITIONS, ids=["none", "class", "words", "text"]
)


def inputs(denoiser: Denoiser, batch: int = 2) -> dict[str, Any]:
    """x_s, x_t, noise_t and noise_s; some tokens are known, at noise level 0."""
    shape, size = (batch, denoiser.config.tokens), denoiser.config.vocab_size
    noise_t = torch.rand(shape, dtype=torch.float64)
    noise_t[:, 1], noise_t[:, 4] = 0, 1
    x, c = torch.randint(size, shape), torch.randint(size, shape)
    cond = random_cond(batch, denoiser.config.cond_length)
    fed, parts = noise_t * torch.rand(shape, dtype=torch.float64), denoiser.config.color_hint_grid
    color_hints = torch.rand(*shape, size) < 0.3 if parts else None
    return {"x_s": x, "x_t": c, "noise_t": noise_t, "noise_s": fed, "cond": cond, "color_hints": color_hints}


def logits(denoiser: Denoiser, given: dict[str, Any], **more: Any) -> Tensor:
    return denoiser.logits(**with_hints(denoiser, given), **more)


def with_hints(denoiser: Denoiser, given: dict[str, Any]) -> dict[str, Any]:
    """The same with color hints as the denoiser is given them."""
    rest = {name: value for name, value in given.items() if name != "color_hints"}
    hint_embeds = denoiser.embed_hints(given["color_hints"], None)
    return rest if hint_embeds is None else {**rest, "hint_embeds": hint_embeds}


def both(denoiser: Denoiser, given: dict[str, Any], encoded: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Logits of the decoder and of the draft head in training; encoded: conditioning tokens to encode instead."""
    embeds = denoiser.encode_prompt(given["cond"] if encoded is None else encoded)
    seen, wanted = with_hints(denoiser, given) | {"prompt_embeds": embeds}, torch.rand(given["x_s"].shape) < 0.5
    every = denoiser(wanted=torch.ones_like(wanted), **seen)
    for some, all_ in zip(denoiser(wanted=wanted, **seen), every, strict=True):
        torch.testing.assert_close(some, all_.view(*wanted.shape, -1)[wanted], rtol=0, atol=1e-12)
    return every[0].view(*wanted.shape, -1), every[1].view(*wanted.shape, -1)


def apart(denoiser: Denoiser, one: dict[str, Any], other: dict[str, Any]) -> list[bool]:
    """Whether logits differ, position by position of the first row."""
    return ((logits(denoiser, one) - logits(denoiser, other)).abs().amax(-1)[0] > 1e-9).tolist()


@HINT_GRIDS
@every_condition
def test_logits_equal_a_plain_implementation(cond_length: int, query_tokens: int, color_hint_grid: int) -> None:
    """The decoder's and the encoder's own, every token at a noise level of its own."""
    denoiser = random_denoiser(cond_length=cond_length, query_tokens=query_tokens, color_hint_grid=color_hint_grid)
    given = inputs(denoiser)
    found = logits(denoiser, given)
    cond = given["cond"]
    predicted = both(denoiser, given)
    assert found.shape == (2, 6, 7)
    torch.testing.assert_close(predicted[0], found, rtol=0, atol=1e-12)
    for b in range(2):
        rows = [given[name][b].tolist() for name in ("x_s", "x_t", "noise_t", "noise_s")]
        color_hints = given["color_hints"][b].tolist() if color_hint_grid else None
        expected = plain_denoiser(denoiser, *rows, [] if cond is None else cond[b].tolist(), color_hints)
        for ours, plain in zip(predicted, expected, strict=True):
            # The likelihood is float32 in the package.
            torch.testing.assert_close(ours[b], plain, rtol=1e-5, atol=1e-5)


def test_noise_levels_are_embedded_by_fourier_features() -> None:
    """Sines and cosines of six octaves by hand; a fresh embedding adds nothing."""
    embedding = NoiseEmbedding(3)
    noise_t = torch.tensor([[0.0, 0.3], [0.75, 1.0]])
    assert (embedding(noise_t) == 0).all()
    torch.nn.init.normal_(embedding.map.weight)
    torch.nn.init.normal_(embedding.map.bias)
    found = embedding(noise_t)
    assert found.shape == (2, 2, 3)
    for b in range(2):
        for n in range(2):
            angles = [math.pi * 2**octave * float(noise_t[b, n]) for octave in range(6)]
            features = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
            expected = embedding.map.weight @ features + embedding.map.bias
            torch.testing.assert_close(found[b, n], expected, rtol=1e-4, atol=1e-4)


def test_what_reaches_which_position() -> None:
    """x those after it; its own rate too; c, c's rate and the condition all; the last x and its rate nothing."""
    denoiser = random_denoiser()
    given = inputs(denoiser, 1)
    for i in range(6):
        x = given["x_s"].clone()
        x[0, i] = (x[0, i] + 1) % 7
        assert apart(denoiser, given, given | {"x_s": x}) == [n > i for n in range(6)]
        fed = given["noise_s"].clone()
        fed[0, i] = 0.93
        assert apart(denoiser, given, given | {"noise_s": fed}) == [n > i for n in range(6)]
        c, noise_t = given["x_t"].clone(), given["noise_t"].clone()
        c[0, i], noise_t[0, i] = (c[0, i] + 1) % 7, 0.41
        assert all(apart(denoiser, given, given | {"x_t": c}))
        assert all(apart(denoiser, given, given | {"noise_t": noise_t}))
    assert all(apart(denoiser, given, given | {"cond": (given["cond"] + 1) % 5}))


def test_rows_are_independent() -> None:
    denoiser = random_denoiser(cond_length=5, query_tokens=3, color_hint_grid=1)
    given = inputs(denoiser, 3)
    rows = [logits(denoiser, {name: value[b : b + 1] for name, value in given.items()}) for b in range(3)]
    torch.testing.assert_close(logits(denoiser, given), torch.cat(rows), rtol=0, atol=1e-12)


def test_the_evidence_of_x_t_has_a_weight() -> None:
    """w log q(c | x_0), whatever else is said; of tokens that are drawn the rate is never under the least."""
    denoiser = random_denoiser()
    given = inputs(denoiser, 1)
    without = logits(denoiser, given)
    denoiser.likelihood += 2
    tokens = zip(given["x_t"][0].tolist(), given["noise_t"][0].tolist(), strict=True)
    said = [[log_q(k, c, max(rate, MIN_NOISE), 7) for k in range(7)] for c, rate in tokens]
    expected = without + 2 * torch.tensor(said, dtype=torch.float64)
    torch.testing.assert_close(logits(denoiser, given), expected, rtol=1e-5, atol=1e-5)
    assert logits(denoiser, given | {"noise_t": torch.zeros(1, 6)}).isfinite().all()


def test_prompt_embeddings_may_be_given() -> None:
    """Slots come from outside: all of another caption's are that caption."""
    denoiser = random_denoiser(cond_length=5, query_tokens=3)
    given = inputs(denoiser, 1)
    other = (given["cond"] + 1) % 5
    expected = logits(denoiser, given | {"cond": other})
    torch.testing.assert_close(both(denoiser, given, other)[0], expected, rtol=0, atol=1e-12)


def test_a_fresh_denoiser_can_learn_everything() -> None:
    """Maps that begin at zero get gradients: none of them is behind another zero."""
    config = random_denoiser(cond_length=5, query_tokens=3, color_hint_grid=2).config
    denoiser = Denoiser(config)
    given = inputs(denoiser)
    predicted, drafts = both(denoiser, given)
    (F.cross_entropy(predicted.mT, given["x_s"]) + F.cross_entropy(drafts.mT, given["x_s"])).backward()
    begun = {"encoder_rates": denoiser.encoder_rates.map.weight, "decoder_rates": denoiser.decoder_rates.map.weight}
    begun["color_hint_embedding"] = denoiser.color_hint_embedding.weight
    begun |= {"align": denoiser.align.weight, "likelihood": denoiser.likelihood}
    begun["cross"] = denoiser.decoder.blocks[0].cross.out.weight  # type: ignore[union-attr, assignment]
    for name, parameter in begun.items():
        assert (parameter == 0).all() and parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@HINT_GRIDS
@every_condition
def test_every_parameter_is_used(cond_length: int, query_tokens: int, color_hint_grid: int) -> None:
    """Distributed training fails on parameters without gradients."""
    denoiser = random_denoiser(cond_length=cond_length, query_tokens=query_tokens, color_hint_grid=color_hint_grid)
    denoiser.requires_grad_(True)
    given = inputs(denoiser)
    sum(part.square().sum() for part in both(denoiser, given)).backward()  # type: ignore[union-attr]
    assert [name for name, p in denoiser.named_parameters() if p.grad is None] == []


def test_color_hints_reach_every_position() -> None:
    """Where none are told, that is as good as nothing said of them."""
    denoiser = random_denoiser(color_hint_grid=2)
    given = inputs(denoiser)
    nothing = torch.zeros_like(given["color_hints"])
    assert torch.equal(
        logits(denoiser, given | {"color_hints": None}), logits(denoiser, given | {"color_hints": nothing})
    )
    other = given["color_hints"].clone()
    other[0, 5, 2] = ~other[0, 5, 2]
    assert all(apart(denoiser, given, given | {"color_hints": other}))


def test_a_part_of_the_tokens_keeps_its_positions() -> None:
    """Without attention a token's logits depend on its position, on x_t there and on the token before it alone."""
    denoiser = random_denoiser(cond_length=5, query_tokens=3)
    given, all_places = inputs(denoiser), torch.arange(denoiser.config.tokens).expand(2, -1)
    prompt = denoiser.encode_prompt(given["cond"])

    def logits_at(places: Tensor) -> Tensor:
        part = {name: given[name].gather(1, places) for name in ("x_t", "noise_t", "noise_s")}
        seen = {**part, "cond": given["cond"], "places": places, "prompt_embeds": prompt}
        wanted = torch.ones_like(places, dtype=torch.bool)
        return torch.stack(denoiser(given["x_s"].gather(1, places), wanted, **seen)).view(2, *places.shape, -1)

    torch.testing.assert_close(logits_at(all_places), torch.stack(both(denoiser, given)), rtol=0, atol=1e-12)
    attended = logits_at(all_places)
    for network in (denoiser.encoder, denoiser.decoder):
        for block in network.blocks:
            for layer in filter(None, (block.attention, block.cross)):
                torch.nn.init.zeros_(layer.out.weight)
    whole = logits_at(all_places)
    assert not torch.allclose(whole, attended)
    places = torch.tensor([[1, 2, 3, 5], [0, 1, 4, 5]])
    part = logits_at(places)
    for row, run in enumerate(([1, 2], [1, 3])):  # whose token before them is given, too
        torch.testing.assert_close(part[:, row, run], whole[:, row, places[row, run]], rtol=0, atol=1e-12)


def plain_sides(mask: list[list[bool]]) -> list[list[int]]:
    """By a flood fill from each masked token: its distances to the sides of the box around what it reaches."""
    found = []
    for row, column in itertools.product(range(len(mask)), repeat=2):
        reached, ahead = set(), [(row, column)] if mask[row][column] else []
        while ahead:
            y, x = ahead.pop()
            if (y, x) not in reached and 0 <= y < len(mask) and 0 <= x < len(mask) and mask[y][x]:
                reached.add((y, x))
                ahead += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        rows, columns = {y for y, _ in reached}, {x for _, x in reached}
        spans = ((row, rows), (column, columns))
        found.append([d for at, span in spans for d in (at - min(span, default=0) + 1, max(span, default=0) - at + 1)])
        found[-1] = found[-1] if reached else [0, 0, 0, 0]
    return found


def test_sides_of_a_mask_are_those_of_its_connected_parts() -> None:
    torch.manual_seed(3)
    masks = torch.rand(30, 7, 7) < torch.rand(30, 1, 1)
    assert mask_sides(masks.flatten(1)).tolist() == [plain_sides(mask.tolist()) for mask in masks]


def test_the_encoder_is_told_the_sides_of_the_mask() -> None:
    """As much as is added to the embedding of its noise level; those of x_t's noise, where no others are given."""
    denoiser = random_denoiser(tokens=9, mask_sides=True)
    given = inputs(denoiser)
    sides = mask_sides(given["noise_t"] > 0)
    told, other = (denoiser.embed_hints(None, one) for one in (sides, sides.roll(1, 1)))
    assert torch.equal(logits(denoiser, given), logits(denoiser, given, hint_embeds=told))
    assert not torch.equal(logits(denoiser, given), logits(denoiser, given, hint_embeds=other))
    weights = denoiser.side_embedding.weight.detach().unflatten(0, (4, 4))
    added = torch.stack([sum(weights[k, int(at[k])] for k in range(4)) for at in sides.flatten(0, 1)]).view(2, 9, -1)
    embedded = logits(denoiser, given, hint_embeds=added)
    torch.testing.assert_close(embedded, logits(denoiser, given), rtol=0, atol=1e-12)
