"""What an avatar is made of: fourteen attributes, their values, and how they are drawn at random.

The values are those parts of the Avataaars set that can be told apart at 128 pixels and leave the other
attributes alone. Left out for that reason: tops that ignore the hair colour (straight 2, shaved sides) or
nearly repeat another (side part, short round, bob with a fringe), eyes and mouths that differ by a pixel or
two (happy and closed, disbelief and sad), printed words, and whatever `python_avatars` added to the set
(mohawk, space suit, chef's hat, ...).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

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

# Faces without facial hair or glasses are the common ones; printed shirts carry a further attribute to learn.
WEIGHTS: dict[tuple[str, str], float] = {
    ("facial_hair", "none"): 10 / 3,
    ("accessory", "none"): 10 / 3,
    ("clothing", "graphic"): 2.0,
    ("eyes", "open"): 2.0,
    ("eyebrows", "normal"): 2.0,
}
"""How much likelier than its attribute's other values a value is; 1 where absent."""


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


def generator(index: int, seed: int, purpose: int) -> np.random.Generator:
    """Return one item's random numbers: the same for the same index, seed and purpose, on every machine."""
    if index < 0:
        raise ValueError(f"The index of an avatar is 0 or more, not {index}.")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index, purpose))))


def draw(random: np.random.Generator) -> Attributes:
    """Draw every attribute by itself, by `WEIGHTS`."""
    chosen = {}
    for name, values in VALUES.items():
        weights = np.array([WEIGHTS.get((name, value), 1.0) for value in values])
        position = np.searchsorted(np.cumsum(weights), random.random() * weights.sum(), side="right")
        chosen[name] = values[min(int(position), len(values) - 1)]
    return Attributes(**chosen)
