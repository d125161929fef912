"""Training on avatars: the network that reads attributes off images, the text encoder, and the parts of the model.

The reader learns from new renders, augmented with what a first stage may do to an image. The text encoder learns from
captions alone: an image's tokens teach words slowly, since a color that is named once moves a few of 256. What a
caption claims is known, so each query token learns to say of one attribute which values make the caption true, or that
it is not mentioned (`imagebart.worlds.attribute_classifier`). First stage and denoiser are trained as on any images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.imaging.files import normalize
from imagebart.model import ImageBART
from imagebart.models.text_encoder import TextEncoder
from imagebart.settings import Length, Settings
from imagebart.text.conditioners import Conditioner, NoConditioner
from imagebart.training.config import DenoiserRun, FirstStageRun, LoopConfig, StageShape, TokensRun
from imagebart.training.data import grid
from imagebart.training.denoiser import train_denoiser
from imagebart.training.loop import Batch, Task, train
from imagebart.training.token_task import load_text_encoder, text_config, with_words_of
from imagebart.training.vqgan import train_first_stage
from imagebart.worlds.attribute_classifier import (
    GROUPS,
    SIZE,
    AttributeClassifier,
    AttributeClassifierConfig,
    CaptionReader,
    claims_vector,
    load_heads,
    save_classifier,
    save_heads,
)
from imagebart.worlds.avatars import VALUES, Attributes
from recipes import Trainings
from recipes.avatars.artwork import face_weight, render, rendered
from recipes.avatars.captions import avatar_conditioner
from recipes.avatars.dataset import AvatarDataset, AvatarEdits, caption, sample

HIDDEN = -100  # the label of an attribute that an image does not show: no loss


class Augment(Settings):
    """How images are augmented before the reader sees them; each kind on half of them."""

    blur: float = 1.5  # largest standard deviation of the Gaussian, in pixels
    noise: float = 0.06  # largest standard deviation, of the range -1 to 1
    color: float = 0.06  # largest shift and stretch of a channel
    blocks: float = 0.5  # coarsest step to which 8 x 8 cosine coefficients are rounded, as JPEG does


class ReaderRun(Settings):
    """`python -m recipes.avatars train reader --config FILE`."""

    loop: LoopConfig
    model: AttributeClassifierConfig = AttributeClassifierConfig()
    augment: Augment = Augment()
    seed: int = 7001  # of the series of avatars; no other part of the project draws from it


@dataclass(frozen=True)
class LabelledAvatars(Dataset[dict[str, Tensor]]):
    """Avatars of all combinations. Items: image uint8 [3, SIZE, SIZE]; labels int64 [14]."""

    seed: int
    length: int = 10**9

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        attributes = sample(index, self.seed, "all")
        image = torch.from_numpy(render(attributes, SIZE)).permute(2, 0, 1).contiguous()
        return {"image": image, "labels": labels(attributes)}


def labels(attributes: Attributes) -> Tensor:
    """The index of each attribute's value, int64 [14] in the order of `VALUES`; `HIDDEN` where it does not show."""
    shown, values = attributes.visible(), attributes.as_dict()
    return torch.tensor([VALUES[name].index(values[name]) if name in shown else HIDDEN for name in VALUES])


