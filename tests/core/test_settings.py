from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field, ValidationError, model_validator

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings, Settings

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
    {"scales": 1},
    {"scales": 8},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 0}, "temperature is 0, expected 0.01 or more"),
    ({"temperature": 100.5}, "temperature is 100.5, expected at most 100.0"),
    ({"temperature": float("nan")}, "temperature is nan, expected a finite number"),
    ({"temperature": float("inf")}, "temperature is inf, expected a finite number"),
    ({"temperature": "hot"}, "temperature is 'hot', expected a number"),
    ({"temperature": True}, "temperature is True, expected a number"),
    ({"temperature": None}, "temperature is None, expected a number"),
    ({"temperature": 10**400}, "temperature is 1000"),
    ({"temperature": 10**5000}, "temperature is a int that cannot be shown, expected"),
    ({"temperature": np.ones(3)}, "temperature is array"),
    ({"top_k": 0}, "top_k is 0, expected 1 or more"),
    ({"top_k": 2**40}, "top_k is 1099511627776, expected at most 1048576"),
    ({"top_k": 1.0}, "top_k is 1, expected a whole number"),
    ({"top_k": np.int64(3)}, "expected a whole number"),
    ({"top_p": 0}, "top_p is 0, expected over 0"),
    ({"guidance": [1] * 1000}, "guidance is [1, 1"),
    ({"scales": 9}, "scales is 9, expected at most 8"),
    ({"speed": 3}, "unknown setting 'speed'"),
]


@pytest.mark.parametrize("values", GOOD, ids=str)
def test_values_at_the_edge_of_their_range(values: dict[str, Any]) -> None:
    settings = SamplingSettings.parse(**values)
    assert all(getattr(settings, name) == value for name, value in values.items())


@pytest.mark.parametrize(("values", "sentence"), BAD)
def test_values_out_of_range_are_named_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    for make in (SamplingSettings.parse, SamplingSettings().replace):
        with pytest.raises(InputError) as caught:
            make(**values)
        assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SamplingSettings().resamples = 3  # type: ignore[misc]
    assert SamplingSettings(top_k=3).replace(resamples=2) == SamplingSettings(top_k=3, resamples=2)


# From JSON


class Inner(Settings):
    width: int = 3
    rate: float = 0.5


class Outer(Settings):
    name: str
    kind: Literal["soft", "hard"] = "soft"
    flag: bool = False
    pair: tuple[float, float] = (0.9, 0.95)
    sizes: tuple[int, ...] = ()
    inner: Inner = Inner()
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()
    free: dict[str, Any] = {}
    words: dict[str, tuple[str, ...]] = {}
    year: Annotated[str, Field(pattern=r"^\d{4}$")] = "2021"

    @model_validator(mode="after")
    def _check(self) -> Outer:
        if self.name == "forbidden":
            raise ValueError("the name is 'forbidden', expected another")
        return self


def test_what_was_written_as_json_comes_back() -> None:
    every = Outer(
        name="x",
        kind="hard",
        flag=True,
        pair=(1.0, 2.0),
        sizes=(1, 2),
        inner=Inner(width=5),
        maybe=Inner(width=6, rate=1.0),
        many=(Inner(width=7), Inner(width=8)),
        free={"a": [1]},
        words={"hair": ("long hair", "bald"), "hat": ()},
    )
    for value in (every, Outer(name="y")):
        assert Outer.from_json(value.model_dump_json()) == value
    assert Outer.from_json('{"name": "x", "inner": {"rate": 1}}').inner.rate == 1, "whole numbers are numbers"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nam": "y"}, "unknown setting 'nam'"),
        ({"inner": {"widht": 1}}, "unknown setting 'inner.widht'"),
        ({"many": [{}, {"rat": 1}]}, "unknown setting 'many[1].rat'"),
        ({"name": 3}, "name is 3, expected a text"),
        ({"year": "21"}, "year is '21': String should match"),
        ({"kind": "odd"}, "kind is 'odd', expected one of 'soft' or 'hard'"),
        ({"kind": ["soft"]}, "kind is ['soft'], expected"),
        ({"flag": 1}, "flag is 1, expected true or false"),
        ({"inner": {"width": True}}, "inner.width is True, expected a whole number"),
        ({"inner": {"width": 1.5}}, "inner.width is 1.5"),
        ({"inner": {"rate": "1"}}, "inner.rate is '1', expected a number"),
        ({"inner": None}, "inner is None, expected an object"),
        ({"maybe": 5}, "maybe is 5, expected an object"),
        ({"pair": [1]}, "the setting 'pair[1]' is missing"),
        ({"sizes": 3}, "sizes is 3, expected a list"),
        ({"sizes": [1, "2"]}, "sizes[1] is '2'"),
        ({"free": []}, "free is [], expected an object"),
        ({"words": {"hair": "bald"}}, "words.hair is 'bald', expected a list"),
        ({"words": {"hair": ["bald", 3]}}, "words.hair[1] is 3, expected a text"),
        ({"name": "forbidden"}, "expected another"),
        ({"sizes": "x" * 10**6}, "…, expected a list"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        Outer.from_json(json.dumps({"name": "x", **change}))
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 200


def test_what_is_no_settings_is_named() -> None:
    for text, reason in [
        ("{}", "the setting 'name' is missing"),
        ("null", "Outer is None, expected an object"),
        ("{name", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
    ]:
        with pytest.raises(InputError, match=reason):
            Outer.from_json(text)
