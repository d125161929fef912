"""Prompts: CLIP's tokens of a text, spelling corrections, and substitutions.

For models of a small vocabulary, misspelled words are corrected first (`SpellChecker`), then words and colors that they
do not know are replaced by the nearest that they do (`PromptRules`). A note says both. Training captions stay as they
are.
"""

import gzip
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from itertools import chain, groupby
from typing import Any, NamedTuple

from rapidfuzz.distance import OSA, Indel
from tokenizers import Encoding, Tokenizer

from imagebart.core.errors import InputError, format_value, whole_characters
from imagebart.core.settings import Settings

Prompt = str | int | None  # words, a class's name or number; None: without
Prompts = Prompt | Sequence[Prompt]  # one for all variants, or one for each


def prompt_per_variant(prompts: Prompts, variants: int, most: int) -> list[Prompt]:
    """The prompt of each variant: one for all, or a list with one for each; `variants` may then be left at 1.

    Raises InputError for over `most`, for none, for a list of another length, and for what is no prompt.
    """
    given = [check_prompt(prompt) for prompt in (prompts if isinstance(prompts, list | tuple) else [prompts])]
    for count in (variants, len(given)):
        if type(count) is not int or not 1 <= count <= most:
            raise InputError(f"The number of variants is {format_value(count)}; it must be from 1 to {most}.")
    if len(given) == 1:
        return given * variants
    if variants not in (1, len(given)):
        raise InputError(f"There are {len(given)} prompts for {variants} variants; there must be one for each.")
    return given


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


# CLIP's byte-pair tokens of a text, word by word.

START, END = 49406, 49407
VOCAB_SIZE = 49408
CONTEXT_LENGTH = 77  # tokens of a text, start and end included


@dataclass(frozen=True)
class Piece:
    """A word, or what stands between words."""

    text: str  # as typed (a word with its 's or 't)
    word: str  # in lower case; "" for punctuation and for a 's or 't, which are pieces of their own
    ids: tuple[int, ...]  # CLIP tokens


def pieces_of(text: str) -> Iterator[Piece]:
    """The words, emoji and punctuation of a text, in order. Their ids in a row are the text's CLIP tokens.

    Of a chunk without spaces, no more than 10,000 characters are read.
    """
    # Composed first, since the tokenizer's offsets lose accents that it has to compose itself. Byte pairs never cross
    # whitespace, so chunks can be cached; only short ones are, to bound memory.
    for chunk in unicodedata.normalize("NFC", whole_characters(text)).split():
        yield from _chunk_pieces(chunk) if len(chunk) <= 64 else _chunk_pieces.__wrapped__(chunk[:10_000])


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    """CLIP's, which also straightens curly quotes, as CLIP's own cleaning does."""
    packed = files("imagebart").joinpath("data/tokenizer.json.gz").read_bytes()
    return Tokenizer.from_buffer(gzip.decompress(packed))


@lru_cache(maxsize=4096)
def _chunk_pieces(chunk: str) -> tuple[Piece, ...]:
    encoding = _tokenizer().encode(chunk, add_special_tokens=False)
    found: list[Piece] = []
    for kind, parts in groupby(_parts(chunk, encoding), key=lambda part: part[0]):
        _, starts, ends, ids = zip(*parts, strict=True)
        text = chunk[starts[0] : ends[-1]]
        if kind == "suffix" and found:
            found[-1] = replace(found[-1], text=found[-1].text + text)
        if kind == "symbol":
            text = "".join(c for c in text if unicodedata.category(c)[0] != "P")
        word = text.lower() if kind in ("word", "symbol") else ""
        found.append(Piece(text, word, tuple(chain.from_iterable(ids))))
    return tuple(found)


def _parts(chunk: str, encoding: Encoding) -> Iterator[tuple[str, int, int, list[int]]]:
    """What the tokenizer splits a chunk into before byte pairs, as (kind, start, end, ids)."""
    tokens = zip(encoding.word_ids, encoding.offsets, encoding.ids, strict=True)
    for _, part in groupby(tokens, key=lambda token: token[0]):
        _, offsets, ids = zip(*part, strict=True)
        start, end = offsets[0][0], offsets[-1][1]
        yield _kind(chunk[start:end]), start, end, list(ids)


