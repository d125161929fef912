"""Training of stages and what trainings on tokens share: losses, tables of the codebook, recorded steps, whole runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image, ImageOps
from tiny_models import tiny_first_stage, tiny_model, tiny_staged_model
from tiny_runs import COLORS, SHAPE, draw_folder, two_classes

from imagebart.cli.main import main
from imagebart.core.errors import InputError
from imagebart.model import ImageBART
from imagebart.models.denoiser import Denoiser
from imagebart.models.diffusion import Schedule, add_uniform_noise, posterior
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import AdversarialLoss, DenoiserRun, FirstStageLoss, FirstStageRun, LoopConfig, StageRun
from imagebart.training.denoiser import train_denoiser
from imagebart.training.loop import read_log
from imagebart.training.stage import Stages, StagesTask, stage_loss, train_stages
from imagebart.training.token_task import (
    add_codebook_embedding,
    conditioner_of,
    merge_codebook_embedding,
    token_tables,
)
from imagebart.training.vqgan import train_first_stage


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


@pytest.mark.slow
def test_all_stages_are_trained_jointly(tmp_path: Path) -> None:
    """From a configuration with `t` null, as a user runs it: the run's folder holds the model."""
    values = run_on_classes(tmp_path, t=None, decoder_corruption=0.8).model_dump(mode="json")
    (tmp_path / "joint.json").write_text(json.dumps(values))
    assert main(["train", "stage", "--config", str(tmp_path / "joint.json"), "--run", str(tmp_path / "joint")]) == 0
    check_colors(ImageBART.from_pretrained(tmp_path / "joint"))
    assert (tmp_path / "joint" / "samples").is_dir()


def test_the_loss_is_the_mean_of_the_stages_and_moves_each_by_its_own() -> None:
    model = tiny_staged_model("none")
    run = StageRun(data="", first_stage="", loop=RECORDED_LOOP, betas=(0.5, 1.0), t=None, conditioning_dropout=0.0)
    task = StagesTask(Stages([*model.stages]).requires_grad_(True), model.conditioner, model.first_stage, [], run)
    batch = {"image": torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8), "text": [""] * 4}
    losses = task.loss(task.model, batch, Accelerator(cpu=True))
    torch.testing.assert_close(losses["loss"], (losses["stage1"] + losses["stage2"]) / 2)
    losses["stage2"].backward(retain_graph=True)
    fine, coarse = ([p.grad for p in stage.parameters()] for stage in task.model.stages)
    assert all(grad is None for grad in fine)
    assert any(grad is not None and grad.abs().sum() > 0 for grad in coarse)


def test_one_stage_alone_initializes_another(tmp_path: Path) -> None:
    """A step at a learning rate of 0 leaves it as it was."""
    run = run_on_classes(tmp_path, t=1, kind="residual")
    run = run.replace(conditioning="none", loop=run.loop.replace(steps=1, warmup=0, ema=0.0))
    (trained,) = train_stages(run, tmp_path / "stage1").stages
    standing = run.replace(init_from=str(tmp_path / "stage1"), loop=run.loop.replace(lr=0.0))
    (again,) = train_stages(standing, tmp_path / "again").stages
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())
    with pytest.raises(InputError, match="has no stage 2 to start from"):
        train_stages(standing.replace(t=2), tmp_path / "other")


RECORDED_LOOP = LoopConfig(
    steps=4, batch_size=4, lr=3e-3, optimizer="muon", warmup=2, ema=0.5, mixed_precision="no", log_every=1
)
LOSSES = {
    "first stage": [2.09325, 1.86443, 1.58758, 1.27152],
    "stages": [3.14816, 2.97217, 2.71675, 2.15924],
    "denoiser": [3.81322, 3.46871, 3.02327, 2.68595],
}