def augmented(images: Tensor, augment: Augment) -> Tensor:
    """Images [B, 3, H, W] in [-1, 1] with blur, block artefacts, color shifts and noise, each on half of them."""
    batch = len(images)

    def strength(largest: float) -> Tensor:
        return torch.rand(batch, 1, 1, 1) * largest * (torch.rand(batch, 1, 1, 1) < 0.5)

    images = _blurred(images, strength(augment.blur))
    images = _rounded_in_blocks(images, strength(augment.blocks))
    stretch = 1 + (torch.rand(batch, 3, 1, 1) * 2 - 1) * strength(augment.color)
    shift = (torch.rand(batch, 3, 1, 1) * 2 - 1) * strength(augment.color)
    return images * stretch + shift + torch.randn_like(images) * strength(augment.noise)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, a standard deviation [B, 1, 1, 1] an image."""
    radius = 4
    x = torch.arange(-radius, radius + 1.0)
    kernel = torch.exp(-0.5 * (x / sigma.clamp_min(1e-3).flatten()[:, None]) ** 2)  # [B, 9]
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    padded = F.pad(images, (radius,) * 4, mode="replicate").flatten(0, 1)[None]
    rows = F.conv2d(padded, kernel[:, None, None, :], groups=len(kernel))
    return F.conv2d(rows, kernel[:, None, :, None], groups=len(kernel)).reshape(images.shape)


def _rounded_in_blocks(images: Tensor, step: Tensor) -> Tensor:
    """Cosine coefficients of 8 x 8 blocks rounded to multiples of a step [B, 1, 1, 1]; 0 leaves an image alone."""
    n = np.arange(8)
    cosine = np.cos(math.pi * (2 * n[None] + 1) * n[:, None] / 16) * np.where(n[:, None] == 0, 1, math.sqrt(2)) / 8**0.5
    matrix = torch.from_numpy(cosine.astype(np.float32))
    batch, channels, height, width = images.shape
    blocks = images.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)  # [B, 3, H/8, W/8, 8, 8]
    coefficients = matrix @ blocks @ matrix.T
    size = step[..., None, None].clamp_min(1e-6)
    blocks = matrix.T @ ((coefficients / size).round() * size) @ matrix
    return torch.where(step > 0, blocks.transpose(3, 4).reshape(images.shape), images)


class ReaderTask(Task):
    """Cross-entropy of every attribute that shows."""

    def __init__(self, model: AttributeClassifier, dataset: LabelledAvatars, augment: Augment) -> None:
        self.model: nn.Module = model
        self.dataset: Dataset[Any] = dataset
        self.augment = augment

    def loss(self, model: nn.Module, batch: Batch, accelerator: Accelerator) -> dict[str, Tensor]:
        truth = batch["labels"]
        answers = model(augmented(normalize(batch["image"]), self.augment))
        pairs = zip(answers.values(), truth.unbind(1), strict=True)
        losses = [F.cross_entropy(logits, label, ignore_index=HIDDEN, reduction="sum") for logits, label in pairs]
        shown = truth != HIDDEN
        right = torch.stack([logits.argmax(1) for logits in answers.values()], 1) == truth
        return {"loss": torch.stack(losses).sum() / shown.sum(), "accuracy": right[shown].float().mean()}

    def sample(self, model: nn.Module) -> Image.Image:
        """Images above their augmented versions."""
        images = normalize(torch.stack([self.dataset[i]["image"] for i in range(8)]))
        return grid(torch.cat([images, augmented(images, self.augment)]), columns=8)


def train_reader(run: ReaderRun, folder: Path) -> AttributeClassifier:
    """Trains (or resumes) a reader in a run's folder and writes it there as `reader.safetensors`."""
    torch.manual_seed(run.loop.seed)
    model = AttributeClassifier(run.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = train(ReaderTask(model, LabelledAvatars(run.seed), run.augment), run.loop, folder)
    assert isinstance(trained, AttributeClassifier)
    save_classifier(trained, folder / "reader.safetensors")
    return trained


SURE = 0.9  # a reading is right where what is claimed has at least this probability
OFTEN = 3  # captions that a mean query token has to be of, at least


class QueryTokenDistillation:
    """Keeps a text encoder's query tokens, which trained networks read, while it learns more words.

    The target is the query token of the reader before, where that read the caption rightly. Where it did not, for words
    were new to it, the target is the mean of the query tokens that it gave for the same claims.
    """

    def __init__(
        self, before: CaptionReader, caption_batches: Iterable[tuple[Tensor, Tensor]], groups: tuple[int, ...] = GROUPS
    ) -> None:
        """caption_batches: words, int64 [B, length], and what they claim, bool [B, sum(groups)]."""
        self.before, self.groups = before, groups
        found: list[dict[tuple[bool, ...], list[Tensor]]] = [{} for _ in groups]
        for words, claims in caption_batches:
            query_tokens, sure = self._read(words, claims)
            for row, column in sure.nonzero().tolist():
                key = tuple(claims[row].split(groups)[column].tolist())
                found[column].setdefault(key, []).append(query_tokens[row, column])
        self.claims: list[Tensor] = []  # for each attribute, bool [P, its count]
        self.usual: list[Tensor] = []  # and the mean query tokens, [P, width]
        for count, means in zip(groups, found, strict=True):
            often = {key: torch.stack(rows).mean(0) for key, rows in means.items() if len(rows) >= OFTEN}
            self.claims.append(torch.tensor(list(often), dtype=torch.bool).reshape(len(often), count))
            width = before.encoder.config.transformer.width
            self.usual.append(torch.stack(list(often.values())) if often else torch.zeros(0, width))

    def targets(self, words: Tensor, claims: Tensor) -> tuple[Tensor, Tensor]:
        """Target query tokens [B, len(groups), width], and where there are any: bool [B, len(groups)]."""
        query_tokens, known = self._read(words, claims)
        for column, part in enumerate(claims.split(self.groups, 1)):
            same = (part[:, None] == self.claims[column].to(part.device)).all(2) & ~known[:, column, None]
            row, place = same.nonzero(as_tuple=True)
            query_tokens[row, column] = self.usual[column].to(query_tokens)[place]
            known[row, column] = True
        return query_tokens, known

    def loss(self, query_tokens: Tensor, words: Tensor, claims: Tensor) -> Tensor:
        """Mean squared error of query tokens [B, len(groups), width] towards their targets."""
        targets, known = self.targets(words, claims)
        return ((query_tokens.float() - targets.float()).square() * known[..., None]).mean()

    @torch.no_grad()
    def _read(self, words: Tensor, claims: Tensor) -> tuple[Tensor, Tensor]:
        """The query tokens of the reader before, and where they are read rightly."""
        readings, query_tokens = self.before.to(words.device)(words)
        parts = zip(readings.float().split(self.groups, 1), claims.split(self.groups, 1), strict=True)
        shares = [(logits.softmax(1) * claimed).sum(1) for logits, claimed in parts]
        return query_tokens.float(), torch.stack(shares, 1) >= SURE


class CaptionsRun(Settings):
    """`python -m recipes.avatars train captions --config FILE`."""

    loop: LoopConfig
    shape: StageShape = StageShape()  # of the networks that will use it
    text_length: Length = 77  # conditioning tokens a caption
    init_from: str | None = None  # run folder of a text encoder that is to learn more words; its query tokens stay


SHOWN = 12  # captions in a grid
DISTILLATION_WEIGHT = 10.0
SILENT = 20  # one caption in so many is empty, for guidance


class CaptionDataset(Dataset[dict[str, Tensor | str]]):
    """Captions of avatars: text, claims (see `claims_vector`)."""

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        if index % SILENT == 0:
            return {"text": "", "claims": claims_vector({})}
        said = caption(index)
        return {"text": said.text, "claims": claims_vector(said.claims)}


class CaptionsTask(Task):
    """Reading what captions claim; with distillation, if the text encoder was trained before."""

    def __init__(
        self, reader: CaptionReader, conditioner: Conditioner, distillation: QueryTokenDistillation | None = None
    ) -> None:
        self.model: nn.Module = reader
        self.distillation = distillation
        self.dataset: Dataset[Any] = CaptionDataset()
        self.conditioner = conditioner

    def loss(self, model: nn.Module, batch: Batch, accelerator: Any) -> dict[str, Tensor]:
        claims = batch["claims"]
        words = self.conditioner.encode(batch["text"]).tokens.to(claims.device)
        readings, query_tokens = model(words)
        loss, read = reading_loss(readings, claims), reading_accuracy(readings, claims)
        if self.distillation is None:
            return {"loss": loss, "read": read}
        moved = self.distillation.loss(query_tokens, words, claims)
        return {"loss": loss + DISTILLATION_WEIGHT * moved, "read": read, "moved": moved}

    @torch.no_grad()
    def sample(self, model: nn.Module) -> Image.Image:
        """Avatars above what is read from captions of them."""
        numbers = range(len(self.dataset) - SHOWN, len(self.dataset))  # type: ignore[arg-type]
        texts = [caption(number).text for number in numbers]
        device = next(model.parameters()).device
        readings = model(self.conditioner.encode(texts).tokens.to(device))[0].cpu()
        avatars = [sample(number) for number in numbers]
        for row in readings:
            named = zip(VALUES.items(), row.split(GROUPS), strict=True)
            avatars.append(Attributes(**{name: values[int(part[:-1].argmax())] for (name, values), part in named}))
        return grid(rendered(avatars, SIZE), columns=SHOWN)


def reading_loss(readings: Tensor, claims: Tensor, groups: tuple[int, ...] = GROUPS) -> Tensor:
    """Mean cross-entropy of an attribute, all claimed values as likely: logits and bool [B, sum(groups)]."""
    pairs = zip(readings.float().split(groups, 1), claims.float().split(groups, 1), strict=True)
    return torch.stack([F.cross_entropy(logits, part / part.sum(1, keepdim=True)) for logits, part in pairs]).mean()


def reading_accuracy(readings: Tensor, claims: Tensor, groups: tuple[int, ...] = GROUPS) -> Tensor:
    """The share of the mentioned attributes whose likeliest value is claimed: shapes as in `reading_loss`."""
    pairs = list(zip(readings.split(groups, 1), claims.split(groups, 1), strict=True))
    right = torch.cat([claimed.gather(1, logits.argmax(1, keepdim=True)) for logits, claimed in pairs], 1)
    mentioned = torch.stack([~claimed[:, -1] for _, claimed in pairs], 1)
    return (right & mentioned).sum() / mentioned.sum().clamp(min=1)


def train_captions(run: CaptionsRun, folder: Path) -> TextEncoder:
    """Trains (or resumes) a text encoder in a run's folder and writes it there."""
    conditioner = avatar_conditioner(run.text_length)
    torch.manual_seed(run.loop.seed)
    distillation = None
    if run.init_from is None:
        reader = CaptionReader(TextEncoder(text_config(run.shape, conditioner)))
    else:
        before, words_before = load_text_encoder(Path(run.init_from))
        reader = CaptionReader(with_words_of(before, words_before, conditioner))
        load_heads(reader, Path(run.init_from))
        reader.heads.requires_grad_(False)
        distillation = QueryTokenDistillation(deepcopy(reader).requires_grad_(False), caption_batches(conditioner))
    trained = train(CaptionsTask(reader, conditioner, distillation), run.loop, folder)
    assert isinstance(trained, CaptionReader)
    ImageBART(conditioner=conditioner, text_encoder=trained.encoder).save_pretrained(folder)
    save_heads(trained, folder)
    return trained.encoder


def caption_batches(conditioner: Conditioner, count: int = 1024, batch: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Captions that are not trained on, in batches: their words, and what they claim."""
    end = len(CaptionDataset())
    for start in range(end - count, end, batch):
        said = [caption(number) for number in range(start, start + batch)]
        words = conditioner.encode([one.text for one in said]).tokens
        yield words, torch.stack([claims_vector(one.claims) for one in said])


def avatars(data: str, size: int) -> Dataset[dict[str, Any]]:
    """Avatars of `size` pixels a side, or edits of them. Raises ValueError where a configuration names other data."""
    if data == "avatars":
        return AvatarDataset(size)
    if data == "avatar edits":
        return AvatarEdits(size)
    raise ValueError(
        f"data is {data!r}, expected 'avatars' or 'avatar edits'; `python -m imagebart train` takes folders"
    )


def avatar_data(run: TokensRun, size: int) -> tuple[Dataset[Any], Conditioner]:
    """Avatars, and the conditioner for their captions."""
    if run.conditioning == "none":
        return avatars(run.data, size), NoConditioner()
    if run.conditioning != "text":
        raise ValueError(f"conditioning is {run.conditioning!r}; avatars have captions, expected text or none")
    return avatars(run.data, size), avatar_conditioner(run.text_length)


def train_decoder(run: FirstStageRun, folder: Path) -> None:
    """Trains (or resumes) a first stage, or its decoder, on avatars."""
    size = run.model.resolution
    train_first_stage(run, folder, avatars(run.data, size), face_weight(size))


TRAININGS: Trainings = {
    "first-stage": (FirstStageRun, train_decoder),  # the VQGAN: pixels to tokens and back
    "captions": (CaptionsRun, train_captions),  # the text encoder: what captions claim
    "denoiser": (DenoiserRun, partial(train_denoiser, data=avatar_data)),
    "reader": (ReaderRun, train_reader),  # reads attributes off images: one measures, another ranks variants
}
