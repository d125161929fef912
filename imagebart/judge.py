"""Ranking variants by how well they show what was asked for: rejection sampling (ImageBART, section 4.2, Table 2).

Some judges can also say what a picture shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from imagebart.models.imagebart import ImageBART

WEIGHTS = "judge.safetensors"  # in a model's folder


class Judge(Protocol):
    """Finds a prompt in pictures, as a classifier or CLIP can."""

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """How well images, float [B, 3, H, W] in [-1, 1], show what a prompt says: float [B], more is better.

        Equal scores where the prompt says nothing that the judge can see.
        """


@runtime_checkable
class Describer(Protocol):
    """Says what a picture shows, in words that its model knows."""

    def describe(self, image: Tensor) -> str | None:
        """What an image float [1, 3, H, W] in [-1, 1] shows; None where the reader is not sure."""

    def contrast(self, image: Tensor, prompt: str) -> tuple[str, str] | None:
        """The prompt with all else that the image shows, and what the image shows; None where the reader is not sure.

        The two texts differ in what the prompt would change, and in nothing else.
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
