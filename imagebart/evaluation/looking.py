"""Networks that look at pictures, for distances between sets of them: Inception of 2015, or any of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from imagebart.errors import InputError
from imagebart.rankers import View

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
ADDRESS = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION}"


@dataclass(frozen=True)
class Seen:
    """What a network says of pictures: features [B, F]; logits [B, classes], where it is a classifier."""

    features: Tensor
    logits: Tensor | None


@dataclass(frozen=True)
class Look:
    """A network: images float [B, 3, H, W] in [-1, 1] -> features and logits."""

    see: Callable[[Tensor], Seen]

    @torch.no_grad()
    def many(self, batches: Iterable[Tensor]) -> Seen:
        """What it says of pictures that come in batches."""
        seen = [self.see(batch) for batch in batches]
        logits = [one.logits for one in seen if one.logits is not None]
        return Seen(torch.cat([one.features for one in seen]), torch.cat(logits) if logits else None)


def load_look(source: str) -> Look:
    """The network of a path: the file of Inception's weights, or a classifier's folder or Hub name.

    Raises InputError where it cannot be had.
    """
    return _inception(Path(source)) if source.endswith(".pth") else _classifier(source)


def _inception(path: Path) -> Look:
    if not path.is_file():
        raise InputError(
            f"{path} is missing: the weights of the FID of papers. Fetch {ADDRESS}, or choose a classifier's folder, "
            "with which distances are comparable with each other alone."
        )
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(path))
    except (ImportError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise InputError(f"{path} cannot be used: {reason} (it takes `pip install torch-fidelity`).") from error

    def see(images: Tensor) -> Seen:
        features, logits = network._torch_fidelity_forward(((images.clamp(-1, 1) + 1) * 127.5).round().byte())
        return Seen(features, logits)

    return Look(see)


def _classifier(source: str) -> Look:
    from transformers import AutoModelForImageClassification

    try:
        network = AutoModelForImageClassification.from_pretrained(source).eval().requires_grad_(False)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"The network {source} cannot be had: {reason}.") from error
    view = View.of(source)

    def see(images: Tensor) -> Seen:
        said = network(view.prepare(images), output_hidden_states=True)
        last = said.hidden_states[-1]
        return Seen(last.mean((2, 3)) if last.ndim == 4 else last.mean(1), said.logits)

    return Look(see)
