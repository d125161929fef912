"""The judge of avatars: a reader of attributes looks in a picture for what the text encoder reads in the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from imagebart.avatars.attributes import VALUES
from imagebart.avatars.captions import Claims
from imagebart.avatars.claims import CaptionReader, load_heads, read_claims, with_showing
from imagebart.avatars.reader import Reader, load_reader
from imagebart.conditioning import Conditioner
from imagebart.models.imagebart import ImageBART
from imagebart.weights.errors import WeightsError


@dataclass(frozen=True)
class AvatarJudge:
    """Scores pictures by the log-probability that the reader gives to what the prompt claims, and to its showing."""

    reader: Reader
    captions: CaptionReader
    conditioner: Conditioner

    @classmethod
    def load(cls, path: Path, model: ImageBART) -> AvatarJudge:
        """The reader in a file, and a model's text encoder with the heads beside the file.

        Raises WeightsError naming what is damaged, or missing.
        """
        if model.text is None:
            raise WeightsError(f"{path} judges by prompts, but the model beside it has no text encoder to read them")
        try:
            captions = CaptionReader(model.text)
            load_heads(captions, path.parent)
            reader = load_reader(path)
        except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
            raise WeightsError(f"{path} cannot be used as a judge: {error}") from error
        captions.heads.to(model.device, next(model.text.parameters()).dtype)
        return cls(reader, captions.eval().requires_grad_(False), model.conditioner)

    def claims(self, prompt: str) -> Claims:
        """What is read in a prompt; {} where it says nothing of avatars."""
        words = self.conditioner.encode([prompt]).tokens
        with torch.no_grad():
            readings, _ = self.captions(words.to(next(self.captions.parameters()).device))
        return read_claims(readings[0].cpu())

    def score(self, images: Tensor, prompt: str) -> Tensor:
        """See `imagebart.judge.Judge`. 0 at best, and for prompts that claim nothing."""
        with torch.no_grad():
            answers = self.reader(images.float().cpu())
        return log_likelihood(answers, self.claims(prompt))


def log_likelihood(answers: dict[str, Tensor], claims: Claims) -> Tensor:
    """The log-probability [B] that all that is claimed is so and shows, each attribute by itself.

    answers: logits [B, values] of each attribute.
    """
    total = torch.zeros(len(next(iter(answers.values()))))
    for name, allowed in with_showing(claims).items():
        claimed = torch.tensor([value in allowed for value in VALUES[name]])
        total += answers[name].float().log_softmax(1)[:, claimed].logsumexp(1)
    return total
