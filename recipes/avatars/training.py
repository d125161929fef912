"""Training on avatars: the attribute classifier, the text encoder, and the parts of the model.

The classifier learns from new renders, augmented with what a first stage may do to an image. The text encoder learns
from captions alone: an image's tokens teach words slowly, since a color that is named once moves a few of 256. What a
caption claims is known, so each query token learns to say of one attribute which values make the caption true, or that
it is not mentioned (`imagebart.worlds.attribute_classifier`).
"""

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.core.errors import InputError
from imagebart.core.settings import Settings
from imagebart.imaging.files import normalize
from imagebart.model import ImageBART
from imagebart.models.transformer import TextEncoder
from imagebart.text.conditioners import Conditioner
from imagebart.training.config import DenoiserRun, FirstStageRun, LoopConfig, TokensRun
from imagebart.training.denoiser import train_denoiser
from imagebart.training.loop import Batch, train
from imagebart.training.token_task import text_config
from imagebart.training.vqgan import train_first_stage
from imagebart.worlds.attribute_classifier import (
    GROUPS,
    SIZE,
    AttributeClassifier,
    CaptionReader,
    claims_vector,
    save_classifier,
    save_heads,
)
from imagebart.worlds.avatars import VALUES
from imagebart.worlds.ranking import ATTRIBUTE_CLASSIFIER
from recipes.avatars.artwork import face_weight, render
from recipes.avatars.captions import Caption, avatar_conditioner
from recipes.avatars.dataset import avatar_item, caption, edit_item, sample
from recipes.training import CaptionsRun, LossTask, Series, Trainings, pixels_first

HIDDEN = -100  # the label of an attribute that an image does not show: no loss


class ClassifierRun(Settings):
    """`python -m recipes.avatars train classifier --config FILE`."""

    loop: LoopConfig
    seed: int = 7001  # of the series of avatars; no other part of the project draws from it


def labeled(number: int, seed: int) -> dict[str, Tensor]:
    """The avatar of a number, of all combinations: image uint8 [3, SIZE, SIZE]; labels int64 [14], the index of each
    attribute's value in the order of `VALUES`, `HIDDEN` where it does not show."""
    attributes = sample(number, seed, "all")
    shown, values = attributes.visible(), vars(attributes)
    labels = [VALUES[name].index(values[name]) if name in shown else HIDDEN for name in VALUES]
    return {"image": pixels_first(render(attributes, SIZE)), "labels": torch.tensor(labels)}


