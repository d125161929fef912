from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from imagebart.errors import InputError
from imagebart.settings import SamplingSettings

GOOD: list[dict[str, Any]] = [
    {},
    {"temperature": 0.01},
    {"temperature": 100},
    {"top_k": 1},
    {"top_k": 10**6},
    {"top_p": 1e-6},
    {"top_p": 1},
    {"guidance": 0},
    {"guidance": 100},
    {"passes": 1},
    {"passes": 100},
    {"start": 1},
    {"scales": 1},
    {"scales": 8},
]
NAN = float("nan")
BAD: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 0}, r"The temperature is 0; it must be from 0.01 to 100\."),
    ({"temperature": -1}, r"The temperature is -1; "),
    ({"temperature": 1e-30}, r"The temperature is 1e-30; "),
    ({"temperature": 100.5}, r"The temperature is 100.5; "),
    ({"temperature": NAN}, r"The temperature is nan; "),
    ({"top_k": 0}, r"Top-k is 0; it must be 1 or more\."),
    ({"top_k": -3}, r"Top-k is -3; "),
    ({"top_p": 0}, r"Top-p is 0; it must be over 0 and at most 1\."),
    ({"top_p": 1.01}, r"Top-p is 1.01; "),
    ({"top_p": NAN}, r"Top-p is nan; "),
    ({"guidance": -0.5}, r"The guidance is -0.5; it must be from 0 to 100\."),
    ({"guidance": 101}, r"The guidance is 101; "),
    ({"guidance": NAN}, r"The guidance is nan; "),
    ({"scales": 0}, r"There are 0 scales; there must be from 1 to 8\."),
    ({"scales": 9}, r"There are 9 scales; "),
    ({"passes": 0}, r"There are 0 passes a stage; there must be from 1 to 100\."),
    ({"passes": 101}, r"There are 101 passes a stage; "),
    ({"start": 0}, r"The first stage is 0; it must be 1 or more\."),
]


@pytest.mark.parametrize("values", GOOD, ids=str)
def test_values_at_the_edge_of_their_range(values: dict[str, Any]) -> None:
    settings = SamplingSettings(**values)
    assert all(getattr(settings, name) == value for name, value in values.items())


@pytest.mark.parametrize(("values", "sentence"), BAD, ids=lambda part: str(part))
def test_values_out_of_range_are_named_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        SamplingSettings(**values)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingSettings().passes = 3  # type: ignore[misc]
    with pytest.raises(InputError):
        dataclasses.replace(SamplingSettings(), passes=0)
