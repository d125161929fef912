"""What an avatar is made of: fourteen attributes, their values, and how they are drawn at random.

The values are those parts of the Avataaars set that can be told apart at 128 pixels and leave the other
attributes alone. Left out for that reason: tops that ignore the hair colour (straight 2, shaved sides) or
nearly repeat another (side part, short round, bob with a fringe), eyes and mouths that differ by a pixel or
two (happy and closed, disbelief and sad), printed words, and whatever `python_avatars` added to the set
(mohawk, space suit, chef's hat, ...).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from configparser import ConfigParser, ExtendedInterpolation
from dataclasses import dataclass
from importlib.resources import files

HAIR_TOPS = (
    "bald", "buzz", "short", "quiff", "spiky", "curly", "afro", "bun", "bob", "straight", "wavy",
    "dreadlocks", "flowers",
)  # fmt: skip
HAT_TOPS = ("hat", "beanie", "earflaps", "turban", "hijab")
HAIR_COLOURS = ("black", "brown", "blonde", "red", "grey", "pink", "blue")
FABRIC_COLOURS = ("black", "white", "grey", "blue", "green", "red", "yellow", "pink")

VALUES: dict[str, tuple[str, ...]] = {
    "top": HAIR_TOPS + HAT_TOPS,
    "hair_colour": HAIR_COLOURS,
    "hat_colour": FABRIC_COLOURS,
    "facial_hair": ("none", "goatee", "beard", "long beard", "moustache", "curled moustache"),
    "facial_hair_colour": HAIR_COLOURS,
    "accessory": ("none", "glasses", "round glasses", "sunglasses", "white sunglasses", "eyepatch"),
    "eyes": ("open", "closed", "wink", "hearts", "wide", "rolling", "dizzy", "crying"),
    "eyebrows": ("normal", "angry", "sad", "raised", "one raised", "unibrow"),
    "mouth": ("smile", "slight smile", "serious", "sad", "tongue", "grimace", "scream", "vomit"),
    "clothing": ("hoodie", "t-shirt", "v-neck", "graphic", "sweater", "blazer", "overalls"),
    "clothing_colour": FABRIC_COLOURS,
    "graphic": ("bat", "bear", "deer", "diamond", "pizza", "skull"),
    "skin": ("fair", "tan", "brown", "dark", "yellow"),
    "background": ("white", "blue", "green", "yellow", "orange", "red", "pink", "purple"),
}
"""Every attribute with its values."""

COLOUR_OF = {
    "top": ("hair_colour", "hat_colour"),
    "facial_hair": ("facial_hair_colour",),
    "clothing": ("clothing_colour",),
}
"""The attributes that say which colour an attribute's value has."""

SUBJECTS = ("top", "facial_hair", "clothing", "accessory", "eyes", "eyebrows", "mouth", "skin", "background")
"""The attributes that are spoken of, in an order; the others are said with them."""

Claims = dict[str, frozenset[str]]
"""Of each attribute that something is said of, the values of which that would be true."""


@dataclass(frozen=True)
class Attributes:
    """One avatar: a value of `VALUES` for each attribute. An unknown value raises ValueError.

    Every attribute has a value, also where the picture does not show it, such as the hair colour of a bald
    head; `visible` names those that show.
    """

    top: str
    hair_colour: str
    hat_colour: str
    facial_hair: str
    facial_hair_colour: str
    accessory: str
    eyes: str
    eyebrows: str
    mouth: str
    clothing: str
    clothing_colour: str
    graphic: str
    skin: str
    background: str

    def __post_init__(self) -> None:
        for name, values in VALUES.items():
            value = getattr(self, name)
            if value not in values:
                raise ValueError(
                    f"{value!r} is not a value of the attribute {name!r}; its values are {', '.join(values)}."
                )

    def visible(self) -> frozenset[str]:
        """Return the names of the attributes that the picture shows.

        Measured at 128 pixels: under a hijab clothes are the same, dark lenses and their frames hide eyes and
        eyebrows, and a patch hides one eye, so that eyes cannot be told for sure.
        """
        hidden = {"hat_colour"} if self.top not in HAT_TOPS else {"hair_colour"}
        if self.top == "bald":
            hidden.add("hair_colour")
        if self.top == "hijab":
            hidden |= {"clothing", "clothing_colour", "graphic"}
        if self.clothing != "graphic":
            hidden.add("graphic")
        if self.facial_hair == "none":
            hidden.add("facial_hair_colour")
        if self.accessory in ("sunglasses", "white sunglasses"):
            hidden |= {"eyes", "eyebrows"}
        if self.accessory == "eyepatch":
            hidden.add("eyes")
        return frozenset(VALUES) - hidden

    def as_dict(self) -> dict[str, str]:
        """Return the values by attribute name."""
        return dict(vars(self))

    def values_of(self, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """Return claims that these attributes are as they are."""
        return {name: frozenset({getattr(self, name)}) for name in names}


# An avatar to begin from, and what must be so for each attribute to show.


PLAIN = Attributes(
    top="short",
    hair_colour="brown",
    hat_colour="blue",
    facial_hair="none",
    facial_hair_colour="brown",
    accessory="none",
    eyes="open",
    eyebrows="normal",
    mouth="smile",
    clothing="t-shirt",
    clothing_colour="blue",
    graphic="bear",
    skin="fair",
    background="green",
)

# What must be so for an attribute to show.
SHOWING = {
    "hat_colour": {"top": HAT_TOPS[0]},
    "facial_hair_colour": {"facial_hair": "beard"},
    "graphic": {"clothing": "graphic"},
}


# Words for colours, of hair and of fabric.


COLOUR_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "hair": {
        "black": ("black", "black", "black", "dark", "jet black"),
        "brown": ("brown", "brown", "brown", "dark brown", "light brown", "chestnut"),
        "blonde": ("blonde", "blonde", "blond", "golden", "platinum blonde", "light blonde"),
        "red": ("red", "red", "ginger", "orange", "auburn", "copper"),
        "grey": ("grey", "gray", "silver", "grey", "gray"),
        "pink": ("pink", "pink", "pink", "hot pink", "light pink"),
        "blue": ("blue", "blue", "blue", "light blue", "dark blue"),
    },
    "fabric": {
        "grey": ("grey", "gray"),
        "blue": ("blue", "blue", "blue", "blue", "light blue", "dark blue", "navy", "navy blue"),
        "green": ("green", "green", "green", "green", "dark green", "light green"),
        "red": ("red", "red", "red", "red", "dark red", "bright red"),
        "yellow": ("yellow", "yellow", "yellow", "bright yellow"),
        "pink": ("pink", "pink", "pink", "light pink", "hot pink"),
    },
}
"""Colour words where they are not simply the colour's name."""


def articled(text: str) -> str:
    """Write "an" before vowels."""
    return re.sub(r"\ba (?=[aeio])", "an ", text)


def colour_words(attribute: str, value: str) -> tuple[str, ...]:
    """Return the words for a colour of hair or of fabric, the plainest first."""
    kind = "hair" if attribute in ("hair_colour", "facial_hair_colour") else "fabric"
    return COLOUR_WORDS[kind].get(value, (value,))


# The words for every value, from `data/avatar_phrases.ini`: what captions are made of, what the page suggests.


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


def phrases(kind: str) -> Tables:
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
WORDINGS = phrases("wordings")
"""How to name a value: the phrases of each attribute."""
COLOUR_ALONE = phrases("colours")
"""How to name a colour with as little as possible of what has it."""
