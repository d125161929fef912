"""What trainings on the tokens of pictures share: pictures and captions, a frozen first stage, what reads captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.conditioning import ClassConditioner, Conditioner, NoConditioner, TextConditioner
from imagebart.imaging.files import normalize
from imagebart.models.text_encoder import TextEncoder, TextEncoderConfig
from imagebart.models.vqgan import FirstStage
from imagebart.training.config import StageShape, TokensRun
from imagebart.training.data import AugmentedViews, ImageFolder, dataset_for
from imagebart.training.loop import Task
from imagebart.training.parts import load_text_encoder
from imagebart.weights.folder import load_part

SHOWN = 12  # pictures in a grid

R = TypeVar("R", bound=TokensRun)


class TokensTask(Task, Generic[R]):
    """A network on the tokens of pictures, and on their captions."""

    def __init__(
        self, network: nn.Module, conditioner: Conditioner, first_stage: FirstStage, dataset: Dataset[Any], run: R
    ) -> None:
        self.model: nn.Module = network
        self.conditioner, self.first_stage, self.dataset, self.run = conditioner, first_stage, dataset, run
        self.vocab_size = first_stage.config.vocab_size

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """uint8 images -> tokens, by the frozen first stage."""
        self.first_stage.to(images.device)
        return self.first_stage.encode(normalize(images).to(memory_format=torch.channels_last))

    def told(self, texts: list[str], device: torch.device) -> Tensor | None:
        """Conditioning tokens, absent for a share of the captions so that guidance works."""
        if self.conditioner.length == 0:
            return None
        cond, null = self.conditioner.encode(texts).tokens, self.conditioner.unconditional(len(texts))
        return torch.where(torch.rand(len(texts), 1) < self.run.drop, null, cond).to(device)

    def last(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Tokens and conditioning tokens of the last pictures, to be shown."""
        length = len(self.dataset)  # type: ignore[arg-type]
        items = [self.dataset[i] for i in range(max(length - SHOWN, 0), length)]
        x0 = self.encode(torch.stack([item["image"] for item in items]).to(device))
        texts = [item["text"] for item in items]
        return x0, self.conditioner.encode(texts).tokens.to(device) if self.conditioner.length else None


def conditioner_for(run: TokensRun, dataset: Dataset[Any]) -> Conditioner:
    """What the captions of a data set need: known words, classes, or nothing."""
    if run.conditioning == "none":
        return NoConditioner()
    assert isinstance(dataset, ImageFolder | AugmentedViews)
    if run.conditioning == "class":
        return ClassConditioner(tuple(sorted(set(dataset.texts))), null_class=True)
    return TextConditioner.from_captions(dataset.texts, run.text_length)


@dataclass(frozen=True)
class DataSource:
    """Where a run's pictures come from, and what reads their captions; a recipe brings its own."""

    dataset_for: Callable[[str, int], Dataset[Any]] = dataset_for  # of a run's `data`, so many pixels a side
    conditioner_for: Callable[[TokensRun, Dataset[Any]], Conditioner] = conditioner_for


FOLDERS = DataSource()


@dataclass(frozen=True)
class TokenTaskInputs:
    """What a run on tokens begins with."""

    first_stage: FirstStage
    dataset: Dataset[Any]
    conditioner: Conditioner
    reader: TextEncoder | None  # a trained one, which stays as it is
    text: TextEncoderConfig | None  # what reads captions; None for other conditioning tokens

    @classmethod
    def of(cls, run: TokensRun, source: DataSource) -> TokenTaskInputs:
        """As a run's settings say; seeds the global RNG."""
        first_stage = load_part(Path(run.first_stage), FirstStage).module
        first_stage = first_stage.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        dataset = source.dataset_for(run.data, first_stage.config.resolution)
        torch.manual_seed(run.loop.seed)
        conditioner = source.conditioner_for(run, dataset)
        if run.text_from is not None:
            reader, conditioner = load_text_encoder(Path(run.text_from))
            return cls(first_stage, dataset, conditioner, reader, reader.config)
        text = text_config(run.shape, conditioner) if conditioner.kind == "text" else None
        return cls(first_stage, dataset, conditioner, None, text)

    def take_reader(self, network: Any) -> None:
        """Gives a network the trained text encoder, if there is one."""
        if self.reader is not None:
            network.text.load_state_dict(self.reader.state_dict())
            network.text.requires_grad_(False)


def before_pictures(conditioner: Conditioner, text: TextEncoderConfig | None) -> tuple[int, int]:
    """How many conditioning tokens, or slots, stand before a picture's tokens, and of how many different ones."""
    return (conditioner.length, conditioner.vocab_size) if text is None else (text.query_tokens, text.query_tokens)


def text_config(shape: StageShape, conditioner: Conditioner) -> TextEncoderConfig:
    """A text encoder as deep as the encoder of x_t, of the stage's width."""
    words, length = conditioner.vocab_size + shape.query_tokens, conditioner.length + shape.query_tokens
    return TextEncoderConfig(shape.encoder(words, length), shape.query_tokens, shape.conv_width)
