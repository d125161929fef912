"""Learning to read captions before any picture."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from imagebart.avatars.dataset import AvatarDataset, caption, claims_vector
from imagebart.diffusion import Schedule
from imagebart.first_stage import FirstStage
from imagebart.stage import build_stage
from imagebart.testing import tiny_conditioner, tiny_stage_config
from imagebart.training.captions import CaptionDataset, train_captions
from imagebart.training.config import CaptionsRun, LoopConfig, StageRun, StageShape
from imagebart.training.parts import load_stage, save_first_stage
from imagebart.training.reading import ReadingStage, load_head, reading_accuracy
from imagebart.training.stages import avatar_conditioner, train_stage

from .test_first_stage import SMALL

SHAPE = StageShape(width=32, depth=2, heads=2, head_size=16, encoder_depth=1)


def test_captions_are_those_of_the_avatars() -> None:
    captions, avatars = CaptionDataset(), AvatarDataset(size=16)
    for number in (0, 5, 123):
        said, seen = captions[number], avatars[number]
        assert said["text"] == seen["text"] == caption(number).text
        assert torch.equal(said["claims"], seen["claims"])  # type: ignore[arg-type]


def test_what_is_read_from_a_caption_alone_is_what_is_read_before_a_picture() -> None:
    """Causal: the picture's tokens come after the place where captions are read."""
    torch.manual_seed(0)
    conditioner = tiny_conditioner("text")
    model = ReadingStage(build_stage(tiny_stage_config(1, Schedule((1.0,)), 24, 64, conditioner), 1), (3, 2)).eval()
    cond = conditioner.encode(["round glasses", "red hair"]).tokens
    x = torch.randint(24, (2, 64))
    assert torch.allclose(model.read(cond), model(x, x, cond)[1], atol=1e-5)
    assert not torch.allclose(model.read(cond)[0], model.read(cond)[1])


def test_a_short_run_learns_to_read_and_leaves_a_stage(tmp_path: Path) -> None:
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
    run = CaptionsRun(vocab_size=24, tokens=16, loop=loop, shape=SHAPE, text_length=60)
    trained = train_captions(run, tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    first, last = log[:10], log[-10:]
    assert sum(r["read"] for r in last) > 1.5 * sum(r["read"] for r in first)
    assert (tmp_path / "run" / "samples" / "0000150.png").exists()
    stage, schedule, _ = load_stage(tmp_path / "run")
    assert schedule.betas == (1.0,) and stage.config.tokens == 16 and stage.config.cond_length == 60
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, stage.state_dict()[name])
    again = ReadingStage(stage, AvatarDataset.claim_groups)
    before = again.head[1].weight.clone()
    load_head(again, tmp_path)  # has none
    assert torch.equal(again.head[1].weight, before)
    load_head(again, tmp_path / "run")
    cond = avatar_conditioner(60).encode([caption(10**8 + i).text for i in range(50)]).tokens
    claims = torch.stack([claims_vector(caption(10**8 + i).claims) for i in range(50)])
    read = reading_accuracy(again.read(cond), claims, AvatarDataset.claim_groups)
    assert read > 1.3 * sum(r["read"] for r in first) / len(first)


def test_a_stage_goes_on_where_captions_ended(tmp_path: Path) -> None:
    """Its decoder and its reading head; what begins from it in turn gets both."""
    save_first_stage(FirstStage(SMALL), tmp_path / "first")
    loop = LoopConfig(steps=1, batch_size=2, lr=0.0, warmup=0, save_every=1, sample_every=1)
    captions = CaptionsRun(SMALL.codebook_size, 16, loop, SHAPE, text_length=60)
    train_captions(captions, tmp_path / "captions")
    first = str(tmp_path / "first")
    run = StageRun("avatars", first, (1.0,), 1, loop, SHAPE, text_length=60, reading=0.5)
    train_stage(replace(run, begin_from=str(tmp_path / "captions")), tmp_path / "clean")
    train_stage(replace(run, betas=(0.5, 1.0), begin_from=str(tmp_path / "clean")), tmp_path / "stage1")
    read, clean, fine = (load_stage(tmp_path / name)[0] for name in ("captions", "clean", "stage1"))
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, clean.state_dict()[name]) and torch.equal(tensor, fine.state_dict()[name])
    heads = [load_file(tmp_path / name / "reading.safetensors") for name in ("captions", "clean", "stage1")]
    assert all(torch.equal(heads[0][name], head[name]) for head in heads for name in heads[0])
