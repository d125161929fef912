"""All stages of a schedule trained at once: each learns what it would alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from typer.testing import CliRunner

from imagebart.cli.main import app
from imagebart.models.imagebart import About
from imagebart.training.parts import assemble
from imagebart.training.stage import JointTask, stage_tasks, train_stage

from .test_stages import two_classes


def test_joint_stages_draw_the_colour_that_is_asked_for(tmp_path: Path) -> None:
    """From a configuration with `t` null, as a user runs it; the folders are put together as those of single runs."""
    run = two_classes(tmp_path)
    values = {
        "data": run.data,
        "first_stage": run.first_stage,
        "betas": run.betas,
        "t": None,
        "conditioning": "class",
        "decoder_corruption": 0.8,
        "shape": vars(run.shape),
        "loop": {**vars(run.loop), "steps": 80},
    }
    (tmp_path / "joint.json").write_text(json.dumps(values))
    told = CliRunner().invoke(
        app, ["train", "stage", "--config", str(tmp_path / "joint.json"), "--run", str(tmp_path / "joint")]
    )
    assert told.exit_code == 0, told.output
    stages = [tmp_path / "joint" / name for name in ("stage1", "stage2")]
    model = assemble(tmp_path / "first", stages, About("two", "squares"))
    for index, colour in enumerate((20, 235)):
        wanted = model.first_stage.encode(torch.full((1, 3, 16, 16), colour / 127.5 - 1))
        drawn = model.sample(8, cond=torch.full((8, 1), index), seed=1)
        assert (drawn == wanted).float().mean() > 0.8
    assert (tmp_path / "joint" / "samples").is_dir()


def test_the_loss_is_the_mean_of_the_stages_and_moves_each_by_its_own(tmp_path: Path) -> None:
    run = replace(two_classes(tmp_path), t=None, drop=0.0)
    task = JointTask(stage_tasks(run, [1, 2]))
    batch = {"image": torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8), "text": ["dark"] * 4}
    losses = task.loss(task.model, batch, Accelerator(cpu=True))
    torch.testing.assert_close(losses["loss"], (losses["stage1"] + losses["stage2"]) / 2)
    losses["stage2"].backward(retain_graph=True)
    coarse = [p.grad for p in task.tasks[1].model.parameters()]
    assert all(p.grad is None for p in task.tasks[0].model.parameters())
    assert any(grad is not None and grad.abs().sum() > 0 for grad in coarse)


def test_what_makes_no_sense_for_all_stages_is_refused(tmp_path: Path) -> None:
    run = replace(two_classes(tmp_path), t=None)
    with pytest.raises(ValueError, match="init_from is 'stage1', one stage; t is null"):
        replace(run, init_from="stage1")
    with pytest.raises(ValueError, match="t is null"):
        train_stage(run, tmp_path / "one")
