"""The words for every value, from `data/avatar_phrases.ini`: what captions are made of, what the page suggests."""

from __future__ import annotations

from collections.abc import Iterator
from configparser import ConfigParser, ExtendedInterpolation
from dataclasses import dataclass
from importlib.resources import files

from imagebart.avatars.attributes import HAIR_TOPS, VALUES

KINDS = {"=": "adjective", "+": "epithet", "~": "loose"}  # by a phrase's first sign; else noun


@dataclass(frozen=True)
class Phrase:
    """Words that are true of avatars whose `attribute` has one of `values`; kind: noun, adjective, epithet, loose."""

    attribute: str
    values: frozenset[str]
    kind: str
    text: str

    @property
    def coloured(self) -> bool:
        """Whether the phrase has a place for a colour."""
        return "{c}" in self.text


Tables = dict[str, list[Phrase]]


def _tables(kind: str) -> Tables:
    """The phrases of each attribute in the file's sections of a kind."""
    file = ConfigParser(delimiters=(":",), interpolation=ExtendedInterpolation())
    file.optionxform = str  # type: ignore[assignment, method-assign]
    file.read_string(files("imagebart").joinpath("data", "avatar_phrases.ini").read_text(encoding="utf-8"))
    prints = file["prints"]["*"]
    return {
        attribute: [
            Phrase(attribute, chosen, KINDS.get(text[0], "noun"), text.lstrip("=+~"))
            for values, line in file.items(f"{kind} {attribute}")
            for chosen, wordings in _chosen(attribute, values, line)
            for wording in _split(wordings)
            for text in (_split(prints.replace("{thing}", wording[1:])) if wording[0] == "*" else [wording])
        ]
        for attribute in VALUES
        if file.has_section(f"{kind} {attribute}")
    }


def _chosen(attribute: str, values: str, line: str) -> Iterator[tuple[frozenset[str], str]]:
    """The values that a line's phrases are true of, and these phrases."""
    if values == "*":
        for value in VALUES[attribute]:
            yield frozenset({value}), line.replace("{value}", value)
    else:
        named = frozenset(values.removeprefix("!").split("|"))
        yield frozenset(VALUES[attribute]) - named if values[0] == "!" else named, line


def _split(wordings: str) -> list[str]:
    return wordings.replace("\n", " ").split("; ")


HAIR = frozenset(HAIR_TOPS) - {"bald"}
"""The tops whose hair shows its colour."""
WORDINGS = _tables("wordings")
"""How to name a value: the phrases of each attribute."""
COLOUR_ALONE = _tables("colours")
"""How to name a colour with as little as possible of what has it."""
NEGATIONS = _tables("negations")
"""What can be said of an attribute by what it is not."""
