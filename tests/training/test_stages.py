"""Losses, warm starts and whole runs of stage training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from imagebart.conditioning import ClassConditioner
from imagebart.diffusion import Schedule, diffuse, posterior, redraw
from imagebart.first_stage import FirstStage
from imagebart.models.imagebart import About
from imagebart.models.published import build_stage
from imagebart.testing import tiny_conditioner, tiny_model, tiny_stage_config
from imagebart.training.config import LoopConfig, StageRun, StageShape
from imagebart.training.parts import assemble, load_stage, load_text_encoder, save_first_stage, take_apart
from imagebart.training.stages import begin_from, scrambled, stage_loss, train_stage

from .test_first_stage import SMALL


def test_soft_loss_is_the_mean_of_hard_losses() -> None:
    """Over many draws of x_{t-1} from the posterior, hard losses average to the soft one."""
    torch.manual_seed(0)
    schedule, vocab, t = Schedule((0.4, 0.5, 1.0)), 5, 2
    x0 = torch.randint(vocab, (1, 6))
    x = diffuse(x0, t - 1, schedule, vocab)
    c = redraw(x, schedule.betas[t - 1], vocab)
    logits = torch.randn(1, 6, vocab)
    soft = stage_loss(logits, x0, x, c, t, schedule, soft=True)
    draws = torch.distributions.Categorical(posterior(c, x0, t, schedule, vocab)).sample((20_000,))[:, 0]
    expanded = logits.expand(len(draws), -1, -1)
    hard = stage_loss(expanded, x0, draws, c, t, schedule, soft=False)
    assert abs(soft - hard) < 0.02  # four standard errors


def test_scrambling_redraws_any_part_of_some_rows() -> None:
    """Half of the rows, by parts from none to all, the mean a half: within four standard errors."""
    torch.manual_seed(0)
    x = torch.full((4000, 50), 7)
    changed = (scrambled(x, 0.5, 1000) != x).float().mean(1)
    assert abs((changed == 0).float().mean() - 0.5 - 0.5 / 51) < 0.032
    assert abs(changed[changed > 0].mean() - 0.51) < 0.03 and changed.max() > 0.95
    assert torch.equal(scrambled(x, 0.0, 1000), x)


def test_at_t_1_both_losses_are_the_same() -> None:
    x0 = torch.randint(5, (2, 6))
    logits, schedule = torch.randn(2, 6, 5), Schedule((0.5, 1.0))
    c = redraw(x0, 0.5, 5)
    soft, hard = (stage_loss(logits, x0, x0, c, 1, schedule, soft=s) for s in (True, False))
    assert torch.equal(soft, hard)


def test_a_stage_begun_from_a_clean_model_is_that_model() -> None:
    torch.manual_seed(0)
    conditioner = tiny_conditioner("text")
    clean = build_stage(tiny_stage_config(1, Schedule((1.0,)), 24, 64, conditioner), 1)
    aligned = build_stage(tiny_stage_config(1, Schedule((0.5, 1.0)), 24, 64, conditioner), 2)
    begin_from(aligned, clean)
    x, c = torch.randint(24, (2, 64)), torch.randint(24, (2, 64))
    cond = conditioner.encode(["round glasses", "red hair"]).tokens
    assert torch.allclose(aligned.logits(x, c, cond), clean.logits(x, c, cond), atol=1e-6)
    assert torch.equal(aligned.encoder.token_embedding.weight, clean.decoder.token_embedding.weight)  # type: ignore[union-attr]


def test_a_stage_of_another_width_is_refused() -> None:
    conditioner = tiny_conditioner("none")
    config = tiny_stage_config(1, Schedule((1.0,)), 24, 64, conditioner)
    wide = replace(config, decoder=replace(config.decoder, width=64))
    with pytest.raises(ValueError, match="no decoder.blocks.0"):
        begin_from(build_stage(wide, 1), build_stage(config, 1))


def test_a_model_is_trained_on_a_folder_of_classes_and_assembled(tmp_path: Path) -> None:
    """Two classes, each of one colour: the trained chain draws the colour of the class that is asked for."""
    torch.manual_seed(0)
    for name, colour in (("dark", 20), ("light", 235)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (16, 16), (colour + i,) * 3).save(tmp_path / "data" / name / f"{i}.png")
    save_first_stage(FirstStage(SMALL), tmp_path / "first")
    run = StageRun(
        data=str(tmp_path / "data"),
        first_stage=str(tmp_path / "first"),
        betas=(0.5, 1.0),
        t=2,
        conditioning="class",
        shape=StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1),
        loop=LoopConfig(
            steps=80, batch_size=8, lr=1e-2, warmup=5, ema=0.5, mixed_precision="no", save_every=80, sample_every=80
        ),
    )
    train_stage(run, tmp_path / "stage2")
    train_stage(replace(run, t=1, begin_from=str(tmp_path / "stage2")), tmp_path / "stage1")
    model = assemble(tmp_path / "first", [tmp_path / "stage1", tmp_path / "stage2"], About("two", "squares"))
    assert isinstance(model.conditioner, ClassConditioner)
    assert model.conditioner.names == ("dark", "light")
    for index, colour in enumerate((20, 235)):
        image = torch.full((1, 3, 16, 16), colour / 127.5 - 1)
        wanted = model.first_stage.encode(image)
        drawn = model.sample(8, cond=torch.full((8, 1), index), seed=1)
        assert (drawn == wanted).float().mean() > 0.8
    again, *_ = take_apart(model, tmp_path / "parts")
    assert [p.name for p in sorted((tmp_path / "parts").iterdir())] == ["first-stage", "stage1", "stage2"]
    whole = assemble(again, [tmp_path / "parts" / "stage1", tmp_path / "parts" / "stage2"], About("two", "squares"))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), model.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="another schedule"):
        assemble(tmp_path / "first", [tmp_path / "stage1", _other_schedule(run, tmp_path)], About())


def test_a_text_encoder_is_a_part_of_its_own(tmp_path: Path) -> None:
    model = tiny_model("text")
    folders = take_apart(model, tmp_path)
    assert [folder.name for folder in folders] == ["first-stage", "captions", "stage1", "stage2"]
    encoder = load_text_encoder(tmp_path / "captions", model.conditioner)
    assert str(encoder.state_dict()) == str(model.stages[0].text.state_dict())


def _other_schedule(run: StageRun, folder: Path) -> Path:
    short = replace(run, betas=(0.25, 1.0), loop=replace(run.loop, steps=1))
    train_stage(short, folder / "other")
    assert load_stage(folder / "other")[1].betas == (0.25, 1.0)
    return folder / "other"