def _kind(part: str) -> str:
    """Suffix, word, symbol or punctuation."""
    if part[0] in "'’" and part[1:].isalpha():
        return "suffix"  # 's, 't, 're, …
    # Letters, digits and marks make words: CLIP splits "80s" and vowel signs of Indic scripts.
    if unicodedata.category(part[0])[0] in "LNM":
        return "word"
    return "symbol" if any(unicodedata.category(c) == "So" for c in part) else "punctuation"


# Spelling.

SHORTEST, LONGEST = 4, 30  # letters of a word that is checked
LONG = 6  # letters of a word that may have two edits
PART = 2  # letters of each of two words written as one, at least


class Correction(NamedTuple):
    """Words as typed, and the known words that they are read as."""

    typed: str
    meant: str


@dataclass(frozen=True)
class SpellChecker:
    """Reads an unknown word as a known one within one or two edits (optimal string alignment).

    Words of up to five letters may have one edit, longer ones two. A word that is a single token of CLIP is kept
    ("witch" is not "with"), unless it only has an s more or less. Words of up to three letters are near to almost
    anything: only `misspellings` are corrected.
    """

    words: frozenset[str]  # in lower case
    misspellings: Mapping[str, str] = field(default_factory=dict)  # as typed: what is meant

    def correct(self, pieces: Sequence[Piece]) -> tuple[list[Piece], list[Correction]]:
        """The pieces of a text with misspelled words corrected, and the corrections in their order."""
        corrected: list[Piece] = []
        corrections: list[Correction] = []
        index = 0
        while index < len(pieces):
            typed = pieces[index : index + self._compound_length(pieces, index)]
            index += len(typed)
            meant = "".join(piece.word for piece in typed) if len(typed) > 1 else self.correction(typed[0].word)
            corrected += typed if meant is None else pieces_of(meant)
            if meant is not None:
                texts = [piece.text for piece in typed]
                corrections.append(Correction(("" if "-" in texts else " ").join(texts), meant))
        return corrected, corrections

    def correction(self, word: str) -> str | None:
        """The known word for an unknown one, in lower case; two, where they were written as one; None without one."""
        if word in self.words:
            return None
        if word in self.misspellings:
            return self.misspellings[word]
        if not SHORTEST <= len(word) <= LONGEST or not word.isalpha():
            return None
        if len(next(pieces_of(word)).ids) == 1:
            return next((other for other in (word.removesuffix("s"), word + "s") if other in self.words), None)
        return self._near(word, 1) or self._split(word) or (self._near(word, 2) if len(word) >= LONG else None)

    def _near(self, word: str, edits: int) -> str | None:
        """The likeliest of the known words within this many edits."""
        near = (other for other in self.words if OSA.distance(word, other, score_cutoff=edits) <= edits)
        return min(near, key=lambda other: _edit_cost(word, other), default=None)

    def _split(self, word: str) -> str | None:
        """Two known words that were written as one, the first as long as possible."""
        ends = range(len(word) - PART, PART - 1, -1)
        return next((f"{word[:end]} {word[end:]}" for end in ends if {word[:end], word[end:]} <= self.words), None)

    def _compound_length(self, pieces: Sequence[Piece], index: int) -> int:
        """How many pieces make a known word that was written as two, one of them unknown: "dread locks", "eye-brow"."""
        texts = [piece.text for piece in pieces[index : index + 3]]
        length = 3 if texts[1:2] == ["-"] else 2
        words = [piece.word for piece in pieces[index : index + length : length - 1]]
        known = len(words) == 2 and all(words) and "".join(words) in self.words and not self.words.issuperset(words)
        return length if known else 1


def _edit_cost(typed: str, meant: str) -> tuple[int, bool, int, bool, int, int, str]:
    """The order of candidates: edits, other letters, letters changed, another first letter, rarity (CLIP's ids)."""
    ids = next(pieces_of(meant)).ids
    edits, changed = OSA.distance(typed, meant), Indel.distance(typed, meant)
    return edits, sorted(typed) != sorted(meant), changed, typed[0] != meant[0], len(ids), max(ids), meant


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

    pieces: list[Piece]
    corrections: list[Correction]
    notes: list[str]


