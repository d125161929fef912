"""Training of stages: losses, initialisation, whole runs of one stage and of all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from tiny_runs import COLORS, two_classes

from imagebart.cli.main import main
from imagebart.core.errors import InputError, WeightsError
from imagebart.model import ImageBART
from imagebart.models.diffusion import Schedule, add_uniform_noise, posterior
from imagebart.text.conditioners import ClassConditioner
from imagebart.training.config import StageRun
from imagebart.training.stage import Stages, stage_loss, stages_task, train_stages


def test_the_soft_loss_is_the_mean_of_hard_losses() -> None:
    """Over many samples of x_{t-1} from the posterior, hard losses average to the soft one."""
    schedule, vocab, t = Schedule((0.4, 0.5, 1.0)), 5, 2
    x0 = torch.randint(vocab, (1, 6))
    x_s = add_uniform_noise(x0, 1 - schedule.alphacum(t - 1), vocab)
    x_t = add_uniform_noise(x_s, schedule.betas[t - 1], vocab)
    logits = torch.randn(1, 6, vocab)
    soft = stage_loss(logits, x0, x_s, x_t, t, schedule)
    draws = torch.distributions.Categorical(posterior(x_t, x0, t, schedule, vocab)).sample((20_000,))[:, 0]
    hard = F.cross_entropy(logits.expand(len(draws), -1, -1).flatten(0, 1), draws.flatten())
    assert abs(soft - hard) < 0.02  # four standard errors


def run_on_classes(folder: Path, **settings: Any) -> StageRun:
    return two_classes(StageRun, folder, betas=(0.5, 1.0), **settings)


def check_colors(model: ImageBART) -> None:
    """The chain generates the color of the given class."""
    for index, color in enumerate(COLORS.values()):
        wanted = model.first_stage.encode(torch.full((1, 3, 16, 16), color / 127.5 - 1))
        drawn = model.sample(8, cond=torch.full((8, 1), index), seed=1)
        assert (drawn == wanted).float().mean() > 0.8


def test_models_of_both_published_kinds_are_trained_on_a_folder_of_classes(tmp_path: Path) -> None:
    """Stage after stage; put together, they generate the color of a class.

    With corrupted decoder input, for else the finest stage copies its own first token, and looks at x_1 for that one
    alone: too little to learn from in so few steps.
    """
    run = run_on_classes(tmp_path, t=2)
    coarse = train_stages(run, tmp_path / "stage2")
    with pytest.raises(WeightsError, match="needs a denoiser, or all stages"):
        ImageBART.from_pretrained(tmp_path / "stage2")
    for kind in ("encoder_decoder", "residual"):
        fine = train_stages(run.replace(t=1, kind=kind, decoder_corruption=0.8), tmp_path / kind)
        stages = [fine.stages[0], coarse.stages[0]]
        model = ImageBART(fine.first_stage, stages, fine.conditioner, schedule=fine.schedule)
        assert [stage.config.kind for stage in model.stages] == [kind, "decoder_only"]
        assert isinstance(model.conditioner, ClassConditioner) and model.conditioner.names == ("dark", "light")
        check_colors(model)


def test_all_stages_are_trained_jointly(tmp_path: Path) -> None:
    """From a configuration with `t` null, as a user runs it: the run's folder holds the model."""
    values = run_on_classes(tmp_path, t=None, decoder_corruption=0.8).model_dump(mode="json")
    (tmp_path / "joint.json").write_text(json.dumps(values))
    assert main(["train", "stage", "--config", str(tmp_path / "joint.json"), "--run", str(tmp_path / "joint")]) == 0
    check_colors(ImageBART.from_pretrained(tmp_path / "joint"))
    assert (tmp_path / "joint" / "samples").is_dir()


def test_the_loss_is_the_mean_of_the_stages_and_moves_each_by_its_own(tmp_path: Path) -> None:
    task = stages_task(run_on_classes(tmp_path, t=None, conditioning_dropout=0.0), tmp_path)
    batch = {"image": torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8), "text": ["dark"] * 4}
    losses = task.loss(task.model, batch, Accelerator(cpu=True))
    torch.testing.assert_close(losses["loss"], (losses["stage1"] + losses["stage2"]) / 2)
    losses["stage2"].backward(retain_graph=True)
    assert isinstance(task.model, Stages)
    fine, coarse = ([p.grad for p in stage.parameters()] for stage in task.model.stages)
    assert all(grad is None for grad in fine)
    assert any(grad is not None and grad.abs().sum() > 0 for grad in coarse)


def test_one_stage_alone_initialises_another(tmp_path: Path) -> None:
    """A step at a learning rate of 0 leaves it as it was."""
    run = run_on_classes(tmp_path, t=1, kind="residual")
    run = run.replace(conditioning="none", loop=run.loop.replace(steps=1, warmup=0, ema=0.0))
    (trained,) = train_stages(run, tmp_path / "stage1").stages
    standing = run.replace(init_from=str(tmp_path / "stage1"), loop=run.loop.replace(lr=0.0))
    (again,) = train_stages(standing, tmp_path / "again").stages
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())
    with pytest.raises(InputError, match="has no stage 2 to start from"):
        train_stages(standing.replace(t=2), tmp_path / "other")
