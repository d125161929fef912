"""Training the text encoder of things, from captions alone; and what the denoiser is trained on.

What a caption says is known: each query token of the text encoder learns to say one mention of it, the next ones where
two things lie and what the ground is. So the denoiser finds a few vectors that name things, in place of words.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from imagebart.models.transformer import TextEncoder
from imagebart.text.conditioners import Conditioner, TextConditioner
from imagebart.text.prompts import PromptRules
from imagebart.training.config import DenoiserRun, FirstStageRun, TokensRun
from imagebart.training.denoiser import train_denoiser
from imagebart.training.vqgan import train_first_stage
from recipes import generator
from recipes.things import scenes
from recipes.things.artwork import GROUNDS, HUES, NOUNS
from recipes.things.detector import COLORS, NAMES, train_detector
from recipes.things.tokens import train_tokens
from recipes.training import CaptionsRun, Series, Trainings, train_text_encoder

MENTIONS = 6  # query tokens of things; then one of their places, one of the wall, one of the floor
MISSPELLINGS = {  # of short words, by what is meant
    "red": "rde redd erd", "blue": "blu bue lue bleu", "green": "grn gren reen", "pink": "pnk pik", "black": "blk",
    "white": "wht", "brown": "brn rown", "grey": "gry gray", "yellow": "ylw", "purple": "prpl", "orange": "orng",
    "hat": "hta",
}  # fmt: skip
SILENT = 0.03  # share of empty captions


def conditioner(length: int = 48) -> TextConditioner:
    """Knows the words that captions have."""
    nouns = [name for noun in NOUNS for name in (noun.name, noun.plural, *noun.synonyms)]
    places = [text for texts in scenes.PLACES.values() for text in texts]
    others = ["a an and on the one ground background wall floor , ."]
    captions = [*nouns, *places, *HUES, *GROUNDS, *scenes.COUNT_WORDS, *others]
    misspellings = {typed: meant for meant, words in MISSPELLINGS.items() for typed in words.split()}
    rules = PromptRules(misspellings=misspellings)
    return TextConditioner.from_captions(captions, length, rules, NAMES.understood)


def caption(index: int, seed: int = 0) -> scenes.Caption:
    """What is said of the scene of a number: of one to three things, as edits are asked for, or of all of it."""
    random = generator(index, seed, 2)
    scene = scenes.sample(index, seed)
    if random.random() < SILENT:
        return scenes.Caption("")
    if random.random() < 0.5 and scene.things:
        return scenes.describe_things(scene.things[: int(random.integers(1, 4))], random)
    return scenes.describe(scene, random)


WALLS = ("", *GROUNDS)
NOUN_COUNT, COLOR_COUNT, MANY = len(NOUNS) + 1, len(COLORS), len(scenes.COUNT_WORDS)


def labels(said: scenes.Caption) -> Tensor:
    """What a caption says, as indices: int64 [3 * MENTIONS + 3]; the last of nouns, and 0 of the rest, is "none"."""
    mentions = [(m.noun, COLORS.index(m.color), m.count) for m in said.mentions[:MENTIONS]]
    mentions += [(len(NOUNS), 0, 0)] * (MENTIONS - len(mentions))
    place = 1 + list(scenes.PLACES).index(said.place) if said.place else 0
    grounds = [WALLS.index(name) for name in said.ground] if said.ground else [0, 0]
    return torch.tensor([*(value for mention in mentions for value in mention), place, *grounds])


class CaptionReader(nn.Module):
    """A text encoder with linear heads: words [B, length] -> logits of each of `labels`."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.config.transformer.width
        self.mention = nn.Linear(width, NOUN_COUNT + COLOR_COUNT + MANY)  # the same for all: a noun has one vector
        self.place = nn.Linear(width, 1 + len(scenes.PLACES))
        self.wall, self.floor = nn.Linear(width, len(WALLS)), nn.Linear(width, len(WALLS))

    def forward(self, words: Tensor) -> list[Tensor]:
        queries = self.encoder(words)
        found: list[Tensor] = []
        for query in queries[:, :MENTIONS].unbind(1):
            found += self.mention(query).split([NOUN_COUNT, COLOR_COUNT, MANY], 1)
        heads = (self.place, self.wall, self.floor)
        return found + [head(query) for head, query in zip(heads, queries[:, MENTIONS:].unbind(1), strict=True)]


def caption_item(number: int) -> dict[str, Any]:
    """The caption of a number: text; labels, see `labels`."""
    said = caption(number)
    return {"text": said.text, "labels": labels(said)}


def caption_losses(answers: list[Tensor], truth: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of what captions say."""
    losses = [F.cross_entropy(logits, label) for logits, label in zip(answers, truth.unbind(1), strict=True)]
    right = torch.stack([logits.argmax(1) for logits in answers], 1) == truth
    return {"loss": torch.stack(losses).mean(), "right": right.float().mean(), "whole": right.all(1).float().mean()}


def train_captions(run: CaptionsRun, folder: Path) -> None:
    """Trains (or resumes) a text encoder in a run's folder and writes it there."""
    words = conditioner(run.text_length)
    train_text_encoder(run, folder, words, CaptionReader, Series(caption_item), caption_losses)


def thing_data(run: TokensRun, size: int) -> tuple[Dataset[Any], Conditioner]:
    """What a denoiser is trained on: tasks on scenes, and the conditioner for their captions."""
    return Series(scenes.edit_item), conditioner(run.text_length)


def train_decoder(run: FirstStageRun, folder: Path) -> None:
    """Trains (or resumes) the decoder's convolutions."""
    train_first_stage(run, folder, Series(lambda number: {"image": scenes.image_of(scenes.of_every_size(number))}))


TRAININGS: Trainings = {
    "tokens": (None, train_tokens),  # the codes by k-means, the encoder of patches, and the decoder's memory
    "captions": (CaptionsRun, train_captions),  # the text encoder
    "decoder": (FirstStageRun, train_decoder),  # its convolutions
    "denoiser": (DenoiserRun, partial(train_denoiser, data=thing_data)),
    "detector": (None, train_detector),  # which things squares of images show: it measures, and ships as the scorer
}
