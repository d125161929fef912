from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field

from imagebart.errors import InputError
from imagebart.models.denoiser import DenoiserConfig
from imagebart.models.text_encoder import TextEncoderConfig
from imagebart.models.transformer import TransformerConfig
from imagebart.models.vqgan import FirstStageConfig
from imagebart.settings import SamplingSettings, from_dict
from imagebart.training.config import DenoiserRun
from imagebart.weights.folder import ModelConfig

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


# From JSON


@dataclass(frozen=True)
class Inner:
    width: int = 3
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    name: str
    kind: Literal["soft", "hard"] = "soft"
    flag: bool = False
    pair: tuple[float, float] = (0.9, 0.95)
    sizes: tuple[int, ...] = ()
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()
    free: dict[str, Any] = field(default_factory=dict)
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    year: Annotated[str, Field(pattern=r"^\d{4}$")] = "2021"

    def __post_init__(self) -> None:
        if self.name == "forbidden":
            raise ValueError("the name is 'forbidden', expected another")


def test_what_was_written_as_json_comes_back() -> None:
    many = (Inner(7), Inner(8))
    words = {"hair": ("long hair", "bald"), "hat": ()}
    every = Outer("x", "hard", True, (1.0, 2.0), (1, 2), Inner(5), Inner(6, 1.0), many, {"a": [1]}, words)
    for value in (every, Outer("y")):
        assert from_dict(Outer, json.loads(json.dumps(asdict(value)))) == value
    assert from_dict(Outer, {"name": "x", "inner": {"rate": 1}}).inner.rate == 1, "whole numbers are numbers"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nam": "y"}, "unknown setting 'nam'; known ones: flag, free, inner"),
        ({"inner": {"widht": 1}}, "unknown setting 'inner.widht'"),
        ({"many": [{}, {"rat": 1}]}, "unknown setting 'many[1].rat'"),
        ({"name": 3}, "name is 3, expected a text"),
        ({"year": "21"}, "year is '21', expected"),
        ({"kind": "odd"}, "kind is 'odd', expected one of soft, hard"),
        ({"kind": ["soft"]}, "kind is ['soft'], expected one of"),
        ({"flag": 1}, "flag is 1, expected true or false"),
        ({"inner": {"width": True}}, "inner.width is True, expected a whole number"),
        ({"inner": {"width": 1.5}}, "inner.width is 1.5"),
        ({"inner": {"rate": "1"}}, "inner.rate is '1', expected a number"),
        ({"inner": None}, "inner is None, expected an object"),
        ({"maybe": 5}, "maybe is 5, expected an object"),
        ({"pair": [1]}, "pair is [1], expected a list of 2"),
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
        from_dict(Outer, {"name": "x", **change})
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 200


def test_missing_settings_are_named() -> None:
    with pytest.raises(ValueError, match="the setting 'name' is missing"):
        from_dict(Outer, {})
    with pytest.raises(ValueError, match="Outer is None, expected an object"):
        from_dict(Outer, None)


def test_keys_of_earlier_versions_are_read_as_what_they_are_called_now() -> None:
    """Of model folders and run configurations; in places of a list; not in free dictionaries."""
    stage = {"resolution": 32, "fold": 4, "multipliers": [1], "encoder": "cells", "shrink": 2, "decoder": "patterns"}
    expected = FirstStageConfig(
        32, pixel_unshuffle=4, multipliers=(1,), encoder="patch", downscale=2, decoder="layered"
    )
    assert from_dict(FirstStageConfig, stage) == expected
    assert from_dict(FirstStageConfig, asdict(expected)) == expected
    text = {"transformer": asdict(TransformerConfig(8, 1, 1, 9, 9)), "slots": 3, "phrase": 2}
    shapes = dict.fromkeys(("decoder", "encoder"), text["transformer"])
    denoiser = {"vocab_size": 4, "tokens": 9, **shapes, "text": text, "knows_cut_cells": True, "glances": 2}
    read = from_dict(DenoiserConfig, denoiser)
    assert read.text == TextEncoderConfig(TransformerConfig(8, 1, 1, 9, 9), query_tokens=3, conv_width=2)
    assert read.partial_patches and read.color_hint_grid == 2
    stages = [{"kind": "decoder_only", "t": 1, "vocab_size": 4, "tokens": 9, "beta": 1.0, "decoder": shapes["decoder"]}]
    config = {"format": "imagebart", "version": 1, "first_stage": stage, "betas": [1.0], "conditioner": {"slots": 1}}
    about = {"suggestions": {"fold": ["cells"]}}
    model = from_dict(ModelConfig, {**config, "about": about, "stages": [stages[0] | {"text": text}]})
    assert model.first_stage == expected and model.stages[0].text == read.text
    assert model.conditioner == {"slots": 1} and model.about.suggestions == {"fold": ("cells",)}
    run = {"data": "avatars", "first_stage": "runs/x", "loop": {"steps": 1}, "shape": {"slots": 5, "phrase": 6}}
    trained = from_dict(DenoiserRun, run | {"glances": 2, "drop_glances": 0.5, "drop_slots": 0.75})
    assert (trained.color_hint_grid, trained.color_hint_dropout, trained.query_token_dropout) == (2, 0.5, 0.75)
    assert (trained.shape.query_tokens, trained.shape.conv_width) == (5, 6)
    with pytest.raises(ValueError, match="unknown setting 'fold'"):
        from_dict(FirstStageConfig, stage | {"pixel_unshuffle": 4})
