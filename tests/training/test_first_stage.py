"""Training of a first stage: its losses, codebook and discriminator, and whole runs."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tiny_runs import SMALL, stop_after
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


def cpu() -> Accelerator:
    return Accelerator(cpu=True, mixed_precision="no")


def test_gradient_loss_sees_edges_and_not_brightness() -> None:
    x, weight = torch.rand(2, 3, 16, 16), torch.ones(1, 1, 16, 16)
    assert gradient_loss(x + 0.3, x, weight) < 1e-6
    step = torch.zeros(1, 3, 16, 16)
    step[..., 8:] = 1.0
    # one of 15 (7, 3) horizontal differences is 1 on the three scales; no vertical one
    expected = torch.tensor((1 / 15 + 1 / 7 + 1 / 3) / 3)
    for edge in (step, step.mT):
        torch.testing.assert_close(gradient_loss(edge, torch.zeros_like(step), weight), expected)


def test_dead_codes_are_replaced_from_the_batch_and_trained_ones_stay() -> None:
    quantizer, z = Quantizer(SMALL), F.normalize(torch.ones(16, 4), dim=-1)
    nn.init.normal_(quantizer.embedding.weight)
    before = quantizer.codes().detach().clone()
    trained = CodebookEMA(quantizer, decay=0.99, dead_code_threshold=0.01)
    trained.init_from(quantizer)
    trained.update(quantizer, z, torch.zeros(16, dtype=torch.long), cpu())
    assert torch.allclose(quantizer.codes()[1:], before[1:], atol=1e-6)
    assert (quantizer.codes()[0] @ z[0]) > (before[0] @ z[0])
    fresh = CodebookEMA(quantizer, decay=0.0, dead_code_threshold=0.5)
    fresh.update(quantizer, z, torch.zeros(16, dtype=torch.long), cpu())
    assert torch.allclose(quantizer.codes(), z[:8], atol=1e-5)


def plain_images(count: int, size: int) -> Any:
    """So many images, each of one color."""
    colors = torch.tensor([[40 * i, 255 - 40 * i, 30] for i in range(count)], dtype=torch.uint8)
    return [{"image": color[:, None, None].expand(3, size, size).contiguous()} for color in colors]


def test_training_learns_is_written_and_goes_on_from_what_was_written(tmp_path: Path) -> None:
    items = plain_images(6, 16)
    config = LoopConfig(steps=40, batch_size=6, lr=3e-3, warmup=5, ema=0.5, mixed_precision="no")
    run = FirstStageRun(data="", model=SMALL, loop=config)
    trained = train_first_stage(run, tmp_path / "run", items)
    loaded = load_first_stage(tmp_path / "run")
    images = torch.stack([item["image"] for item in items]) / 127.5 - 1
    output = loaded.decode(loaded.encode(images))
    assert torch.equal(output, trained.decode(trained.encode(images)))
    assert (output - images).abs().mean() < 0.25
    further = run.replace(init_from=str(tmp_path / "run"), decoder_only=True, loop=config.replace(steps=15))
    tuned = train_first_stage(further, tmp_path / "tuned", items)
    noise = torch.rand(4, 3, 16, 16) * 2 - 1
    assert torch.equal(tuned.latents(noise), trained.latents(noise))
    assert torch.equal(tuned.quantize.codes(), trained.quantize.codes())
    assert (tuned.decode(tuned.encode(images)) - images).abs().mean() < 0.9 * (output - images).abs().mean()
    with pytest.raises(ValueError, match="init_from has to name one"):
        run.replace(decoder_only=True)
    with pytest.raises(InputError, match="has no .* of shape"):
        train_first_stage(further.replace(model=SMALL.replace(codebook_size=12)), tmp_path / "other", items)


def test_a_new_decoder_is_initialized_from_another_and_keeps_the_tokens(tmp_path: Path) -> None:
    cells = SMALL.replace(channels=64, multipliers=(1,), pixel_unshuffle=4, encoder="patch")
    config = LoopConfig(steps=2, batch_size=4, warmup=1, mixed_precision="no")
    small = train_first_stage(FirstStageRun(data="", model=cells, loop=config), tmp_path / "small", plain_images(4, 16))
    shape, items = cells.replace(resolution=32, downscale=2, decoder="layered"), plain_images(4, 32)
    initial = {"init_from": str(tmp_path / "small"), "decoder_only": True}
    run = FirstStageRun(data="", model=shape, loop=config.replace(lr=0.0), **initial)
    large = train_first_stage(run, tmp_path / "large", items)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(large.encode(images), small.encode(F.avg_pool2d(images, 2)))
    assert large.decode(large.encode(images)).shape == images.shape
    for name in ("mid.block_1.conv1.weight", "conv_in.weight", "up.0.block.0.conv2.weight"):
        assert torch.equal(large.decoder.state_dict()[name], small.decoder.state_dict()[name])
    for other in ({"model": shape.replace(code_dim=8)}, {"decoder_only": False}):
        with pytest.raises(InputError, match="has no .* of shape"):
            train_first_stage(run.replace(**other), tmp_path / "other", items)


def test_a_resumed_run_has_the_same_discriminator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def task() -> FirstStageTask:
        torch.manual_seed(0)
        loss = FirstStageLoss(adversarial=AdversarialLoss(start=1 / 3, crop=32, channels=8))
        return FirstStageTask(FirstStage(SMALL.replace(resolution=32)), plain_images(6, 32), torch.ones(32, 32), loss)

    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    config = LoopConfig(steps=6, batch_size=4, lr=3e-3, warmup=2, ema=0.5, mixed_precision="no", log_every=1)
    unbroken, resumed = task(), task()
    whole = train(unbroken, config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(stop_after(4, task()), config, tmp_path / "broken")
    again = train(resumed, config, tmp_path / "broken")
    for ours, theirs in ((whole, again), (unbroken.discriminator.model, resumed.discriminator.model)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    joined = [record["adversarial"] != 0 for record in read_log(tmp_path / "whole")]
    assert joined == [False] * 2 + [True] * 4


def test_the_discriminator_learns_and_its_gradient_leads_to_the_originals() -> None:
    real = torch.zeros(4, 3, 64, 64)
    real[..., ::4] = 1.0  # stripes
    fake = torch.full_like(real, 0.25).requires_grad_(True)
    config = AdversarialLoss(crop=48, channels=8, lr=2e-3, feature_matching_weight=0.0, weight=0.5)
    adversary = DiscriminatorTrainer(config)
    for _ in range(40):
        adversary.loss(real, fake, (fake - real).abs().mean(), 0.0)
        adversary.step(cpu())
    assert adversary.model(real)[-1].mean() > adversary.model(fake)[-1].mean() + 0.5
    reconstruction = (fake - real).abs().mean()
    added = adversary.loss(real, fake, reconstruction, 0.0)
    (ours,) = torch.autograd.grad(reconstruction, fake, retain_graph=True)
    (theirs,) = torch.autograd.grad(added["adversarial"], fake)
    assert theirs.norm() == pytest.approx(0.5 * ours.norm().item(), rel=1e-3)
    assert adversary.model(fake - 0.5 * theirs / theirs.abs().max())[-1].mean() > adversary.model(fake)[-1].mean()


def test_a_perceptual_loss_counts_and_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(weight: float) -> dict[str, Tensor]:
        torch.manual_seed(0)
        task = FirstStageTask(FirstStage(SMALL), [], torch.ones(16, 16), FirstStageLoss(perceptual=weight))
        return task.loss(task.model, {"image": torch.full((4, 3, 16, 16), 200)}, cpu())

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=lambda net, verbose: nn.MSELoss()))
    losses = loss(0.5)
    assert losses["perceptual"] > 0
    torch.testing.assert_close(losses["loss"], loss(0.0)["loss"] + 0.5 * losses["perceptual"])
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(InputError, match=r"pip install 'imagebart\[lpips\]'"):
        loss(0.5)
