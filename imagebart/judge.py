"""Ranking variants by how well they show what was asked for: rejection sampling (ImageBART, section 4.2, Table 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor

from imagebart.models.imagebart import ImageBART

WEIGHTS = "judge.safetensors"  # in a model's folder


class Judge(Protocol):
    """Finds a prompt in pictures, as a classifier or CLIP can."""

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """How well images, float [B, 3, H, W] in [-1, 1], show what a prompt says: float [B], more is better.

        Equal scores where the prompt says nothing that the judge can see.
        """


def best_first(judge: Judge, images: Tensor, prompt: str) -> list[int]:
    """The numbers of images [B, 3, H, W], best first; those of equal scores in their order."""
    order: list[int] = judge.score(images, prompt).argsort(descending=True, stable=True).tolist()
    return order


def load_judge(folder: Path, model: ImageBART) -> Judge | None:
    """The judge that lies in a model's folder; None where there is none. Raises WeightsError naming a damaged file."""
    if not (folder / WEIGHTS).is_file():
        return None
    from imagebart.avatars.judge import AvatarJudge  # the one kind so far

    return AvatarJudge.load(folder / WEIGHTS, model)
