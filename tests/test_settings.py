from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
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
    {"resamples": 1},
    {"resamples": 100},
    {"start": 1},
    {"scales": 1},
    {"scales": 8},
]
NAN = float("nan")
BAD: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 0}, r"^The temperature is 0; it must be a number from 0.01 to 100\.$"),
    ({"temperature": -1}, r"The temperature is -1; "),
    ({"temperature": 1e-30}, r"The temperature is 1e-30; "),
    ({"temperature": 100.5}, r"The temperature is 100.5; "),
    ({"temperature": NAN}, r"The temperature is nan; "),
    ({"temperature": "hot"}, r"The temperature is 'hot'; it must be a number from 0.01 to 100\."),
    ({"temperature": True}, r"The temperature is True; "),
    ({"temperature": None}, r"The temperature is None; "),
    ({"temperature": np.bool_(1)}, r"The temperature is np.True_; "),
    ({"temperature": 10**400}, r"The temperature is 1000.*…; "),
    ({"temperature": 10**5000}, r"The temperature is a int that cannot be shown; "),
    ({"temperature": float("inf")}, r"The temperature is inf; "),
    ({"temperature": np.ones(3)}, r"The temperature is array"),
    ({"top_k": 0}, r"^The top-k is 0; it must be a whole number, 1 or more\.$"),
    ({"top_k": -3}, r"The top-k is -3; "),
    ({"top_k": 2**40}, r"The top-k is 1099511627776; "),
    ({"top_k": 1.0}, r"The top-k is 1; it must be a whole number"),
    ({"top_k": float("inf")}, r"The top-k is inf; "),
    ({"top_k": np.int64(3)}, r"The top-k is .*3.*; "),
    ({"top_p": 0}, r"^The top-p is 0; it must be a number over 0 and at most 1\.$"),
    ({"top_p": 1.01}, r"The top-p is 1.01; "),
    ({"top_p": NAN}, r"The top-p is nan; "),
    ({"guidance": -0.5}, r"^The guidance is -0.5; it must be a number from 0 to 100\.$"),
    ({"guidance": 101}, r"The guidance is 101; "),
    ({"guidance": NAN}, r"The guidance is nan; "),
    ({"guidance": [1] * 1000}, r"The guidance is \[1, 1.*…; "),
    ({"resamples": 0}, r"^The number of resamples is 0; it must be a whole number from 1 to 100\.$"),
    ({"resamples": 101}, r"The number of resamples is 101; "),
    ({"resamples": True}, r"The number of resamples is True; "),
    ({"start": 0}, r"^The first stage is 0; it must be a whole number, 1 or more\.$"),
    ({"scales": 0}, r"^The number of scales is 0; it must be a whole number from 1 to 8\.$"),
    ({"scales": 9}, r"The number of scales is 9; "),
    ({"scales": 2.0}, r"The number of scales is 2; "),
    ({"temperatures": (1.0, 0.0)}, r"^The temperature is 0; it must be a number from 0\.01 to 100\.$"),
    ({"top_ks": (5, 0)}, r"^The top-k is 0; it must be a whole number, 1 or more\.$"),
    ({"temperatures": ("hot",)}, r"^The temperatures is 'hot'; it must be "),
]


@pytest.mark.parametrize("values", GOOD, ids=str)
def test_values_at_the_edge_of_their_range(values: dict[str, Any]) -> None:
    settings = SamplingSettings(**values)
    assert all(getattr(settings, name) == value for name, value in values.items())


@pytest.mark.parametrize(("values", "sentence"), BAD)
def test_values_out_of_range_are_named_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        SamplingSettings(**values)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingSettings().resamples = 3  # type: ignore[misc]
    with pytest.raises(InputError):
        dataclasses.replace(SamplingSettings(), resamples=0)
    with pytest.raises(TypeError, match="speed"):
        SamplingSettings(speed=3)  # type: ignore[call-arg]


def test_scales_may_have_settings_of_their_own() -> None:
    settings = SamplingSettings(temperature=0.5, top_k=9, temperatures=(0.8, 1.0), resamples=2)
    assert settings.at(1) == SamplingSettings(temperature=0.8, top_k=9, resamples=2)
    assert settings.at(2).temperature == 1.0
    assert dataclasses.replace(settings, top_ks=(3, 4)).at(2).top_k == 4
    settings.check_scales(2)
    with pytest.raises(InputError, match="There are 2 temperatures; there must be one for each of 3 scales"):
        settings.check_scales(3)
