"""A discriminator in training beside a first stage: what it adds to the loss, and its own steps."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from imagebart.discriminator import Discriminator, adaptive_weight, fooling_loss, matching_loss, telling_loss
from imagebart.training.config import AdversarialLoss


class Adversary:
    """Looks at the same part of pictures and of their reconstructions, from the step `begin` on."""

    def __init__(self, config: AdversarialLoss) -> None:
        self.config, self.step = config, 0
        self.model = Discriminator(config.channels)
        self.optimizer = torch.optim.Adam(self.model.parameters(), config.lr, betas=(0.5, 0.9))
        self.seen: tuple[Tensor, Tensor] | None = None

    def loss(self, images: Tensor, output: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        """Pictures, their reconstructions [B, 3, H, W] and the loss so far -> scalars, all 0 before the beginning.

        The one named `adversarial` is to be added to the loss.
        """
        if self.step < self.config.begin:
            return dict.fromkeys(("adversarial", "doubt", "matching"), output.new_zeros(()))
        self._place(output.device)
        self.model.requires_grad_(False)  # its own steps come after
        real, fake = self._part(images, output)
        with torch.no_grad():
            known = self.model(real)
        found = self.model(fake)
        doubt, matching = fooling_loss(found[-1].float()), matching_loss(known, found)
        weight = self.config.weight * adaptive_weight(reconstruction, doubt, output)
        self.seen = (real, fake.detach())
        return {
            "adversarial": weight * doubt + self.config.matching * matching,
            "doubt": doubt.detach(),
            "matching": matching.detach(),
        }

    def after_step(self, accelerator: Accelerator) -> None:
        """The discriminator's step on what it was shown."""
        self.step += 1
        if self.seen is None:
            return
        self.model.requires_grad_(True)
        with accelerator.autocast():
            real, fake = (self.model(part)[-1].float() for part in self.seen)
            loss = telling_loss(real, fake)
        loss.backward()
        for parameter in self.model.parameters():
            parameter.grad = accelerator.reduce(parameter.grad, "mean")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seen = None

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _part(self, images: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """The same square of both, `crop` pixels a side, at a place drawn anew in every step."""
        side = min(self.config.crop, *images.shape[2:])
        top, left = (int(torch.randint(size - side + 1, ())) for size in images.shape[2:])
        window = (..., slice(top, top + side), slice(left, left + side))
        return images[window], output[window]

    def _place(self, device: torch.device) -> None:
        if next(self.model.parameters()).device != device:
            self.model.to(device)
            self.optimizer.load_state_dict(self.optimizer.state_dict())  # moves what it remembers, too
