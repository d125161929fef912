"""What an avatar shows, told in the model's own words: one plain phrase a thing, in an order that never changes."""

from __future__ import annotations

from collections.abc import Collection

from imagebart.avatars.attributes import VALUES, Attributes
from imagebart.avatars.captions import COLOUR_OF, SUBJECTS
from imagebart.avatars.colours import colour_words
from imagebart.avatars.phrases import WORDINGS
from imagebart.avatars.wording import articled


def tell(attributes: Attributes, names: Collection[str] = frozenset(VALUES)) -> str:
    """ "short brown hair, no beard, a blue hoodie, …": those of the named attributes of an avatar that show.

    A colour is told with what has it, and not by itself. "" where nothing is told.
    """
    shown, values = attributes.visible() & set(names), attributes.as_dict()
    told = []
    for subject in SUBJECTS:
        thing = "graphic" if subject == "clothing" and "graphic" in shown else subject
        colour = next((name for name in COLOUR_OF.get(subject, ()) if name in shown), None)
        if thing in shown:
            told.append(_phrase(thing, values[thing], colour and colour_words(colour, values[colour])[0]))
    return ", ".join(told)


def _phrase(name: str, value: str, colour: str | None) -> str:
    """The first noun that says this value and no other, with its colour if it has a place for one."""
    exact = [p.text for p in WORDINGS[name] if p.values == {value} and p.kind == "noun"]
    text = next((text for text in exact if "{c}" in text), exact[0])
    return articled(text.replace("{c} ", f"{colour} " if colour else ""))
