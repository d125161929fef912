"""What a text encoder's slots should stay like while it learns more words: stages have learnt to read them.

Where the reader before read a caption rightly, its very slot. Where it did not, since words were new to it, the slot
that it usually gives for what the caption claims: an old word for the same thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.avatars.artwork import render
from imagebart.avatars.attributes import VALUES, Attributes
from imagebart.avatars.claims import GROUPS, CaptionReader, claims_vector, load_heads, save_heads
from imagebart.avatars.dataset import caption, sample
from imagebart.conditioning import Conditioner
from imagebart.models.text_encoder import TextEncoder
from imagebart.training.config import CaptionsRun
from imagebart.training.data import grid
from imagebart.training.loop import Batch, Task, train
from imagebart.training.parts import load_text_encoder, with_words_of
from imagebart.training.token_task import avatar_conditioner, text_config
from imagebart.training.vqgan import to_float
from imagebart.weights.folder import Part, save_part

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


# Training a text encoder to read what captions of avatars claim, before any picture is seen.
#
# A caption alone costs a tenth of what it costs beside a picture. A stage that takes the text encoder over, frozen,
# is told from its first step on what to draw. The picture's tokens teach words slowly: a colour named once moves a few
# of
# 256 tokens. What a caption claims is known: each slot says of one attribute which values the caption would be true
# of,
# or that it says nothing (`imagebart.avatars.claims`).


SHOWN, SIZE = 12, 128  # captions that are shown as what was read from them
STEADY = 10.0  # weight of keeping slots as they were
SILENT = 20  # one caption in so many is left out, as guidance does


class CaptionDataset(Dataset[dict[str, Tensor | str]]):
    """Captions of avatars by number, and what they claim: text, claims (see `claims_vector`)."""

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        if index % SILENT == 0:
            return {"text": "", "claims": claims_vector({})}
        said = caption(index)
        return {"text": said.text, "claims": claims_vector(said.claims)}


class CaptionsTask(Task):
    """Read what captions claim; with slots like those of a reader before, if there was one."""

    def __init__(self, reader: CaptionReader, conditioner: Conditioner, steady: Steady | None = None) -> None:
        self.model: nn.Module = reader
        self.steady = steady
        self.dataset: Dataset[Any] = CaptionDataset()
        self.conditioner = conditioner

    def loss(self, model: nn.Module, batch: Batch, accelerator: Any) -> dict[str, Tensor]:
        claims = batch["claims"]
        words = self.conditioner.encode(batch["text"]).tokens.to(claims.device)
        readings, slots = model(words)
        loss, read = reading_loss(readings, claims), reading_accuracy(readings, claims)
        if self.steady is None:
            return {"loss": loss, "read": read}
        moved = self.steady.moved(slots, words, claims)
        return {"loss": loss + STEADY * moved, "read": read, "moved": moved}

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Avatars above what is read from captions of them."""
        numbers = range(len(self.dataset) - SHOWN, len(self.dataset))  # type: ignore[arg-type]
        texts = [caption(number).text for number in numbers]
        device = next(model.parameters()).device
        readings = model(self.conditioner.encode(texts).tokens.to(device))[0].cpu()
        read = [_likeliest(row) for row in readings]
        pictures = [render(a, SIZE) for a in (*(sample(number) for number in numbers), *read)]
        return grid(to_float(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)), columns=SHOWN)


def _likeliest(readings: Tensor) -> Attributes:
    """The avatar whose every value is the likeliest: logits [sum(GROUPS)]."""
    parts = readings.split(GROUPS)
    chosen = {name: values[int(part[:-1].argmax())] for (name, values), part in zip(VALUES.items(), parts, strict=True)}
    return Attributes(**chosen)


def reading_loss(readings: Tensor, claims: Tensor, groups: tuple[int, ...] = GROUPS) -> Tensor:
    """Mean cross-entropy of an attribute, each claimed value as likely: logits and bool [B, sum(groups)]."""
    losses = [
        F.cross_entropy(logits, claimed / claimed.sum(1, keepdim=True))
        for logits, claimed in zip(readings.float().split(groups, 1), claims.float().split(groups, 1), strict=True)
    ]
    return torch.stack(losses).mean()


def _right(readings: Tensor, claims: Tensor, groups: tuple[int, ...]) -> Tensor:
    """Whether what is likeliest of each attribute is claimed, or nothing is said as read: bool [B, len(groups)]."""
    parts = zip(readings.split(groups, 1), claims.split(groups, 1), strict=True)
    return torch.cat([claimed.gather(1, logits.argmax(1, keepdim=True)) for logits, claimed in parts], 1)


def reading_accuracy(readings: Tensor, claims: Tensor, groups: tuple[int, ...] = GROUPS) -> Tensor:
    """Share of the attributes spoken of whose likeliest value is claimed: shapes as in `reading_loss`."""
    said = torch.stack([~claimed[:, -1] for claimed in claims.split(groups, 1)], 1)
    return (_right(readings, claims, groups) & said).sum() / said.sum().clamp(min=1)


def train_captions(run: CaptionsRun, folder: Path) -> TextEncoder:
    """Trains (or goes on training) a text encoder in a run's folder and writes it there."""
    conditioner = avatar_conditioner(run.text_length)
    torch.manual_seed(run.loop.seed)
    steady = None
    if run.begin_from is None:
        reader = CaptionReader(TextEncoder(text_config(run.shape, conditioner)))
    else:
        before, words_before = load_text_encoder(Path(run.begin_from))
        reader = CaptionReader(with_words_of(before, words_before, conditioner))
        load_heads(reader, Path(run.begin_from))
        reader.heads.requires_grad_(False)  # stages have learnt what these read in a slot
        steady = Steady(deepcopy(reader).requires_grad_(False), lessons(conditioner))
    trained = train(CaptionsTask(reader, conditioner, steady), run.loop, folder)
    assert isinstance(trained, CaptionReader)
    save_part(Part(trained.encoder, conditioner), folder)
    save_heads(trained, folder)
    return trained.encoder


def lessons(conditioner: Conditioner, count: int = 1024, batch: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Captions that are not trained on, in batches: their words, and what they claim."""
    captions = CaptionDataset()
    for start in range(len(captions) - count, len(captions), batch):
        said = [caption(number) for number in range(start, start + batch)]
        words = conditioner.encode([one.text for one in said]).tokens
        yield words, torch.stack([claims_vector(one.claims) for one in said])
