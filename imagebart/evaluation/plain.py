"""Sixty prompts as people type them, and what a picture must show to have understood them."""

from __future__ import annotations

from importlib.resources import files

from imagebart.avatars.attributes import HAIR, HAIR_TOPS, VALUES
from imagebart.evaluation.cases import PromptCase

_WORDS = {
    "shades": "sunglasses|white sunglasses",
    "specs": "glasses|round glasses",
    "bare eyes": "none|eyepatch",
    "beard": "beard|long beard",
    "moustache": "moustache|curled moustache",
    "smile": "smile|slight smile",
    "long": "straight|wavy",
    "hat": "hat|beanie|earflaps",
    "hair": "|".join(HAIR_TOPS),
    "haired": "|".join(sorted(HAIR)),
}
"""What common words stand for; other values stand for themselves."""


def plain_prompts() -> list[PromptCase]:
    """The sixty prompts, in a fixed order."""
    return read_prompts(prompts_file("plain"))


def prompts_file(name: str) -> str:
    """Prompts that ship with the package, one a line."""
    return files("imagebart").joinpath("data", f"prompts_{name}.txt").read_text(encoding="utf-8")


def read_prompts(lines: str) -> list[PromptCase]:
    """Prompts with their claims, one a line: `a red hat: top=hat, hat_colour=red`; a word of `_WORDS` may be a value.

    A prompt may claim nothing.
    """
    return [_read(line) for line in lines.strip().splitlines()]


def _read(line: str) -> PromptCase:
    text, claimed = line.split(":")
    claims = {}
    for claim in filter(None, claimed.strip().split(", ")):
        name, value = claim.split("=")
        # "hat" and "moustache" are words and values: as a word, any of its kind will do.
        claims[name] = frozenset(_WORDS.get(value, value).split("|"))
        if not claims[name] <= set(VALUES[name]):
            raise ValueError(f"{sorted(claims[name])} in the prompt {text!r} are not all values of {name!r}")
    return PromptCase(text, claims)
