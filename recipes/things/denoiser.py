"""The denoiser of layers: the tokens of a thing from its name, or from its other tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset

from imagebart.text.conditioners import Conditioner, TextConditioner
from imagebart.text.prompts import PromptRules, articled
from imagebart.training.config import TokensRun
from imagebart.training.masks import random_masks
from imagebart.worlds.things import COLORS, GROUND_WORDS
from recipes import generator
from recipes.things.artwork import GROUNDS
from recipes.things.detector import NAMES
from recipes.things.first_stage import START
from recipes.things.layers import GRID, NOUNS, PATCH
from recipes.training import Series

P_WHOLE = 0.85  # share of tasks in which a whole thing is drawn
P_SYNONYM, P_COLOR, P_PLURAL = 0.25, 0.4, 0.1  # shares of prompts that say so
P_WORDLESS = 0.3  # share of the tasks of a part of a thing that have no words
MISSPELLINGS = {  # of short words, by what is meant
    "red": "rde redd erd", "blue": "blu bue lue bleu", "green": "grn gren reen", "pink": "pnk pik", "black": "blk",
    "white": "wht", "brown": "brn rown", "grey": "gry gray", "yellow": "ylw", "purple": "prpl", "orange": "orng",
    "hat": "hta",
}  # fmt: skip


def prompt(noun: int, random: np.random.Generator) -> str:
    """ "a red car", "a puppy", "cats", "frog". A color is said, and is nothing to the tokens."""
    said = NOUNS[noun]
    color = str(random.choice(list(COLORS))) if said.color and random.random() < P_COLOR else ""
    if random.random() < P_PLURAL:
        return " ".join(filter(None, (color, said.plural)))
    name = str(random.choice(said.synonyms)) if said.synonyms and random.random() < P_SYNONYM else said.name
    words = " ".join(filter(None, (color, name)))
    return articled(f"a {words}") if random.random() < 0.8 else words


def conditioner(length: int) -> TextConditioner:
    """Knows the words that prompts have, and those that the scorer alone reads."""
    names = [name for noun in NOUNS for name in (noun.name, noun.plural, *noun.synonyms)]
    misspellings = {typed: meant for meant, words in MISSPELLINGS.items() for typed in words.split()}
    understood = {*NAMES.understood, *GROUNDS, *GROUND_WORDS}
    rules = PromptRules(misspellings=misspellings)
    return TextConditioner.from_captions([*names, *COLORS, "a an"], length, rules, understood)


def task_data(run: TokensRun, size: int) -> tuple[Dataset[Any], Conditioner]:
    """Tasks: tokens, the prompt, and which tokens are masked."""
    drawn = load_file(Path(run.first_stage) / START)["tokens"]
    assert size == GRID * PATCH

    def item(number: int) -> dict[str, Any]:
        random = generator(number, 0, 31)
        noun = int(random.integers(len(NOUNS)))
        whole = random.random() < P_WHOLE
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            mask = torch.ones(1, GRID**2, dtype=torch.bool) if whole else random_masks(1, GRID)
        words = "" if not whole and random.random() < P_WORDLESS else prompt(noun, random)
        return {"tokens": drawn[noun], "text": words, "mask": mask.view(GRID, GRID)}

    return Series(item), conditioner(run.text_length)