class PromptRules(Settings):
    """What is replaced in a model's prompts: "purple hair" by "pink hair". A model's folder holds its rules."""

    misspellings: dict[str, str] = {}  # of short words: see `SpellChecker`
    substitutions: tuple[Substitution, ...] = ()
    things: tuple[ColoredThing, ...] = ()
    stop_words: tuple[str, ...] = ()  # between a color and something else: "purple, with a hat"
    link_words: tuple[str, ...] = ()  # between a thing and its color: "hair is purple"

    def apply(self, pieces: Sequence[Piece], known: frozenset[str]) -> RewrittenPrompt:
        """The pieces of a prompt after substitutions, with the nearest colors; known: the model's words."""
        corrections, changed = [], list(pieces)
        for entry in self.substitutions:
            changed, typed = self._substituted(changed, entry)
            corrections += [Correction(text, entry.replacement) for text in typed]
        changed, notes = self._with_nearest_colors(changed, known)
        return RewrittenPrompt(changed, corrections, list(dict.fromkeys(notes)))

    def _substituted(self, pieces: list[Piece], entry: Substitution) -> tuple[list[Piece], list[str]]:
        wanted, words = entry.words.split(), [piece.word for piece in pieces]
        owners = [self._owner(pieces, i) for i in range(len(pieces))] if entry.unless_colored else []
        if not set(words).isdisjoint(entry.unless) or any(o and o.name == entry.unless_colored for o in owners):
            return pieces, []
        starts = [i for i in range(len(words) - len(wanted) + 1) if words[i : i + len(wanted)] == wanted]
        typed = [" ".join(piece.text for piece in pieces[i : i + len(wanted)]) for i in starts]
        for i in reversed(starts):
            pieces = [*pieces[:i], *pieces_of(entry.replacement), *pieces[i + len(wanted) :]]
        return pieces, typed

    def _with_nearest_colors(self, pieces: list[Piece], known: frozenset[str]) -> tuple[list[Piece], list[str]]:
        changed: list[Piece] = []
        notes = []
        rest = enumerate(pieces)
        for i, piece in rest:
            owner = self._owner(pieces, i)
            following = pieces[i + 1] if i + 1 < len(pieces) else None
            if owner is not None and piece.word in owner.nearest:
                nearest = owner.nearest[piece.word]
                what = f"{nearest} is the nearest" if nearest else "the color was left out"
                notes.append(f"There is no {piece.word} {owner.name} here; {what}.")
                changed += pieces_of(nearest)
            elif not owner and self._things_of_color(piece) > 1 and following and following.word not in {"", *known}:
                # One unknown word: the color without its thing would color something else ("blonde" would not).
                text = f"{piece.text} {following.text}"
                changed.append(Piece(text, text.lower(), piece.ids + following.ids))
                next(rest)
            else:
                changed.append(piece)
        return changed, notes

    def _owner(self, pieces: list[Piece], index: int) -> ColoredThing | None:
        """The thing that has the color at a place; None where there is no color or no thing."""
        if not self._things_of_color(pieces[index]):
            return None
        owner = self._ahead(pieces, index + 1) or self._behind(pieces, index)
        if owner is None and index + 2 < len(pieces) and pieces[index + 1].word in self.link_words:
            owner = self._owner(pieces, index + 2)  # "purple and black hair"
        return owner

    def _ahead(self, pieces: list[Piece], start: int) -> ColoredThing | None:
        """The nearest thing from a place on: "purple curly hair"."""
        for piece in pieces[start : start + FURTHEST]:
            if piece.text != "-" and (not piece.word or piece.word in self.stop_words):
                return None
            if thing := self._named(piece):
                return thing
        return None

    def _behind(self, pieces: list[Piece], index: int) -> ColoredThing | None:
        """The thing before a color that nothing follows: "hoodie in purple", "v neck, orange"."""
        if index + 1 < len(pieces) and pieces[index + 1].word and pieces[index + 1].word not in self.stop_words:
            return None
        lead = pieces[index - 1].word if index else ""
        led = next((thing for thing in self.things if lead in thing.lead_words), None)
        if led is not None and (index < 2 or lead not in self.link_words or not self._named(pieces[index - 2])):
            return led
        place = index - 1
        while place >= 0 and (pieces[place].text == "," or pieces[place].word in self.link_words):
            place -= 1
        thing = self._named(pieces[place]) if place >= 0 else None
        colored = place > 0 and self._things_of_color(pieces[place - 1]) > 0
        return led if colored or thing is None else thing

    def _named(self, piece: Piece) -> ColoredThing | None:
        return next((thing for thing in self.things if piece.word in thing.words), None)

    def _things_of_color(self, piece: Piece) -> int:
        return sum(piece.word in thing.colors or piece.word in thing.nearest for thing in self.things)
