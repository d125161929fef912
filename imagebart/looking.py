"""What a model sees in a picture without drawing: where words belong, what is there, and what of it stays."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from imagebart.conditioning.tokenizer import whole_characters
from imagebart.errors import InputError
from imagebart.judge import Describer, Judge
from imagebart.models.imagebart import ImageBART
from imagebart.sampling.where import distances, place
from imagebart.settings import SamplingSettings

PAINT = "paint over what should change"
SAID = 1.0  # guidance at most by a prompt that says all; with 2.5, smears were seen


def place_of(model: ImageBART, judge: Judge | None, pixels: Tensor, prompt: str | None) -> Tensor:
    """The tokens of a square that a prompt is about: bool [rows, columns].

    pixels: float [1, 3, size, size] in [-1, 1]. What the prompt asks for is set against what the picture shows, where
    the judge can say it, else against no words. Raises InputError where no place can be found.
    """
    conditioner = model.conditioner
    if model.denoiser is None or conditioner.kind != "text":
        raise InputError(f"This model cannot find a place by words; {PAINT}.")
    prompt = whole_characters(prompt or "")
    if not prompt.strip():
        raise InputError(f"Without words there is no place to find; say what should be there, or {PAINT}.")
    asked = conditioner.encode([prompt]).tokens
    instead = conditioner.null(1)
    if torch.equal(asked, instead):
        raise InputError(f'The model knows no word of "{prompt:.60}", so that it finds no place for it; {PAINT}.')
    texts = _contrast(judge, pixels, prompt)
    if texts is not None:
        asked, instead = conditioner.encode(texts).tokens.split(1)
    with torch.no_grad():
        known = model.first_stage.encode(pixels)
    distance = distances(model.denoiser, known, asked.to(model.device), instead.to(model.device)).cpu()
    found = place(distance.view(-1, model.first_stage.config.side))
    if not found.any():
        raise InputError(f'The model finds nothing that "{prompt:.60}" would change in this picture; {PAINT}.')
    return found


def with_the_rest(judge: Judge | None, pixels: Tensor, prompt: str) -> str:
    """A prompt with all else that a picture shows and that is to stay; the prompt alone where the judge cannot say it.

    pixels: float [1, 3, size, size] in [-1, 1].
    """
    texts = _contrast(judge, pixels, prompt)
    return prompt if texts is None else texts[0]


def with_all_said(settings: SamplingSettings) -> SamplingSettings:
    """Settings for a prompt with the rest: where it says all, guidance only smears."""
    return replace(settings, guidance=min(settings.guidance, SAID))


def _contrast(judge: Judge | None, pixels: Tensor, prompt: str) -> tuple[str, str] | None:
    return judge.contrast(pixels, prompt) if isinstance(judge, Describer) else None


def words_for(model: ImageBART, judge: Judge | None, pixels: Tensor) -> str:
    """What a picture shows, in words that the model knows. Raises InputError where that cannot be said.

    pixels: float [1, 3, size, size] in [-1, 1].
    """
    if not isinstance(judge, Describer):
        raise InputError("This model cannot say what a picture shows; describe it in your own words.")
    words = judge.describe(pixels)
    if words is None:
        known = f"knows {model.about.knows} only and" if model.about.knows else ""
        raise InputError(f"This model {known} cannot say for sure what this picture shows.".replace("  ", " "))
    return words
