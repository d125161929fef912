"""Training on avatars: the text encoder learns to read captions; a model is put together from what was trained."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_conditioner, tiny_first_stage

from imagebart import Pipeline
from imagebart.model import ImageBART
from imagebart.models.transformer import TextEncoder
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import LoopConfig, StageShape, load
from imagebart.training.token_task import load_text_encoder, text_config
from imagebart.worlds.attribute_classifier import GROUPS, CaptionReader, claims_vector
from imagebart.worlds.avatars import VALUES
from recipes.avatars.__main__ import main
from recipes.avatars.captions import avatar_conditioner
from recipes.avatars.dataset import avatar_item, caption
from recipes.avatars.training import (
    SILENT,
    TRAININGS,
    CaptionsRun,
    caption_item,
    reading_accuracy,
    reading_loss,
    train_captions,
)
from recipes.things.training import TRAININGS as THINGS

RECIPES = Path(__file__).parents[2] / "recipes"
SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=14)


def test_every_configuration_is_read() -> None:
    kinds = {"decoder": "first-stage", "decoder256": "first-stage", "first": "first-stage", "scorer": "classifier"}
    for recipe, trainings in (("avatars", TRAININGS), ("things", THINGS)):
        for path in (RECIPES / recipe / "configs").glob("[!m]*.json"):
            name = path.stem.split("-")[0]
            settings, _ = trainings.get(name) or trainings[kinds[name]]
            assert settings is not None and load(settings, path).loop.steps


def test_captions_are_those_of_the_avatars() -> None:
    for number in (1, 5, 123):
        said = caption_item(number)
        assert said["text"] == avatar_item(number, size=16)["text"] == caption(number).text
        assert torch.equal(said["labels"], claims_vector(caption(number).claims))
    silent = caption_item(3 * SILENT)
    assert silent["text"] == "" and torch.equal(silent["labels"], claims_vector({}))


def test_a_short_run_learns_to_read(tmp_path: Path) -> None:
    """New captions at every step, so that the log is of captions not seen before."""
    settings = {"batch_size": 16, "optimizer": "muon", "lr": 0.01, "warmup": 5, "ema": 0.9, "log_every": 1}
    loop = LoopConfig(steps=100, **settings)  # type: ignore[arg-type]
    trained = train_captions(CaptionsRun(loop=loop, shape=SHAPE, text_length=60), tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sum(r["read"] for r in log[-10:]) > 1.6 * sum(r["read"] for r in log[:10])
    again, conditioner = load_text_encoder(tmp_path / "run")
    assert conditioner == avatar_conditioner(60)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_trained_parts_become_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first_stage = FirstStage(tiny_first_stage())
    ImageBART(first_stage).save_pretrained(tmp_path / "first")
    loop = {"steps": 1, "batch_size": 2, "warmup": 0}
    shape = SHAPE.model_dump()
    configs = {
        "captions": {"loop": loop, "shape": shape, "text_length": 60},
        "denoiser": {
            "data": "avatars",
            "first_stage": str(tmp_path / "first"),
            "text_from": str(tmp_path / "captions"),
            "text_length": 60,
            "loop": loop,
            "shape": shape,
        },
        "model": {
            "first_stage": str(tmp_path / "first"),
            "denoiser": str(tmp_path / "denoiser"),
            "about": {"name": "tiny"},
        },
    }
    for name, values in configs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(values))
    for part in ("captions", "denoiser"):
        given = ["--config", str(tmp_path / f"{part}.json"), "--run", str(tmp_path / part)]
        assert main(["train", part, *given]) == 0
    assert main(["assemble", "--config", str(tmp_path / "model.json"), "--out", str(tmp_path / "model")]) == 0
    pipe = Pipeline.from_pretrained(tmp_path / "model")
    assert pipe.name == "tiny" and pipe.model.conditioner == avatar_conditioner(60)
    (tmp_path / "denoiser.json").write_text(json.dumps(configs["denoiser"] | {"data": "faces"}))
    assert main(["train", "denoiser", "--config", str(tmp_path / "denoiser.json"), "--run", str(tmp_path / "x")]) == 2
    assert "expected 'avatars' or 'avatar edits'" in capsys.readouterr().err


SMALL = (4, 3)  # two attributes of three and of two values
SMALL_SHAPE = StageShape(width=32, heads=2, head_size=16, encoder_depth=1, query_tokens=3)


def test_the_loss_has_claimed_values_as_equally_likely_targets() -> None:
    """By hand: two of three values are claimed of the first attribute, the second is not mentioned."""
    readings = torch.tensor([[1.0, 2.0, 3.0, 0.0, 1.0, 2.0, 3.0]])
    claims = torch.tensor([[True, True, False, False, False, False, True]])
    first = math.log(1 + math.e + math.exp(2) + math.exp(3)) - 0.5 * (1 + 2)
    second = math.log(math.exp(1) + math.exp(2) + math.exp(3)) - 3
    assert reading_loss(readings, claims, SMALL).item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_accuracy_counts_mentioned_attributes_only() -> None:
    readings = torch.tensor([[1.0, 3.0, 2.0, 0.0, 1.0, 2.0, 3.0]])
    assert reading_accuracy(readings, torch.tensor([[False, True, True, False, False, False, True]]), SMALL) == 1
    assert reading_accuracy(readings, torch.tensor([[True, False, True, False, False, False, True]]), SMALL) == 0
    assert reading_accuracy(readings, torch.tensor([[True, True, False, False, True, False, False]]), SMALL) == 0.5
    assert reading_accuracy(readings, torch.tensor([[False, False, False, True, False, False, True]]), SMALL) == 0


def test_claims_are_those_of_the_caption() -> None:
    claims = caption(7).claims
    flags = dict(zip(VALUES, claims_vector(claims).split(GROUPS), strict=True))
    for name, values in VALUES.items():
        *allowed, silent = flags[name].tolist()
        assert {value for value, flag in zip(values, allowed, strict=True) if flag} == claims.get(name, frozenset())
        assert silent == (name not in claims)


def test_a_text_encoder_learns_to_read() -> None:
    torch.manual_seed(0)
    conditioner = tiny_conditioner("text")
    model = CaptionReader(TextEncoder(text_config(SMALL_SHAPE, conditioner)), SMALL)
    words = conditioner.encode(["round glasses", "red hair"]).tokens
    claims = torch.tensor([[True, False, False, False, False, False, True], [0, 0, 1, 0, 0, 1, 0]]).bool()
    assert reading_loss(model(words), claims, SMALL) > 0.5
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        reading_loss(model(words), claims, SMALL).backward()
        optimizer.step()
    assert reading_loss(model(words), claims, SMALL) < 0.1
    assert reading_accuracy(model(words), claims, SMALL) == 1.0


def test_too_few_query_tokens_are_refused() -> None:
    encoder = TextEncoder(text_config(SMALL_SHAPE, tiny_conditioner("text")))
    with pytest.raises(ValueError, match="query_tokens is 3, expected 4, one an attribute"):
        CaptionReader(encoder, (2, 2, 2, 2))