@pytest.mark.parametrize("kind", LOSSES)
def test_the_first_steps_have_the_losses_that_were_recorded(tmp_path: Path, kind: str) -> None:
    """Up to how a machine rounds."""
    run, folder = tmp_path / "run", draw_folder(tmp_path / "data", "text")
    texts = {row["file_name"]: row["text"] for row in map(json.loads, (folder / "metadata.jsonl").open())}
    items = []
    for path in sorted(folder.glob("*.png")):
        square = ImageOps.fit(Image.open(path).convert("RGB"), (32, 32), Image.Resampling.LANCZOS)
        items.append({"image": torch.from_numpy(np.array(square)).permute(2, 0, 1), "text": texts[path.name]})
    data, model = (items, conditioner_of("text", list(texts.values()), 16)), tiny_first_stage(encoder="patch")
    torch.manual_seed(0)
    ImageBART(FirstStage(model)).save_pretrained(tmp_path / "first")
    places = {"data": "", "first_stage": str(tmp_path / "first"), "loop": RECORDED_LOOP, "shape": SHAPE}
    if kind == "first stage":
        loss = FirstStageLoss(adversarial=AdversarialLoss(start=0.5, crop=32, channels=8))
        train_first_stage(FirstStageRun(data="", model=model, loop=RECORDED_LOOP, loss=loss), run, items)
    elif kind == "stages":
        stages = StageRun(**places, text_length=16, betas=(0.5, 1.0), t=None, decoder_corruption=0.5)
        train_stages(stages, run, lambda *_: data)
    else:
        train_denoiser(DenoiserRun(**places, text_length=16, color_hint_grid=2), run, lambda *_: data)
    assert [record["loss"] for record in read_log(run) if "loss" in record] == pytest.approx(LOSSES[kind], rel=2e-3)


def denoiser_with_codes() -> tuple[Denoiser, torch.Tensor]:
    """Codes 0 and 1 have the same vector, 2 the opposite one, the others none."""
    denoiser, codes = tiny_model("none").denoiser, torch.zeros(24, 2)
    assert denoiser is not None
    codes[:2, 0], codes[2, 0] = 1.0, -1.0
    return denoiser.requires_grad_(True), codes


def test_trained_maps_of_the_codebook_are_merged_into_tables() -> None:
    denoiser, codes = denoiser_with_codes()
    x = torch.randint(24, (2, 64))

    def logits() -> torch.Tensor:
        return denoiser.logits(x, x, torch.full(x.shape, 0.5), torch.zeros(x.shape))

    names, before = set(denoiser.state_dict()), logits()
    add_codebook_embedding(token_tables(denoiser), codes)
    assert torch.equal(logits(), before), "the map is zero at first"
    logits().square().mean().backward()
    torch.optim.SGD(denoiser.parameters(), 0.5).step()
    trained = logits()
    merge_codebook_embedding(denoiser)
    assert set(denoiser.state_dict()) == names and not torch.allclose(trained, before)
    torch.testing.assert_close(logits(), trained)


def test_an_unused_code_learns_from_similar_ones_in_embeddings_and_heads() -> None:
    """Only code 0 is used, and only it is ever right; the start token is no code."""
    denoiser, codes = denoiser_with_codes()
    embedding, head, state = denoiser.encoder.token_embedding, denoiser.decoder.head, torch.randn(1, 32)
    assert head is not None
    table, before = embedding.weight.detach().clone(), head(state).detach()
    add_codebook_embedding(token_tables(denoiser), codes)
    (embedding(torch.zeros(1, dtype=torch.long)).sum() - head(state).log_softmax(-1)[0, 0]).backward()
    torch.optim.SGD(denoiser.parameters(), 0.1).step()
    merge_codebook_embedding(denoiser)
    moved = embedding.weight - table
    assert (moved[0] < moved[1]).all() and (moved[1] < -0.01).all()
    torch.testing.assert_close(moved[2], -moved[1], atol=0.02, rtol=0.2)
    assert not moved[24].any()
    likelier = head(state)[0] - before[0]
    assert likelier[0] > likelier[1] > likelier[3:].max() > likelier[2]
