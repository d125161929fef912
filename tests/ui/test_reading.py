"""What a model reads in a prompt that is being typed."""

from __future__ import annotations

from typing import Any

import pytest

from imagebart.testing import tiny_pipeline
from imagebart.ui.model_list import Choice
from imagebart.ui.prompt import LONGEST, read

CHOICE = Choice(tiny_pipeline())


def unknown(words: str) -> list[str]:
    return read(CHOICE, {"words": words, "model": "tiny"})["unknown"]


def test_only_words_that_are_taken_for_no_other_are_unknown() -> None:
    assert unknown("Sunglases, zebra and red hiar") == ["zebra"]
    assert unknown("a hat") == []


def test_a_word_that_is_taken_for_another_is_said() -> None:
    meant = read(CHOICE, {"words": "Sunglases, zebra and red hiar", "model": "tiny"})["meant"]
    assert meant == {"Sunglases": "sunglasses", "hiar": "hair"}


def test_a_very_long_prompt_is_looked_at_in_part() -> None:
    assert unknown("hat " * (LONGEST // 4) + "zebra") == []


@pytest.mark.parametrize("asked", [{}, {"words": "zebra"}, None, 3])
def test_what_no_page_sends_is_no_fault(asked: Any) -> None:
    assert read(CHOICE, asked) == {"unknown": [], "meant": {}}
