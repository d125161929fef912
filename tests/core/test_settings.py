"""Settings: what is in their range comes back as it was, what is not is named in one sentence."""

import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from imagebart.core.errors import InputError
from imagebart.core.settings import SamplingSettings, Settings

RANGES: dict[str, tuple[Any, Any, Any, Any]] = {  # what is just below, least, most, just above
    "temperature": (0.0099, 0.01, 100, 100.1),
    "top_k": (0, 1, 2**20, 2**20 + 1),
    "top_p": (0, 1e-6, 1, 1.01),
    "guidance": (-0.1, 0, 100, 100.1),
    "resamples": (0, 1, 100, 101),
    "scales": (0, 1, 8, 9),
    "corrector_steps": (-1, 0, 100, 101),
    "corrector_threshold": (-0.01, 0, 1, 1.01),
}


@pytest.mark.parametrize("name", SamplingSettings.model_fields)
def test_settings_of_sampling_have_ranges(name: str) -> None:
    below, least, most, above = RANGES[name]
    for value in (least, most):
        assert getattr(SamplingSettings.parse(**{name: value}), name) == value
    for value in (below, above):
        for make in (SamplingSettings.parse, SamplingSettings().replace):
            with pytest.raises(InputError, match=rf"^{name} is {value}, expected "):
                make(**{name: value})


class Inner(Settings):
    width: int = 3
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Outer(Settings):
    name: str
    kind: Literal["soft", "hard"] = "soft"
    flag: bool = False
    pair: tuple[float, float] = (0.9, 0.95)
    sizes: tuple[Annotated[int, Field(ge=0, le=9)], ...] = ()
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    free: dict[str, int] = {}
    year: Annotated[str, Field(pattern=r"^\d{4}$")] = "2021"

    @model_validator(mode="after")
    def _check(self) -> "Outer":
        if self.name == "forbidden":
            raise ValueError("the name is 'forbidden', expected another")
        return self


def test_whole_numbers_are_numbers_and_replaced_settings_a_copy() -> None:
    assert Outer.from_json('{"name": "x", "pair": [1, 2]}').pair == (1.0, 2.0)
    assert SamplingSettings(top_k=3).replace(resamples=2) == SamplingSettings(top_k=3, resamples=2)
    assert len({SamplingSettings(), SamplingSettings()}) == 1, "what does not change can be a key"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner)))
def test_whatever_is_given_is_taken_or_refused_in_a_short_sentence(value: Any) -> None:
    for name in (*Outer.model_fields, "unknown"):
        try:
            Outer.parse(**{"name": "x", name: value})
        except InputError as error:
            assert len(str(error)) < 300 and "\n" not in str(error) and name in str(error)


def test_what_is_wrong_is_named() -> None:
    for change, reason in (
        ({"nam": "y", "flag": 1}, "unknown setting 'nam'"),
        ({"many": [{}, {"rat": 1}]}, "unknown setting 'many[1].rat'"),
        ({"year": "21"}, "year is '21': String should match"),
        ({"kind": "odd"}, "kind is 'odd', expected one of 'soft' or 'hard'"),
        ({"inner": {"width": True}}, "inner.width is True, expected a whole number"),
        ({"inner": {"rate": "1"}}, "inner.rate is '1', expected a number"),
        ({"inner": {"rate": 0}}, "inner.rate is 0, expected over 0.0"),
        ({"pair": [1]}, "the setting 'pair[1]' is missing"),
        ({"sizes": "x" * 10**6}, "…, expected a list"),
        ({"sizes": [1, -1]}, "sizes[1] is -1, expected 0 or more"),
        ({"free": {"\n": None}}, "free.\\n is None, expected a whole number"),
        ({"name": "forbidden"}, "the name is 'forbidden', expected another"),
    ):
        with pytest.raises(InputError) as caught:
            Outer.from_json(json.dumps({"name": "x", **change}))
        assert str(caught.value).endswith(reason) or ("String" in reason and reason in str(caught.value))


def test_what_is_no_settings_and_values_that_are_no_numbers_are_named() -> None:
    for text, reason in (
        ("{}", "the setting 'name' is missing"),
        ("null", "Outer is None, expected an object"),
        ("[" * 100_000, "Invalid JSON"),
    ):
        with pytest.raises(InputError, match=reason):
            Outer.from_json(text)
    for value, reason in (
        (float("nan"), "is nan, expected a finite number"),
        (10**400, "is 1000"),
        (10**5000, "is a int that cannot be shown, expected"),
    ):
        with pytest.raises(InputError, match=f"temperature {reason}"):
            SamplingSettings.parse(temperature=value)
