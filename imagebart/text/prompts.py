"""Prompts for models of a small vocabulary: spelling corrections, substitutions, and notes to their writer.

First misspelt words are corrected (`SpellChecker`), then words and colors that the model does not know are replaced by
the nearest that it does (`PromptRules`). A note says both. Training captions are not changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rapidfuzz.distance import OSA, Indel

from imagebart.errors import InputError, format_value, whole_characters
from imagebart.settings import Settings
from imagebart.text import tokenizer as clip

Prompt = str | int | None  # words, a class's name or number; None: without
Prompts = Prompt | Sequence[Prompt]  # one for all variants, or one for each


def prompt_per_variant(prompts: Prompts, variants: int, most: int) -> list[Prompt]:
    """The prompt of each variant: one for all, or a list with one for each; `variants` may then be left at 1.

    Raises InputError for over `most`, for none, for a list of another length, and for what is no prompt.
    """
    one = isinstance(prompts, str | bytes | bytearray) or not isinstance(prompts, Sequence)
    given: Sequence[Any] = [prompts] if one else prompts  # type: ignore[assignment]
    for count in (variants, len(given)):
        if type(count) is not int or not 1 <= count <= most:
            raise InputError(f"The number of variants is {format_value(count)}; it must be from 1 to {most}.")
    listed = [check_prompt(prompt) for prompt in given]
    if len(listed) == 1:
        return listed * variants
    if variants not in (1, len(listed)):
        raise InputError(f"There are {len(listed)} prompts for {variants} variants; there must be one for each.")
    return listed


def check_prompt(prompt: Any) -> Prompt:
    """A prompt as it is, or a text without lone surrogates; raises InputError for another type."""
    if isinstance(prompt, str):
        return whole_characters(prompt)
    if prompt is not None and (type(prompt) is not int or abs(prompt) > 2**31):
        raise InputError(f"The prompt is {format_value(prompt)}; it must be a text, or a class's number.")
    return prompt


def articled(text: str) -> str:
    """A text with "an" in place of "a" before vowels, as far as this package's words need it."""
    return re.sub(r"\ba (?=[aeio]|um)", "an ", text)  # "an umbrella", "a unicorn", "a ushanka"


# Spelling.

SHORTEST, LONGEST = 4, 30  # letters of a word that is checked
LONG = 6  # letters of a word that may have two edits
# Misspellings and abbreviations of short words; some are single tokens of CLIP.
SHORT_FORMS = {
    short: meant
    for meant, shorts in {
        **{"red": "rde redd erd", "blue": "blu bue lue bleu", "green": "grn gren reen", "pink": "pnk pik"},
        **{"black": "blk", "white": "wht", "brown": "brn rown", "grey": "gry gray", "yellow": "ylw", "purple": "prpl"},
        **{"orange": "orng", "hair": "hai har hir", "hat": "hta", "eyes": "eys", "girl": "grl gurl", "man": "mna"},
        **{"boy": "byo", "bald": "bld", "cap": "cpa"},
    }.items()
    for short in shorts.split()
}
PART = 2  # letters of each of two words written as one, at least


@dataclass(frozen=True)
class Correction:
    """Words as typed, and the known words that they are read as."""

    typed: str
    meant: str


@dataclass(frozen=True)
class SpellChecker:
    """Reads an unknown word as a known one within one or two edits (optimal string alignment).

    Words of up to five letters may have one edit, longer ones two. A word that is a single token of CLIP is kept
    ("witch" is not "with"), unless it only has an s more or less. Of words of up to three letters only those of
    SHORT_FORMS are corrected, as almost anything is near to many.
    """

    words: frozenset[str]  # in lower case

    def correct(self, pieces: Sequence[clip.Piece]) -> Iterator[tuple[clip.Piece, Correction | None]]:
        """The pieces of a text with misspelt words corrected; the first piece of such a word has its correction."""
        index = 0
        while index < len(pieces):
            compound = self._compound(pieces, index)
            piece, taken = pieces[index], 1
            meant: str | None = None
            if compound is not None:
                meant, taken = compound
            elif piece.word and piece.word not in self.words:
                meant = self.correction(piece.word)
            if meant is None:
                yield piece, None
            else:
                correction: Correction | None = Correction(_typed(pieces[index : index + taken]), meant)
                for other in clip.pieces(meant):
                    yield other, correction
                    correction = None
            index += taken

    def correction(self, word: str) -> str | None:
        """The known word for an unknown one, in lower case; two, where they were written as one; None without one."""
        if SHORT_FORMS.get(word) in self.words:
            return SHORT_FORMS[word]
        if not SHORTEST <= len(word) <= LONGEST or not word.isalpha():
            return None
        if len(next(clip.pieces(word)).ids) == 1:
            return next((other for other in (word.removesuffix("s"), word + "s") if other in self.words), None)
        return self._near(word, 1) or self._split(word) or (self._near(word, 2) if len(word) >= LONG else None)

    def _near(self, word: str, edits: int) -> str | None:
        """The likeliest of the known words within this many edits."""
        near = (other for other in self._sorted if OSA.distance(word, other, score_cutoff=edits) <= edits)
        return min(near, key=lambda other: _edit_cost(word, other), default=None)

    def _split(self, word: str) -> str | None:
        """Two known words that were written as one, the first as long as possible."""
        for end in range(len(word) - PART, PART - 1, -1):
            if word[:end] in self.words and word[end:] in self.words:
                return f"{word[:end]} {word[end:]}"
        return None

    def _compound(self, pieces: Sequence[clip.Piece], index: int) -> tuple[str, int] | None:
        """A known word written as two, one of them unknown, and how many pieces it takes: "dread locks", "eye-brow"."""
        hyphen = index + 2 < len(pieces) and pieces[index + 1].text == "-"
        first, last = index, index + (2 if hyphen else 1)
        if last >= len(pieces):
            return None
        words = (pieces[first].word, pieces[last].word)
        compound = "".join(words)
        if all(words) and compound in self.words and not self.words.issuperset(words):
            return compound, last - first + 1
        return None

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.words)


