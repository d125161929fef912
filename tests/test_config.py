from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from imagebart.config import from_dict
from imagebart.models.denoiser import DenoiserConfig
from imagebart.models.text_encoder import TextEncoderConfig
from imagebart.models.transformer import TransformerConfig
from imagebart.models.vqgan import FirstStageConfig
from imagebart.training.config import DenoiserRun
from imagebart.weights.folder import ModelConfig


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
