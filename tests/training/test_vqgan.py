"""Training of a first stage: its losses, its codebook, its discriminator, and whole runs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tiny_runs import SMALL
from torch import Tensor, nn
from torch.nn import functional as F

from imagebart.core.errors import InputError
from imagebart.models.vqgan import FirstStage, Quantizer
from imagebart.training import loop
from imagebart.training.config import AdversarialLoss, FirstStageLoss, FirstStageRun, LoopConfig
from imagebart.training.loop import read_log, train
from imagebart.training.vqgan import (
    CodebookEMA,
    DiscriminatorTrainer,
    FirstStageTask,
    gradient_loss,
    load_first_stage,
    train_first_stage,
)

ADVERSARIAL = AdversarialLoss(start=1 / 3, crop=32, channels=8)
ADVERSARIAL_LOOP = LoopConfig(steps=12, batch_size=4, lr=3e-3, warmup=2, ema=0.5, mixed_precision="no", log_every=1)


def test_gradient_loss_sees_edges_and_not_brightness() -> None:
    x = torch.rand(2, 3, 16, 16)
    weight = torch.ones(1, 1, 16, 16)
    assert gradient_loss(x + 0.3, x, weight) < 1e-6
    step = torch.zeros(1, 3, 16, 16)
    step[..., 8:] = 1.0
    blank = torch.zeros_like(step)
    # one of 15 (7, 3) horizontal differences is 1 on the three scales; no vertical one
    expected = (1 / 15 + 1 / 7 + 1 / 3) / 3
    assert torch.isclose(gradient_loss(step, blank, weight), torch.tensor(expected))


def test_codes_move_to_the_means_of_their_latents() -> None:
    quantizer = Quantizer(SMALL)
    codes = CodebookEMA(quantizer, decay=0.5, dead_code_threshold=0.1)
    centres = torch.cat([torch.eye(4), -torch.eye(4)])
    for _ in range(40):
        z = F.normalize(centres[torch.randint(8, (256,))] + 0.01 * torch.randn(256, 4), dim=-1)
        codes.update(quantizer, z, quantizer.tokens(z), Accelerator())
    nearest = (quantizer.codes() @ centres.T).max(0).values
    assert (nearest > 0.99).sum() >= 6  # dead codes were put to use; a centre may hold two, two share one


def test_dead_codes_are_replaced_from_the_batch() -> None:
    quantizer = Quantizer(SMALL)
    codes = CodebookEMA(quantizer, decay=0.0, dead_code_threshold=0.5)
    z = F.normalize(torch.ones(16, 4), dim=-1)
    codes.update(quantizer, z, torch.zeros(16, dtype=torch.long), Accelerator())
    assert torch.allclose(quantizer.codes(), z[:8], atol=1e-5)


def test_trained_codes_stay_where_they_are_not_used() -> None:
    quantizer = Quantizer(SMALL)
    torch.nn.init.normal_(quantizer.embedding.weight)
    before = quantizer.codes().detach().clone()
    codes = CodebookEMA(quantizer, decay=0.99, dead_code_threshold=0.01)
    codes.init_from(quantizer)
    z = F.normalize(torch.ones(16, 4), dim=-1)
    codes.update(quantizer, z, torch.zeros(16, dtype=torch.long), Accelerator())
    assert torch.allclose(quantizer.codes()[1:], before[1:], atol=1e-6)
    assert (quantizer.codes()[0] @ z[0]) > (before[0] @ z[0])


def plain_images(count: int, size: int) -> Any:
    """So many images, each of one color."""
    colors = torch.tensor([[40 * i, 255 - 40 * i, 30] for i in range(count)], dtype=torch.uint8)
    return [{"image": color[:, None, None].expand(3, size, size).contiguous()} for color in colors]


def test_training_learns_and_is_written(tmp_path: Path) -> None:
    items = plain_images(6, 16)
    config = LoopConfig(steps=40, batch_size=6, lr=3e-3, warmup=5, ema=0.5, mixed_precision="no")
    run = FirstStageRun(data="", model=SMALL, loop=config)
    trained = train_first_stage(run, tmp_path / "run", items)
    loaded = load_first_stage(tmp_path / "run")
    colors = torch.tensor([[40.0 * i, 255 - 40 * i, 30] for i in range(6)]) / 127.5 - 1
    images = colors[:, :, None, None].expand(6, 3, 16, 16).contiguous()
    output = loaded.decode(loaded.encode(images))
    assert torch.equal(output, trained.decode(trained.encode(images)))
    assert (output - images).abs().mean() < 0.25

    standing = run.replace(init_from=str(tmp_path / "run"), loop=config.replace(steps=1, lr=0.0, warmup=0))
    again = train_first_stage(standing, tmp_path / "again", items)
    assert torch.allclose(again.encoder.state_dict()["conv_in.weight"], trained.encoder.state_dict()["conv_in.weight"])
    further = run.replace(init_from=str(tmp_path / "run"), decoder_only=True)
    tuned = train_first_stage(further, tmp_path / "tuned", items)
    noise = torch.rand(4, 3, 16, 16) * 2 - 1
    assert torch.equal(tuned.latents(noise), trained.latents(noise))
    assert torch.equal(tuned.quantize.codes(), trained.quantize.codes())
    better = (tuned.decode(tuned.encode(images)) - images).abs().mean()
    assert better < 0.9 * (output - images).abs().mean()
    with pytest.raises(ValueError, match="init_from has to name one"):
        run.replace(decoder_only=True)
    with pytest.raises(ValueError, match="has no .* of shape"):
        train_first_stage(standing.replace(model=SMALL.replace(codebook_size=12)), tmp_path / "other", items)


def test_a_new_decoder_is_initialised_from_another_and_keeps_the_tokens(tmp_path: Path) -> None:
    items = plain_images(4, 32)
    cells = SMALL.replace(channels=64, multipliers=(1,), pixel_unshuffle=4, encoder="patch")
    config = LoopConfig(steps=2, batch_size=4, warmup=1, mixed_precision="no")
    small = train_first_stage(FirstStageRun(data="", model=cells, loop=config), tmp_path / "small", plain_images(4, 16))
    shape = cells.replace(resolution=32, downscale=2, decoder="layered")
    standing, initial = config.replace(lr=0.0), str(tmp_path / "small")
    run = FirstStageRun(data="", model=shape, loop=standing, init_from=initial, decoder_only=True)
    large = train_first_stage(run, tmp_path / "large", items)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(large.encode(images), small.encode(F.avg_pool2d(images, 2)))
    assert large.decode(large.encode(images)).shape == images.shape
    for name in ("mid.block_1.conv1.weight", "conv_in.weight", "up.0.block.0.conv2.weight"):
        assert torch.equal(large.decoder.state_dict()[name], small.decoder.state_dict()[name])
    with pytest.raises(ValueError, match="has no .* of shape"):
        train_first_stage(run.replace(model=shape.replace(code_dim=8)), tmp_path / "other", items)
    with pytest.raises(ValueError, match="has no .* of shape"):
        train_first_stage(run.replace(decoder_only=False), tmp_path / "all", items)


def task() -> FirstStageTask:
    torch.manual_seed(0)
    model, items = FirstStage(SMALL.replace(resolution=32)), plain_images(6, 32)
    for number, item in enumerate(items):
        item["image"][:, 8:24, 4 + number : 20 + number] = 255
    return FirstStageTask(model, items, torch.ones(32, 32), FirstStageLoss(adversarial=ADVERSARIAL))


def test_a_resumed_run_has_the_discriminator_of_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    unbroken = task()
    whole = train(unbroken, ADVERSARIAL_LOOP, tmp_path / "whole")

    class Stopped(FirstStageTask):
        steps = 0

        def after_step(self, model: nn.Module, accelerator: Accelerator) -> None:
            super().after_step(model, accelerator)
            self.steps += 1
            if self.steps == 8:
                raise KeyboardInterrupt

    stopped = task()
    stopped.__class__ = Stopped
    with pytest.raises(KeyboardInterrupt):
        train(stopped, ADVERSARIAL_LOOP, tmp_path / "broken")
    resumed_task = task()
    resumed = train(resumed_task, ADVERSARIAL_LOOP, tmp_path / "broken")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert unbroken.discriminator is not None and resumed_task.discriminator is not None
    kept = resumed_task.discriminator.model.state_dict()
    for name, tensor in unbroken.discriminator.model.state_dict().items():
        assert torch.equal(tensor, kept[name])
    joined = [record["adversarial"] != 0 for record in read_log(tmp_path / "whole")]
    assert joined == [False] * 4 + [True] * 8


def test_the_discriminator_learns_and_its_gradient_leads_to_the_originals() -> None:
    accelerator = Accelerator(mixed_precision="no")
    real = torch.zeros(4, 3, 64, 64)
    real[..., ::4] = 1.0  # stripes
    fake = torch.full_like(real, 0.25).requires_grad_(True)
    adversary = DiscriminatorTrainer(
        AdversarialLoss(crop=48, channels=8, lr=2e-3, feature_matching_weight=0.0, weight=0.5)
    )
    for _ in range(40):
        adversary.loss(real, fake, (fake - real).abs().mean(), 0.0)
        adversary.step(accelerator)
    assert adversary.model(real)[-1].mean() > adversary.model(fake)[-1].mean() + 0.5
    reconstruction = (fake - real).abs().mean()
    added = adversary.loss(real, fake, reconstruction, 0.0)
    (ours,) = torch.autograd.grad(reconstruction, fake, retain_graph=True)
    (theirs,) = torch.autograd.grad(added["adversarial"], fake)
    assert theirs.norm() == pytest.approx(0.5 * ours.norm().item(), rel=1e-3)
    assert adversary.model(fake - 0.5 * theirs / theirs.abs().max())[-1].mean() > adversary.model(fake)[-1].mean()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="start is -1, expected 0.0 or more"):
        AdversarialLoss.parse(**{"start": -1})
    with pytest.raises(ValueError, match="crop is 16, expected 32 or more"):
        AdversarialLoss.parse(**{"crop": 16})
    with pytest.raises(ValueError, match="channels is 12, expected a multiple of 8"):
        AdversarialLoss.parse(**{"channels": 12})


def test_a_perceptual_loss_counts_and_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class Brightness(nn.Module):
        """In place of LPIPS, whose weights are a download."""

        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()

        def forward(self, images: Tensor, targets: Tensor) -> Tensor:
            return (images.mean((1, 2, 3), True) - targets.mean((1, 2, 3), True)).square()

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Brightness))
    items = plain_images(4, 16)
    made = FirstStageTask(FirstStage(SMALL), items, torch.ones(16, 16), FirstStageLoss(perceptual=0.5))
    plain = FirstStageTask(made.model, items, torch.ones(16, 16), FirstStageLoss())
    batch = {"image": torch.stack([item["image"] for item in items])}
    losses, others = (task.loss(task.model, batch, Accelerator(cpu=True)) for task in (made, plain))
    assert losses["perceptual"] > 0
    torch.testing.assert_close(losses["loss"], others["loss"] + 0.5 * losses["perceptual"])
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(InputError, match=r"pip install 'imagebart\[lpips\]'"):
        FirstStageTask(made.model, items, torch.ones(16, 16), FirstStageLoss(perceptual=0.5))
