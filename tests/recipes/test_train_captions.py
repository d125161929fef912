"""Learning to read captions before any picture."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_first_stage

from imagebart.avatars.claims import HEADS, CaptionReader, claims_vector, save_heads
from imagebart.conditioning import TextConditioner
from imagebart.models.imagebart import About
from imagebart.models.stages import Stage
from imagebart.models.text_encoder import TextEncoder
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import LoopConfig, StageRun, StageShape
from imagebart.training.parts import assemble, load_text_encoder
from imagebart.training.token_task import text_config
from imagebart.weights.folder import Part, load_part, save_part
from recipes.avatars.conditioner import avatar_conditioner
from recipes.avatars.dataset import AvatarDataset, caption
from recipes.avatars.training import SILENT, CaptionDataset, CaptionsRun, train_captions, train_part

SHAPE = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1, query_tokens=14)


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
        steps=200,
        batch_size=16,
        optimizer="muon",
        lr=0.01,
        warmup=5,
        ema=0.9,
        log_every=1,
        save_every=200,
        sample_every=200,
    )
    trained = train_captions(CaptionsRun(loop=loop, shape=SHAPE, text_length=60), tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert sum(r["read"] for r in log[-10:]) > 1.6 * sum(r["read"] for r in log[:10])
    assert (tmp_path / "run" / "samples" / "0000200.png").exists()
    again, conditioner = load_text_encoder(tmp_path / "run")
    assert conditioner == avatar_conditioner(60)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    with pytest.raises(ValueError, match="reads 60 tokens a prompt, expected 61"):
        train_captions(CaptionsRun(loop, SHAPE, 61, str(tmp_path / "run")), tmp_path / "longer")


def test_a_text_encoder_is_taught_more_without_changing_what_its_slots_say(tmp_path: Path) -> None:
    loop = LoopConfig(steps=2, batch_size=2, lr=0.01, warmup=0, ema=0.0, save_every=2, sample_every=2)
    run = CaptionsRun(loop, SHAPE, text_length=60)
    first = train_captions(run, tmp_path / "first")
    more = train_captions(replace(run, init_from=str(tmp_path / "first")), tmp_path / "more")
    heads = [load_file(tmp_path / name / HEADS) for name in ("first", "more")]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    weights = [encoder.transformer.token_embedding.weight for encoder in (first, more)]
    assert not torch.equal(*weights) and torch.allclose(*weights, atol=0.05)
    (tmp_path / "first" / HEADS).unlink()
    with pytest.raises(ValueError, match=r"has no heads\.safetensors"):
        train_captions(replace(run, init_from=str(tmp_path / "first")), tmp_path / "other")


def test_a_text_encoder_that_knew_fewer_words_is_taught_the_others_and_replaces_it_in_a_model(tmp_path: Path) -> None:
    save_part(Part(FirstStage(tiny_first_stage())), tmp_path / "first-stage")
    few = TextConditioner.from_captions(["a man with red hair and glasses", "a blue hat"], 60)
    reader = CaptionReader(TextEncoder(text_config(SHAPE, few)))
    save_part(Part(reader.encoder, few), tmp_path / "few")
    save_heads(reader, tmp_path / "few")
    loop = LoopConfig(steps=1, batch_size=2, lr=0.0, warmup=0, ema=0.0, save_every=1, sample_every=1)
    taught = train_captions(CaptionsRun(loop, SHAPE, 60, str(tmp_path / "few")), tmp_path / "many")
    many = avatar_conditioner(60)
    prompts = ["red hat", "a man with glasses", ""]
    before = reader.encoder(few.encode(prompts).tokens)
    assert torch.allclose(taught(many.encode(prompts).tokens), before, atol=1e-5)
    first, few_words = str(tmp_path / "first-stage"), str(tmp_path / "few")
    stage = StageRun(data="avatars", first_stage=first, betas=(1.0,), t=1, loop=loop, shape=SHAPE, text_from=few_words)
    train_part(stage, tmp_path / "stage")
    model = assemble(tmp_path / "first-stage", [tmp_path / "stage"], About(), tmp_path / "many")
    assert model.conditioner == many and model.stages[0].config.text == taught.config
    assert assemble(tmp_path / "first-stage", [tmp_path / "stage"], About()).conditioner == few
    save_part(Part(TextEncoder(text_config(replace(SHAPE, query_tokens=15), many)), many), tmp_path / "other")
    with pytest.raises(ValueError, match="query_tokens=15.*expected the shape of the network's own"):
        assemble(tmp_path / "first-stage", [tmp_path / "stage"], About(), tmp_path / "other")


def test_a_stage_takes_a_text_encoder_over_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    """Whatever it begins from; without `text_from` the text encoder learns with the stage."""
    save_part(Part(FirstStage(tiny_first_stage())), tmp_path / "first")
    loop = LoopConfig(steps=2, batch_size=2, lr=0.01, warmup=0, ema=0.0, save_every=2, sample_every=2)
    train_captions(CaptionsRun(loop, SHAPE, text_length=60), tmp_path / "captions")
    reads = load_text_encoder(tmp_path / "captions")[0].state_dict()
    run = StageRun(
        data="avatars", first_stage=str(tmp_path / "first"), betas=(1.0,), t=1, loop=loop, shape=SHAPE, text_length=60
    )
    taking = replace(run, text_from=str(tmp_path / "captions"))
    train_part(taking, tmp_path / "clean")
    train_part(replace(taking, betas=(0.5, 1.0)), tmp_path / "stage1")
    train_part(replace(run, init_from=str(tmp_path / "clean")), tmp_path / "freed")
    stages = {name: load_part(tmp_path / name, Stage).module for name in ("clean", "stage1", "freed")}
    for name, tensor in reads.items():
        assert torch.equal(tensor, stages["clean"].text.state_dict()[name])
        assert torch.equal(tensor, stages["stage1"].text.state_dict()[name])
    freed = assemble(tmp_path / "first", [tmp_path / "freed"], About(), tmp_path / "captions")
    for name, tensor in reads.items():  # what was taken over last is what reads
        assert torch.equal(tensor, freed.stages[0].text.state_dict()[name])
    weight = "transformer.token_embedding.weight"
    assert not torch.equal(reads[weight], stages["freed"].text.state_dict()[weight])
    assert not torch.equal(stages["clean"].text_map.weight, stages["stage1"].text_map.weight)
