"""What captions or classes say of pictures, as labels that a classifier can learn and read off again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

COLOURS = frozenset(
    ("red", "orange", "yellow", "green", "blue", "purple", "violet", "pink", "brown", "black", "white", "grey", "gray")
    + ("golden", "silver", "beige", "dark", "light")
)
FILLERS = frozenset(["a", "an", "the", "of", "some", "with", "and", "in", "on"])
LEAST, SHARE = 4, 0.004  # of pictures that a label needs, whichever is more
UNSAID = -1


def said(text: str) -> dict[str, str]:
    """Takes a caption apart: its first phrase is a thing, maybe with a colour; the next one is what is around it.

    "red roses, green background": the class is roses, the colour red, and green background is around.
    """
    first, *others = [phrase.strip() for phrase in re.split(r"[,;.]", text.lower())] or [""]
    words = [word for word in first.split() if word not in FILLERS]
    colours = [word for word in words if word in COLOURS]
    thing = " ".join(word for word in words if word not in COLOURS)
    return {"class": thing, "colour": colours[0] if colours else "", "around": others[0] if others else ""}


@dataclass(frozen=True)
class Labels:
    """Groups of labels, of which a picture has at most one each; none at all where nothing is said."""

    groups: dict[str, tuple[str, ...]]

    @classmethod
    def of(cls, kind: str, texts: Iterable[str]) -> Labels:
        """The labels that enough of these pictures have; kind: "text", "class" or "none"."""
        parts = [_parts(kind, text) for text in texts]
        least = max(LEAST, SHARE * len(parts))
        groups = {}
        for name in ("class", "colour", "around"):
            counts = Counter(part[name] for part in parts if part.get(name))
            labels = tuple(sorted(label for label, count in counts.items() if count >= least))
            if len(labels) > 1:
                groups[name] = labels
        return cls(groups)

    def numbers(self, kind: str, text: str) -> list[int]:
        """The label of each group that a text says; UNSAID where it says none, or one that too few have."""
        parts = _parts(kind, text)
        return [
            labels.index(parts[name]) if parts.get(name) in labels else UNSAID for name, labels in self.groups.items()
        ]


def _parts(kind: str, text: str) -> dict[str, str]:
    if kind == "class":
        return {"class": text}
    return said(text) if kind == "text" else {}
