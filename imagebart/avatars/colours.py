"""Words for colours, of hair and of fabric."""

from __future__ import annotations

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


def colour_words(attribute: str, value: str) -> tuple[str, ...]:
    """Return the words for a colour of hair or of fabric, the plainest first."""
    kind = "hair" if attribute in ("hair_colour", "facial_hair_colour") else "fabric"
    return COLOUR_WORDS[kind].get(value, (value,))
