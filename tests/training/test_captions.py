"""Learning to read captions before any picture."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from imagebart.avatars.claims import HEADS, claims_vector
from imagebart.avatars.dataset import AvatarDataset, caption
from imagebart.first_stage import FirstStage
from imagebart.models.imagebart import About
from imagebart.training.captions import SILENT, CaptionDataset, train_captions
from imagebart.training.config import CaptionsRun, LoopConfig, StageRun, StageShape
from imagebart.training.parts import assemble_stages, load_stage, load_text_encoder, save_first_stage
from imagebart.training.stages import avatar_conditioner, train_stage

from .test_first_stage import SMALL

SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, slots=14)


def test_captions_are_those_of_the_avatars() -> None:
    captions, avatars = CaptionDataset(), AvatarDataset(size=16)
    for number in (1, 5, 123):
        said = captions[number]
        assert said["text"] == avatars[number]["text"] == caption(number).text
        assert torch.equal(said["claims"], claims_vector(caption(number).claims))  # type: ignore[arg-type]
    silent = captions[3 * SILENT]
    assert silent["text"] == "" and torch.equal(silent["claims"], claims_vector({}))  # type: ignore[arg-type]


def test_a_short_run_learns_to_read(tmp_path: Path) -> None:
    """Fresh captions at every step, so that the log tells of captions it has not seen."""
    loop = LoopConfig(
        steps=150,
        batch_size=16,
        optimizer="muon",
        lr=0.01,
        warmup=5,
        ema=0.9,
        log_every=1,
        save_every=150,
        sample_every=150,
    )
    trained = train_captions(CaptionsRun(loop=loop, shape=SHAPE, text_length=60), tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sum(r["read"] for r in log[-10:]) > 2 * sum(r["read"] for r in log[:10])
    assert (tmp_path / "run" / "samples" / "0000150.png").exists()
    again = load_text_encoder(tmp_path / "run", avatar_conditioner(60))
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    with pytest.raises(ValueError, match="other words or another length"):
        load_text_encoder(tmp_path / "run", avatar_conditioner(61))


def test_a_text_encoder_is_taught_more_without_changing_what_its_slots_say(tmp_path: Path) -> None:
    loop = LoopConfig(steps=2, batch_size=2, lr=0.01, warmup=0, ema=0.0, save_every=2, sample_every=2)
    run = CaptionsRun(loop, SHAPE, text_length=60)
    first = train_captions(run, tmp_path / "first")
    more = train_captions(replace(run, begin_from=str(tmp_path / "first")), tmp_path / "more")
    heads = [load_file(tmp_path / name / HEADS) for name in ("first", "more")]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    weights = [encoder.transformer.token_embedding.weight for encoder in (first, more)]
    assert not torch.equal(*weights) and torch.allclose(*weights, atol=0.05)
    (tmp_path / "first" / HEADS).unlink()
    with pytest.raises(ValueError, match=r"has no heads\.safetensors"):
        train_captions(replace(run, begin_from=str(tmp_path / "first")), tmp_path / "other")


def test_a_stage_takes_a_text_encoder_over_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    """Whatever it begins from; without `text_from` the text encoder learns with the stage."""
    save_first_stage(FirstStage(SMALL), tmp_path / "first")
    loop = LoopConfig(steps=2, batch_size=2, lr=0.01, warmup=0, ema=0.0, save_every=2, sample_every=2)
    train_captions(CaptionsRun(loop, SHAPE, text_length=60), tmp_path / "captions")
    reads = load_text_encoder(tmp_path / "captions", avatar_conditioner(60)).state_dict()
    run = StageRun("avatars", str(tmp_path / "first"), (1.0,), 1, loop, shape=SHAPE, text_length=60)
    taking = replace(run, text_from=str(tmp_path / "captions"))
    train_stage(taking, tmp_path / "clean")
    train_stage(replace(taking, betas=(0.5, 1.0)), tmp_path / "stage1")
    train_stage(replace(run, begin_from=str(tmp_path / "clean")), tmp_path / "freed")
    stages = {name: load_stage(tmp_path / name)[0] for name in ("clean", "stage1", "freed")}
    for name, tensor in reads.items():
        assert torch.equal(tensor, stages["clean"].text.state_dict()[name])
        assert torch.equal(tensor, stages["stage1"].text.state_dict()[name])
    freed = assemble_stages(tmp_path / "first", [tmp_path / "freed"], About(), tmp_path / "captions")
    for name, tensor in reads.items():  # what was taken over last is what reads
        assert torch.equal(tensor, freed.stages[0].text.state_dict()[name])
    weight = "transformer.token_embedding.weight"
    assert not torch.equal(reads[weight], stages["freed"].text.state_dict()[weight])
    assert not torch.equal(stages["clean"].text_map.weight, stages["stage1"].text_map.weight)
