"""Losses, warm starts and whole runs of stage training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_models import tiny_model, tiny_staged_model

from imagebart.conditioning import ClassConditioner
from imagebart.diffusion import Schedule, add_uniform_noise, diffuse, posterior
from imagebart.models.imagebart import About, ImageBART
from imagebart.models.stages import Stage
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import LoopConfig, StageRun, StageShape
from imagebart.training.parts import assemble, load_text_encoder, take_apart
from imagebart.training.stage import scrambled, stage_loss, train_stage
from imagebart.weights.folder import Part, load_part, save_part

from .test_first_stage import SMALL


def test_soft_loss_is_the_mean_of_hard_losses() -> None:
    """Over many draws of x_{t-1} from the posterior, hard losses average to the soft one."""
    torch.manual_seed(0)
    schedule, vocab, t = Schedule((0.4, 0.5, 1.0)), 5, 2
    x0 = torch.randint(vocab, (1, 6))
    x = diffuse(x0, t - 1, schedule, vocab)
    c = add_uniform_noise(x, schedule.betas[t - 1], vocab)
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
    c = add_uniform_noise(x0, 0.5, 5)
    soft, hard = (stage_loss(logits, x0, x0, c, 1, schedule, soft=s) for s in (True, False))
    assert torch.equal(soft, hard)


def two_classes(folder: Path) -> StageRun:
    """Training of the coarsest of two stages, on two classes, each of one colour."""
    for name, colour in (("dark", 20), ("light", 235)):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (16, 16), (colour + i,) * 3).save(folder / "data" / name / f"{i}.png")
    save_part(Part(FirstStage(SMALL)), folder / "first")
    return StageRun(
        data=str(folder / "data"),
        first_stage=str(folder / "first"),
        betas=(0.5, 1.0),
        t=2,
        conditioning="class",
        shape=StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1),
        loop=LoopConfig(
            steps=80, batch_size=8, lr=1e-2, warmup=5, ema=0.5, mixed_precision="no", save_every=80, sample_every=80
        ),
    )


def test_models_are_trained_on_a_folder_of_classes_and_assembled(tmp_path: Path) -> None:
    """Of both published kinds: the trained chain draws the colour of the class that is asked for.

    Scrambled tokens before each one, for else the finest stage copies its own first token, and looks at x_1 for that
    one alone: too little to learn from in so few steps.
    """
    torch.manual_seed(0)
    run, kinds = two_classes(tmp_path), ("encoder_decoder", "residual")
    train_stage(run, tmp_path / "stage2")
    for kind in kinds:
        train_stage(replace(run, t=1, kind=kind, decoder_corruption=0.8), tmp_path / kind)
        model = assemble(tmp_path / "first", [tmp_path / kind, tmp_path / "stage2"], About("two", "squares"))
        assert [stage.config.kind for stage in model.stages] == [kind, "decoder_only"]
        assert isinstance(model.conditioner, ClassConditioner)
        assert model.conditioner.names == ("dark", "light")
        for index, colour in enumerate((20, 235)):
            image = torch.full((1, 3, 16, 16), colour / 127.5 - 1)
            wanted = model.first_stage.encode(image)
            drawn = model.sample(8, cond=torch.full((8, 1), index), seed=1)
            assert (drawn == wanted).float().mean() > 0.8
    first, *stages = take_apart(model, tmp_path / "parts")
    assert [p.name for p in (first, *stages)] == ["first-stage", "stage1", "stage2"]
    whole = assemble(first, stages, About("two", "squares"))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), model.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="another schedule"):
        assemble(tmp_path / "first", [tmp_path / kinds[0], _other_schedule(run, tmp_path)], About())


def test_a_stage_goes_on_from_one_of_its_kind(tmp_path: Path) -> None:
    """A step of rate 0 leaves it as it was."""
    (tmp_path / "data").mkdir()
    Image.new("RGB", (16, 16), (40, 200, 90)).save(tmp_path / "data" / "a.png")
    save_part(Part(FirstStage(SMALL)), tmp_path / "first")
    loop = LoopConfig(steps=1, batch_size=2, warmup=0, ema=0.0, mixed_precision="no")
    shape = StageShape(width=32, depth=1, heads=2, head_size=16, encoder_depth=1)
    run = StageRun(
        data=str(tmp_path / "data"),
        first_stage=str(tmp_path / "first"),
        betas=(0.5, 1.0),
        t=1,
        loop=loop,
        kind="residual",
        shape=shape,
        conditioning="none",
    )
    trained = train_stage(run, tmp_path / "stage1").state_dict()
    standing = replace(run, init_from=str(tmp_path / "stage1"), loop=replace(loop, lr=0.0))
    again = train_stage(standing, tmp_path / "again").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in trained.items())


@pytest.mark.parametrize(("make", "own"), [(tiny_model, ["denoiser"]), (tiny_staged_model, ["stage1", "stage2"])])
def test_a_model_is_taken_apart_and_put_together(tmp_path: Path, make: Any, own: list[str]) -> None:
    """The text encoder is a part of its own, which a network can take over."""
    model = make("text")
    folders = take_apart(model, tmp_path)
    assert [folder.name for folder in folders] == ["first-stage", "captions", *own]
    first, captions, *networks = folders
    assert model.text is not None
    encoder, _ = load_text_encoder(captions)
    read = encoder.state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in model.text.state_dict().items())

    def put_together(text: Path | None) -> ImageBART:
        if model.denoiser is not None:
            return assemble(first, networks[0], About(), text)
        return assemble(first, networks, About(), text)

    whole = put_together(None).state_dict()
    assert whole.keys() == model.state_dict().keys()
    assert all(torch.equal(whole[name], tensor) for name, tensor in model.state_dict().items())
    torch.nn.init.ones_(encoder.phrase.convolution.weight)
    save_part(Part(encoder, model.conditioner), captions)
    changed = put_together(captions)
    for network in (changed.denoiser,) if changed.denoiser is not None else changed.stages:
        assert (network.text.phrase.convolution.weight == 1).all()


def _other_schedule(run: StageRun, folder: Path) -> Path:
    short = replace(run, betas=(0.25, 1.0), loop=replace(run.loop, steps=1))
    train_stage(short, folder / "other")
    assert load_part(folder / "other", Stage).schedule.betas == (0.25, 1.0)
    return folder / "other"
