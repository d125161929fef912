"""A model under study: who draws, who reads, how many pictures, and which avatars are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from imagebart.avatars.attributes import Attributes
from imagebart.avatars.dataset import sample
from imagebart.avatars.reader import Reader
from imagebart.evaluation.diversity import OPEN
from imagebart.evaluation.drawing import Artist, rendered
from imagebart.evaluation.plain import plain_prompts

SERIES = 900_000  # of avatars, plus the seed; training draws from other series
REFERENCE, FLOOR, SHOWN, COMPLETED = 10**8, 2 * 10**8, 3 * 10**8, 4 * 10**8  # where sets of renders begin


@dataclass(frozen=True)
class Study:
    """A model under study. Every measure takes about `samples` pictures (at least 20)."""

    artist: Artist
    reader: Reader
    samples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 20:
            raise ValueError(f"{self.samples} samples, expected 20 or more: intervals of fewer say nothing")
        if self.artist.model.conditioner.kind != "text":
            kind = self.artist.model.conditioner.kind
            raise ValueError(f"the model's conditioning is {kind!r}; avatars are asked for by text")

    @property
    def series(self) -> int:
        return SERIES + self.seed

    @property
    def pictures(self) -> int:
        """How many pictures `evaluate avatars` has the model draw, for a progress bar."""
        plain, variants = len(plain_prompts()) * self.repeats, len(OPEN) * self.variants
        return 5 * self.samples + plain + variants

    @property
    def repeats(self) -> int:
        """Pictures of each plain prompt."""
        return max(1, self.samples // len(plain_prompts()))

    @property
    def variants(self) -> int:
        """Pictures of each open prompt."""
        return max(2, self.samples // len(OPEN))

    def avatars(self, start: int, count: int | None = None) -> list[Attributes]:
        """Fresh avatars without held-out pairs, as many as there are samples."""
        return [sample(start + i, self.series, "train") for i in range(count or self.samples)]

    def features(self, start: int, count: int) -> Tensor:
        """The reader's features of fresh renders: [count, F]."""
        avatars = self.avatars(start, count)
        parts = [rendered(avatars[i : i + 64], self.artist.size) for i in range(0, count, 64)]
        return torch.cat([self.reader.read(part).features for part in parts])
