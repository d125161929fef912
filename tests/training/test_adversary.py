"""A first stage trained with a discriminator: begun late, resumed to the step, and heard."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from imagebart.config import from_dict
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import AdversarialLoss, FirstStageLoss, LoopConfig
from imagebart.training.data import ImageFolder
from imagebart.training.loop import read_log, train
from imagebart.training.vqgan import DiscriminatorTrainer, FirstStageTask
from tests.training.test_first_stage import SMALL

CONFIG = AdversarialLoss(begin=4, crop=32, channels=8)
LOOP = LoopConfig(
    steps=12, batch_size=4, lr=3e-3, warmup=2, ema=0.5, mixed_precision="no", log_every=1, save_every=5, sample_every=12
)


def task(folder: Path) -> FirstStageTask:
    torch.manual_seed(0)
    model = FirstStage(replace(SMALL, resolution=32))
    return FirstStageTask(model, ImageFolder(folder, 32), torch.ones(32, 32), FirstStageLoss(adversarial=CONFIG))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        picture = Image.new("RGB", (32, 32), (40 * i, 255 - 40 * i, 30))
        picture.paste((255, 255, 255), (4 + i, 8, 20 + i, 24))
        picture.save(folder / f"{i}.png")
    return folder


def test_a_resumed_run_has_the_discriminator_that_it_left(tmp_path: Path, pictures: Path) -> None:
    unbroken = task(pictures)
    whole = train(unbroken, LOOP, tmp_path / "whole")

    class Stopped(FirstStageTask):
        def after_step(self, model: nn.Module, accelerator: Accelerator) -> None:
            super().after_step(model, accelerator)
            if self.discriminator is not None and self.discriminator.steps == 8:
                raise KeyboardInterrupt

    stopped = task(pictures)
    stopped.__class__ = Stopped
    with pytest.raises(KeyboardInterrupt):
        train(stopped, LOOP, tmp_path / "broken")
    going_on = task(pictures)
    resumed = train(going_on, LOOP, tmp_path / "broken")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert unbroken.discriminator is not None and going_on.discriminator is not None
    kept = going_on.discriminator.model.state_dict()
    for name, tensor in unbroken.discriminator.model.state_dict().items():
        assert torch.equal(tensor, kept[name])
    heard = [record["adversarial"] != 0 for record in read_log(tmp_path / "whole")]
    assert heard == [False] * 4 + [True] * 8


def test_the_discriminator_learns_to_tell_and_fooling_it_is_a_way_to_the_originals() -> None:
    torch.manual_seed(0)
    accelerator = Accelerator(mixed_precision="no")
    real = torch.zeros(4, 3, 64, 64)
    real[..., ::4] = 1.0  # stripes
    fake = torch.full_like(real, 0.25).requires_grad_(True)
    adversary = DiscriminatorTrainer(AdversarialLoss(begin=0, crop=48, channels=8, lr=2e-3, matching=0.0, weight=0.5))
    for _ in range(40):
        adversary.loss(real, fake, (fake - real).abs().mean())
        adversary.step(accelerator)
    assert adversary.model(real)[-1].mean() > adversary.model(fake)[-1].mean() + 0.5
    reconstruction = (fake - real).abs().mean()
    added = adversary.loss(real, fake, reconstruction)
    (ours,) = torch.autograd.grad(reconstruction, fake, retain_graph=True)
    (theirs,) = torch.autograd.grad(added["adversarial"], fake)
    assert theirs.norm() == pytest.approx(0.5 * ours.norm().item(), rel=1e-3)
    assert adversary.model(fake - 0.5 * theirs / theirs.abs().max())[-1].mean() > adversary.model(fake)[-1].mean()


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="begin is -1, expected 0 or more"):
        from_dict(AdversarialLoss, {"begin": -1})
    with pytest.raises(ValueError, match="crop is 16, expected 32 or more"):
        from_dict(AdversarialLoss, {"begin": 0, "crop": 16})
