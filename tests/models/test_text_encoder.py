"""A text encoder that learns more words."""

from __future__ import annotations

import pytest
import torch

from imagebart.models.transformer import CausalConv, TextEncoder, with_vocabulary
from imagebart.text.conditioners import TextConditioner
from imagebart.training.config import StageShape
from imagebart.training.token_task import text_config

SHAPE = StageShape(width=32, heads=2, head_size=16, encoder_depth=1, query_tokens=3)


@pytest.mark.parametrize("more", [["zebra with a beret"], ["a tie"], []])
def test_known_words_are_read_as_before(more: list[str]) -> None:
    torch.manual_seed(0)
    few = TextConditioner.from_captions(["red hair", "round glasses"], 8)
    many = TextConditioner.from_captions(["red hair", "round glasses", *more], 8)
    encoder = TextEncoder(text_config(SHAPE, few))
    torch.nn.init.normal_(encoder.phrase.convolution.weight, std=0.1)
    grown = with_vocabulary(encoder, few.tokens, many.tokens)
    assert grown.config == text_config(SHAPE, many)
    prompts = ["red glasses", "", "round hair hair red"]
    assert torch.equal(grown(many.encode(prompts).tokens), encoder(few.encode(prompts).tokens))
    if more:
        strange = many.encode(more).tokens
        assert not torch.equal(grown(strange), grown(torch.zeros_like(strange)))


def test_a_phrase_is_a_word_with_those_before_it() -> None:
    """As many as it is long; what comes after changes nothing."""
    torch.manual_seed(0)
    phrase = CausalConv(4, 3)
    torch.nn.init.normal_(phrase.convolution.weight)
    words = torch.randn(1, 8, 4)
    other = words.clone()
    other[0, 3] += 1
    changed = (phrase(words) != phrase(other)).any(2)[0]
    assert changed.tolist() == [False] * 3 + [True] * 3 + [False] * 2
