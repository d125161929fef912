"""Conditioners: from a prompt or a class to the conditioning tokens that a model sees before its image tokens."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from imagebart.core.errors import InputError, shortened
from imagebart.core.settings import Settings
from imagebart.text.prompts import (
    CONTEXT_LENGTH,
    END,
    START,
    VOCAB_SIZE,
    Correction,
    Piece,
    Prompt,
    PromptRules,
    RewrittenPrompt,
    SpellChecker,
    pieces_of,
)

Kind = Literal["text", "class", "none"]
MOST = 10  # words that a note names


@dataclass(frozen=True)
class Conditioning:
    """tokens: int64 [B, length] in [0, vocab_size). notes: sentences for the person who wrote the prompts."""

    tokens: Tensor
    notes: list[str]


class TextConditioner(Settings):
    """Prompts for a model that knows only the words of its training captions.

    tokens: the CLIP ids known; the i-th is id i + 1 here, and 0 stands for padding and for no prompt. words: the words
    known, in lower case. length: tokens per prompt. prompt_rules: what is replaced in prompts, after misspelled words.
    understood: more words, and if any also numbers in digits, that the model's scorer reads and the network does not.
    """

    type: Literal["words"] = "words"
    tokens: tuple[int, ...]
    words: tuple[str, ...]
    length: int = CONTEXT_LENGTH
    prompt_rules: PromptRules = PromptRules()
    understood: tuple[str, ...] = ()
    kind: ClassVar[Kind] = "text"

    @classmethod
    def from_captions(
        cls,
        captions: Iterable[str],
        length: int = CONTEXT_LENGTH,
        rules: PromptRules | None = None,
        understood: Iterable[str] = (),
    ) -> "TextConditioner":
        """Knows exactly the words and punctuation of the captions."""
        chunks = {chunk for caption in captions for chunk in caption.split()}
        pieces = {piece for chunk in chunks for piece in pieces_of(chunk)}
        words = {piece.word for piece in pieces} - {""}
        return cls(
            tokens=tuple(sorted({token for piece in pieces for token in piece.ids})),
            words=tuple(sorted(words)),
            length=length,
            prompt_rules=rules or PromptRules(),
            understood=tuple(sorted(set(understood) - words)),
        )

    @property
    def vocab_size(self) -> int:
        return 1 + len(self.tokens)

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that will be left out, each once."""
        pieces = self._read(pieces_of(prompt)).pieces
        return list(dict.fromkeys(piece.text for piece in pieces if self._is_unknown(piece)))

    def corrected_words(self, prompt: str) -> list[str]:
        """The words of a prompt as they are read, in lower case, unknown ones too."""
        return [piece.word for piece in self._read(pieces_of(prompt)).pieces if piece.word]

    def corrections(self, prompt: str) -> list[Correction]:
        """The words of a prompt that will be read as others, each once."""
        return list(dict.fromkeys(self._read(pieces_of(prompt)).corrections))

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning:
        """Compact ids without start and end. Unknown words are left out, and prompts are cut where CLIP would cut."""
        rows: list[list[int]] = []
        unknown: list[str] = []
        notes: list[str] = []
        corrections: list[Correction] = []
        for prompt in prompts:
            read = self._read(_within_context(_text(prompt), notes))
            corrections += read.corrections
            notes += read.notes
            row: list[int] = []
            for piece in read.pieces:
                ids = [self._ids.get(token, 0) for token in piece.ids]
                if self._is_unknown(piece):
                    unknown.append(piece.text)
                elif piece.word and piece.word not in self.words:
                    continue  # the scorer alone reads it
                elif len(row) + len(ids) > self.length:
                    notes.append(_cut_note(self.length, piece))
                    break
                elif all(ids):
                    row += ids
            rows.append(row)
        notes += _reading_notes(corrections, unknown)
        return Conditioning(_rows(rows, self.length), list(dict.fromkeys(notes)))

    def unconditional(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.length, dtype=torch.long)

    def _is_unknown(self, piece: Piece) -> bool:
        is_number = bool(self.understood) and piece.word.isdecimal()
        return bool(piece.word) and piece.word not in self._all_words and not is_number

    def _read(self, pieces: Iterable[Piece]) -> RewrittenPrompt:
        """The pieces of a prompt with spelling corrected and rules applied."""
        corrected, corrections = self._speller.correct(list(pieces))
        rewritten = self.prompt_rules.apply(corrected, self._all_words)
        return replace(rewritten, corrections=[*corrections, *rewritten.corrections])

    @cached_property
    def _speller(self) -> SpellChecker:
        return SpellChecker(self._all_words, self.prompt_rules.misspellings)

    @cached_property
    def _ids(self) -> dict[int, int]:
        return {token: index for index, token in enumerate(self.tokens, 1)}

    @cached_property
    def _all_words(self) -> frozenset[str]:
        return frozenset((*self.words, *self.understood))


class ClipTextConditioner(Settings):
    """Prompts for a model that knows CLIP's whole vocabulary: start, tokens, end, zeros, as CLIP has them.

    The paper's text models are of this kind, with 77 tokens. vocab_size: embeddings of the model; with fewer than
    CLIP's, it takes tokens but no prompts.
    """

    type: Literal["clip"] = "clip"
    length: int = CONTEXT_LENGTH
    vocab_size: int = VOCAB_SIZE
    kind: ClassVar[Kind] = "text"

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning:
        """The ids of CLIP itself. An absent prompt is one without words."""
        if self.vocab_size < VOCAB_SIZE:
            raise InputError(f"This model knows {self.vocab_size} tokens; prompts take all {VOCAB_SIZE} of CLIP.")
        notes: list[str] = []
        rows = []
        for prompt in prompts:
            ids: list[int] = []
            for piece in pieces_of(_text(prompt)):
                ids += piece.ids
                if len(ids) > self.length - 2:
                    notes.append(_cut_note(self.length, piece))
                    break
            rows.append([START, *ids[: self.length - 2], END])
        return Conditioning(_rows(rows, self.length), list(dict.fromkeys(notes)))

    def unconditional(self, batch: int) -> Tensor:
        return self.encode([None] * batch).tokens


