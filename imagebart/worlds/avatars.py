"""What an avatar is made of: fourteen attributes, their values, and the words for these.

The values are the parts of the Avataaars set that can be told apart at 128 pixels and leave the other attributes alone.
Left out are tops that ignore the hair color or nearly repeat another, eyes and mouths that differ by a pixel or two,
printed words, and what `python_avatars` added to the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from configparser import ConfigParser, ExtendedInterpolation
from dataclasses import dataclass
from importlib.resources import files

HAIR_TOPS = (
    "bald", "buzz", "short", "quiff", "spiky", "curly", "afro", "bun", "bob", "straight", "wavy",
    "dreadlocks", "flowers",
)  # fmt: skip
HAT_TOPS = ("hat", "beanie", "earflaps", "turban", "hijab")
HAIR_COLORS = ("black", "brown", "blonde", "red", "grey", "pink", "blue")
FABRIC_COLORS = ("black", "white", "grey", "blue", "green", "red", "yellow", "pink")

# Every attribute with its values.
VALUES: dict[str, tuple[str, ...]] = {
    "top": HAIR_TOPS + HAT_TOPS,
    "hair_color": HAIR_COLORS,
    "hat_color": FABRIC_COLORS,
    "facial_hair": ("none", "goatee", "beard", "long beard", "moustache", "curled moustache"),
    "facial_hair_color": HAIR_COLORS,
    "accessory": ("none", "glasses", "round glasses", "sunglasses", "white sunglasses", "eyepatch"),
    "eyes": ("open", "closed", "wink", "hearts", "wide", "rolling", "dizzy", "crying"),
    "eyebrows": ("normal", "angry", "sad", "raised", "one raised", "unibrow"),
    "mouth": ("smile", "slight smile", "serious", "sad", "tongue", "grimace", "scream", "vomit"),
    "clothing": ("hoodie", "t-shirt", "v-neck", "graphic", "sweater", "blazer", "overalls"),
    "clothing_color": FABRIC_COLORS,
    "graphic": ("bat", "bear", "deer", "diamond", "pizza", "skull"),
    "skin": ("fair", "tan", "brown", "dark", "yellow"),
    "background": ("white", "blue", "green", "yellow", "orange", "red", "pink", "purple"),
}

# The attributes with the color of an attribute's value.
COLOR_OF = {
    "top": ("hair_color", "hat_color"),
    "facial_hair": ("facial_hair_color",),
    "clothing": ("clothing_color",),
}

# The attributes that a description names, in its order; it names the others with them.
SUBJECTS = ("top", "facial_hair", "clothing", "accessory", "eyes", "eyebrows", "mouth", "skin", "background")

Claims = dict[str, frozenset[str]]  # of each attribute that a text mentions, the values that make it true


@dataclass(frozen=True)
class Attributes:
    """One avatar: a value of `VALUES` for each attribute, also those that do not show."""

    top: str
    hair_color: str
    hat_color: str
    facial_hair: str
    facial_hair_color: str
    accessory: str
    eyes: str
    eyebrows: str
    mouth: str
    clothing: str
    clothing_color: str
    graphic: str
    skin: str
    background: str

    def visible(self) -> frozenset[str]:
        """The names of the attributes that an image of 128 pixels shows.

        Under a hijab clothes are the same, dark lenses and their frames hide eyes and eyebrows, and a patch one eye.
        """
        hidden = {"hat_color"} if self.top not in HAT_TOPS else {"hair_color"}
        if self.top == "bald":
            hidden.add("hair_color")
        if self.top == "hijab":
            hidden |= {"clothing", "clothing_color", "graphic"}
        if self.clothing != "graphic":
            hidden.add("graphic")
        if self.facial_hair == "none":
            hidden.add("facial_hair_color")
        if self.accessory in ("sunglasses", "white sunglasses"):
            hidden |= {"eyes", "eyebrows"}
        if self.accessory == "eyepatch":
            hidden.add("eyes")
        return frozenset(VALUES) - hidden

    def as_dict(self) -> dict[str, str]:
        """The values by attribute name."""
        return dict(vars(self))

    def values_of(self, names: Iterable[str]) -> dict[str, frozenset[str]]:
        """Claims that these attributes are as they are."""
        return {name: frozenset({getattr(self, name)}) for name in names}


PLAIN = Attributes(
    top="short",
    hair_color="brown",
    hat_color="blue",
    facial_hair="none",
    facial_hair_color="brown",
    accessory="none",
    eyes="open",
    eyebrows="normal",
    mouth="smile",
    clothing="t-shirt",
    clothing_color="blue",
    graphic="bear",
    skin="fair",
    background="green",
)

# Values without which an attribute does not show.
SHOWING = {
    "hat_color": {"top": HAT_TOPS[0]},
    "facial_hair_color": {"facial_hair": "beard"},
    "graphic": {"clothing": "graphic"},
}


# Words for the colors of hair and fabric, where they are not simply the color's name; common ones more than once.
COLOR_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
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


def color_words(attribute: str, value: str) -> tuple[str, ...]:
    """The words for a color of hair or of fabric, the plainest first."""
    kind = "hair" if attribute in ("hair_color", "facial_hair_color") else "fabric"
    return COLOR_WORDS[kind].get(value, (value,))


@dataclass(frozen=True)
class Phrase:
    """Words that are true of avatars whose `attribute` has one of `values`; "{c}" is where a color goes."""

    attribute: str
    values: frozenset[str]
    kind: str  # noun, adjective, epithet or loose
    text: str

    @property
    def colored(self) -> bool:
        """Whether the phrase has a place for a color."""
        return "{c}" in self.text


Tables = dict[str, list[Phrase]]
KINDS = {"=": "adjective", "+": "epithet", "~": "loose"}  # by the sign before a phrase; without one it is a noun


def phrases(table: str) -> Tables:
    """The phrases of each attribute in a table of `data/avatar_phrases.ini`, whose head explains its signs."""
    file = ConfigParser(delimiters=(":",), interpolation=ExtendedInterpolation())
    file.optionxform = str  # type: ignore[assignment, method-assign]
    file.read_string(files("imagebart").joinpath("data/avatar_phrases.ini").read_text(encoding="utf-8"))
    found: Tables = {}
    for attribute in VALUES:
        if file.has_section(f"{table} {attribute}"):
            lines = file.items(f"{table} {attribute}")
            found[attribute] = [
                phrase for values, texts in lines for phrase in _line(attribute, values, texts, file["prints"]["*"])
            ]
    return found


def _line(attribute: str, values: str, texts: str, prints: str) -> Iterator[Phrase]:
    """The phrases of a line of the file; prints: those of all shirts with a "{thing}"."""
    if values == "*":
        for value in VALUES[attribute]:
            yield from _line(attribute, value, texts.replace("{value}", value), prints)
        return
    named = frozenset(values.removeprefix("!").split("|"))
    true_of = frozenset(VALUES[attribute]) - named if values.startswith("!") else named
    for text in texts.replace("\n", " ").split("; "):
        if text.startswith("*"):
            yield from _line(attribute, values, prints.replace("{thing}", text[1:]), prints)
        else:
            yield Phrase(attribute, true_of, KINDS.get(text[0], "noun"), text.lstrip("".join(KINDS)))


HAIR = frozenset(HAIR_TOPS) - {"bald"}  # the tops whose hair shows its color
WORDINGS = phrases("wordings")  # of values
COLOR_ALONE = phrases("colors")  # of colors, saying as little as possible of what has them
