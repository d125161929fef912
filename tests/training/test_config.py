"""Settings of runs from files."""

import json
from pathlib import Path
from typing import Any

import pytest

from imagebart.core.errors import InputError
from imagebart.training.config import DenoiserRun, LoopConfig, StageRun, StageShape, load, load_values

RUN = {"data": "avatars", "first_stage": "first", "loop": {"steps": 3}}


def test_settings_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({**RUN, "query_token_dropout": 0.5}))
    run = load(DenoiserRun, tmp_path / "run.json")
    assert (run.loop.steps, run.query_token_dropout, run.conditioning_dropout) == (3, 0.5, 0.15)
    assert run.conditioning == "text"


@pytest.mark.parametrize("length", [{}, {"steps": 3, "hours": 1.0}])
def test_a_run_has_steps_or_hours(length: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected one of the two"):
        LoopConfig.parse(**length)


@pytest.mark.parametrize("text", ["[1, 2]", "{broken", "7", "[" * 100_000, None])
def test_a_file_without_settings_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"cannot read the configuration .*run\.json, expected a JSON object"):
        load_values(tmp_path / "run.json")


def test_a_text_encoder_is_for_texts() -> None:
    with pytest.raises(ValueError, match="text_from names a text encoder; conditioning is 'class', expected text"):
        StageRun.from_json(json.dumps({**RUN, "betas": [1.0], "t": 1, "conditioning": "class", "text_from": "c"}))


def test_shapes_of_both_transformers() -> None:
    shape = StageShape(width=32, depth=5, heads=2, head_size=16, encoder_depth=3)
    encoder, decoder = shape.encoder(20, 30), shape.decoder(21, 31, 22, cross=True)
    assert (encoder.depth, encoder.vocab_in, encoder.positions, encoder.vocab_out) == (3, 20, 30, None)
    assert (decoder.depth, decoder.vocab_in, decoder.positions, decoder.vocab_out) == (5, 21, 31, 22)
    assert not encoder.causal and decoder.causal and decoder.cross and not encoder.cross
    assert encoder.width == decoder.width == 32 and encoder.head_size == decoder.head_size == 16