def _edit_cost(typed: str, meant: str) -> tuple[int, bool, int, bool, int, int, str]:
    """The order of candidates: edits, other letters, letters changed, another first letter, rarity (CLIP's ids)."""
    ids = next(clip.pieces(meant)).ids
    edits, changed = OSA.distance(typed, meant), Indel.distance(typed, meant)
    return edits, sorted(typed) != sorted(meant), changed, typed[0] != meant[0], len(ids), max(ids), meant


def _typed(pieces: Sequence[clip.Piece]) -> str:
    texts = [piece.text for piece in pieces]
    return "".join(texts) if "-" in texts else " ".join(texts)


# Substitutions.

FURTHEST = 6  # pieces from a color to what has it


class ColoredThing(Settings):
    """Something that a model knows in some colors: hair, clothes."""

    name: str  # in notes: "hair"
    words: tuple[str, ...]  # that name it, in lower case
    colors: tuple[str, ...] = ()  # words of those that it can have
    nearest: dict[str, str] = {}  # of colors that it cannot have; "": none is near
    lead_words: tuple[str, ...] = ()  # a color after one of these is this thing's: "in purple" for clothes


class Substitution(Settings):
    """Words that a model does not know, and the nearest that it does."""

    words: str
    replacement: str
    unless: tuple[str, ...] = ()  # the prompt has one of these words
    unless_colored: str | None = None  # the prompt gives the thing of this name a color


@dataclass(frozen=True)
class RewrittenPrompt:
    """Pieces of a prompt after its rules, the words that were replaced, and notes on colors."""

    pieces: list[clip.Piece]
    corrections: list[Correction]
    notes: list[str]


