"""What an avatar shows, told in the model's own words: one plain phrase a thing, in an order that never changes."""

from __future__ import annotations

from collections.abc import Collection

from imagebart.avatars.attributes import VALUES, Attributes
from imagebart.avatars.captions import COLOUR_OF, SUBJECTS
from imagebart.avatars.colours import colour_words
from imagebart.avatars.phrases import COLOUR_ALONE, WORDINGS
from imagebart.avatars.wording import articled

TOGETHER = tuple(
    frozenset({subject, *COLOUR_OF.get(subject, ())}) | ({"graphic"} if subject == "clothing" else set())
    for subject in SUBJECTS
)
"""The attributes that one phrase tells of."""


def tell(attributes: Attributes, names: Collection[str] = frozenset(VALUES)) -> str:
    """ "short brown hair, no beard, a blue hoodie, …": those of the named attributes of an avatar that show.

    A colour is told with what has it, or, where that is not told, of as little as can have it: "blue clothes". ""
    where nothing is told.
    """
    shown, values = attributes.visible() & set(names), attributes.as_dict()
    told = []
    for subject in SUBJECTS:
        thing = "graphic" if subject == "clothing" and "graphic" in shown else subject
        colour = next((name for name in COLOUR_OF.get(subject, ()) if name in shown), None)
        word = f"{colour_words(colour, values[colour])[0]} " if colour else ""
        if thing in shown:
            told.append(articled(_phrase(thing, values[thing]).replace("{c} ", word)))
        elif word:
            told += [articled(text.replace("{c} ", word)) for text in _least(subject, values[subject])]
    return ", ".join(told)


def _phrase(name: str, value: str) -> str:
    """The first noun that says this value and no other, with a place for its colour if there is such a one."""
    exact = [p.text for p in WORDINGS[name] if p.values == {value} and p.kind == "noun"]
    return next((text for text in exact if "{c}" in text), exact[0])


def _least(name: str, value: str) -> list[str]:
    """The first noun that says only that there is such a thing, with a place for its colour; [] without one."""
    return [p.text for p in COLOUR_ALONE[name] if value in p.values and p.kind == "noun"][:1]
