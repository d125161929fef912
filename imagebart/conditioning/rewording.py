"""What a model cannot draw, and the nearest that it can: "purple hair" becomes "pink hair", and is said to.

General: which words, which colours and what has them is data of a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from imagebart.conditioning import tokenizer as clip
from imagebart.conditioning.spelling import Correction

FURTHEST = 6  # pieces from a colour to what has it


@dataclass(frozen=True)
class Subject:
    """Something that has a colour."""

    name: str  # in notes: "hair"
    words: tuple[str, ...]  # that name it, in lower case
    colours: tuple[str, ...] = ()  # words of those that it has
    nearest: dict[str, str] = field(default_factory=dict)  # a colour that it lacks: the nearest; "": none is near
    leads: tuple[str, ...] = ()  # a colour after one of these words is its own: "in purple" for clothes


@dataclass(frozen=True)
class Instead:
    """Words for what cannot be drawn, and words for the nearest that can."""

    words: str
    by: str
    unless: tuple[str, ...] = ()  # words that say otherwise
    coloured: str | None = None  # name of a subject whose colour says otherwise


@dataclass(frozen=True)
class Reworded:
    """Pieces of a text after rewording, the words that were replaced, and what to say of colours."""

    pieces: list[clip.Piece]
    corrections: list[Correction]
    notes: list[str]


@dataclass(frozen=True)
class Rewording:
    """What a model's prompts are changed to before they are read."""

    instead: tuple[Instead, ...] = ()
    subjects: tuple[Subject, ...] = ()
    stops: tuple[str, ...] = ()  # words that part a colour from what comes after: "purple, with a hat"
    links: tuple[str, ...] = ()  # words between something and its colour: "hair is purple"

    def reworded(self, pieces: Sequence[clip.Piece], known: frozenset[str]) -> Reworded:
        """Pieces of a text with known words for what is not, where there are such."""
        corrections, changed = [], list(pieces)
        for entry in self.instead:
            changed, typed = self._replaced(changed, entry)
            corrections += [Correction(text, entry.by) for text in typed]
        notes: list[str] = []
        return Reworded(list(self._recoloured(changed, known, notes)), corrections, list(dict.fromkeys(notes)))

    def _replaced(self, pieces: list[clip.Piece], entry: Instead) -> tuple[list[clip.Piece], list[str]]:
        """The pieces with an entry's words replaced, and those words as typed."""
        wanted = entry.words.split()
        words = [piece.word for piece in pieces]
        starts = [i for i in range(len(words) - len(wanted) + 1) if words[i : i + len(wanted)] == wanted]
        if not starts or not self._applies(entry, pieces):
            return pieces, []
        typed = [" ".join(piece.text for piece in pieces[i : i + len(wanted)]) for i in starts]
        for i in reversed(starts):
            pieces = [*pieces[:i], *clip.pieces(entry.by), *pieces[i + len(wanted) :]]
        return pieces, typed

    def _applies(self, entry: Instead, pieces: list[clip.Piece]) -> bool:
        if not {piece.word for piece in pieces}.isdisjoint(entry.unless):
            return False
        owners = (self._owner(pieces, i) for i in range(len(pieces)))
        return all(owner is None or owner.name != entry.coloured for owner in owners)

    def _recoloured(self, pieces: list[clip.Piece], known: frozenset[str], notes: list[str]) -> Iterator[clip.Piece]:
        """The pieces with the nearest colours in place of those that are lacking; adds a note for each."""
        skip = False
        for i, piece in enumerate(pieces):
            owner = self._owner(pieces, i)
            following = pieces[i + 1] if i + 1 < len(pieces) else None
            if skip:
                skip = False
            elif owner is not None and piece.word in owner.nearest:
                nearest = owner.nearest[piece.word]
                what = f"{nearest} is the nearest" if nearest else "the colour was left out"
                notes.append(f"There is no {piece.word} {owner.name} here; {what}.")
                yield from clip.pieces(nearest)
            elif owner is None and self._colourings(piece) > 1 and following and _unknown(following, known):
                # One unknown word: the colour without its thing would colour something else ("blonde" would not).
                yield _as_one(piece, following)
                skip = True
            else:
                yield piece

    def _owner(self, pieces: list[clip.Piece], index: int) -> Subject | None:
        """What the colour at a place belongs to; None where it is no colour, or nothing's."""
        if not self._is_colour(pieces[index]):
            return None
        ahead = self._ahead(pieces, index + 1) or self._behind(pieces, index)
        if ahead is None and index + 2 < len(pieces) and pieces[index + 1].word in self.links:
            ahead = self._owner(pieces, index + 2)  # "purple and black hair"
        return ahead

    def _ahead(self, pieces: list[clip.Piece], start: int) -> Subject | None:
        """The nearest subject from a place on: "purple curly hair"."""
        for piece in pieces[start : start + FURTHEST]:
            if piece.text != "-" and (not piece.word or piece.word in self.stops):
                return None
            if subject := self._named(piece):
                return subject
        return None

    def _behind(self, pieces: list[clip.Piece], index: int) -> Subject | None:
        """The subject before a colour that nothing follows: "hoodie in purple", "v neck, orange"."""
        if index + 1 < len(pieces) and pieces[index + 1].word and pieces[index + 1].word not in self.stops:
            return None
        before = pieces[index - 1].word if index else ""
        led = next((subject for subject in self.subjects if before in subject.leads), None)
        if led is not None and (index < 2 or before not in self.links or not self._named(pieces[index - 2])):
            return led
        place = index - 1
        while place >= 0 and (pieces[place].text == "," or pieces[place].word in self.links):
            place -= 1
        subject = self._named(pieces[place]) if place >= 0 else None
        coloured = place > 0 and self._is_colour(pieces[place - 1])
        return led if coloured or subject is None else subject

    def _named(self, piece: clip.Piece) -> Subject | None:
        return next((subject for subject in self.subjects if piece.word in subject.words), None)

    def _is_colour(self, piece: clip.Piece) -> bool:
        return self._colourings(piece) > 0

    def _colourings(self, piece: clip.Piece) -> int:
        """How many subjects a word is a colour of."""
        return sum(piece.word in subject.colours or piece.word in subject.nearest for subject in self.subjects)


def _unknown(piece: clip.Piece, known: frozenset[str]) -> bool:
    return bool(piece.word) and piece.word not in known


def _as_one(first: clip.Piece, second: clip.Piece) -> clip.Piece:
    text = f"{first.text} {second.text}"
    return clip.Piece(text, text.lower(), first.ids + second.ids)