def augmented(images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [-1, 1] with blur, block artifacts, color shifts and noise, each on half of them."""
    batch = len(images)

    def strength(largest: float) -> Tensor:
        return torch.rand(batch, 1, 1, 1) * largest * (torch.rand(batch, 1, 1, 1) < 0.5)

    images = _blurred(images, strength(1.5))
    images = _rounded_in_blocks(images, strength(0.5))
    stretch = 1 + (torch.rand(batch, 3, 1, 1) * 2 - 1) * strength(0.06)
    shift = (torch.rand(batch, 3, 1, 1) * 2 - 1) * strength(0.06)
    return images * stretch + shift + torch.randn_like(images) * strength(0.06)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, a standard deviation in pixels [B, 1, 1, 1] an image."""
    radius = 4
    x = torch.arange(-radius, radius + 1.0)
    kernel = torch.exp(-0.5 * (x / sigma.clamp_min(1e-3).flatten()[:, None]) ** 2)  # [B, 9]
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    padded = F.pad(images, (radius,) * 4, mode="replicate").flatten(0, 1)[None]
    rows = F.conv2d(padded, kernel[:, None, None, :], groups=len(kernel))
    return F.conv2d(rows, kernel[:, None, :, None], groups=len(kernel)).reshape(images.shape)


def _rounded_in_blocks(images: Tensor, step: Tensor) -> Tensor:
    """8 x 8 cosine coefficients rounded to a step [B, 1, 1, 1], as JPEG does; 0 leaves an image alone."""
    matrix = torch.from_numpy(cv2.dct(np.eye(8), flags=cv2.DCT_ROWS).T.astype(np.float32))
    blocks = images.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # [B, 3, H/8, W/8, 8, 8]
    size = step[..., None, None].clamp_min(1e-6)
    coefficients = (matrix @ blocks @ matrix.T / size).round() * size
    blocks = matrix.T @ coefficients @ matrix
    return torch.where(step > 0, blocks.transpose(3, 4).reshape(images.shape), images)


def train_classifier(run: ClassifierRun, folder: Path) -> AttributeClassifier:
    """Trains (or resumes) a classifier in a run's folder, and writes it there."""
    torch.manual_seed(run.loop.seed)
    classifier = AttributeClassifier().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of every attribute that shows."""
        truth = batch["labels"]
        answers = model(augmented(normalize(batch["image"])))
        pairs = zip(answers.values(), truth.unbind(1), strict=True)
        total = sum(F.cross_entropy(logits, label, ignore_index=HIDDEN, reduction="sum") for logits, label in pairs)
        shown = truth != HIDDEN
        right = torch.stack([logits.argmax(1) for logits in answers.values()], 1) == truth
        return {"loss": total / shown.sum(), "accuracy": right[shown].float().mean()}

    trained = train(LossTask(classifier, Series(partial(labeled, seed=run.seed)), losses), run.loop, folder)
    assert isinstance(trained, AttributeClassifier)
    save_classifier(trained, folder / ATTRIBUTE_CLASSIFIER)
    return trained


SILENT = 20  # one caption in so many is empty, for guidance


def caption_item(number: int) -> dict[str, Any]:
    """The caption of a number: text; labels, what it claims (see `claims_vector`)."""
    said = Caption("", {}) if number % SILENT == 0 else caption(number)
    return {"text": said.text, "labels": claims_vector(said.claims)}


def reading_loss(readings: Tensor, claims: Tensor) -> Tensor:
    """Mean cross-entropy of an attribute, all claimed values as likely: logits and bool [B, sum(GROUPS)]."""
    pairs = zip(readings.float().split(GROUPS, 1), claims.float().split(GROUPS, 1), strict=True)
    return torch.stack([F.cross_entropy(logits, part / part.sum(1, keepdim=True)) for logits, part in pairs]).mean()


def train_captions(run: CaptionsRun, folder: Path) -> None:
    """Trains (or resumes) a text encoder from captions alone, and writes it to a run's folder, with its heads."""
    torch.manual_seed(run.loop.seed)
    conditioner = avatar_conditioner(run.text_length)
    reader = CaptionReader(TextEncoder(text_config(run.shape, conditioner)))

    def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        claims = batch["labels"]
        readings = model(conditioner.encode(batch["text"]).tokens.to(claims.device))
        return {"loss": reading_loss(readings, claims)}

    trained: Any = train(LossTask(reader, Series(caption_item), losses), run.loop, folder)
    ImageBART(conditioner=conditioner, text_encoder=trained.encoder).save_pretrained(folder)
    save_heads(trained, folder)


DATA = {"avatars": avatar_item, "avatar edits": edit_item}


def avatars(data: str, size: int) -> Dataset[dict[str, Any]]:
    """Avatars of `size` pixels a side, or edits of them. Raises InputError where a configuration names other data."""
    if data not in DATA:
        raise InputError(f"data is {data!r}, expected {' or '.join(map(repr, DATA))}.")
    return Series(partial(DATA[data], size=size))


def avatar_data(run: TokensRun, size: int) -> tuple[Dataset[Any], Conditioner]:
    """What a denoiser is trained on: avatars, and the conditioner for their captions."""
    return avatars(run.data, size), avatar_conditioner(run.text_length)


def train_avatar_first_stage(run: FirstStageRun, folder: Path) -> None:
    """Trains (or resumes) a first stage, or its decoder."""
    size = run.model.resolution
    train_first_stage(run, folder, avatars(run.data, size), face_weight(size))


TRAININGS: Trainings = {
    "first-stage": (FirstStageRun, train_avatar_first_stage),  # the VQGAN: pixels to tokens and back
    "captions": (CaptionsRun, train_captions),  # the text encoder: what captions claim
    "denoiser": (DenoiserRun, partial(train_denoiser, data=avatar_data)),
    "classifier": (ClassifierRun, train_classifier),  # reads attributes off images: one measures, one ranks
}
