"""What a text encoder's slots should stay like while it learns more words: stages have learnt to read them.

Where the reader before read a caption rightly, its very slot. Where it did not, since words were new to it, the slot
that it usually gives for what the caption claims: an old word for the same thing.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from imagebart.avatars.claims import GROUPS, CaptionReader

SURE = 0.9  # a reading is right where it gives this share or more to what is claimed
OFTEN = 3  # captions that a usual slot is the mean of, at least


class Steady:
    """A reader before, and what its slots usually are."""

    def __init__(
        self, before: CaptionReader, lessons: Iterable[tuple[Tensor, Tensor]], groups: tuple[int, ...] = GROUPS
    ) -> None:
        """lessons: batches of words int64 [B, length] and what they claim, bool [B, sum(groups)]."""
        self.before, self.groups = before, groups
        found: list[dict[tuple[bool, ...], list[Tensor]]] = [{} for _ in groups]
        for words, claims in lessons:
            slots, sure = self._read(words, claims)
            for row, column in sure.nonzero().tolist():
                key = tuple(claims[row].split(groups)[column].tolist())
                found[column].setdefault(key, []).append(slots[row, column])
        self.claims: list[Tensor] = []  # for each attribute, bool [P, its count]
        self.usual: list[Tensor] = []  # and the mean slots, [P, width]
        for count, means in zip(groups, found, strict=True):
            often = {key: torch.stack(rows).mean(0) for key, rows in means.items() if len(rows) >= OFTEN}
            self.claims.append(torch.tensor(list(often), dtype=torch.bool).reshape(len(often), count))
            width = before.encoder.config.transformer.width
            self.usual.append(torch.stack(list(often.values())) if often else torch.zeros(0, width))

    def targets(self, words: Tensor, claims: Tensor) -> tuple[Tensor, Tensor]:
        """Slots [B, len(groups), width] to stay like, and where there are such: bool [B, len(groups)]."""
        slots, known = self._read(words, claims)
        for column, part in enumerate(claims.split(self.groups, 1)):
            same = (part[:, None] == self.claims[column].to(part.device)).all(2) & ~known[:, column, None]
            row, place = same.nonzero(as_tuple=True)
            slots[row, column] = self.usual[column].to(slots)[place]
            known[row, column] = True
        return slots, known

    def moved(self, slots: Tensor, words: Tensor, claims: Tensor) -> Tensor:
        """Mean square by which slots [B, len(groups), width] differ from those they should stay like."""
        targets, known = self.targets(words, claims)
        return ((slots.float() - targets.float()).square() * known[..., None]).mean()

    @torch.no_grad()
    def _read(self, words: Tensor, claims: Tensor) -> tuple[Tensor, Tensor]:
        """The reader's slots, and where it reads them rightly."""
        readings, slots = self.before.to(words.device)(words)
        parts = zip(readings.float().split(self.groups, 1), claims.split(self.groups, 1), strict=True)
        shares = [(logits.softmax(1) * claimed).sum(1) for logits, claimed in parts]
        return slots.float(), torch.stack(shares, 1) >= SURE
