"""Embeddings that are trained as a table plus a map of the codebook's vectors."""

from __future__ import annotations

import torch

from imagebart.models.denoiser import Denoiser, DenoiserConfig
from imagebart.models.transformer import TransformerConfig
from imagebart.training.token_task import add_codebook_embedding, merge_codebook_embedding, token_tables

CODES = 12


def small() -> Denoiser:
    shape = {"width": 8, "depth": 1, "heads": 2, "vocab_in": CODES + 1, "positions": 5, "head_size": 4}
    decoder = TransformerConfig(**shape, vocab_out=CODES, causal=True, cross=True)
    return Denoiser(
        DenoiserConfig(
            vocab_size=CODES, tokens=4, decoder=decoder, encoder=TransformerConfig(**shape), cond_length=0, text=None
        )
    )


def logits(denoiser: Denoiser, x: torch.Tensor) -> torch.Tensor:
    return denoiser.logits(x, x, torch.full(x.shape, 0.5), torch.zeros(x.shape))


def test_trained_maps_are_merged_into_tables() -> None:
    torch.manual_seed(0)
    denoiser, x = small(), torch.randint(CODES, (2, 4))
    names, before = set(denoiser.state_dict()), logits(denoiser, x)
    add_codebook_embedding(token_tables(denoiser), torch.randn(CODES, 3))
    assert torch.equal(logits(denoiser, x), before), "the map is zero at first"
    optimizer = torch.optim.SGD(denoiser.parameters(), 0.5)
    logits(denoiser, x).square().sum().backward()
    optimizer.step()
    trained = logits(denoiser, x)
    merge_codebook_embedding(denoiser)
    assert set(denoiser.state_dict()) == names and not torch.allclose(trained, before)
    torch.testing.assert_close(logits(denoiser, x), trained)


def test_an_unused_code_learns_from_similar_ones() -> None:
    """Codes 0 and 1 have the same vector, 2 the opposite one; only 0 is used. The start token is no code."""
    denoiser = small()
    codes = torch.zeros(CODES, 2)
    codes[:2, 0], codes[2, 0] = 1.0, -1.0
    table = denoiser.encoder.token_embedding.weight.detach().clone()
    add_codebook_embedding(token_tables(denoiser), codes)
    embedded = denoiser.encoder.token_embedding(torch.zeros(1, dtype=torch.long))
    embedded.sum().backward()
    torch.optim.SGD(denoiser.parameters(), 0.1).step()
    merge_codebook_embedding(denoiser)
    moved = denoiser.encoder.token_embedding.weight - table
    assert (moved[0] < moved[1]).all() and (moved[1] < -0.01).all()
    torch.testing.assert_close(moved[2], -moved[1], atol=0.02, rtol=0.2)
    assert torch.equal(moved[CODES], torch.zeros(8))


def test_a_code_similar_to_the_right_one_becomes_likelier() -> None:
    """Codes 0 and 1 have the same vector, 2 the opposite one; only 0 is ever right."""
    denoiser = small()
    codes = torch.zeros(CODES, 2)
    codes[:2, 0], codes[2, 0] = 1.0, -1.0
    state = torch.randn(1, 8)
    assert denoiser.decoder.head is not None
    before = denoiser.decoder.head(state).detach()
    add_codebook_embedding(token_tables(denoiser), codes)
    assert torch.equal(denoiser.decoder.head(state), before), "the map is zero at first"
    (-denoiser.decoder.head(state).log_softmax(-1)[0, 0]).backward()
    torch.optim.SGD(denoiser.parameters(), 0.1).step()
    merge_codebook_embedding(denoiser)
    moved = denoiser.decoder.head(state)[0] - before[0]
    assert moved[0] > moved[1] > moved[3:].max() > moved[2]
