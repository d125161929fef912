"""Misspelt words: a word within one or two edits of one that a model knows is taken for it.

Words of up to five letters may have one edit, longer ones two: a letter left out, put in, changed, or two letters that
changed places (optimal string alignment). A word that CLIP has as one token is a word of its own ("witch" is not
"with"), unless only a final s sets it apart. Of three letters almost anything is a word, or near many: only what is
listed is taken for others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rapidfuzz.distance import OSA, Indel

from imagebart.conditioning import tokenizer as clip

SHORTEST, LONGEST = 4, 30  # letters of a word that is looked at
LONG = 6  # letters of a word that may have two edits
# What people write for a word that is short, or in short; among these are tokens of CLIP that are no words.
SHORT = {
    short: meant
    for meant, shorts in {
        **{"red": "rde redd erd", "blue": "blu bue lue bleu", "green": "grn gren reen", "pink": "pnk pik"},
        **{"black": "blk", "white": "wht", "brown": "brn rown", "grey": "gry", "yellow": "ylw", "purple": "prpl"},
        **{"orange": "orng", "hair": "hai har hir", "hat": "hta", "eyes": "eys", "girl": "grl gurl", "man": "mna"},
        **{"boy": "byo", "bald": "bld", "cap": "cpa"},
    }.items()
    for short in shorts.split()
}
PART = 2  # letters of each of two words written as one, at least


@dataclass(frozen=True)
class Correction:
    """Words as typed, and the known words that they were taken for."""

    typed: str
    meant: str


@dataclass(frozen=True)
class Speller:
    """Knows some words, in lower case."""

    words: frozenset[str]

    def corrected(self, pieces: Sequence[clip.Piece]) -> Iterator[tuple[clip.Piece, Correction | None]]:
        """The pieces of a text, with what misspelt words were meant to be; the first of such pieces has its correction.

        Known words, words that are like none that is known, and punctuation are as they were.
        """
        index = 0
        while index < len(pieces):
            joined = self._joined(pieces, index)
            piece, taken = pieces[index], 1
            meant: str | None = None
            if joined is not None:
                meant, taken = joined
            elif piece.word and piece.word not in self.words:
                meant = self.meant(piece.word)
            if meant is None:
                yield piece, None
            else:
                correction: Correction | None = Correction(_typed(pieces[index : index + taken]), meant)
                for other in clip.pieces(meant):
                    yield other, correction
                    correction = None
            index += taken

    def meant(self, word: str) -> str | None:
        """The known word that an unknown one, in lower case, was meant to be; two, where they were written as one."""
        if SHORT.get(word) in self.words:
            return SHORT[word]
        if not SHORTEST <= len(word) <= LONGEST or not word.isalpha():
            return None
        if _is_word(word):
            return next((other for other in (word.removesuffix("s"), word + "s") if other in self.words), None)
        return self._near(word, 1) or self._split(word) or (self._near(word, 2) if len(word) >= LONG else None)

    def _near(self, word: str, edits: int) -> str | None:
        """The likeliest of the known words within so many edits."""
        near = (other for other in self._sorted if OSA.distance(word, other, score_cutoff=edits) <= edits)
        return min(near, key=lambda other: _unlikely(word, other), default=None)

    def _split(self, word: str) -> str | None:
        """Two known words that were written as one, the first as long as can be."""
        for end in range(len(word) - PART, PART - 1, -1):
            if word[:end] in self.words and word[end:] in self.words:
                return f"{word[:end]} {word[end:]}"
        return None

    def _joined(self, pieces: Sequence[clip.Piece], index: int) -> tuple[str, int] | None:
        """A known word written as two, one of them unknown, and how many pieces it takes: "dread locks", "eye-brow"."""
        hyphen = index + 2 < len(pieces) and pieces[index + 1].text == "-"
        first, last = index, index + (2 if hyphen else 1)
        if last >= len(pieces):
            return None
        words = (pieces[first].word, pieces[last].word)
        joined = "".join(words)
        if all(words) and joined in self.words and not self.words.issuperset(words):
            return joined, last - first + 1
        return None

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.words)


def _unlikely(typed: str, meant: str) -> tuple[int, bool, int, bool, int, int, str]:
    """How unlikely it is that a word was meant: more edits, other letters, letters changed, another first letter, rare.

    The vocabulary of CLIP begins with what is commonest.
    """
    ids = next(clip.pieces(meant)).ids
    edits, changed = OSA.distance(typed, meant), Indel.distance(typed, meant)
    return edits, sorted(typed) != sorted(meant), changed, typed[0] != meant[0], len(ids), max(ids), meant


def _is_word(word: str) -> bool:
    """Whether CLIP has a word as one token."""
    return len(next(clip.pieces(word)).ids) == 1


def _typed(pieces: Sequence[clip.Piece]) -> str:
    texts = [piece.text for piece in pieces]
    return "".join(texts) if "-" in texts else " ".join(texts)
