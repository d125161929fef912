"""Shapes that words take in captions: enumerations, articles, plurals, an adjective put last, capitals."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

ADJECTIVES = {
    *("long", "short", "big", "huge", "small", "thin", "thick", "full", "bushy", "medium", "trimmed"),
    *("round", "square", "curly", "curled", "wavy", "straight", "spiky", "messy", "wild", "plain"),
    *("wide", "closed", "open", "angry", "sad", "raised"),
    *("black", "brown", "blonde", "blond", "red", "ginger", "orange", "grey", "gray", "silver"),
    *("pink", "blue", "green", "yellow", "white", "purple", "golden", "auburn", "copper", "navy"),
    *("frizzy", "kinky", "flowing", "shaggy", "slight", "happy", "friendly", "arched", "knitted"),
}
"""What can stand after its noun: "hair, long and black"."""


def joined(texts: Sequence[str], random: np.random.Generator) -> str:
    """Write an enumeration: "a, b and c", "a, b, c" or "a and b and c"."""
    style = random.random()
    if len(texts) == 1 or style < 0.2:
        return ", ".join(texts)
    if style < 0.35:
        return " and ".join(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def articled(text: str) -> str:
    """Write "an" before vowels."""
    return re.sub(r"\ba (?=[aeio])", "an ", text)


def bare(text: str) -> str:
    """Drop a leading article."""
    return re.sub(r"^(?:an?|the) ", "", text)


def plural(text: str) -> str:
    """Write "beards" for "a beard"; leave what is no single thing as it is."""
    if not re.match(r"an? [^ ]+( [^ ]+)?$", text):
        return text
    noun = bare(text)
    return noun + ("es" if re.search(r"(s|x|ch|sh)$", noun) else "s")


def dressed(text: str, random: np.random.Generator) -> str:
    """Give a text a capital, capitals only, or a full stop now and then."""
    style = random.random()
    if style < 0.15:
        text = text[0].upper() + text[1:]
    elif style < 0.18:
        text = text.upper()
    return text + "." if random.random() < 0.1 else text


def turned(text: str, random: np.random.Generator, comma: bool) -> str:
    """Write "hair long and black" for "long black hair"; comma: at times "glasses, round". Other texts as they are."""
    words = bare(text).split()
    count = next((i for i, word in enumerate(words) if word not in ADJECTIVES), len(words))
    before, noun = words[:count], " ".join(words[count:])
    if not before or not noun:
        return text
    between = ", " if comma and random.random() < 0.5 else " "
    return f"{noun}{between}{(' and ', ' ')[random.integers(2)].join(before)}"
