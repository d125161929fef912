"""Training on avatars: the text encoder learns to read captions; a model is put together from what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_first_stage

from imagebart import Pipeline
from imagebart.model import ImageBART
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import LoopConfig, StageShape, load
from imagebart.training.token_task import load_text_encoder
from imagebart.worlds.attribute_classifier import GROUPS, claims_vector
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


def test_the_loss_has_claimed_values_as_equally_likely_targets() -> None:
    """In float64; and the accuracy is of the mentioned attributes alone."""
    readings = torch.randn(3, sum(GROUPS))
    claims = torch.stack([claims_vector(caption(number).claims) for number in (5, 6, 7)])
    losses, right = [], []
    for row, flags in zip(readings.double().numpy(), claims.numpy(), strict=True):
        for part, allowed in zip(*(np.split(values, np.cumsum(GROUPS)[:-1]) for values in (row, flags)), strict=True):
            losses.append(np.log(np.exp(part).sum()) - part[allowed].mean())
            right += [] if allowed[-1] else [allowed[part.argmax()]]
    assert reading_loss(readings, claims).item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert reading_accuracy(readings, claims).item() == pytest.approx(np.mean(right))


def test_claims_are_those_of_the_caption() -> None:
    claims = caption(7).claims
    flags = dict(zip(VALUES, claims_vector(claims).split(GROUPS), strict=True))
    for name, values in VALUES.items():
        *allowed, silent = flags[name].tolist()
        assert {value for value, flag in zip(values, allowed, strict=True) if flag} == claims.get(name, frozenset())
        assert silent == (name not in claims)