class ClassConditioner(Settings):
    """One token: the class of an image.

    names: the classes in order. offset: the id of the first. null_class: whether the model was also trained without a
    class, which is then the id after the last and makes guidance possible.
    """

    type: Literal["class"] = "class"
    names: tuple[str, ...]
    offset: int = 0
    null_class: bool = False
    kind: ClassVar[Kind] = "class"
    length: ClassVar[int] = 1

    @property
    def vocab_size(self) -> int:
        return self.offset + len(self.names) + self.null_class

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning:
        """Classes by number, by name in any case, or by a number written out."""
        rows = [[self._null_id() if _absent(prompt) else self._id(prompt)] for prompt in prompts]
        return Conditioning(_rows(rows, self.length), [])

    def unconditional(self, batch: int) -> Tensor:
        return torch.full((batch, 1), self._null_id(), dtype=torch.long)

    def _null_id(self) -> int:
        if not self.null_class:
            raise InputError(
                "This model was not trained without a class: choose one, and leave the guidance at 1, "
                "since there is nothing to guide away from."
            )
        return self.offset + len(self.names)

    def _id(self, prompt: Prompt) -> int:
        name = str(prompt).strip().lower()
        if isinstance(prompt, str) and name in self._indices:
            return self.offset + self._indices[name]
        last = len(self.names) - 1
        if name.lstrip("-").isdecimal():
            if len(name) < 10 and 0 <= int(name) <= last:
                return self.offset + int(name)
            raise InputError(f"There is no class {shortened(name, 40)}: this model's classes are 0 to {last}.")
        similar = get_close_matches(name[:100], self._indices, n=1)
        hint = f'Did you mean "{similar[0]}"?' if similar else "Choose one of the list."
        raise InputError(f'There is no class "{shortened(str(prompt), 40)}". {hint}')

    @cached_property
    def _indices(self) -> dict[str, int]:
        # Reversed, so that of two classes with one name (ImageNet's cranes) the first is found.
        return {name.strip().lower(): i for i, name in reversed(list(enumerate(self.names)))}


class NoConditioner(Settings):
    type: Literal["none"] = "none"
    kind: ClassVar[Kind] = "none"
    length: ClassVar[int] = 0
    vocab_size: ClassVar[int] = 0

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning:
        ignored = any(not _absent(prompt) for prompt in prompts)
        notes = ["This model takes no prompt: what you wrote was ignored."] if ignored else []
        return Conditioning(self.unconditional(len(prompts)), notes)

    def unconditional(self, batch: int) -> Tensor:
        return torch.zeros(batch, 0, dtype=torch.long)


Conditioner = Annotated[
    TextConditioner | ClipTextConditioner | ClassConditioner | NoConditioner, Field(discriminator="type")
]
"""Turns B prompts into tokens [B, length] in [0, vocab_size). `encode` raises InputError for a prompt that the model
cannot take, `unconditional` where it knows no absence of one."""


def _text(prompt: Prompt) -> str:
    if isinstance(prompt, int):
        raise InputError(f"This model takes a prompt in words, not class {prompt}.")
    return prompt or ""


def _absent(prompt: Prompt) -> bool:
    return prompt is None or (isinstance(prompt, str) and not prompt.strip())


def _rows(rows: list[list[int]], length: int) -> Tensor:
    padded = [row + [0] * (length - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.long).reshape(len(rows), length)


def _within_context(text: str, notes: list[str]) -> Iterator[Piece]:
    """The pieces that fit into CLIP's 77 tokens, start and end included; adds a note if some do not."""
    left = CONTEXT_LENGTH - 2
    for piece in pieces_of(text):
        left -= len(piece.ids)
        if left < 0:
            notes.append(_cut_note(CONTEXT_LENGTH, piece))
            return
        yield piece


def _cut_note(length: int, piece: Piece) -> str:
    return f"The prompt was cut at {length} tokens: from {_quoted(piece.text)} on it was ignored."


def _reading_notes(corrections: Iterable[Correction], unknown: Iterable[str]) -> Iterator[str]:
    """A sentence on the words that were taken for others, and one on those left out, each named once in any case."""
    if read := list(dict.fromkeys((typed.lower(), meant) for typed, meant in corrections)):
        verbs = ["was read as", *["as"] * (len(read) - 1)]
        named = [f'{_quoted(typed)} {verb} "{meant}"' for verb, (typed, meant) in zip(verbs, read, strict=True)]
        more = f", and {len(read) - MOST} more likewise" if len(read) > MOST else ""
        yield f"{', '.join(named[:MOST])}{more}."
    first_typed: dict[str, str] = {}
    for word in unknown:
        first_typed.setdefault(word.lower(), word)
    if words := list(map(_quoted, first_typed.values())):
        more = f" and {len(words) - MOST} more" if len(words) > MOST else ""
        was = "It was" if len(words) == 1 else "They were"
        yield f"This model does not know: {', '.join(words[:MOST])}{more}. {was} ignored."


def _quoted(text: str) -> str:
    return f'"{shortened(text, 40)}"'
