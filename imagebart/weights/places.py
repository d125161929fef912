"""Where models lie on this machine: installed by hand, made of published files, or downloaded.

Downloads and what is made of them stand in Hugging Face's own folder for such things (`HF_HOME`, by default
~/.cache/huggingface), in a part of it that is ours: published/NAME holds files as they were published, converted/NAME
what `convert` made of them, and recorded.json the checksums of first downloads.
"""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path

from huggingface_hub import constants
from rapidfuzz import fuzz, process

from imagebart.errors import InputError
from imagebart.weights.registry import FOLDER, MODELS, PublishedModel

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
SIMILAR = 60.0  # of 100, from which on another name is offered for a wrong one


def is_hub_name(source: str | PathLike[str]) -> bool:
    """Whether this can only be a name on the Hub: owner/name, where there is no folder called owner."""
    return bool(HUB_NAME.fullmatch(str(source))) and not Path(source).parent.is_dir()


def cache() -> Path:
    """Our part of Hugging Face's folder."""
    return Path(constants.HF_HOME) / "imagebart"


def published_folder(name: str) -> Path:
    """Where a published model's own files are downloaded to."""
    return cache() / "published" / name


def converted_folder(name: str) -> Path:
    """Where a published model is converted to, unless told otherwise."""
    return cache() / "converted" / name


def places(name: str) -> tuple[Path, ...]:
    """Where a published model may be, the best first."""
    return FOLDER / name, converted_folder(name), published_folder(name)


def find(name: str) -> Path:
    """The folder of a published model; the first place where it would be looked for, if there is none."""
    return next((place for place in places(name) if place.is_dir()), places(name)[0])


def model_of(name: str) -> PublishedModel:
    """A published model by its name; raises InputError that offers the nearest name."""
    if name in MODELS:
        return MODELS[name]
    raise InputError(f"There is no published model {name[:60]!r}. {nearest(name)}")


def nearest(name: str) -> str:
    """The published models, in a sentence, after those of what is named ("faces") or the one most similarly called."""
    there = f"There are {', '.join(MODELS)}."
    shown = {model.name: re.findall("[a-z]+", model.knows.lower()) for model in MODELS.values()}
    found = [one for one, words in shown.items() if len(name) > 2 and any(w.startswith(name.lower()) for w in words)]
    similar = process.extractOne(name[:100].lower(), MODELS.keys(), scorer=fuzz.WRatio, score_cutoff=SIMILAR)
    meant = " or ".join(found) if found else similar and similar[0]
    return f"Did you mean {meant}? {there}" if meant else there