class PromptRules(Settings):
    """What is replaced in a model's prompts: "purple hair" by "pink hair". A model's folder holds its rules."""

    substitutions: tuple[Substitution, ...] = ()
    things: tuple[ColoredThing, ...] = ()
    stop_words: tuple[str, ...] = ()  # between a color and something else: "purple, with a hat"
    link_words: tuple[str, ...] = ()  # between a thing and its color: "hair is purple"

    def apply(self, pieces: Sequence[clip.Piece], known: frozenset[str]) -> RewrittenPrompt:
        """The pieces of a prompt after substitutions, with the nearest colors; known: the model's words."""
        corrections, changed = [], list(pieces)
        for entry in self.substitutions:
            changed, typed = self._substituted(changed, entry)
            corrections += [Correction(text, entry.replacement) for text in typed]
        notes: list[str] = []
        changed = list(self._with_nearest_colors(changed, known, notes))
        return RewrittenPrompt(changed, corrections, list(dict.fromkeys(notes)))

    def _substituted(self, pieces: list[clip.Piece], entry: Substitution) -> tuple[list[clip.Piece], list[str]]:
        """The pieces with an entry's words replaced, and those words as typed."""
        wanted = entry.words.split()
        words = [piece.word for piece in pieces]
        starts = [i for i in range(len(words) - len(wanted) + 1) if words[i : i + len(wanted)] == wanted]
        owners = (self._owner(pieces, i) for i in range(len(pieces)) if entry.unless_colored)
        if not set(words).isdisjoint(entry.unless) or any(o and o.name == entry.unless_colored for o in owners):
            return pieces, []
        typed = [" ".join(piece.text for piece in pieces[i : i + len(wanted)]) for i in starts]
        for i in reversed(starts):
            pieces = [*pieces[:i], *clip.pieces(entry.replacement), *pieces[i + len(wanted) :]]
        return pieces, typed

    def _with_nearest_colors(
        self, pieces: list[clip.Piece], known: frozenset[str], notes: list[str]
    ) -> Iterator[clip.Piece]:
        """The pieces with the nearest colors in place of unknown ones; adds a note for each."""
        skip = False
        for i, piece in enumerate(pieces):
            owner = self._owner(pieces, i)
            following = pieces[i + 1] if i + 1 < len(pieces) else None
            if skip:
                skip = False
            elif owner is not None and piece.word in owner.nearest:
                nearest = owner.nearest[piece.word]
                what = f"{nearest} is the nearest" if nearest else "the color was left out"
                notes.append(f"There is no {piece.word} {owner.name} here; {what}.")
                yield from clip.pieces(nearest)
            elif not owner and self._colored_things(piece) > 1 and following and following.word not in {"", *known}:
                # One unknown word: the color without its thing would color something else ("blonde" would not).
                text = f"{piece.text} {following.text}"
                yield clip.Piece(text, text.lower(), piece.ids + following.ids)
                skip = True
            else:
                yield piece

    def _owner(self, pieces: list[clip.Piece], index: int) -> ColoredThing | None:
        """The thing that has the color at a place; None where there is no color or no thing."""
        if not self._colored_things(pieces[index]):
            return None
        ahead = self._ahead(pieces, index + 1) or self._behind(pieces, index)
        if ahead is None and index + 2 < len(pieces) and pieces[index + 1].word in self.link_words:
            ahead = self._owner(pieces, index + 2)  # "purple and black hair"
        return ahead

    def _ahead(self, pieces: list[clip.Piece], start: int) -> ColoredThing | None:
        """The nearest thing from a place on: "purple curly hair"."""
        for piece in pieces[start : start + FURTHEST]:
            if piece.text != "-" and (not piece.word or piece.word in self.stop_words):
                return None
            if thing := self._named(piece):
                return thing
        return None

    def _behind(self, pieces: list[clip.Piece], index: int) -> ColoredThing | None:
        """The thing before a color that nothing follows: "hoodie in purple", "v neck, orange"."""
        if index + 1 < len(pieces) and pieces[index + 1].word and pieces[index + 1].word not in self.stop_words:
            return None
        before = pieces[index - 1].word if index else ""
        led = next((thing for thing in self.things if before in thing.lead_words), None)
        if led is not None and (index < 2 or before not in self.link_words or not self._named(pieces[index - 2])):
            return led
        place = index - 1
        while place >= 0 and (pieces[place].text == "," or pieces[place].word in self.link_words):
            place -= 1
        thing = self._named(pieces[place]) if place >= 0 else None
        colored = place > 0 and self._colored_things(pieces[place - 1]) > 0
        return led if colored or thing is None else thing

    def _named(self, piece: clip.Piece) -> ColoredThing | None:
        return next((thing for thing in self.things if piece.word in thing.words), None)

    def _colored_things(self, piece: clip.Piece) -> int:
        """How many things a word is a color of."""
        return sum(piece.word in thing.colors or piece.word in thing.nearest for thing in self.things)


# Length, and the notes.

MOST = 10  # words that a note names


def within_context(text: str, notes: list[str]) -> Iterator[clip.Piece]:
    """The pieces that fit into CLIP's 77 tokens, start and end included; adds a note if some do not."""
    left = clip.CONTEXT_LENGTH - 2
    for piece in clip.pieces(text):
        left -= len(piece.ids)
        if left < 0:
            notes.append(cut_note(clip.CONTEXT_LENGTH, piece))
            return
        yield piece


def cut_note(length: int, piece: clip.Piece) -> str:
    return f'The prompt was cut at {length} tokens: from "{short(piece.text)}" on it was ignored.'


def unknown_note(unknown: Iterable[str]) -> list[str]:
    """One sentence on the words left out, each named once whatever its case; none if there are none."""
    first_typed: dict[str, str] = {}
    for word in unknown:
        first_typed.setdefault(word.lower(), word)
    words = list(first_typed.values())
    if not words:
        return []
    named = ", ".join(f'"{short(word)}"' for word in words[:MOST])
    more = f" and {len(words) - MOST} more" if len(words) > MOST else ""
    was = "It was" if len(words) == 1 else "They were"
    return [f"This model does not know: {named}{more}. {was} ignored."]


def corrected_note(corrections: Sequence[Correction]) -> list[str]:
    """One sentence on the words that were taken for others, each named once; none if there are none."""
    meant = list(dict.fromkeys((one.typed.lower(), one.meant) for one in corrections))
    if not meant:
        return []
    named = ", ".join(
        f'"{short(typed)}" {"was read " if i == 0 else ""}as "{by}"' for i, (typed, by) in enumerate(meant[:MOST])
    )
    more = f", and {len(meant) - MOST} more likewise" if len(meant) > MOST else ""
    return [f"{named}{more}."]


def short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
